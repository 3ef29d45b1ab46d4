"""The base class of observers, and the facts that they get about each request."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends._chat.events import Loading
from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import Tool
from ctxbackends._chat.responses import Completion, FinishReason, Usage

ObservedOperation: TypeAlias = Literal["chat", "embeddings", "count_tokens", "load"]


@attrs.frozen(kw_only=True)
class ServerAddress:
    """The parts of an endpoint.

    Attributes:
        scheme: ``http`` or ``https``.
        host: The name or the IP address, without brackets.
        port: The port, also if it is the default of the scheme.
        path: The path of the endpoint, empty for none.
    """

    scheme: str
    host: str
    port: int
    path: str = ""


@attrs.frozen(kw_only=True)
class RequestContent:
    """The content of a chat request, for observers with ``content = True``.

    Attributes:
        messages: The prompt.
        tools: The tools that the model may call.
        completion: The answer, None until the request has finished.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    completion: Completion | None = None


@attrs.frozen(kw_only=True)
class RequestFacts:
    """The facts about one request, as known when an observer is called.

    All times are seconds of one monotonic clock (``time.monotonic()``), so only their differences have a meaning.

    Attributes:
        id: Distinguishes the requests of this process.
        operation: ``chat`` for ``complete()`` and ``stream()``, ``embeddings``, ``count_tokens``, or ``load`` for a
            model load.
        backend: The name of the backend.
        type: The backend type.
        model: The requested model, None if the request names none.
        server: The address of the server, None for a local server that has not been started yet.
        stream: Whether the caller used ``stream()``.
        options: The options that are set, without content: a tool or a response format is only named.
        started_at: When the call began.
        queued_at: When it last began to wait for a slot, None if it never did.
        sent_at: When the last attempt was sent, None before the first.
        first_event_at: When the first event of a streamed answer arrived. Most local types stream ``complete()`` too.
        ended_at: When the request finished, failed or was left.
        attempts: The number of HTTP requests for it so far, retries included. Probes are not counted.
        retry_delay: Seconds of the wait before the last attempt, None for the first attempt.
        loading: The last probe of a server that was not ready, None if there was none.
        served_model: The model that the server names, None until it names one.
        response_id: The server's ID of the response, None until it arrives.
        usage: Token counts of a finished request, None if the server reports none.
        finish_reason: The finish reason of a finished chat request.
        error: In ``attempt``, the failure that is retried, if any; in ``failed``, the exception that is raised. Its
            text and its attributes may contain parts of the prompt or of the answer.
        chunk_times: When each chunk with events arrived, for observers with ``chunk_times = True``.
        content: The prompt and the answer of a chat request, for observers with ``content = True``.
    """

    id: int
    operation: ObservedOperation
    backend: str
    type: str
    model: str | None
    server: ServerAddress | None
    stream: bool = False
    options: Mapping[str, Any] = attrs.field(factory=dict)
    started_at: float = 0.0
    queued_at: float | None = None
    sent_at: float | None = None
    first_event_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    retry_delay: float | None = None
    loading: Loading | None = None
    served_model: str | None = None
    response_id: str | None = None
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error: BaseException | None = None
    chunk_times: tuple[float, ...] = attrs.field(default=(), repr=False)
    content: RequestContent | None = attrs.field(default=None, repr=False)


class Observer:
    """Gets the facts about every request of a registry. Derive from it, and override the methods that you need.

    Each request calls ``started`` first, and exactly one of ``finished``, ``failed`` and ``left`` last. The methods run
    in the event loop, in the task that makes the request, so they must be quick. An exception in one of them is
    logged, and changes nothing for the request.

    Attributes:
        content: Whether ``RequestFacts.content`` is set: prompts and answers.
        chunk_times: Whether ``RequestFacts.chunk_times`` is set, which costs a little for each chunk of a stream.
    """

    content: bool = False
    chunk_times: bool = False

    def started(self, facts: RequestFacts) -> None:
        """Handle the start of a request. Nothing has been sent."""

    def queued(self, facts: RequestFacts) -> None:
        """Handle the start of a wait for a slot, since ``max_concurrency`` requests are in flight."""

    def attempt(self, facts: RequestFacts) -> None:
        """Handle an attempt: an HTTP request is about to be sent."""

    def loading(self, facts: RequestFacts) -> None:
        """Handle a probe of a server that is not ready."""

    def served(self, facts: RequestFacts) -> None:
        """Handle the name of the model that answers. Not called if the server names none."""

    def first_event(self, facts: RequestFacts) -> None:
        """Handle the first event of a streamed answer."""

    def finished(self, facts: RequestFacts) -> None:
        """Handle a complete response."""

    def failed(self, facts: RequestFacts) -> None:
        """Handle the failure of a request: ``facts.error`` is raised."""

    def left(self, facts: RequestFacts) -> None:
        """Handle a request that the caller cancelled, or a stream that it left before the end."""

    def sending(self, facts: RequestFacts) -> AbstractContextManager[object] | None:  # noqa: ARG002  # for overrides
        """Return a context manager that is entered around each attempt, in its task; None for none."""
        return None
