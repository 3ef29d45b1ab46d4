"""OpenTelemetry: the spans, metrics and events of each operation, held by the SDK's in-memory exporters."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs
import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the group `otel`, as in the nox session `integrations`")

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import ctxbackends.sync
from ctxbackends import (
    APIConnectionError,
    ImagePart,
    JSONObjectFormat,
    Message,
    RateLimitError,
    RequestFacts,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
    UnsupportedOperationError,
    Usage,
    open_backend,
)
from ctxbackends._chat.media import AudioPart, FilePart
from ctxbackends._chat.messages import OpaquePart, ReasoningPart
from ctxbackends.integrations import _otel_names as names
from ctxbackends.integrations._otel_content import describe_messages
from ctxbackends.integrations.otel import OpenTelemetryObserver
from ctxbackends.testing import FaultServer, faults
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401

WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {}})
SECRET = "My secret"


class Telemetry:
    """Providers with in-memory exporters."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._metrics])
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.logger_provider = LoggerProvider()
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    def observer(self, **options: Any) -> OpenTelemetryObserver:
        return OpenTelemetryObserver(
            tracer_provider=self.tracer_provider,
            meter_provider=self.meter_provider,
            logger_provider=self.logger_provider,
            **options,
        )

    @property
    def spans(self) -> list[Any]:
        return [*self._spans.get_finished_spans()]

    @property
    def events(self) -> list[Any]:
        return [entry.log_record for entry in self._logs.get_finished_logs()]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric."""
        data = self._metrics.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else []) for scope in resource.scope_metrics]
        return {metric.name: [*metric.data.data_points] for scope in scopes for metric in scope.metrics}


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    monkeypatch.delenv(names.CONTENT_VARIABLE, raising=False)
    return Telemetry()


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(pieces=("Hel", "lo")) as server:
        yield server


def open_observed(type_: str, server: FaultServer, observer: OpenTelemetryObserver, **settings: Any) -> Any:
    return open_backend(type_, endpoint=server.url, default_model="m", api_key="k", observers=[observer], **settings)


# --- spans --------------------------------------------------------------------------------------------


async def test_the_span_of_a_completion(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("openai", server, telemetry.observer()) as backend:
        completion = await backend.complete(
            SECRET,
            temperature=0.5,
            top_p=0.9,
            max_tokens=9,
            seed=7,
            stop_sequences=["END"],
            frequency_penalty=0.1,
            presence_penalty=0.2,
            reasoning_effort="low",
            response_format=JSONObjectFormat(),
        )
    (span,) = telemetry.spans
    assert ("chat m", SpanKind.CLIENT, StatusCode.UNSET) == (span.name, span.kind, span.status.status_code)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "m",
        "gen_ai.response.id": completion.response_id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    } == dict(span.attributes)
    assert () == span.events
    assert "ctxbackends" == span.instrumentation_scope.name


async def test_the_span_of_a_stream_has_the_time_to_its_first_chunk(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("vllm", server, telemetry.observer()) as backend:
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        await backend.complete("Hi")
    streamed, whole = telemetry.spans
    assert streamed.attributes["gen_ai.request.stream"] is True
    assert streamed.attributes["gen_ai.response.time_to_first_chunk"] > 0
    # complete() streams here, but its caller waits for the whole answer
    assert not {"gen_ai.request.stream", "gen_ai.response.time_to_first_chunk"} & {*whole.attributes}
    assert "vllm" == whole.attributes["gen_ai.provider.name"]


async def test_the_span_of_embeddings(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("openai", server, telemetry.observer()) as backend:
        embeddings = await backend.embed("Hi", dimensions=3, encoding="float")
    (span,) = telemetry.spans
    assert "embeddings m" == span.name
    assert {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "gen_ai.embeddings.dimension.count": 3,
        "gen_ai.request.encoding_formats": ("float",),
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": embeddings.usage.input_tokens,
    } == dict(span.attributes)


async def test_the_spans_of_other_operations(telemetry: Telemetry, refusing_url: str) -> None:
    observer = telemetry.observer()
    async with open_backend("ollama", endpoint=refusing_url, default_model="m", observers=[observer]) as backend:
        with pytest.raises(APIConnectionError):
            await backend.load()
        with pytest.raises(UnsupportedOperationError):
            await backend.count_tokens("Hi")
    assert ["load_model m", "count_tokens m"] == [span.name for span in telemetry.spans]
    assert {"gen_ai.client.operation.duration"} == {*telemetry.metrics}


@pytest.mark.parametrize(("type_", "provider"), [("gemini", "gcp.gemini"), ("xai", "x_ai"), ("groq", "groq")])
async def test_vendors_have_the_names_of_the_conventions(
    telemetry: Telemetry, server: FaultServer, type_: str, provider: str
) -> None:
    async with open_observed(type_, server, telemetry.observer(), api_path="/v1") as backend:
        await backend.complete("Hi")
    (span,) = telemetry.spans
    assert provider == span.attributes["gen_ai.provider.name"]


async def test_the_span_is_the_child_of_the_callers(telemetry: Telemetry, server: FaultServer) -> None:
    tracer = telemetry.tracer_provider.get_tracer("mine")
    async with open_observed("vllm", server, telemetry.observer()) as backend:
        with tracer.start_as_current_span("mine") as mine:
            async with backend.stream("Hi") as stream:
                async for _ in stream:
                    assert trace.get_current_span() is mine  # not ours, between the chunks
            assert trace.get_current_span() is mine
    ours, _ = telemetry.spans
    assert mine.get_span_context().span_id == ours.parent.span_id


def test_the_span_of_a_synchronous_call_is_the_child_of_the_callers(telemetry: Telemetry) -> None:
    tracer = telemetry.tracer_provider.get_tracer("mine")
    with (
        FaultServer() as server,
        ctxbackends.sync.open_backend(
            "vllm", endpoint=server.url, default_model="m", observers=[telemetry.observer()]
        ) as backend,
        tracer.start_as_current_span("mine") as mine,
    ):
        with backend.stream("Hi") as stream:
            stream.get_final_completion()
        backend.complete("Hi")
        assert trace.get_current_span() is mine
    for span in telemetry.spans[:-1]:
        assert mine.get_span_context().span_id == span.parent.span_id


# --- failures -----------------------------------------------------------------------------------------


async def test_a_failure_is_named_and_not_shown(telemetry: Telemetry, server: FaultServer) -> None:
    server.play_always(faults.rate_limited(retry_after="90"))
    async with open_observed("openai", server, telemetry.observer()) as backend:
        with pytest.raises(RateLimitError):
            await backend.complete(SECRET)
    (span,) = telemetry.spans
    assert (StatusCode.ERROR, None) == (span.status.status_code, span.status.description)
    assert "RateLimitError" == span.attributes["error.type"]
    assert ("error",) == span.attributes["gen_ai.response.finish_reasons"]
    (point,) = telemetry.metrics["gen_ai.client.inference.duration"]
    assert "RateLimitError" == point.attributes["error.type"]
    assert SECRET not in span.to_json()
    assert () == span.events


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_the_caller_left(telemetry: Telemetry, server: FaultServer, stream: bool) -> None:
    async with open_observed("openai", server, telemetry.observer()) as backend:
        if stream:
            async with backend.stream("Hi") as events:
                async for _ in events:
                    break
        else:
            server.play(faults.no_response())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await backend.complete("Hi")
    (span,) = telemetry.spans
    assert StatusCode.UNSET == span.status.status_code
    assert ("error",) == span.attributes["gen_ai.response.finish_reasons"]
    assert "cancelled" == span.attributes["error.type"]


# --- metrics ------------------------------------------------------------------------------------------


async def test_the_metrics_of_a_stream(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("vllm", server, telemetry.observer()) as backend, backend.stream("Hi") as stream:
        await stream.get_final_completion()
    (span,) = telemetry.spans
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    metrics = telemetry.metrics
    assert {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
    } == {*metrics}
    for name in (
        "duration",
        "time_to_first_chunk",
        "operation.input_tokens",
        "operation.output_tokens",
    ):
        (point,) = metrics[f"gen_ai.client.inference.{name}"]
        assert (1, common) == (point.count, dict(point.attributes))
    for name, count in (("input_tokens", 3), ("output_tokens", 2)):
        (point,) = metrics[f"gen_ai.client.inference.usage.{name}"]
        assert (count, {**common, "gen_ai.token.modality": "unknown"}) == (point.value, dict(point.attributes))
    (first,) = metrics["gen_ai.client.inference.time_to_first_chunk"]
    assert first.sum == pytest.approx(span.attributes["gen_ai.response.time_to_first_chunk"])
    assert names.SECONDS == tuple(first.explicit_bounds)


async def test_the_detailed_counts_of_a_server_that_reports_them(telemetry: Telemetry) -> None:
    observer = telemetry.observer()
    usage = Usage(9, 5, cached_input_tokens=4, cache_write_tokens=3, reasoning_tokens=2)
    facts = RequestFacts(id=1, operation="chat", backend="b", type="anthropic", model="m", server=None, ended_at=1.0)
    observer.started(facts)
    observer.finished(attrs.evolve(facts, usage=usage, finish_reason="length"))
    (span,) = telemetry.spans
    assert (9, 5, 4, 3, 2) == tuple(span.attributes[name] for name in names.USAGE.values())
    values = {name: telemetry.metrics[name][0].value for name in names.INFERENCE_USAGE.values()}
    assert [9, 5, 4, 3, 2] == [*values.values()]


async def test_a_failure_counts_no_tokens(telemetry: Telemetry, server: FaultServer) -> None:
    server.play(faults.server_error())
    async with open_observed("openai", server, telemetry.observer()) as backend:
        with pytest.raises(Exception, match="500"):
            await backend.complete("Hi")
    metrics = telemetry.metrics
    assert 0 == metrics["gen_ai.client.inference.usage.input_tokens"][0].value
    assert "gen_ai.client.inference.operation.input_tokens" not in metrics


async def test_the_times_between_chunks_are_recorded_on_request(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("openai", server, telemetry.observer(chunk_times=True)) as backend:
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        await backend.complete("Hi")
    metrics = telemetry.metrics
    if name_points := metrics.get("gen_ai.client.inference.time_per_output_chunk"):  # the chunks may come as one
        assert all(point.sum >= 0 for point in name_points)
    assert 2 == metrics["gen_ai.client.inference.duration"][0].count
    assert 1 == metrics["gen_ai.client.inference.time_to_first_chunk"][0].count


async def test_the_metrics_of_embeddings(telemetry: Telemetry, server: FaultServer) -> None:
    async with open_observed("openai", server, telemetry.observer()) as backend:
        await backend.embed("Hi")
    assert {"gen_ai.client.embeddings.duration", "gen_ai.client.embeddings.operation.input_tokens"} == {
        *telemetry.metrics
    }


# --- content ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "on_spans", "on_events"),
    [
        (None, False, False),
        ("", False, False),
        ("NO_CONTENT", False, False),
        ("SPAN_ONLY", True, False),
        ("event_only", False, True),
        ("SPAN_AND_EVENT", True, True),
    ],
)
async def test_content_is_recorded_where_the_variable_says(
    telemetry: Telemetry,
    server: FaultServer,
    monkeypatch: pytest.MonkeyPatch,
    value: str | None,
    on_spans: bool,
    on_events: bool,
) -> None:
    if value is not None:
        monkeypatch.setenv(names.CONTENT_VARIABLE, value)
    async with open_observed("openai", server, telemetry.observer()) as backend:
        await backend.complete([Message.system("Be brief."), Message.user(SECRET)], tools=[WEATHER])
    expected = {
        "gen_ai.input.messages": [
            {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
            {"role": "user", "parts": [{"type": "text", "content": SECRET}]},
        ],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "Hello"}]}],
        "gen_ai.tool.definitions": [{"type": "function", "name": "weather"}],
    }
    (span,) = telemetry.spans
    shown = {name: json.loads(span.attributes[name]) for name in expected if name in span.attributes}
    assert (expected if on_spans else {}) == shown
    assert on_spans == (SECRET in span.to_json())
    assert on_events == bool(telemetry.events)
    for event in telemetry.events:
        assert "gen_ai.client.inference.operation.details" == event.event_name
        assert span.get_span_context().span_id == event.span_id
        for name, parts in expected.items():
            assert parts == _to_plain(event.attributes[name])
        assert ("stop",) == tuple(event.attributes["gen_ai.response.finish_reasons"])


def _to_plain(value: Any) -> Any:
    """The SDK freezes attributes: lists to tuples."""
    if isinstance(value, str):
        return value
    if hasattr(value, "items"):
        return {key: _to_plain(item) for key, item in value.items()}
    return [_to_plain(item) for item in value]


def test_a_wrong_value_of_the_variable_records_no_content(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(names.CONTENT_VARIABLE, "true")
    with caplog.at_level(logging.WARNING, "ctxbackends"):
        assert not telemetry.observer().content
    assert "NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT" in caplog.text


def test_every_part_has_a_form() -> None:
    messages = [
        Message.user([TextPart("a"), ImagePart(data=b"\x89PNG", media_type="image/png"), ImagePart(url="http://x/y")]),
        Message.user([AudioPart(b"RIFF"), FilePart(b"%PDF-")]),
        Message("assistant", (ReasoningPart("hm"), ToolCall("1", "f", '{"a": 1}'), OpaquePart("messages", "{}"))),
        Message("tool", (ToolResult("1", "ok"), ToolResult("2", (TextPart("b"),)))),
        Message("assistant", (ToolCall("2", "f", '{"a": '),)),
    ]
    assert [
        [
            {"type": "text", "content": "a"},
            {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBORw=="},
            {"type": "uri", "modality": "image", "uri": "http://x/y"},
        ],
        [
            {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "UklGRg=="},
            {"type": "blob", "modality": "document", "content": "JVBERi0="},
        ],
        [
            {"type": "reasoning", "content": "hm"},
            {"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}},
            {"type": "opaque", "wire": "messages", "json": "{}"},
        ],
        [
            {"type": "tool_call_response", "id": "1", "response": "ok"},
            {"type": "tool_call_response", "id": "2", "response": [{"type": "text", "content": "b"}]},
        ],
        [{"type": "tool_call", "id": "2", "name": "f", "arguments": '{"a": '}],
    ] == [message["parts"] for message in describe_messages(messages)]


# --- with the instrumentation of aiohttp --------------------------------------------------------------


@pytest.fixture
def instrumented(telemetry: Telemetry) -> Iterator[Telemetry]:
    aiohttp_client = pytest.importorskip(
        "opentelemetry.instrumentation.aiohttp_client", reason="the pinned release is for the newest version"
    )
    instrumentor = aiohttp_client.AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    yield telemetry
    instrumentor.uninstrument()


@pytest.mark.parametrize("method", ["complete", "stream", "embed"])
async def test_the_spans_of_http_requests_are_children(
    instrumented: Telemetry, server: FaultServer, method: str
) -> None:
    server.play(faults.rate_limited())
    async with open_observed("openai", server, instrumented.observer()) as backend:
        if method == "stream":
            async with backend.stream("Hi") as stream:
                await stream.get_final_completion()
        else:
            await getattr(backend, method)("Hi")
    *requests, ours = sorted(instrumented.spans, key=lambda span: span.name.endswith(" m"))
    assert ["POST", "POST"] == [span.name for span in requests]
    for span in requests:
        assert ours.get_span_context().span_id == span.parent.span_id
        assert ours.get_span_context().trace_id == span.get_span_context().trace_id
    assert not trace.get_current_span().get_span_context().is_valid


# --- the page -----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("opentelemetry"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811
    run_block(block, project)
