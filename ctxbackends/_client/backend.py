"""The protocol of a backend, and the forms of a prompt. Knows no HTTP and no server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeGuard, Unpack, runtime_checkable

from ctxbackends._chat.events import OnProgress, StreamEvent
from ctxbackends._chat.requests import ChatOptions, ResponseFormatForm, ToolForms
from ctxbackends._chat.responses import Completion, Embeddings, PartialCompletion
from ctxbackends._chat.servers import Capabilities, Enforcement, ModelInfo, Ping, ServerStatus
from ctxbackends._client.prompts import Conversation, Prompt
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._wire.operations.openai import VectorEncoding


@runtime_checkable
class Stream(Protocol):
    """A streamed answer, see :class:`ChatStream`. A backend of your own, or a wrapper, may return another class."""

    async def __aenter__(self) -> Self:
        """Send the request."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the stream."""
        ...

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Iterate over the events."""
        ...

    async def __anext__(self) -> StreamEvent:
        """Return the next event."""
        ...

    def text(self) -> AsyncIterator[str]:
        """Iterate over the pieces of the text, without the other events."""
        ...

    async def get_final_completion(self) -> Completion:
        """Read to the end and return the whole answer."""
        ...

    async def aclose(self) -> None:
        """Close the stream, which cancels a generation that has not ended. Idempotent."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the last event has arrived, so that there is a completion."""
        ...

    if TYPE_CHECKING:  # it raises before the end, and isinstance() of Python 3.11 would call it

        @property
        def completion(self) -> Completion:
            """The whole answer. Raises ClosedError before its end."""
            ...

    @property
    def partial(self) -> PartialCompletion:
        """The part of the answer that has arrived: while it is read, and after leaving early or an error."""
        ...

    @property
    def text_so_far(self) -> str:
        """The text that has arrived."""
        ...

    @property
    def served_model(self) -> str | None:
        """The model that the server names, None until it does."""
        ...

    @property
    def response_id(self) -> str | None:
        """The server's ID of the response, None until it arrives."""
        ...

    @property
    def request_id(self) -> str | None:
        """The server's ID of the request from the response headers, None until they arrive or without one."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One model server of any type. Any number of tasks may use it at once.

    Attributes:
        name: The name of the backend.
        type: The backend type, such as ``vllm``.
        default_model: The model of a call that names none, None if every call must name one.
    """

    name: str
    type: str
    default_model: str | None

    @property
    def endpoint(self) -> str:
        """The base URL of the server."""
        ...

    @property
    def schema_enforcement(self) -> Enforcement:
        """How the server enforces a JSON schema."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The features that this backend supports."""
        ...

    def refusal(self, option: str) -> str | None:
        """Return why an option is not supported, None if it is.

        Args:
            option: The name of an option of :class:`ChatOptions`, such as ``top_k``; one of its values, such as
                ``tool_choice: named`` or ``response_format: regex``; a part of messages, such as ``message: audio``; an
                operation (``embed``, ``count_tokens``, ``load``, ``unload``), or ``dimensions`` or ``encoding`` of
                ``embed()``.

        Raises:
            ValueError: The option is unknown.
        """
        ...

    async def wait_ready(
        self, *, request_options: RequestOptions | None = None, on_progress: OnProgress | None = None
    ) -> None:
        """Wait until the server can answer.

        Args:
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.
            on_progress: Called with a :class:`Loading` for each probe of a server that starts.

        Raises:
            BackendError: The last error, when ``ready_timeout`` is over or the failure is not a cold start.
        """
        ...

    async def ping(
        self,
        *,
        wait: bool = True,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> Ping:
        """Return the first model that the server lists, and how long the server took.

        Args:
            wait: Wait for a cold start.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.
            on_progress: Called with a :class:`Loading` for each probe of a server that starts.

        Raises:
            EmptyModelListError: The server lists no model.
            BackendError: The server cannot be reached, or reports an error.
        """
        ...

    async def status(self) -> ServerStatus:
        """Return the state of the server from a single probe.

        A failure is in the status and not raised. Nothing is waited for, started or loaded.
        """
        ...

    async def models(self, *, request_options: RequestOptions | None = None) -> tuple[ModelInfo, ...]:
        """Return the models that the server lists. Waits for a cold start.

        Args:
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.

        Raises:
            EmptyModelListError: The server lists no model.
            BackendError: The server cannot be reached, or reports an error.
        """
        ...

    async def complete(
        self,
        prompt: Prompt,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion:
        """Return the whole answer to a prompt, never a part of one.

        Args:
            prompt: A text, a message, a conversation, or a :class:`ChatRequest` with its own options. A message may be
                a dict in the form of OpenAI's chat or Anthropic's Messages API.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.
            on_progress: Called with a :class:`Loading` for each probe of a server that starts.
            **options: The options of the request, see :class:`ChatOptions`.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: The value of an option is out of range.
            UnsupportedOptionError: The server does not support an option.
            BackendError: The request failed, see the subclasses in :mod:`ctxbackends.errors`.
        """
        ...

    def stream(
        self,
        prompt: Prompt,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream:
        """Return a stream of the answer. Entering its ``async with`` sends the request.

        Args:
            prompt: A text, a message, a conversation, or a :class:`ChatRequest` with its own options. A message may be
                a dict in the form of OpenAI's chat or Anthropic's Messages API.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.
            on_progress: Called with a :class:`Loading` for each probe of a server that starts.
            **options: The options of the request, see :class:`ChatOptions`.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: The value of an option is out of range.
            UnsupportedOptionError: The server does not support an option.
        """
        ...

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        encoding: VectorEncoding | None = None,
        batch_size: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> Embeddings:
        """Return one vector for each text, in their order.

        Args:
            inputs: A text, or several.
            model: The model, None for ``default_model``.
            dimensions: The length of the vectors, for models that can shorten them.
            encoding: The encoding of the vectors in the response; None for ``base64``, which is shorter and exact to
                32 bits, where the server is known to have it.
            batch_size: The number of texts in one request; None for as many as one response has room for. The requests
                are sent one after another.
            request_options: The timeouts, retries and headers of each request, None for those of the configuration.

        Raises:
            ValueError: There are no texts, or ``dimensions`` or ``batch_size`` is out of range.
            UnsupportedOperationError: The server has no embeddings, or the model is not an embedding model.
            UnsupportedOptionError: The server does not support ``dimensions`` or ``encoding``.
            BackendError: A request failed.
        """
        ...

    async def count_tokens(
        self,
        prompt: Conversation,
        *,
        model: str | None = None,
        tools: ToolForms = None,
        response_format: ResponseFormatForm = None,
        request_options: RequestOptions | None = None,
    ) -> int:
        """Return the number of tokens in a prompt, as the server counts them.

        Args:
            prompt: A text, a message, or a conversation.
            model: The model, None for ``default_model``.
            tools: The tools that the request would have, in the forms of :class:`ChatOptions`.
            response_format: The format that the request would have. Servers that enforce it with a grammar count no
                tokens for it, unless their chat template writes it into the prompt.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.

        Raises:
            UnsupportedOperationError: The server cannot count tokens. The number is never estimated.
            BackendError: The request failed.
        """
        ...

    async def load(
        self,
        model: str | None = None,
        *,
        context_length: int | None = None,
        keep_alive: float | None = None,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Load a model into memory.

        Args:
            model: The model, None for ``default_model``.
            context_length: The size of the context in tokens, None for the configured one or the server's default.
            keep_alive: Seconds until an unused model is unloaded, ``math.inf`` for never, None for the configured
                value or the server's default.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.
            on_progress: Called with a :class:`Loading` for each probe of a server that starts.

        Raises:
            UnsupportedOperationError: The server cannot load models on request.
            BackendError: The request failed.
        """
        ...

    async def unload(self, model: str | None = None, *, request_options: RequestOptions | None = None) -> None:
        """Unload a model from memory.

        Args:
            model: The model, None for ``default_model``.
            request_options: The timeouts, retries and headers of this call, None for those of the configuration.

        Raises:
            UnsupportedOperationError: The server cannot unload models on request.
            BackendError: The request failed.
        """
        ...

    async def aclose(self) -> None:
        """Close the backend, and stop a server that it started. Idempotent.

        A backend of :func:`open_backend` closes its connections too; those of the others belong to their registry.
        """
        ...


_MEMBERS = (*Backend.__annotations__, *(name for name in vars(Backend) if not name.startswith("_")))


def is_backend(value: object) -> TypeGuard[Backend]:
    """Return whether ``value`` has all members of a backend.

    Since Python 3.12, ``isinstance()`` does not find the members that a wrapper has through ``__getattr__``.
    """
    return all(hasattr(value, name) for name in _MEMBERS)


def check_backend(backend: object) -> None:
    """Raise TypeError if ``backend`` is not an async backend.

    :func:`is_backend` would read all its properties.
    """
    if hasattr(backend, "async_backend"):
        raise TypeError(f"backend must be a Backend, not {type(backend).__name__}; pass its async_backend")
    if not hasattr(backend, "complete"):
        raise TypeError(f"backend must be a Backend, not {type(backend).__name__}; Registry.resolve() returns one")
