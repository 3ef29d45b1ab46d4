"""Errors in the configuration or the use of a backend: nothing was sent."""

from __future__ import annotations

from collections.abc import Sequence

from ctxbackends._chat.responses import PartialCompletion
from ctxbackends._suggestions import find_similar
from ctxbackends._util.api_key_shapes import mask_keys
from ctxbackends._util.text import escape_controls, pluralize
from ctxbackends.errors._base import BackendError

_MODELS_SHOWN = 10


class ConfigError(BackendError):
    """The configuration is invalid. Values that look like API keys are masked in the message.

    Attributes:
        path: The file; None if the configuration did not come from a file.
        line: Line in the file, from 1; None if it is not known.
        key: The setting, such as ``timeout`` or ``backends[0].timeout``; None if the error concerns no single one.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(mask_keys(problem)[0], backend=backend)
        self.path = path
        self.line = line
        self.key = key

    def __str__(self) -> str:
        location = ":".join(str(part) for part in (self.path, self.line) if part is not None)
        return escape_controls(": ".join(part for part in (location, self.key, self.problem) if part))


class NoBackendConfiguredError(ConfigError):
    """No backend is configured."""


class AmbiguousBackendError(ConfigError):
    """Several backends are configured, none was chosen, and there is no default.

    Attributes:
        names: Names of the configured backends.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"several backends configured: {', '.join(names)}; choose one with --backend or set default_backend"
        )
        self.names: tuple[str, ...] = tuple(names)


class UnknownBackendError(ConfigError):
    """No backend with this name is configured.

    Attributes:
        name: The requested name.
        names: Names of the configured backends.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        configured = ", ".join(names) or "none"
        super().__init__(f'unknown backend: "{name}"; configured: {configured}', path=path, line=line, key=key)
        self.name = name
        self.names: tuple[str, ...] = tuple(names)


_OTHER_TYPES = {
    "azure": "azure-openai",
    "claude": "anthropic",
    "google": "gemini",
    "grok": "xai",
    "gguf": "llamacpp",
    "hf": "huggingface",
    "kimi": "moonshot",
    "llama": "llamacpp",
    "llama-server": "llamacpp",
    "openai-like": "openai-compatible",
    "qwen": "dashscope",
}


class UnknownBackendTypeError(ConfigError):
    """No backend type with this name is registered.

    Attributes:
        type_name: The requested type.
        types: Names of the registered types.
    """

    def __init__(
        self,
        type_name: str,
        types: Sequence[str],
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        meant = find_similar(type_name, types, {name: meant for name, meant in _OTHER_TYPES.items() if meant in types})
        listed = ", ".join(types)
        advice = f"choose one of {listed}" if meant is None else f"did you mean {meant}? The types are {listed}"
        if meant is None and "openai-compatible" in types:
            advice = f"{advice}; for any other OpenAI-compatible server, use the type openai-compatible"
        super().__init__(f'unknown backend type: "{type_name}"; {advice}', path=path, line=line, key=key)
        self.type_name = type_name
        self.types: tuple[str, ...] = tuple(types)


class DuplicateBackendError(ConfigError):
    """A backend name or a backend type was registered twice.

    Attributes:
        name: The duplicate name.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: str = "backend",
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(f'duplicate {kind}: "{name}"; use a different name', path=path, line=line, key=key)
        self.name = name


class InvalidEndpointError(ConfigError):
    """The endpoint is missing, or is not an http(s) URL with a host."""


class EndpointWarning(UserWarning):
    """Issued for an endpoint that ends in a route such as ``/chat/completions``, which is removed."""


class AirgapError(ConfigError):
    """``airgap`` is on, and the endpoint is neither on this machine nor on a private network. Nothing was sent."""

    def __init__(
        self, problem: str, *, endpoint: str | None = None, key: str | None = "airgap", backend: str | None = None
    ) -> None:
        super().__init__(problem, key=key, backend=backend)
        self.endpoint = endpoint


class MissingKeyError(ConfigError):
    """An environment variable that the configuration names is not set: for the API key, a header or the endpoint.

    Attributes:
        variable: Name of the environment variable.
    """

    def __init__(self, variable: str, *, backend: str, purpose: str = "the API key") -> None:
        problem = f'environment variable not set: {variable}; set it to {purpose} of backend "{backend}"'
        super().__init__(problem, backend=backend)
        self.variable = variable


class NoModelError(ConfigError):
    """Neither the request nor the configuration names a model. Nothing was sent.

    Attributes:
        models: Names of the models that the server has; empty if it was not asked.
    """

    models: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = escape_controls(self.problem) if self.path is None else super().__str__()
        return f"{text}; the server has: {escape_controls(list_models(self.models))}" if self.models else text


def list_models(models: Sequence[str]) -> str:
    """Return the names of models for a message; a vendor has hundreds."""
    shown = ", ".join(models[:_MODELS_SHOWN])
    others = len(models) - _MODELS_SHOWN
    return f"{shown} and {pluralize(others, 'other')}" if others > 0 else shown


class UnsupportedOptionError(BackendError):
    """The server does not support an option and would ignore it. Nothing was sent.

    Attributes:
        option: Name of the option.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class StrictSchemaError(BackendError, ValueError):
    """A JSON Schema cannot be strict, or not without a change of its meaning. Nothing was sent.

    Attributes:
        pointer: JSON Pointer to the part of the schema, empty for the whole schema.
        reason: Why that part cannot be strict.
    """

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"schema cannot be strict at {pointer or 'the root'}: {reason}")
        self.pointer = pointer
        self.reason = reason


class UnsupportedOperationError(BackendError):
    """The backend does not support an operation, or its model does not.

    Attributes:
        operation: Name of the method.
    """

    def __init__(self, operation: str, problem: str) -> None:
        super().__init__(f"{operation}: {problem}")
        self.operation = operation


class ServerConfigurationError(BackendError):
    """The server is set up differently from the configuration, so that a request would have another effect."""


class ServerSleepingError(BackendError):
    """The server has put its model to sleep and would not answer a request. Call ``load()`` to wake it."""


class ClosedError(BackendError):
    """A registry, backend or stream was closed before or during its use.

    Attributes:
        partial: The part of the answer that had arrived; None outside of streams.
    """

    def __init__(self, problem: str = "", *, partial: PartialCompletion | None = None) -> None:
        super().__init__(problem)
        self.partial = partial


class EventLoopError(BackendError):
    """A registry with an aiohttp session of the caller was used on another event loop than the session's."""
