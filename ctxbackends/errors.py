"""Every exception of the SDK, with its facts as attributes. The wording for people at a terminal is the CLI's; nothing
here knows HTTP or files.

Names follow the OpenAI and Anthropic SDKs where the meaning is the same. Everything derives from :class:`BackendError`;
timeouts also are ``TimeoutError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctxbackends._chat.responses import PartialCompletion
from ctxbackends._util.key_shapes import mask_keys
from ctxbackends._util.text import escape_controls

ERROR_BODY_SHOWN = 512
"""Bytes of an error body that a message shows; ``body`` on the exception keeps all that was read."""


class BackendError(Exception):
    """The root. ``backend`` is the configured name, ``endpoint`` its base URL, ``waited`` the seconds spent waiting for
    the server before giving up."""

    def __init__(self, problem: str = "", *, backend: str | None = None, endpoint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.backend = backend
        self.endpoint = endpoint
        self.waited: float | None = None

    def __str__(self) -> str:
        where = f'backend "{self.backend}": ' if self.backend else ""
        waited = f" (after waiting {self.waited:.1f} s)" if self.waited is not None else ""
        return f"{where}{escape_controls(self.problem)}{waited}"

    def __reduce__(self) -> tuple[Callable[..., BackendError], tuple[type[BackendError], dict[str, Any]]]:
        # Exceptions cross process borders in worker pools; the default rebuilds from positional arguments and fails on
        # keyword-only facts.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(cls: type[BackendError], facts: dict[str, Any]) -> BackendError:
    error = cls.__new__(cls, facts.get("problem", ""))
    error.args = (facts.get("problem", ""),)
    error.__dict__.update(facts)
    return error


# --- configuration and registry: nothing was sent -------------------------------------------------


class ConfigError(BackendError):
    """Configuration that cannot be used. ``path``, ``line`` (from 1) and ``key`` say where, when it came from a
    file. A value that looks like an API key is masked."""

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
        place = ":".join(str(part) for part in (self.path, self.line) if part is not None)
        return escape_controls(": ".join(part for part in (place, self.key, self.problem) if part))


class NoBackendConfiguredError(ConfigError):
    """There is no backend to resolve."""


class AmbiguousBackendError(ConfigError):
    """Several backends, none chosen, and no default: the SDK never picks one. ``names`` lists them."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"several backends are configured ({', '.join(names)}) and none is chosen; "
            "name one with --backend or set default_backend"
        )
        self.names = tuple(names)


class UnknownBackendError(ConfigError):
    """No backend of this name is configured. ``name`` is what was asked for, ``names`` what there is."""

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        known = ", ".join(names) or "none"
        super().__init__(f'no backend is named "{name}" (configured: {known})', path=path, line=line, key=key)
        self.name = name
        self.names = tuple(names)


class UnknownBackendTypeError(ConfigError):
    """No backend type of this name is registered. ``type_name`` is what was asked for, ``types`` what there is."""

    def __init__(
        self,
        type_name: str,
        types: Sequence[str],
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(
            f'unknown backend type "{type_name}"; the types are {", ".join(types)}', path=path, line=line, key=key
        )
        self.type_name = type_name
        self.types = tuple(types)


class DuplicateBackendError(ConfigError):
    """A backend name or type was registered twice. ``name`` is the name."""

    def __init__(
        self,
        name: str,
        *,
        what: str = "backend",
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(f'{what} "{name}" is configured twice', path=path, line=line, key=key)
        self.name = name


class InvalidEndpointError(ConfigError):
    """The endpoint is missing, or is no http(s) URL with a host."""


class AirgapError(ConfigError):
    """``airgap`` is on, and this would leave the machine and its private networks. Nothing was sent, and it is never
    tried again."""

    def __init__(
        self, problem: str, *, endpoint: str | None = None, key: str | None = "airgap", backend: str | None = None
    ) -> None:
        super().__init__(problem, key=key, backend=backend)
        self.endpoint = endpoint


class MissingKeyError(ConfigError):
    """The environment variable that should hold the API key is not set. ``variable`` names it."""

    def __init__(self, variable: str, *, backend: str) -> None:
        super().__init__(f'backend "{backend}" takes its key from {variable}, which is not set', backend=backend)
        self.variable = variable


class NoModelError(ConfigError):
    """Neither the request nor the configuration names a model."""


class UnsupportedOptionError(BackendError):
    """This server would ignore the option, so nothing was sent. ``option`` names it."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class UnsupportedOperationError(BackendError):
    """This backend has no such operation. ``operation`` names it."""

    def __init__(self, operation: str, problem: str) -> None:
        super().__init__(f"{operation}: {problem}")
        self.operation = operation


class ServerConfigurationError(BackendError):
    """The server is not set up as the configuration says, and a request would have another meaning there."""


class ServerSleepingError(BackendError):
    """The server has put its model to sleep, and would leave a request hanging. ``load()`` wakes it."""


class ClosedError(BackendError):
    """The registry, backend or stream was used after it was closed."""


class EventLoopError(BackendError):
    """The registry or backend was used from a second event loop while the first still runs."""


# --- connections and time -------------------------------------------------------------------------


class APIConnectionError(BackendError):
    """No whole answer came because of the connection. The operating system's or aiohttp's error is ``__cause__``.

    ``refused``: nothing listened. ``sent``: whether the request may have reached the server.
    ``permanent``: waiting cannot help (a name that does not resolve, a certificate that does not verify).
    """

    def __init__(self, problem: str, *, refused: bool = False, sent: bool = False, permanent: bool = False) -> None:
        super().__init__(problem)
        self.refused = refused
        self.sent = sent
        self.permanent = permanent

    def __str__(self) -> str:
        if self.sent or self.endpoint is None:
            return super().__str__()
        name = f'backend "{self.backend}" ' if self.backend else ""
        waited = f" (after waiting {self.waited:.1f} s)" if self.waited is not None else ""
        return f"{name}unreachable at {self.endpoint}: {escape_controls(self.problem)}{waited}"


class APITimeoutError(BackendError, TimeoutError):
    """A phase took longer than its limit. ``phase`` is ``connect``, ``first_token``, ``idle`` or ``total``; ``limit``
    is in seconds; ``key`` is the configuration key to tune; ``partial`` is what had arrived."""

    def __init__(self, phase: str, limit: float, *, key: str | None, partial: PartialCompletion | None = None) -> None:
        hint = f"; raise {key} to wait longer" if key is not None else ""
        super().__init__(f"{_PHASES[phase]} within {limit:g} s{hint}")
        self.phase = phase
        self.limit = limit
        self.key = key
        self.partial = partial


_PHASES = {
    "connect": "no connection",
    "first_token": "no first token",
    "idle": "the stream stalled: no further token",
    "total": "no complete answer",
}


class ServerDiedError(BackendError):
    """The server went away while it loaded its model. ``exit_code`` and ``log_tail`` are known where this SDK started
    it."""

    def __init__(self, problem: str, *, exit_code: int | None = None, log_tail: Sequence[str] = ()) -> None:
        super().__init__(problem)
        self.exit_code = exit_code
        self.log_tail = tuple(log_tail)


class LocalServerUnavailableError(BackendError):
    """No llama.cpp server is installed that could be started here."""


# --- answers with an error status -----------------------------------------------------------------


class APIStatusError(BackendError):
    """The server answered with an error. ``body`` holds its bytes as they came, up to the size limit; ``message`` the
    server's own sentence, if one was found in it; ``retry_after`` the seconds that the server asked for."""

    def __init__(
        self,
        status_code: int,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
        error_type: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        shown = body[:ERROR_BODY_SHOWN].decode("utf-8", "replace").strip() or "(empty body)"
        super().__init__(f"HTTP {status_code}: {shown}")
        self.status_code = status_code
        self.body = body
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.message = message
        self.error_type = error_type
        self.retry_after = retry_after
        self.request_id = request_id


class BadRequestError(APIStatusError):
    """400: the server refused the request as it stands."""


class ContextOverflowError(BadRequestError):
    """The prompt does not fit the model's context. ``input_tokens`` and ``context_length`` are the server's numbers,
    None where it does not tell."""

    input_tokens: int | None = None
    context_length: int | None = None


class AuthenticationError(APIStatusError):
    """401: the key was refused. ``key_source`` says where it came from (a variable's name, never the key)."""

    key_source: str | None = None


class PermissionDeniedError(AuthenticationError):
    """403: the key was understood and is not allowed to do this."""


class NotFoundError(APIStatusError):
    """404: no such route, or no such model."""


class ModelNotFoundError(NotFoundError):
    """The server does not have the model that was asked for."""


class RateLimitError(APIStatusError):
    """429: too many requests; nothing was processed."""


class InternalServerError(APIStatusError):
    """5xx: the server failed. The request may have been processed."""


class ServiceUnavailableError(InternalServerError):
    """503 or 529: the server is overloaded or has no free place; nothing was processed."""


class ModelLoadingError(ServiceUnavailableError):
    """503: the server is loading its model. A state, not a failure: it is waited for where a cold start is expected."""


class ModelLoadFailedError(InternalServerError):
    """The server says that the model cannot be loaded. Waiting cannot help."""


class RedirectError(APIStatusError):
    """3xx: redirects are refused, since they would carry the prompt and the key to another place. ``location`` is where
    it pointed."""

    location: str | None = None

    def __str__(self) -> str:
        place = escape_controls(self.location or "nowhere")
        return f"{super().__str__()} (a redirect to {place} was refused; correct the endpoint)"


# --- answers that are no answers ------------------------------------------------------------------


class ResponseError(BackendError):
    """An answer with a good status that cannot be used. ``body`` is what came."""

    def __init__(self, problem: str, *, body: bytes = b"") -> None:
        super().__init__(problem)
        self.body = body


class MalformedResponseError(ResponseError):
    """The body is not what this API answers with: no JSON, or JSON of another shape."""


class ResponseTooLargeError(ResponseError):
    """A body, a line or an event is larger than the limit. ``limit`` is in bytes."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is larger than {limit} bytes")
        self.limit = limit


class EmptyModelListError(ResponseError):
    """The server lists no model."""


class EmptyChoicesError(ResponseError):
    """The answer holds no choice."""


class StreamInterruptedError(BackendError):
    """The answer began and never became whole. ``partial`` is what had arrived; ``body`` the error that the server sent
    in the stream, if it did.

    Where the connection or the status was the reason, that error is ``__cause__``. ``request_id`` is the server's name
    of the request, where it tells.
    """

    def __init__(self, problem: str, *, partial: PartialCompletion | None = None, body: bytes = b"") -> None:
        super().__init__(problem)
        self.partial = partial or PartialCompletion()
        self.body = body
        self.request_id: str | None = None


class ModelMismatchError(BackendError):
    """Another model answered than the one that was asked for: ``requested_model``, ``served_model``."""

    def __init__(self, requested_model: str, served_model: str) -> None:
        super().__init__(
            f'asked for the model "{requested_model}", answered by "{served_model}"; '
            "name the served model, or set model_mismatch: ignore for this backend"
        )
        self.requested_model = requested_model
        self.served_model = served_model


class ModelMismatchWarning(UserWarning):
    """What ``model_mismatch: warn`` gives in the place of :class:`ModelMismatchError`."""


# --- structured output ----------------------------------------------------------------------------


class StructuredOutputError(BackendError):
    """The model's answer is no valid object. ``text`` is the answer; ``pointer`` the place in it as the validator names
    it (``$.title``), if known."""

    def __init__(self, problem: str, *, text: str = "", pointer: str | None = None) -> None:
        super().__init__(problem)
        self.text = text
        self.pointer = pointer


class IncompleteOutputError(StructuredOutputError):
    """The answer ended before it was whole (``finish_reason`` is ``length`` or ``content_filter``), so it is never made
    into an object."""

    def __init__(self, finish_reason: str, *, text: str = "") -> None:
        super().__init__(
            f"the answer ended with finish_reason {finish_reason}; it is not made into an object", text=text
        )
        self.finish_reason = finish_reason
