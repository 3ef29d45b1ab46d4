"""`SyncBackend`: a backend without async."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Self, Unpack

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.requests import ChatOptions, ResponseFormatForm, ToolForms
from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._chat.servers import Capabilities, Enforcement, ModelInfo, Ping, ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._client.prompts import Conversation, Prompt
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._util.pickling import NotPicklable
from ctxbackends._wire.operations.openai import VectorEncoding
from ctxbackends.sync._loop_thread import Closer, close, run, run_with_progress
from ctxbackends.sync._stream import SyncStream


class SyncBackend(NotPicklable):
    """A :class:`~ctxbackends.Backend` without async. Any number of threads may use it at once.

    It sends its requests on an event loop in a separate thread, so it also works while an event loop runs in the
    calling thread, which it blocks. ``on_progress`` is called in the calling thread. Use one of ``open_backend()`` with
    ``with``, or call ``close()``.

    Args:
        async_backend: The backend that sends the requests. It may be in use on other event loops too.

    Attributes:
        async_backend: The backend that sends the requests.
        name: The name of the backend.
        type: The backend type, such as ``vllm``.
        default_model: The model of a call that names none, None if every call must name one.
    """

    def __init__(self, async_backend: Backend) -> None:
        self.async_backend: Backend = async_backend
        self.name: str = async_backend.name
        self.type: str = async_backend.type
        self.default_model: str | None = async_backend.default_model
        self._registry_closer: Closer | None = None  # of the registry
        self._close: Callable[[], Coroutine[Any, Any, None]] = async_backend.aclose

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.async_backend!r}>"

    @property
    def endpoint(self) -> str:
        """See :attr:`ctxbackends.Backend.endpoint`."""
        return self.async_backend.endpoint

    @property
    def schema_enforcement(self) -> Enforcement:
        """See :attr:`ctxbackends.Backend.schema_enforcement`."""
        return self.async_backend.schema_enforcement

    @property
    def capabilities(self) -> Capabilities:
        """See :attr:`ctxbackends.Backend.capabilities`."""
        return self.async_backend.capabilities

    def refusal(self, option: str) -> str | None:
        """See :meth:`ctxbackends.Backend.refusal`."""
        return self.async_backend.refusal(option)

    def wait_ready(
        self, *, request_options: RequestOptions | None = None, on_progress: OnProgress | None = None
    ) -> None:
        """See :meth:`ctxbackends.Backend.wait_ready`."""
        run_with_progress(
            lambda report: self.async_backend.wait_ready(request_options=request_options, on_progress=report),
            on_progress,
        )

    def ping(
        self,
        *,
        wait: bool = True,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> Ping:
        """See :meth:`ctxbackends.Backend.ping`."""
        return run_with_progress(
            lambda report: self.async_backend.ping(wait=wait, request_options=request_options, on_progress=report),
            on_progress,
        )

    def status(self) -> ServerStatus:
        """See :meth:`ctxbackends.Backend.status`."""
        return run(self.async_backend.status)

    def models(self, *, request_options: RequestOptions | None = None) -> tuple[ModelInfo, ...]:
        """See :meth:`ctxbackends.Backend.models`."""
        return run(partial(self.async_backend.models, request_options=request_options))

    def complete(
        self,
        prompt: Prompt,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion:
        """See :meth:`ctxbackends.Backend.complete`."""
        return run_with_progress(
            lambda report: self.async_backend.complete(
                prompt, request_options=request_options, on_progress=report, **options
            ),
            on_progress,
        )

    def stream(
        self,
        prompt: Prompt,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> SyncStream:
        """Return a stream of the answer. Entering its ``with`` sends the request.

        See :meth:`ctxbackends.Backend.stream`.
        """
        return SyncStream(
            lambda report: self.async_backend.stream(
                prompt, request_options=request_options, on_progress=report, **options
            ),
            on_progress,
            registry_closer=self._registry_closer,
        )

    def embed(
        self,
        inputs: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        encoding: VectorEncoding | None = None,
        batch_size: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> Embeddings:
        """See :meth:`ctxbackends.Backend.embed`."""
        return run(
            partial(
                self.async_backend.embed,
                inputs,
                model=model,
                dimensions=dimensions,
                encoding=encoding,
                batch_size=batch_size,
                request_options=request_options,
            )
        )

    def count_tokens(
        self,
        prompt: Conversation,
        *,
        model: str | None = None,
        tools: ToolForms = None,
        response_format: ResponseFormatForm = None,
        request_options: RequestOptions | None = None,
    ) -> int:
        """See :meth:`ctxbackends.Backend.count_tokens`."""
        return run(
            partial(
                self.async_backend.count_tokens,
                prompt,
                model=model,
                tools=tools,
                response_format=response_format,
                request_options=request_options,
            )
        )

    def load(
        self,
        model: str | None = None,
        *,
        context_length: int | None = None,
        keep_alive: float | None = None,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """See :meth:`ctxbackends.Backend.load`."""
        run_with_progress(
            lambda report: self.async_backend.load(
                model,
                context_length=context_length,
                keep_alive=keep_alive,
                request_options=request_options,
                on_progress=report,
            ),
            on_progress,
        )

    def unload(self, model: str | None = None, *, request_options: RequestOptions | None = None) -> None:
        """See :meth:`ctxbackends.Backend.unload`."""
        run(partial(self.async_backend.unload, model, request_options=request_options))

    def close(self) -> None:
        """See :meth:`ctxbackends.Backend.aclose`."""
        close(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def unwrap_backend(backend: SyncBackend) -> Backend:
    """Return the async backend of ``backend``. Raise TypeError if it is not a SyncBackend."""
    if not isinstance(backend, SyncBackend):
        raise TypeError(f"backend must be a SyncBackend, not {type(backend).__name__}")
    return backend.async_backend
