"""The answer to a row, and its form in the journal: a response in OpenAI's form, unchanged."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import msgspec

from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import APIStatusError, BackendError, ModelMismatchError, StructuredOutputError


class RowError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a row has no answer.

    Attributes:
        type: The class of the exception, such as ``BadRequestError``.
        message: Its message.
        status_code: The HTTP status, None if the error is not that of a response.
        code: The error's type or code in the response, None if it has none.
        request_id: The server's ID of the request, None if it sends none.
        text: The text of an answer that does not match the schema or has the wrong model, None if there was none.
    """

    type: str
    message: str
    status_code: int | None = None
    code: str | None = None
    request_id: str | None = None
    text: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a row, or its error.

    Attributes:
        row: The row.
        body: The answer in the form of OpenAI's chat completions or embeddings, None after an error.
        error: Why there is no answer, None with one.
        backend: Name of the backend that answered, or that the error is from; None if there was no response.
        attempts: How often the row was sent.
        seconds: Seconds from the first request for the row to its answer.
        is_resumed: Whether the answer is from the journal of an earlier run.
        request_id: The server's ID of the request, or else that of its response; empty if it sends none.
        served_model: The model that the server names in its response, None if it names none.
        checked_value: See :attr:`value`. Unset without a schema.
    """

    row: BatchRow
    body: dict[str, Any] | None = None
    error: RowError | None = None
    backend: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    is_resumed: bool = False
    request_id: str = ""
    served_model: str | None = None
    checked_value: Any = msgspec.UNSET

    @property
    def value(self) -> Any:
        """The JSON value of an answer that matches the schema of the batch; None without a schema."""
        return None if self.checked_value is msgspec.UNSET else self.checked_value

    @property
    def text(self) -> str:
        """The text of the answer; empty after an error and for embeddings."""
        if self.body is None or "choices" not in self.body:
            return ""
        return self.body["choices"][0]["message"]["content"] or ""

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, ``length`` at ``max_tokens``; None after an error and for embeddings."""
        choices = (self.body or {}).get("choices")
        return choices[0].get("finish_reason") if choices else None

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors of ``embed``; empty after an error and for a chat."""
        return [decode_vector(one["embedding"]) for one in (self.body or {}).get("data", ())]

    @property
    def tokens(self) -> tuple[int, int]:
        """The tokens of the prompt and of the answer, 0 if the server does not report them."""
        usage = (self.body or {}).get("usage") or {}
        return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


def build_answer(
    row: BatchRow,
    result: Completion | Embeddings,
    *,
    backend: str,
    attempts: int = 1,
    seconds: float = 0.0,
    checked_value: Any = msgspec.UNSET,
) -> BatchAnswer:
    """Return the answer to a row.

    Args:
        row: The row.
        result: The response.
        backend: Name of the backend that answered.
        attempts: How often the row was sent.
        seconds: Seconds from the first request for the row to its answer.
        checked_value: The value of an answer that was checked against a schema.
    """
    if isinstance(result, Completion):
        body, request_id = result.to_openai_dict(), result.request_id or result.response_id or ""
    else:
        body, request_id = _build_embeddings_dict(result, is_base64=row.options.get("encoding") == "base64"), ""
    return BatchAnswer(
        row=row,
        body=body,
        backend=backend,
        attempts=attempts,
        seconds=seconds,
        request_id=request_id,
        served_model=result.served_model,
        checked_value=checked_value,
    )


def build_failure(
    row: BatchRow, error: Exception, *, backend: str | None, attempts: int = 1, seconds: float = 0.0
) -> BatchAnswer:
    """Return the answer to a row that failed."""
    return BatchAnswer(row=row, error=build_error(error), backend=backend, attempts=attempts, seconds=seconds)


def build_error(error: Exception) -> RowError:
    """Return the error of a row."""
    text = None
    if isinstance(error, StructuredOutputError):
        text = error.text or None
    elif isinstance(error, ModelMismatchError) and error.completion is not None:
        text = error.completion.text
    status = error if isinstance(error, APIStatusError) else None
    return RowError(
        type=type(error).__name__,
        message=error.problem if isinstance(error, BackendError) else str(error),
        status_code=None if status is None else status.status_code,
        code=None if status is None else status.error_type,
        request_id=None if status is None else status.request_id,
        text=text,
    )


def count_tokens(result: Completion | Embeddings) -> tuple[int, int]:
    """Return the tokens of the prompt and of the answer, 0 if the server does not report them."""
    return (0, 0) if result.usage is None else (result.usage.input_tokens, result.usage.output_tokens)


def _build_embeddings_dict(embeddings: Embeddings, *, is_base64: bool) -> dict[str, Any]:
    """Return the body of a response in the form of OpenAI's embeddings.

    https://platform.openai.com/docs/api-reference/embeddings/object
    """
    body: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode_vector(vector) if is_base64 else [*vector]}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": embeddings.served_model or embeddings.requested_model,
    }
    if embeddings.usage is not None:
        tokens = embeddings.usage.input_tokens
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return body


def _encode_vector(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def decode_vector(value: list[float] | str) -> list[float]:
    """Return the numbers of a vector, which may be base64 of 32-bit floats."""
    if isinstance(value, list):
        return value
    data = base64.b64decode(value)
    return [*struct.unpack(f"<{len(data) // 4}f", data)]


# --- the journal --------------------------------------------------------------------------------------


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of a row in the journal.

    Attributes:
        request_id: The server's ID of the request, empty if it sends none.
        served_model: The model that the server names, None if it names none.
        body: The body of the response in OpenAI's form. The member ``backend`` is the name of the backend.
        value: The checked value, unset without a schema.
    """

    request_id: str = ""
    served_model: str | None = None
    body: msgspec.Raw
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
decode_answer = msgspec.json.Decoder(StoredAnswer).decode
decode_error = msgspec.json.Decoder(RowError).decode


def to_entry(key: bytes, answer: BatchAnswer) -> Entry:
    """Return the line of the journal for an answer."""
    stored = error = None
    if answer.body is not None:
        # The name of the backend is in the body, which OpenAI describes as a map of any members. Readers may reject
        # unknown members of the objects around it: BatchRequestOutput in https://github.com/openai/openai-openapi
        stored = StoredAnswer(
            request_id=answer.request_id,
            served_model=answer.served_model,
            body=msgspec.Raw(_encode({**answer.body, "backend": answer.backend})),
            value=msgspec.UNSET if answer.checked_value is msgspec.UNSET else _encode_value(answer.checked_value),
        )
    if answer.error is not None:
        error = msgspec.Raw(_encode(answer.error))
    return Entry(
        key=key,
        answer=None if stored is None else msgspec.Raw(_encode(stored)),
        error=error,
        backend=answer.backend,
        attempts=answer.attempts,
        seconds=answer.seconds,
    )


def from_entry(row: BatchRow, entry: Entry, *, is_resumed: bool = True) -> BatchAnswer:
    """Return the answer of a line of the journal."""
    answer = BatchAnswer(
        row=row,
        error=None if entry.error is None else decode_error(entry.error),
        backend=entry.backend,
        attempts=entry.attempts,
        seconds=entry.seconds,
        is_resumed=is_resumed,
    )
    if entry.answer is None:
        return answer
    stored = decode_answer(entry.answer)
    body = msgspec.json.decode(stored.body)
    del body["backend"]
    return msgspec.structs.replace(
        answer,
        body=body,
        request_id=stored.request_id,
        served_model=stored.served_model,
        checked_value=stored.value if stored.value is msgspec.UNSET else json.loads(bytes(stored.value)),
    )


def _encode_value(value: Any) -> msgspec.Raw:
    # Not msgspec: the value may have integers of any size.
    return msgspec.Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())
