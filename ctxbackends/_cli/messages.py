"""Errors in words for people: what happened, and what to do about it. Facts come from the exceptions; nothing is
decided here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from ctxbackends.errors import (
    APIConnectionError,
    AuthenticationError,
    BackendError,
    ContextOverflowError,
    EmptyModelListError,
    IncompleteOutputError,
    InternalServerError,
    ModelLoadingError,
    ModelNotFoundError,
    NoModelError,
    NotFoundError,
    ServerDiedError,
    StreamInterruptedError,
)

E = TypeVar("E", bound=BackendError)


def worded(error: BaseException) -> str | None:
    """One sentence, and a hint where there is one; None for an error that is no one's fault but the program's."""
    if isinstance(error, BackendError):
        hint = _hint(error)
        return f"{error}\n  {hint}" if hint else str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return None


def _authentication(error: AuthenticationError) -> str:
    if error.key_source is None:
        return "no key was sent; name its environment variable with api_key_env in .ctxrc"
    return f"the key came from {error.key_source}"


def _overflow(error: ContextOverflowError) -> str:
    if error.input_tokens is None or error.context_length is None:
        return "shorten the prompt, or give the server a larger context (ollama, lmstudio: context_length in .ctxrc)"
    numbers = f"the prompt has {error.input_tokens} tokens and the context {error.context_length}"
    return f"{numbers}; shorten it, or give the server a larger context (ollama, lmstudio: context_length in .ctxrc)"


def _connection(error: APIConnectionError) -> str:
    if error.refused:
        return (
            "is the server running there? ctxbackends serve MODEL.gguf starts one, "
            "ctxbackends setup --backend corrects the endpoint"
        )
    return "" if error.sent else "check the endpoint in .ctxrc; ctxbackends setup --backend corrects it"


def _interrupted(error: StreamInterruptedError) -> str:
    count = len(error.partial.text)
    return f"{count} characters had arrived; they are not a whole answer" if count else ""


def _failed(error: InternalServerError) -> str:
    if error.status_code == 502 and error.message is None:
        return (
            "a proxy says that the server behind it is not there; where it is starting, ctxbackends ping waits for it"
        )
    return ""


_Hint: TypeAlias = Callable[[BackendError], str]


def _for(kind: type[E], hint: Callable[[E], str]) -> tuple[type[BackendError], _Hint]:
    return kind, lambda error: hint(error) if isinstance(error, kind) else ""


def _died(error: ServerDiedError) -> str:
    if error.exit_code is None:
        return "look at the server's own log for the reason"
    if error.exit_code < 0:
        return "something outside ended it; is there memory enough for the model?"
    return "above is the end of llama.cpp's log; if it calls the file corrupted or incomplete, fetch the file again"


# First match wins: the special before the general.
_HINTS: tuple[tuple[type[BackendError], _Hint], ...] = (
    _for(AuthenticationError, _authentication),
    _for(ContextOverflowError, _overflow),
    _for(ModelLoadingError, lambda _: "the model is still loading; wait longer with ready_timeout in .ctxrc"),
    _for(ModelNotFoundError, lambda _: "ctxbackends models lists the models that it has"),
    _for(NotFoundError, lambda _: "is this the endpoint of a model server? it needs no /v1 at its end"),
    _for(EmptyModelListError, lambda _: "load or pull a model on the server first"),
    _for(
        NoModelError,
        lambda _: "name one with --model, or write default_model into .ctxrc with ctxbackends setup --model",
    ),
    _for(InternalServerError, _failed),
    _for(ServerDiedError, _died),
    _for(IncompleteOutputError, lambda _: "raise max_tokens"),
    _for(StreamInterruptedError, _interrupted),
    _for(APIConnectionError, _connection),
)


def _hint(error: BackendError) -> str:
    return next((hint(error) for kind, hint in _HINTS if isinstance(error, kind)), "")
