# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The SDK without async: the same types, without a coroutine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import attrs

from ctxbackends import Completion, Embeddings, Extraction, Member, ModelInfo, StreamEvent, ToolRun
from ctxbackends.sync import (
    SyncBackend,
    SyncExtractionStream,
    SyncRegistry,
    SyncStream,
    SyncToolStream,
    extract,
    extract_result,
    extract_stream,
    open_backend,
    run_tools,
    serve_model,
    stream_tools,
)


@attrs.frozen
class Decision:
    title: str


def add(a: int, b: int) -> int:
    return a + b


def check_opening() -> None:
    assert_type(open_backend("vllm", endpoint="http://gpu:8000"), SyncBackend)
    assert_type(serve_model("model.gguf"), SyncBackend)
    with SyncRegistry.from_ctxrc() as registry:
        assert_type(registry, SyncRegistry)
        assert_type(registry.default(), SyncBackend)
    open_backend("vllm", endpont="http://gpu:8000")  # type: ignore[call-arg]


def check_backend(backend: SyncBackend) -> None:
    assert_type(backend.complete("Hello", max_tokens=20), Completion)
    assert_type(backend.embed(["Hello"]), Embeddings)
    assert_type(backend.models(), tuple[ModelInfo, ...])
    assert_type(backend.count_tokens("Hello"), int)
    backend.complete("Hello", stop=["\n"])  # type: ignore[call-arg]


def check_stream(backend: SyncBackend) -> None:
    with backend.stream("Hello") as stream:
        assert_type(stream, SyncStream)
        for event in stream:
            assert_type(event, StreamEvent)
        assert_type(stream.text(), Iterator[str])
    assert_type(stream.completion, Completion)


def check_structured(backend: SyncBackend) -> None:
    assert_type(extract(backend, Decision, "text"), Decision)
    assert_type(extract_result(backend, Decision, "text"), Extraction[Decision])
    with extract_stream(backend, Decision, "text") as stream:
        assert_type(stream, SyncExtractionStream[Decision])
        for item in stream:
            assert_type(item, Member | Extraction[Decision])


def check_tools(backend: SyncBackend) -> None:
    assert_type(run_tools(backend, "1 + 2?", [add]), ToolRun)
    with stream_tools(backend, "1 + 2?", [add]) as stream:
        assert_type(stream, SyncToolStream)
        assert_type(stream.get_result(), ToolRun)
