"""Errors of connections, timeouts, servers and their responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ctxbackends._chat.messages import Message
from ctxbackends._chat.responses import Completion, PartialCompletion, Usage
from ctxbackends._chat.tool_runs import ToolRound
from ctxbackends._util.text import escape_controls, pluralize
from ctxbackends.errors._base import BackendError

ERROR_BODY_SHOWN = 512
"""Bytes of an error body that a message shows; ``body`` on the exception keeps all that was read."""


# --- connections and time -------------------------------------------------------------------------


class APIConnectionError(BackendError):
    """The connection failed before the response was complete. ``__cause__`` is the error of aiohttp or the system.

    Attributes:
        refused: Whether the connection was refused: nothing listens at the endpoint.
        sent: Whether the request may have reached the server.
        permanent: Whether waiting cannot help, as with a host name that does not resolve or an invalid certificate.
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
    """A phase of a request took longer than its timeout.

    Attributes:
        phase: ``connect``, ``first_token``, ``idle`` or ``total``.
        limit: The timeout in seconds.
        key: The setting to raise, such as ``idle_timeout``; None if there is none.
        partial: The part of the answer that was received; None outside of streams.
    """

    def __init__(self, phase: str, limit: float, *, key: str | None, partial: PartialCompletion | None = None) -> None:
        super().__init__(f"{_PHASES[phase]} within {limit:g} s{_advise_raising(key)}")
        self.phase = phase
        self.limit = limit
        self.key = key
        self.partial = partial

    @property
    def advice(self) -> str:
        """The end of the message: the setting to raise, empty without one."""
        return _advise_raising(self.key)


def _advise_raising(key: str | None) -> str:
    return f"; raise {key} to wait longer" if key is not None else ""


_PHASES = {
    "connect": "no connection",
    "first_token": "no first token",
    "idle": "stream stalled: no further token",
    "total": "no complete response",
}


class ServerDiedError(BackendError):
    """The server exited, or went away while loading its model.

    Attributes:
        exit_code: Exit code of a server that this package started; negative for a signal; None for other servers.
        log_tail: Last lines of the log of a server that this package started.
    """

    def __init__(self, problem: str, *, exit_code: int | None = None, log_tail: Sequence[str] = ()) -> None:
        super().__init__(problem)
        self.exit_code = exit_code
        self.log_tail: tuple[str, ...] = tuple(log_tail)


class LocalServerUnavailableError(BackendError):
    """No llama.cpp server is installed on this machine."""


class ModelDownloadError(BackendError):
    """A model could not be downloaded. The cache of models is as before."""


# --- responses with an error status ---------------------------------------------------------------


class APIStatusError(BackendError):
    """The response has an error status.

    Attributes:
        status_code: HTTP status.
        body: Unmodified bytes of the body, up to the size limit.
        headers: Response headers, with lower-case names.
        message: The error message in the body; None if there is none.
        error_type: The error type or code in the body; None if there is none.
        retry_after: Seconds to wait before a retry, as requested by the server; None if it does not say.
        request_id: The server's ID of the request; None if it does not send one.
    """

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
        self.headers: dict[str, str] = {name.lower(): value for name, value in (headers or {}).items()}
        self.message = message
        self.error_type = error_type
        self.retry_after = retry_after
        self.request_id = request_id


class BadRequestError(APIStatusError):
    """400 or another 4xx: the server rejected the request."""


class ContextOverflowError(BadRequestError):
    """The prompt does not fit into the model's context.

    Attributes:
        input_tokens: Length of the prompt in tokens; None if the server does not say.
        context_length: Context size in tokens, or the size of a batch with ``exceeds_batch``; None if the server does
            not say.
        shared_context: Whether the slots of the server share one context, which all running requests filled together:
            the prompt may fit on its own.
        exceeds_batch: Whether a text to embed is longer than a batch of llama-server, which can be started with a
            larger one.
    """

    input_tokens: int | None = None
    context_length: int | None = None
    shared_context: bool = False
    exceeds_batch: bool = False

    @property
    def advice(self) -> str:
        """The end of the message: the options of llama-server to raise, empty if the context is the limit."""
        if not self.exceeds_batch:
            return ""
        size = f"{self.input_tokens} or more tokens" if self.input_tokens is not None else "more tokens"
        return f"; start llama-server with --batch-size and --ubatch-size of {size}, up to its context"

    def __str__(self) -> str:
        return f"{super().__str__()}{self.advice}"


class AuthenticationError(APIStatusError):
    """401: the API key is missing or not accepted.

    Attributes:
        key_source: Where the key came from (name of a variable, never the key); None if no key was sent.
    """

    key_source: str | None = None


class PermissionDeniedError(AuthenticationError):
    """403: the API key does not permit this request."""


class NotFoundError(APIStatusError):
    """404: the route or the resource does not exist.

    Attributes:
        method: HTTP method of the request; None if it is not known.
        url: URL of the request; None if it is not known.
        route_servers: The servers that have this route; None for a route that is not known.
    """

    method: str | None = None
    url: str | None = None
    route_servers: str | None = None

    @property
    def request_text(self) -> str:
        """The end of the message: the method and the URL of the request, empty if they are not known."""
        if self.url is None:
            return ""
        servers = f", a route of {self.route_servers}" if self.route_servers else ""
        return f" (requested: {self.method} {escape_controls(self.url)}{servers})"

    def __str__(self) -> str:
        return f"{super().__str__()}{self.request_text}"


class ModelNotFoundError(NotFoundError):
    """The server does not have the requested model. The status is 404 or, at some vendors, 400."""


class RateLimitError(APIStatusError):
    """429: too many requests. The request was not processed."""


class InsufficientQuotaError(RateLimitError):
    """402, or another status with a message about it: the account has no credit or quota left. It is never retried."""


class InternalServerError(APIStatusError):
    """5xx: the server failed. The request may have been processed."""


class ServiceUnavailableError(InternalServerError):
    """503 or 529: the server is overloaded or has no free slot. The request was not processed."""


class ModelLoadingError(ServiceUnavailableError):
    """503: the server is loading its model. Backends wait for it, up to ``ready_timeout``, before they raise this."""


class ModelLoadFailedError(InternalServerError):
    """The server reports that the model cannot be loaded. Waiting does not help."""


class RedirectError(APIStatusError):
    """3xx: redirects are not followed, since they would send the prompt and the API key to another server.

    Attributes:
        location: Target of the redirect; None if the response does not name one.
    """

    location: str | None = None

    def __str__(self) -> str:
        target = f"to {escape_controls(self.location)}" if self.location else "without a location"
        return f"{super().__str__()} (redirect {target} not followed; correct the endpoint)"


# --- responses that cannot be used ----------------------------------------------------------------


class ResponseError(BackendError):
    """The response has a success status and cannot be used.

    Attributes:
        body: Bytes of the body that were received.
    """

    def __init__(self, problem: str, *, body: bytes = b"") -> None:
        super().__init__(problem)
        self.body = body


class MalformedResponseError(ResponseError):
    """The body is not JSON, or not the JSON that this API returns."""


class ResponseTooLargeError(ResponseError):
    """A body, a line or an event is larger than the limit.

    Attributes:
        limit: The limit in bytes.
    """

    def __init__(self, part: str, limit: int) -> None:
        super().__init__(f"{part} is larger than {limit} bytes")
        self.limit = limit


class EmptyModelListError(ResponseError):
    """The server's model list is empty."""


class EmptyChoicesError(ResponseError):
    """The response contains no choices."""


class IncompleteResponseError(BackendError):
    """Base class of responses that broke off: of streams, and of responses in one piece.

    Attributes:
        partial: The part of the answer that was received; empty if none of it could be read.
    """

    def __init__(self, problem: str, *, partial: PartialCompletion | None = None) -> None:
        super().__init__(problem)
        self.partial: PartialCompletion = partial or PartialCompletion()


class ResponseInterruptedError(IncompleteResponseError, APIConnectionError):
    """The connection broke in the body of a response in one piece. Its ``partial`` is empty."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.sent = True


class StreamInterruptedError(IncompleteResponseError):
    """A stream ended before the answer was complete, or the response says so itself.

    ``__cause__`` is the error of the connection or the status, if that was the reason.

    Attributes:
        partial: The part of the answer that was received.
        body: The error that the server sent in the stream; empty if it sent none.
        request_id: The server's ID of the request; None if it does not send one.
    """

    def __init__(self, problem: str, *, partial: PartialCompletion | None = None, body: bytes = b"") -> None:
        super().__init__(problem, partial=partial)
        self.body = body
        self.request_id: str | None = None


class ModelMismatchError(BackendError):
    """The response comes from another model than the requested one.

    Attributes:
        requested_model: The model in the request.
        served_model: The model that the server names in its response.
        completion: The whole answer of the served model; None if it is not an answer to a prompt.
    """

    advice: ClassVar[str] = (
        "; request the served model, list it in served_as, or set model_mismatch: ignore for this backend"
    )
    """The end of the message."""

    def __init__(self, requested_model: str, served_model: str, *, completion: Completion | None = None) -> None:
        super().__init__(f'model mismatch: requested "{requested_model}", served "{served_model}"{self.advice}')
        self.requested_model = requested_model
        self.served_model = served_model
        self.completion = completion


class ModelMismatchWarning(UserWarning):
    """Issued instead of :class:`ModelMismatchError` with ``model_mismatch: warn``."""


class LocalServerWarning(UserWarning):
    """Issued for a local server with a context larger than the model was trained with, which is reduced."""


# --- structured output ----------------------------------------------------------------------------


class StructuredOutputError(BackendError):
    """The model's answer does not match the schema or type.

    Attributes:
        text: The answer.
        pointer: Path to the invalid value, such as ``$.title``; None if it is not known.
    """

    def __init__(self, problem: str, *, text: str = "", pointer: str | None = None) -> None:
        super().__init__(problem)
        self.text = text
        self.pointer = pointer


class ToolRoundsError(BackendError):
    """The model still called tools in the last round that was allowed.

    All calls have their results, so the conversation can go on: pass ``messages`` to ``run_tools()`` again.

    Attributes:
        max_rounds: The number of rounds.
        messages: The whole conversation, to the results of the last calls.
        rounds: All answers with their tool calls.
        usage: The token counts of all rounds together; None if the server did not report one of them.
    """

    def __init__(
        self, max_rounds: int, *, messages: Sequence[Message], rounds: Sequence[ToolRound], usage: Usage | None = None
    ) -> None:
        super().__init__(
            f"the model still calls tools after {pluralize(max_rounds, 'round')}; "
            "raise max_rounds, or go on with messages"
        )
        self.max_rounds = max_rounds
        self.messages: tuple[Message, ...] = tuple(messages)
        self.rounds: tuple[ToolRound, ...] = tuple(rounds)
        self.usage = usage


class NoToolCallError(BackendError):
    """The model called no tool although ``tool_choice`` requires a call.

    Servers may ignore ``tool_choice``: llama-server does if the chat template of the model has no tools.

    Attributes:
        completion: The answer.
        messages: The whole conversation, to this answer.
    """

    def __init__(self, tool: str | None, *, completion: Completion, messages: Sequence[Message]) -> None:
        required = f"tool_choice requires {tool or 'a call'}"
        is_truncated = completion.finish_reason == "length"
        advice = "raise max_tokens" if is_truncated else "use a model with tool support, or leave tool_choice out"
        super().__init__(f"no tool call in the answer: {required}, finish_reason {completion.finish_reason}; {advice}")
        self.completion = completion
        self.messages: tuple[Message, ...] = tuple(messages)


class IncompleteOutputError(StructuredOutputError):
    """The model's answer was cut off, so it is not parsed.

    Attributes:
        finish_reason: ``length`` or ``content_filter``.
    """

    def __init__(self, finish_reason: str, *, text: str = "") -> None:
        advice = "; raise max_tokens" if finish_reason == "length" else ""
        super().__init__(f"structured output is incomplete: finish_reason {finish_reason}{advice}", text=text)
        self.finish_reason = finish_reason
