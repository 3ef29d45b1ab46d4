"""Completions, chunks and embeddings of the OpenAI-compatible APIs of local servers.

A :class:`Dialect` has the differences between servers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ctxbackends._chat.messages import ToolCall
from ctxbackends.testing._stand_ins.answers import arguments_object
from ctxbackends.testing._stand_ins.scripted import ModelOutput, tokens

DIMENSIONS = 8


@attrs.frozen(kw_only=True)
class Dialect:
    """How one server's OpenAI-compatible API differs.

    ``fingerprint`` is the ``system_fingerprint``, None for the model's name; ``reasoning`` is the member with the
    reasoning. ``whole_calls`` sends a tool call in one chunk. ``bare_end`` sends a last delta without members.
    ``choice`` and ``body`` are further members of each choice, and of a completion that is not streamed.
    """

    fingerprint: str | None = None
    reasoning: str = "reasoning"
    whole_calls: bool = False
    bare_end: bool = False
    choice: Mapping[str, Any] = attrs.field(factory=dict)
    body: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Reply:
    """An answer with the facts that its server adds.

    They are the ``id`` and ``created`` of the completion, the server's name of the model, the ids of the tool calls,
    and the number of prompt tokens that it read.
    """

    id: str
    created: int
    model: str
    answer: ModelOutput
    call_ids: Sequence[str]
    input_tokens: int

    @property
    def finish_reason(self) -> str:
        return "stop" if self.answer.ending == "stop_sequence" else self.answer.ending

    @property
    def usage(self) -> dict[str, int]:
        read, written = self.input_tokens, self.answer.reported_output
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def completion(reply: Reply, dialect: Dialect) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.answer.text}
    if reply.answer.reasoning:
        message[dialect.reasoning] = reply.answer.reasoning
    if reply.answer.calls:
        message["tool_calls"] = _calls(reply, dialect)
    choice = {"index": 0, "message": message, **dialect.choice, "finish_reason": reply.finish_reason}
    return {**_head(reply, dialect, "chat.completion"), "choices": [choice], "usage": reply.usage, **dialect.body}


def chunks(reply: Reply, dialect: Dialect, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks of a stream; the first has the first piece of the answer."""
    for piece in tokens(reply.answer.reasoning):
        yield chunk(reply, dialect, {"role": "assistant", "content": "", dialect.reasoning: piece})
    for piece in tokens(reply.answer.text):
        yield chunk(reply, dialect, {"role": "assistant", "content": piece})
    for call in _calls(reply, dialect):
        if dialect.whole_calls:
            yield chunk(reply, dialect, {"role": "assistant", "content": "", "tool_calls": [call]})
            continue
        function = call["function"]
        start = {**call, "function": {"name": function["name"], "arguments": ""}}
        yield chunk(reply, dialect, {"role": "assistant", "tool_calls": [start]})
        for piece in tokens(function["arguments"]):
            delta = {"index": call["index"], "function": {"arguments": piece}}
            yield chunk(reply, dialect, {"tool_calls": [delta]})
    end = {} if dialect.bare_end else {"role": "assistant", "content": ""}
    yield chunk(reply, dialect, end, finish_reason=reply.finish_reason)
    if include_usage:
        yield {**_head(reply, dialect, "chat.completion.chunk"), "choices": [], "usage": reply.usage}


def chunk(
    reply: Reply, dialect: Dialect, delta: Mapping[str, Any], *, finish_reason: str | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), **dialect.choice, "finish_reason": finish_reason}
    return {**_head(reply, dialect, "chat.completion.chunk"), "choices": [choice]}


def _head(reply: Reply, dialect: Dialect, kind: str) -> dict[str, Any]:
    return {
        "id": reply.id,
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "system_fingerprint": reply.model if dialect.fingerprint is None else dialect.fingerprint,
    }


def _calls(reply: Reply, dialect: Dialect) -> list[dict[str, Any]]:
    return [
        {
            "id": id_,
            "index": index,
            "type": "function",
            "function": {"name": call.name, "arguments": _arguments(call, dialect)},
        }
        for index, (id_, call) in enumerate(zip(reply.call_ids, reply.answer.calls, strict=True))
    ]


def _arguments(call: ToolCall, dialect: Dialect) -> str:
    """Return the text of the arguments; a server with ``whole_calls`` has an object and writes it without spaces."""
    return json.dumps(arguments_object(call), separators=(",", ":")) if dialect.whole_calls else call.arguments


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The one embedding of ``text``, of length 1."""
    digest = hashlib.sha256(text.encode()).digest()
    return unit([value - 127.5 for value in digest[:dimensions]])


def unit(values: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def embedding_list(
    model: str, vectors: Sequence[Sequence[float]], input_tokens: int, *, packed: bool = False
) -> dict[str, Any]:
    """``packed``: as base64 of 32-bit floats, which OpenAI's client asks for by default."""
    shown: list[Any] = list(vectors)
    if packed:
        shown = [base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() for values in vectors]
    data = [{"object": "embedding", "embedding": values, "index": index} for index, values in enumerate(shown)]
    usage = {"prompt_tokens": input_tokens, "total_tokens": input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}
