"""The lines of the output of a batch, in OpenAI's shape and the simple one.

Shape of the former: BatchRequestOutput in https://github.com/openai/openai-openapi, and in vLLM's run_batch.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ctxbackends.batch._answers import RowError, decode_answer, decode_error
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._rows import BatchRow

_UNSET = msgspec.UNSET
_Optional = msgspec.Raw | msgspec.UnsetType
_NULL, _EMPTY = msgspec.Raw(b"null"), msgspec.Raw(b'""')
_encode = msgspec.json.Encoder().encode


# --- OpenAI's shape -----------------------------------------------------------------------------------


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    request_id: str
    body: msgspec.Raw | dict[str, Any]


class _OpenAILine(msgspec.Struct, frozen=True):
    id: str
    custom_id: str
    response: _Response | None
    error: dict[str, Any] | None


def build_openai_line(row: BatchRow, key: bytes, entry: Entry) -> bytes:
    """Return a row's line in the shape of OpenAI's output and error files."""
    response = error = None
    if entry.answer is not None:
        answer = decode_answer(entry.answer)
        response = _Response(200, answer.request_id, answer.body)
    else:
        failure = decode_entry_error(entry)
        # OpenAI puts the error of a response into its body, and vLLM into `error`. With both, nobody reads a failed row
        # as an answer.
        response = None if failure.status_code is None else _build_error_response(failure, entry.backend)
        error = {"code": failure.type, "message": failure.message}
        if failure.text is not None:
            error["text"] = failure.text
    # The ID is the same in every run, unlike OpenAI's.
    return _encode(_OpenAILine(f"batch_req_{key.hex()}", row.id, response, error)) + b"\n"


def _build_error_response(failure: RowError, backend: str | None) -> _Response:
    assert failure.status_code is not None, "the error is that of a response"
    error = {"message": failure.message, "type": failure.code or failure.type, "param": None, "code": failure.code}
    return _Response(failure.status_code, failure.request_id or "", {"error": error, "backend": backend})


def decode_entry_error(entry: Entry) -> RowError:
    """Return the error of a row in the journal."""
    assert entry.error is not None, "an entry has an answer or an error"
    return decode_error(entry.error)


# --- the simple shape ---------------------------------------------------------------------------------


class _Function(msgspec.Struct, frozen=True):
    name: msgspec.Raw
    arguments: msgspec.Raw


class _Call(msgspec.Struct, frozen=True):
    id: msgspec.Raw
    function: _Function


class _Message(msgspec.Struct, frozen=True):
    content: msgspec.Raw
    refusal: msgspec.Raw = _NULL
    reasoning_content: _Optional = _UNSET
    tool_calls: tuple[_Call, ...] = ()


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: msgspec.Raw
    logprobs: msgspec.Raw = _NULL


class _Vector(msgspec.Struct, frozen=True):
    embedding: msgspec.Raw


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | msgspec.UnsetType = _UNSET
    cache_write_tokens: int | msgspec.UnsetType = _UNSET


class _OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | msgspec.UnsetType = _UNSET


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _InputDetails = _InputDetails()
    completion_tokens_details: _OutputDetails = _OutputDetails()


class _Body(msgspec.Struct, frozen=True):
    model: msgspec.Raw
    backend: msgspec.Raw
    choices: tuple[_Choice, ...] = ()
    data: tuple[_Vector, ...] | msgspec.UnsetType = _UNSET
    usage: _Usage | None = None


class SimpleCall(msgspec.Struct, frozen=True):
    """A tool call, with the names of :class:`~ctxbackends.ToolCall`."""

    id: msgspec.Raw
    name: msgspec.Raw
    arguments: msgspec.Raw


class SimpleUsage(msgspec.Struct, frozen=True):
    """Token counts, with the names of :class:`~ctxbackends.Usage`."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | msgspec.UnsetType = _UNSET
    cache_write_tokens: int | msgspec.UnsetType = _UNSET
    reasoning_tokens: int | msgspec.UnsetType = _UNSET


class SimpleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the simple shape. Members that a row does not have are unset."""

    custom_id: str
    value: _Optional = _UNSET
    text: _Optional = _UNSET
    vectors: tuple[msgspec.Raw, ...] | msgspec.UnsetType = _UNSET
    reasoning: _Optional = _UNSET
    refusal: _Optional = _UNSET
    tool_calls: tuple[SimpleCall, ...] | msgspec.UnsetType = _UNSET
    error: _Optional = _UNSET
    finish_reason: _Optional = _UNSET
    model: _Optional = _UNSET
    backend: _Optional = _UNSET
    usage: SimpleUsage | msgspec.UnsetType = _UNSET
    logprobs: _Optional = _UNSET


_decode_body = msgspec.json.Decoder(_Body).decode


def build_simple_line(row: BatchRow, entry: Entry) -> bytes:
    """Return a row's line in the simple shape."""
    return _encode(build_simple(row, entry)) + b"\n"


def build_simple(row: BatchRow, entry: Entry) -> SimpleLine:
    """Return a row in the simple shape."""
    if entry.answer is None:
        assert entry.error is not None, "an entry has an answer or an error"
        backend = _UNSET if entry.backend is None else msgspec.Raw(_encode(entry.backend))
        return SimpleLine(custom_id=row.id, error=entry.error, backend=backend)
    answer = decode_answer(entry.answer)
    body = _decode_body(answer.body)
    usage = _UNSET if body.usage is None else _build_usage(body.usage)
    if body.data is not _UNSET:
        vectors = tuple(one.embedding for one in body.data)
        return SimpleLine(custom_id=row.id, vectors=vectors, model=body.model, backend=body.backend, usage=usage)
    choice = body.choices[0]
    message = choice.message
    return SimpleLine(
        custom_id=row.id,
        value=answer.value,
        text=_UNSET if answer.value is not _UNSET else message.content if _is_set(message.content) else _EMPTY,
        reasoning=message.reasoning_content,
        refusal=message.refusal if _is_set(message.refusal) else _UNSET,
        tool_calls=_build_calls(message.tool_calls) if message.tool_calls else _UNSET,
        finish_reason=choice.finish_reason,
        model=body.model,
        backend=body.backend,
        usage=usage,
        logprobs=choice.logprobs if _is_set(choice.logprobs) else _UNSET,
    )


def _is_set(value: msgspec.Raw) -> bool:
    return bytes(value) != b"null"


def _build_calls(calls: tuple[_Call, ...]) -> tuple[SimpleCall, ...]:
    return tuple(SimpleCall(call.id, call.function.name, call.function.arguments) for call in calls)


def _build_usage(usage: _Usage) -> SimpleUsage:
    details = usage.prompt_tokens_details
    return SimpleUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        details.cached_tokens,
        details.cache_write_tokens,
        usage.completion_tokens_details.reasoning_tokens,
    )
