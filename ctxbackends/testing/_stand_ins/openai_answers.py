"""Responses in OpenAI's format: completions, stream chunks and vectors.

https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming; the members are those of openai 3.54.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends.testing._stand_ins.scripted import tokens

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
ARGUMENTS_PIECE = 6  # characters


@attrs.frozen(kw_only=True)
class Reply:
    """One choice, and the facts of the whole answer.

    ``calls`` has the id, name and arguments (JSON) of each tool call. ``top_logprobs`` is None without logprobs.
    ``details`` fills the members that only OpenAI itself fills.
    """

    id: str
    created: int
    model: str
    text: str
    refusal: str | None
    calls: Sequence[tuple[str, str, str]]
    finish_reason: FinishReason
    usage: Mapping[str, Any]
    top_logprobs: int | None = None
    details: bool = True

    @property
    def content(self) -> str | None:
        return None if self.refusal is not None or (self.calls and not self.text) else self.text


def usage(*, prompt: int, completion: int, cached: int, reasoning: int, details: bool) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if details:
        counted["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": 0}
        counted["completion_tokens_details"] = {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return counted


def completion(reply: Reply, choices: int) -> dict[str, Any]:
    """Build a response that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if reply.details:
        message |= {"refusal": reply.refusal, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call, name, arguments in reply.calls
        ]
    choice: dict[str, Any] = {"message": message, "finish_reason": reply.finish_reason}
    if reply.details:
        choice["logprobs"] = _all_logprobs(reply)
    return {
        **_head(reply, "chat.completion"),
        "choices": [{"index": index, **choice} for index in range(choices)],
        "usage": reply.usage,
    }


def chunks(reply: Reply, choices: int, *, with_usage: bool, obfuscated: bool) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream, without the end marker."""
    head = _head(reply, "chat.completion.chunk")
    for index in range(choices):
        for delta, finish_reason, logprobs in _deltas(reply):
            choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish_reason}
            if reply.details:
                choice["logprobs"] = logprobs
            chunk: dict[str, Any] = {**head, "choices": [choice]}
            if with_usage:
                chunk["usage"] = None
            if obfuscated:
                chunk["obfuscation"] = "x" * (16 - len(json.dumps(delta)) % 16)
            yield chunk
    if with_usage:
        yield {**head, "choices": [], "usage": reply.usage}


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    head: dict[str, Any] = {"id": reply.id, "object": kind, "created": reply.created, "model": reply.model}
    if reply.details:
        fingerprint = hashlib.sha256(reply.model.encode()).hexdigest()[:10]
        head |= {"service_tier": "default", "system_fingerprint": f"fp_{fingerprint}"}
    return head


def _deltas(reply: Reply) -> Iterator[tuple[dict[str, Any], FinishReason | None, dict[str, Any] | None]]:
    first: dict[str, Any] = {"role": "assistant", "content": None if reply.content is None else ""}
    if reply.details:
        first["refusal"] = None if reply.refusal is None else ""
    yield first, None, None
    for piece in tokens(reply.refusal or ""):
        yield {"refusal": piece}, None, _logprobs(reply, refusal=[piece])
    for piece in tokens(reply.content or ""):
        yield {"content": piece}, None, _logprobs(reply, content=[piece])
    for index, (call, name, arguments) in enumerate(reply.calls):
        start = {"index": index, "id": call, "type": "function", "function": {"name": name, "arguments": ""}}
        yield {"tool_calls": [start]}, None, None
        for at in range(0, len(arguments), ARGUMENTS_PIECE):
            more = {"index": index, "function": {"arguments": arguments[at : at + ARGUMENTS_PIECE]}}
            yield {"tool_calls": [more]}, None, None
    yield {}, reply.finish_reason, None


def _all_logprobs(reply: Reply) -> dict[str, Any] | None:
    if reply.refusal is not None:
        return _logprobs(reply, refusal=tokens(reply.refusal))
    return _logprobs(reply, content=tokens(reply.content or ""))


def _logprobs(
    reply: Reply, *, content: Sequence[str] | None = None, refusal: Sequence[str] | None = None
) -> dict[str, Any] | None:
    if reply.top_logprobs is None:
        return None
    several = reply.top_logprobs
    return {
        name: None if pieces is None else [_logprob(piece, several) for piece in pieces]
        for name, pieces in (("content", content), ("refusal", refusal))
    }


def _logprob(piece: str, several: int) -> dict[str, Any]:
    """The token and its rivals: the first of them is the token itself, as in greedy sampling."""
    candidates = [piece, *(f"rival{number}" for number in range(1, several))][:several]
    top = [
        {"token": token, "logprob": -0.25 - rank, "bytes": list(token.encode())}
        for rank, token in enumerate(candidates)
    ]
    return {"token": piece, "logprob": -0.25, "bytes": list(piece.encode()), "top_logprobs": top}


def vector(text: str, dimensions: int) -> list[float]:
    """Return a vector of length 1 that depends only on the text."""
    raw: list[float] = []
    block = 0
    while len(raw) < dimensions:
        digest = hashlib.sha256(f"{block} {text}".encode()).digest()
        raw += [number / 2**31 - 1 for number in struct.unpack("<8I", digest)]
        block += 1
    length = math.sqrt(sum(number * number for number in raw[:dimensions]))
    return [number / length for number in raw[:dimensions]]


def embeddings(vectors: Sequence[Sequence[float]], *, model: str, prompt_tokens: int, packed: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(values) if packed else list(values)}
            for index, values in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
