"""Format exceptions for the terminal: the error, and a hint on what to do about it.

The advice is about the place where the settings of the backend come from: .ctxrc, or the options of the command.
"""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote
from typing import TypeAlias, TypeVar

from ctxbackends._cli.root import Source, current_source
from ctxbackends._util.text import escape_controls
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ConfigError,
    ContextOverflowError,
    EmptyModelListError,
    EndpointWarning,
    InsufficientQuotaError,
    MalformedResponseError,
    ModelLoadingError,
    ModelMismatchError,
    ModelNotFoundError,
    NoModelError,
    NotFoundError,
    ServerDiedError,
    StreamInterruptedError,
    UnknownBackendError,
    UnknownBackendTypeError,
)
from ctxbackends.errors._configuration import list_models

E = TypeVar("E", bound=BackendError)


def format_error(error: BaseException, source: Source | None = None) -> str | None:
    """Return the message and a hint, if there is one; None for a programming error.

    Args:
        error: The error.
        source: Where the settings of the backend come from; None for the source of the command that runs.
    """
    source = source or current_source()
    if isinstance(error, BackendError):
        message, hint = _format_message(error, source), _find_hint(error, source)
        return f"{message}\n  {hint}" if hint else message
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return None


def format_warning(warning: Warning | str, source: Source) -> str:
    """Return the message of a warning, with the names of options where the settings come from the command line."""
    message = str(warning)
    if source == "file":
        return message
    if isinstance(warning, EndpointWarning) and message.startswith("endpoint: "):
        return f"--{message}"
    return message.replace(ModelMismatchError.advice, "; use --model with the name of the served model")


# --- messages -------------------------------------------------------------------------------------------

_OPTIONS = {"endpoint": "--endpoint", "api_key_env": "--api-key-env", "ctx_size": "--ctx-size"}
"""The options that set the keys of a backend."""


def _format_message(error: BackendError, source: Source) -> str:
    """Return the message with the names of options instead of settings where those come from the command line."""
    if isinstance(error, NoModelError):
        advice = "use --model NAME, or set default_model" if source == "file" else "use --model NAME"
        models = f"; the server has: {list_models(error.models)}" if error.models else ""
        return escape_controls(f"no model given: {advice}{models}")
    message = str(error)
    if source == "file":
        return message
    if isinstance(error, ConfigError) and error.path is None and error.key in _OPTIONS:
        return escape_controls(f"{_OPTIONS[error.key]}: {error.problem}")
    if isinstance(error, APITimeoutError):
        return message.replace(error.advice, "")
    if isinstance(error, ModelMismatchError):
        return message.replace(error.advice, escape_controls(f"; use --model {error.served_model}"))
    return message


_NO_MODEL_SERVER = "is this the endpoint of a model server?"

# --- hints ----------------------------------------------------------------------------------------------


def _hint_authentication(error: AuthenticationError, source: Source) -> str:
    if error.key_source is not None:
        return f"the key came from {error.key_source}"
    if source == "file":
        return "no API key was sent; set api_key_env in .ctxrc to the name of its environment variable"
    return "no API key was sent; use --api-key-env VARIABLE with the name of its environment variable"


def _hint_overflow(error: ContextOverflowError, source: Source) -> str:
    if error.shared_context:
        setting = " (max_concurrency in .ctxrc)" if source == "file" else ""
        return (
            "the slots of the server share one context, which all running requests filled together; send fewer at "
            f"once{setting}, or start it with a larger context"
        )
    if error.exceeds_batch:
        return "or split the text: llama-server embeds only texts that fit into one of its batches"
    setting = " (ollama, lmstudio: context_length in .ctxrc)" if source == "file" else ""
    advice = f"or give the server a larger context{setting}"
    if error.input_tokens is None or error.context_length is None:
        return f"shorten the prompt, {advice}"
    return f"the prompt has {error.input_tokens} tokens and the context {error.context_length}; shorten it, {advice}"


def _hint_loading(_: ModelLoadingError, source: Source) -> str:
    if source == "file":
        return "the model is still loading; raise ready_timeout in .ctxrc to wait longer"
    return "the model is still loading; try again in a moment"


def _hint_model(error: ModelNotFoundError, source: Source) -> str:
    options = {"endpoint": f" --endpoint {error.endpoint}", "type": f" --backend {error.backend}"}
    return f"list the available models with ctxbackends models{options.get(source, '')}"


def _hint_connection(error: APIConnectionError, source: Source) -> str:
    if source == "model":
        return ""
    correction = f"ctxbackends config set {quote(error.backend or 'NAME')}.endpoint URL"
    if error.refused:
        corrections = {
            "file": f"correct the endpoint with {correction}",
            "type": "use --endpoint URL for a server elsewhere",
            "endpoint": "correct --endpoint",
        }
        return f"is the server running? start one with ctxbackends serve MODEL.gguf, or {corrections[source]}"
    if error.sent:
        return ""
    return {
        "file": f"check the endpoint in .ctxrc; correct it with {correction}",
        "type": "check the network connection",
        "endpoint": "check the URL of --endpoint",
    }[source]


def _hint_interrupted(error: StreamInterruptedError, _: Source) -> str:
    count = len(error.partial.text)
    return f"{count} characters were received; the answer is incomplete" if count else ""


def _hint_status(error: APIStatusError, _: Source) -> str:
    if error.status_code in (405, 501) and error.message is None:
        return _NO_MODEL_SERVER
    if error.status_code == 502 and error.message is None:
        return "a proxy could not reach the server; if it is starting, wait for it with ctxbackends ping"
    return ""


def _hint_protocol(error: MalformedResponseError, _: Source) -> str:
    return "" if error.body else _NO_MODEL_SERVER  # without a body, it was not HTTP


def _hint_exit(error: ServerDiedError, _: Source) -> str:
    if error.exit_code is None:
        return "see the server's log for the reason"
    if error.exit_code < 0:
        return "another process or the system killed it; is there enough memory for the model?"
    return "see the end of llama.cpp's log above; if it reports a corrupted or incomplete file, download the file again"


def _hint_unknown_type(_: UnknownBackendTypeError, source: Source) -> str:
    return "there is no .ctxrc here, so --backend must name a backend type" if source == "type" else ""


def _hint_unknown_backend(error: UnknownBackendError, _: Source) -> str:
    from ctxbackends._profiles.builtin import PROFILES  # needed only here
    from ctxbackends._suggestions import find_similar

    if error.path is None and error.name in PROFILES:
        return f"with a .ctxrc, only its backends are used; add it with ctxbackends setup --backend {error.name}"
    meant = find_similar(error.name, error.names)
    return f"did you mean {meant}?" if meant is not None else ""


_Hint: TypeAlias = Callable[[BackendError, Source], str]


def _for(kind: type[E], hint: str | Callable[[E, Source], str]) -> tuple[type[BackendError], _Hint]:
    if isinstance(hint, str):
        return kind, lambda _error, _source: hint
    return kind, lambda error, source: hint(error, source) if isinstance(error, kind) else ""


# The first match wins, so subclasses come first.
_HINTS: tuple[tuple[type[BackendError], _Hint], ...] = (
    _for(AuthenticationError, _hint_authentication),
    _for(ContextOverflowError, _hint_overflow),
    _for(ModelLoadingError, _hint_loading),
    _for(InsufficientQuotaError, "add credit to the account of the API key at its vendor"),
    _for(ModelNotFoundError, _hint_model),
    _for(NotFoundError, f"{_NO_MODEL_SERVER} write it without /v1"),
    _for(EmptyModelListError, "load or pull a model on the server first"),
    _for(NoModelError, lambda error, _: "\n  ".join(getattr(error, "__notes__", ()))),
    _for(APIStatusError, _hint_status),
    _for(MalformedResponseError, _hint_protocol),
    _for(ServerDiedError, _hint_exit),
    _for(StreamInterruptedError, _hint_interrupted),
    _for(APIConnectionError, _hint_connection),
    _for(UnknownBackendTypeError, _hint_unknown_type),
    _for(UnknownBackendError, _hint_unknown_backend),
)


def _find_hint(error: BackendError, source: Source) -> str:
    return next((hint(error, source) for kind, hint in _HINTS if isinstance(error, kind)), "")
