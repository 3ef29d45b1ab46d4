"""The answer to a row, and its form in the journal: OpenAI's response body."""

from __future__ import annotations

from typing import Any

import msgspec

from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import APIStatusError, BackendError


class RowError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a row has no answer.

    Attributes:
        type: The class of the exception, such as ``BadRequestError``.
        message: Its message.
        status_code: The HTTP status, None if there was no response.
    """

    type: str
    message: str
    status_code: int | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a row, or its error.

    Attributes:
        row: The row.
        body: The answer in the form of OpenAI's chat completions or embeddings, None after an error.
        error: Why there is no answer, None with one.
        backend: Name of the backend that answered, None if none did.
        attempts: How often the row was sent.
        seconds: Seconds from the first request for the row to its answer.
        is_resumed: Whether the answer is from the journal of an earlier run.
    """

    row: BatchRow
    body: dict[str, Any] | None = None
    error: RowError | None = None
    backend: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    is_resumed: bool = False

    @property
    def text(self) -> str:
        """The text of the answer; empty after an error and for embeddings."""
        if self.body is None or "choices" not in self.body:
            return ""
        return self.body["choices"][0]["message"]["content"] or ""

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors of ``embed``; empty after an error and for a chat."""
        return [one["embedding"] for one in (self.body or {}).get("data", ())]

    @property
    def tokens(self) -> tuple[int, int]:
        """The tokens of the prompt and of the answer, 0 if the server does not tell."""
        usage = (self.body or {}).get("usage") or {}
        return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


def build_embeddings_dict(embeddings: Embeddings) -> dict[str, Any]:
    """Return the body of a response in the form of OpenAI's embeddings."""
    body: dict[str, Any] = {
        "object": "list",
        "model": embeddings.served_model or embeddings.requested_model,
        "data": [
            {"object": "embedding", "index": index, "embedding": list(vector)}
            for index, vector in enumerate(embeddings.vectors)
        ],
    }
    if embeddings.usage is not None:
        body["usage"] = {
            "prompt_tokens": embeddings.usage.input_tokens,
            "total_tokens": embeddings.usage.input_tokens,
        }
    return body


def build_body(result: Completion | Embeddings) -> dict[str, Any]:
    """Return the body of an answer in OpenAI's form."""
    return result.to_openai_dict() if isinstance(result, Completion) else build_embeddings_dict(result)


def build_error(error: Exception) -> RowError:
    """Return the error of a row."""
    problem = error.problem if isinstance(error, BackendError) else str(error)
    status = error.status_code if isinstance(error, APIStatusError) else None
    return RowError(type=type(error).__name__, message=problem, status_code=status)


def to_entry(key: bytes, answer: BatchAnswer) -> Entry:
    """Return the line of the journal for an answer."""
    return Entry(
        key=key,
        answer=None if answer.body is None else msgspec.Raw(msgspec.json.encode(answer.body)),
        error=None if answer.error is None else msgspec.Raw(msgspec.json.encode(answer.error)),
        backend=answer.backend,
        attempts=answer.attempts,
        seconds=answer.seconds,
    )


def from_entry(row: BatchRow, entry: Entry, *, is_resumed: bool = True) -> BatchAnswer:
    """Return the answer of a line of the journal."""
    return BatchAnswer(
        row=row,
        body=None if entry.answer is None else msgspec.json.decode(entry.answer),
        error=None if entry.error is None else msgspec.json.decode(entry.error, type=RowError),
        backend=entry.backend,
        attempts=entry.attempts,
        seconds=entry.seconds,
        is_resumed=is_resumed,
    )
