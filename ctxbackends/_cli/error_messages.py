"""Format exceptions for the terminal: the error, and a hint on what to do about it."""

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
    InsufficientQuotaError,
    InternalServerError,
    ModelLoadingError,
    ModelNotFoundError,
    NoModelError,
    NotFoundError,
    ServerDiedError,
    StreamInterruptedError,
)

E = TypeVar("E", bound=BackendError)


def format_error(error: BaseException) -> str | None:
    """Return the message and a hint, if there is one; None for a programming error."""
    if isinstance(error, BackendError):
        hint = _find_hint(error)
        return f"{error}\n  {hint}" if hint else str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return None


def _hint_authentication(error: AuthenticationError) -> str:
    if error.key_source is None:
        return "no API key was sent; set api_key_env in .ctxrc to the name of its environment variable"
    return f"the key came from {error.key_source}"


def _hint_overflow(error: ContextOverflowError) -> str:
    if error.shared_context:
        return (
            "the slots of the server share one context, which all running requests filled together; send fewer at "
            "once (max_concurrency in .ctxrc), or start it with a larger context"
        )
    if error.input_tokens is None or error.context_length is None:
        return "shorten the prompt, or give the server a larger context (ollama, lmstudio: context_length in .ctxrc)"
    numbers = f"the prompt has {error.input_tokens} tokens and the context {error.context_length}"
    return f"{numbers}; shorten it, or give the server a larger context (ollama, lmstudio: context_length in .ctxrc)"


def _hint_connection(error: APIConnectionError) -> str:
    if error.refused:
        return (
            "is the server running? start one with ctxbackends serve MODEL.gguf, "
            "or correct the endpoint with ctxbackends setup --backend"
        )
    return "" if error.sent else "check the endpoint in .ctxrc; correct it with ctxbackends setup --backend"


def _hint_interrupted(error: StreamInterruptedError) -> str:
    count = len(error.partial.text)
    return f"{count} characters were received; the answer is incomplete" if count else ""


def _hint_proxy(error: InternalServerError) -> str:
    if error.status_code == 502 and error.message is None:
        return "a proxy could not reach the server; if it is starting, wait for it with ctxbackends ping"
    return ""


_Hint: TypeAlias = Callable[[BackendError], str]


def _for(kind: type[E], hint: Callable[[E], str]) -> tuple[type[BackendError], _Hint]:
    return kind, lambda error: hint(error) if isinstance(error, kind) else ""


def _hint_exit(error: ServerDiedError) -> str:
    if error.exit_code is None:
        return "see the server's log for the reason"
    if error.exit_code < 0:
        return "another process or the system killed it; is there enough memory for the model?"
    return "see the end of llama.cpp's log above; if it reports a corrupted or incomplete file, download the file again"


# The first match wins, so subclasses come first.
_HINTS: tuple[tuple[type[BackendError], _Hint], ...] = (
    _for(AuthenticationError, _hint_authentication),
    _for(ContextOverflowError, _hint_overflow),
    _for(ModelLoadingError, lambda _: "the model is still loading; raise ready_timeout in .ctxrc to wait longer"),
    _for(InsufficientQuotaError, lambda _: "add credit to the account of the API key at its vendor"),
    _for(ModelNotFoundError, lambda _: "list the available models with ctxbackends models"),
    _for(NotFoundError, lambda _: "is this the endpoint of a model server? write it without /v1"),
    _for(EmptyModelListError, lambda _: "load or pull a model on the server first"),
    _for(
        NoModelError,
        lambda _: "pass --model, or set default_model in .ctxrc with ctxbackends setup --model",
    ),
    _for(InternalServerError, _hint_proxy),
    _for(ServerDiedError, _hint_exit),
    _for(IncompleteOutputError, lambda _: "raise max_tokens"),
    _for(StreamInterruptedError, _hint_interrupted),
    _for(APIConnectionError, _hint_connection),
)


def _find_hint(error: BackendError) -> str:
    return next((hint(error) for kind, hint in _HINTS if isinstance(error, kind)), "")
