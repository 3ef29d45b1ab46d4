"""Messages, stream events and errors of the Anthropic-compatible APIs of local servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctxbackends.testing._stand_ins.answers import arguments_object
from ctxbackends.testing._stand_ins.compat_openai import Reply
from ctxbackends.testing._stand_ins.scripted import tokens

Event = dict[str, Any]

# Ollama's anthropic/anthropic.go, NewError.
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_STOP_REASONS = {
    "stop": "end_turn",
    "stop_sequence": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def error(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}}


def message(reply: Reply) -> dict[str, Any]:
    answer = reply.answer
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {"type": "tool_use", "id": id_, "name": call.name, "input": arguments_object(call)}
        for id_, call in zip(reply.call_ids, answer.calls, strict=True)
    ]
    usage = {"input_tokens": reply.input_tokens, "output_tokens": answer.reported_output}
    return {**_start(reply, content), "stop_reason": _STOP_REASONS[answer.ending], "usage": usage}


def events(reply: Reply) -> Iterator[Event]:
    """Return the events of a stream in the order of Ollama's ``StreamConverter``.

    The first event with a piece of the answer is the first ``content_block_delta``.
    """
    answer = reply.answer
    usage = {"input_tokens": reply.input_tokens, "output_tokens": 0}
    yield {"type": "message_start", "message": {**_start(reply, []), "usage": usage}}
    index = 0
    for kind, member, said in (("thinking", "thinking", answer.reasoning), ("text", "text", answer.text)):
        if said:
            yield from _block(
                index, {"type": kind, member: ""}, [{"type": f"{kind}_delta", member: piece} for piece in tokens(said)]
            )
            index += 1
    for id_, call in zip(reply.call_ids, answer.calls, strict=True):
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        yield from _block(index, {"type": "tool_use", "id": id_, "name": call.name, "input": {}}, [delta])
        index += 1
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": _STOP_REASONS[answer.ending]},
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": answer.reported_output},
    }
    yield {"type": "message_stop"}


def _start(reply: Reply, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": reply.id, "type": "message", "role": "assistant", "model": reply.model, "content": content}


def _block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[Event]:
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
