# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Backends: requests, streams, embeddings, models, servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import assert_type

from ctxbackends import (
    Backend,
    BackendContext,
    BackendType,
    ChatStream,
    Citation,
    Completion,
    Embeddings,
    Enforcement,
    FinishReason,
    HTTPBackend,
    Message,
    ModelInfo,
    PartialCompletion,
    Ping,
    RequestOptions,
    ServerStatus,
    Stream,
    StreamEvent,
    TextDelta,
    ToolCall,
    Usage,
    open_backend,
    serve_model,
)


def check_opening() -> None:
    assert_type(open_backend(BackendType.VLLM, endpoint="http://gpu:8000"), BackendContext[Backend])
    assert_type(serve_model("model.gguf", ctx_size=4096), BackendContext[HTTPBackend])
    open_backend("vllm", endpont="http://gpu:8000")  # type: ignore[call-arg]
    open_backend("vllm", timeout=[30])  # type: ignore[arg-type]
    serve_model("model.gguf", ctx_sise=4096)  # type: ignore[call-arg]


async def check_contexts() -> None:
    assert_type(await open_backend("vllm"), Backend)
    async with open_backend("vllm") as backend:
        assert_type(backend, Backend)
    async with serve_model("model.gguf") as served:
        assert_type(served, HTTPBackend)


async def check_complete(backend: Backend) -> None:
    completion = await backend.complete("Hello", max_tokens=20, stop_sequences=["\n"])
    assert_type(completion, Completion)
    assert_type(completion.text, str)
    assert_type(completion.finish_reason, FinishReason)
    assert_type(completion.usage, Usage | None)
    assert_type(completion.served_model, str | None)
    assert_type(completion.tool_calls, tuple[ToolCall, ...])
    assert_type(completion.citations, tuple[Citation, ...])
    assert_type(completion.message, Message)
    await backend.complete([Message.system("Be brief."), {"role": "user", "content": "Hello"}])
    await backend.complete("Hello", request_options=RequestOptions(timeout=5), on_progress=print)
    await backend.complete("Hello", stop=["\n"])  # type: ignore[call-arg]
    await backend.complete("Hello", max_tokens="20")  # type: ignore[arg-type]
    await backend.complete(3)  # type: ignore[arg-type]
    completion.text = "Hi"  # type: ignore[misc]


async def check_stream(backend: Backend) -> None:
    stream = backend.stream("Hello", temperature=0.0)
    assert_type(stream, Stream)
    async with stream as opened:
        assert_type(opened, Stream)
        async for event in opened:
            assert_type(event, StreamEvent)
            if isinstance(event, TextDelta):
                assert_type(event.text, str)
        assert_type(opened.text(), AsyncIterator[str])
        assert_type(await opened.get_final_completion(), Completion)
    assert_type(stream.completion, Completion)
    assert_type(stream.partial, PartialCompletion)
    await backend.stream("Hello")  # type: ignore[misc]


async def check_http_backend(backend: HTTPBackend) -> None:
    as_protocol: Backend = backend
    assert_type(as_protocol.endpoint, str)
    assert_type(backend.stream("Hello"), ChatStream)


async def check_operations(backend: Backend) -> None:
    assert_type(await backend.wait_ready(), None)
    assert_type(await backend.ping(), Ping)
    assert_type(await backend.status(), ServerStatus)
    assert_type(await backend.models(), tuple[ModelInfo, ...])
    assert_type(await backend.count_tokens("Hello"), int)
    assert_type(await backend.load("model"), None)
    assert_type(await backend.unload(), None)
    assert_type(backend.schema_enforcement, Enforcement)
    assert_type(backend.refusal("logit_bias"), str | None)


async def check_embed(backend: Backend, texts: Sequence[str]) -> None:
    embeddings = await backend.embed(texts)
    assert_type(embeddings, Embeddings)
    assert_type(embeddings.vectors, tuple[tuple[float, ...], ...])
    assert_type(embeddings.usage, Usage | None)
    await backend.embed([1, 2])  # type: ignore[list-item]
