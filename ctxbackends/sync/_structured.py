"""Structured output without async."""

from __future__ import annotations

from typing import TypeVar, Unpack

from ctxbackends import _structured
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._structured import INSTRUCTIONS, Extraction, SchemaProbe
from ctxbackends.sync._backend import SyncBackend
from ctxbackends.sync._loop_thread import run

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
    return run(
        lambda: _structured.extract(
            backend.async_backend, target, text, instructions=instructions, request_options=request_options, **options
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
    return run(
        lambda: _structured.extract_result(
            backend.async_backend, target, text, instructions=instructions, request_options=request_options, **options
        )
    )


def probe_schema(backend: SyncBackend, *, model: str | None = None) -> SchemaProbe:
    """Test whether the server enforces schemas. See :func:`ctxbackends.probe_schema`."""
    return run(lambda: _structured.probe_schema(backend.async_backend, model=model))
