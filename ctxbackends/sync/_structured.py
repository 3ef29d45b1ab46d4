"""Structured output without async."""

from __future__ import annotations

from functools import partial
from typing import Generic, TypeVar, Unpack

from ctxbackends import _extract_stream, _structured
from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._extract_stream import ExtractionStream
from ctxbackends._schema.members import Member
from ctxbackends._structured import INSTRUCTIONS, Extraction, SchemaProbe
from ctxbackends.sync._backend import SyncBackend, unwrap_backend
from ctxbackends.sync._loop_thread import run
from ctxbackends.sync._stream import SyncReader, SyncStream

T = TypeVar("T")


def extract(
    backend: SyncBackend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> T:
    """Extract a value of type ``target`` from ``text``. See :func:`ctxbackends.extract`."""
    async_backend = unwrap_backend(backend)
    return run(
        lambda: _structured.extract(
            async_backend, target, text, instructions=instructions, request_options=request_options, **options
        )
    )


def extract_result(
    backend: SyncBackend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> Extraction[T]:
    """Extract a value, and return it with its completion. See :func:`ctxbackends.extract_result`."""
    async_backend = unwrap_backend(backend)
    return run(
        lambda: _structured.extract_result(
            async_backend, target, text, instructions=instructions, request_options=request_options, **options
        )
    )


class SyncExtractionStream(SyncReader[ExtractionStream[T], Member | Extraction[T]], Generic[T]):
    """An :class:`~ctxbackends.ExtractionStream` without async. Use it with ``with``, and iterate over it.

    Raises:
        StructuredOutputError: The answer does not match the type, was truncated or refused; after the last member.
        BackendError: The request failed.
    """

    @property
    def stream(self) -> SyncStream:
        """The stream of the answer, with its metadata."""
        return SyncStream(lambda _: self._stream.stream)

    def get_result(self) -> Extraction[T]:
        """Read to the end and return the validated value with its completion.

        Raises:
            StructuredOutputError: The answer does not match the type, was truncated or refused.
            BackendError: The request failed.
        """
        return self._call(self._stream.get_result)


def extract_stream(
    backend: SyncBackend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    on_progress: OnProgress | None = None,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> SyncExtractionStream[T]:
    """Extract a value, and return its members as they are finished. See :func:`ctxbackends.extract_stream`."""
    async_backend = unwrap_backend(backend)
    return SyncExtractionStream(
        lambda report: _extract_stream.extract_stream(
            async_backend,
            target,
            text,
            instructions=instructions,
            on_progress=report,
            request_options=request_options,
            **options,
        ),
        on_progress,
        registry_closer=backend._registry_closer,
    )


def probe_schema(
    backend: SyncBackend, *, model: str | None = None, request_options: RequestOptions | None = None
) -> SchemaProbe:
    """Test whether the server enforces schemas. See :func:`ctxbackends.probe_schema`."""
    async_backend = unwrap_backend(backend)
    return run(partial(_structured.probe_schema, async_backend, model=model, request_options=request_options))
