"""OpenTelemetry: spans and metrics by the GenAI semantic conventions. The extra is `otel`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

from ctxbackends._chat.observer import Observer, RequestFacts
from ctxbackends._version import __version__
from ctxbackends.integrations import _otel_names as names
from ctxbackends.integrations._common import require_extra
from ctxbackends.integrations._otel_content import describe_completion, describe_messages

with require_extra("otel"):
    from opentelemetry import metrics, trace
    from opentelemetry._logs import LoggerProvider, LogRecord, get_logger
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

_log = logging.getLogger("ctxbackends")
_SCOPE = "ctxbackends"


class OpenTelemetryObserver(Observer):
    """Makes a span for each request, and records the metrics of the GenAI semantic conventions.

    Each span is current while its HTTP requests are sent, so that the spans of an instrumentation of aiohttp are its
    children. Content is recorded only if the environment variable
    ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says so when the observer is created.

    Args:
        tracer_provider: Provides the tracer, None for the global provider.
        meter_provider: Provides the meter, None for the global provider.
        logger_provider: Provides the logger of events with content, None for the global provider.
        chunk_times: Record the time between the chunks of streams, which costs a little for each chunk.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        chunk_times: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        self._logger = get_logger(_SCOPE, __version__, logger_provider)
        self._spans: dict[int, Span] = {}
        capture = _read_content_setting()
        self._content_on_spans = capture in ("SPAN_ONLY", "SPAN_AND_EVENT")
        self._content_on_events = capture in ("EVENT_ONLY", "SPAN_AND_EVENT")
        self.content: bool = self._content_on_spans or self._content_on_events
        self.chunk_times = chunk_times
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        self._durations = {
            "chat": _create_seconds(meter, names.INFERENCE_DURATION, "Duration of an inference operation."),
            "embeddings": _create_seconds(meter, names.EMBEDDINGS_DURATION, "Duration of an embeddings operation."),
        }
        self._other_duration = _create_seconds(meter, names.OPERATION_DURATION, "Duration of another operation.")
        self._first_chunk = _create_seconds(
            meter, names.INFERENCE_TIME_TO_FIRST_CHUNK, "Time to the first chunk of a stream."
        )
        self._output_chunk = _create_seconds(
            meter, names.INFERENCE_TIME_PER_OUTPUT_CHUNK, "Time between two chunks of a stream."
        )
        self._input_tokens = {
            "chat": _create_tokens(meter, names.INFERENCE_INPUT_TOKENS, "Input tokens of an inference operation."),
            "embeddings": _create_tokens(meter, names.EMBEDDINGS_INPUT_TOKENS, "Input tokens of an operation."),
        }
        self._output_tokens = _create_tokens(
            meter, names.INFERENCE_OUTPUT_TOKENS, "Output tokens of an inference operation."
        )
        self._usage = {
            field: meter.create_counter(name, unit="{token}", description=f"Tokens used: {field}.")
            for field, name in names.INFERENCE_USAGE.items()
        }

    def started(self, facts: RequestFacts) -> None:
        """Start the span."""
        attributes = {**_describe_request(facts), **_describe_options(facts)}
        name = " ".join(filter(None, (names.OPERATIONS[facts.operation], facts.model)))
        self._spans[facts.id] = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def sending(self, facts: RequestFacts) -> AbstractContextManager[object] | None:
        """Make the span current while a request is sent."""
        span = self._spans.get(facts.id)
        if span is None:
            return None
        return trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def attempt(self, facts: RequestFacts) -> None:
        """Add the address of a local server that has been started since."""
        self._spans[facts.id].set_attributes(_describe_server(facts))

    def served(self, facts: RequestFacts) -> None:
        """Add the model and the ID of the response."""
        self._spans[facts.id].set_attributes(_describe_response(facts))

    def first_event(self, facts: RequestFacts) -> None:
        """Record the time to the first chunk, of a request that is streamed to the caller."""
        if facts.stream and facts.first_event_at is not None:
            seconds = facts.first_event_at - facts.started_at
            self._spans[facts.id].set_attribute(names.RESPONSE_TIME_TO_FIRST_CHUNK, seconds)
            self._first_chunk.record(seconds, _describe_metric(facts), context=self._context(facts))

    def finished(self, facts: RequestFacts) -> None:
        """End the span of a complete response."""
        self._end(facts, finish_reason=facts.finish_reason)

    def failed(self, facts: RequestFacts) -> None:
        """End the span of a request that failed. The error is named, and not shown: it may contain the prompt."""
        self._spans[facts.id].set_status(Status(StatusCode.ERROR))
        self._end(facts, finish_reason=names.FINISH_REASON_ERROR, error=type(facts.error).__qualname__)

    def left(self, facts: RequestFacts) -> None:
        """End the span of a request that the caller cancelled, which is not an error of the operation."""
        self._end(facts, finish_reason=names.FINISH_REASON_ERROR, error=names.ERROR_CANCELLED)

    def _end(self, facts: RequestFacts, *, finish_reason: str | None, error: str | None = None) -> None:
        outcome: dict[str, Any] = {} if error is None else {names.ERROR_TYPE: error}
        if facts.operation == "chat" and finish_reason is not None:
            outcome[names.RESPONSE_FINISH_REASONS] = (finish_reason,)
        self._record_metrics(facts, error)
        span = self._spans.pop(facts.id)
        span.set_attributes({**_describe_response(facts), **_describe_usage(facts), **outcome})
        if facts.content is not None and facts.operation == "chat":
            content = _describe_content(facts)
            if self._content_on_spans:
                span.set_attributes({name: json.dumps(value) for name, value in content.items()})
            if self._content_on_events:
                attributes = {**_describe_request(facts), **_describe_options(facts), **_describe_response(facts)}
                self._logger.emit(
                    LogRecord(
                        event_name=names.DETAILS_EVENT,
                        attributes={**attributes, **_describe_usage(facts), **outcome, **content},
                        context=trace.set_span_in_context(span),
                    )
                )
        span.end()

    def _record_metrics(self, facts: RequestFacts, error: str | None) -> None:
        attributes, context = _describe_metric(facts), self._context(facts)
        seconds = (facts.ended_at or facts.started_at) - facts.started_at
        failure = {} if error is None else {names.ERROR_TYPE: error}
        self._durations.get(facts.operation, self._other_duration).record(
            seconds, {**attributes, **failure}, context=context
        )
        if facts.usage is not None and facts.operation in self._input_tokens:
            self._input_tokens[facts.operation].record(facts.usage.input_tokens, attributes, context=context)
        if facts.operation != "chat":
            return
        if facts.usage is not None:
            self._output_tokens.record(facts.usage.output_tokens, attributes, context=context)
        for field, counter in self._usage.items():
            # 0 without a count is what the conventions ask for of the two totals.
            count = getattr(facts.usage, field, 0 if field in ("input_tokens", "output_tokens") else None)
            if count is not None:
                counter.add(count, {**attributes, names.TOKEN_MODALITY: names.MODALITY_UNKNOWN}, context=context)
        if facts.stream:
            for earlier, later in pairwise(facts.chunk_times):
                self._output_chunk.record(later - earlier, attributes, context=context)

    def _context(self, facts: RequestFacts) -> Context:
        """Return a context with the span, for the exemplars of metrics."""
        return trace.set_span_in_context(self._spans[facts.id])


def _create_seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=names.SECONDS
    )


def _create_tokens(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="{token}", description=description, explicit_bucket_boundaries_advisory=names.TOKENS
    )


def _read_content_setting() -> str:
    value = os.environ.get(names.CONTENT_VARIABLE, "").strip().upper() or "NO_CONTENT"
    if value in names.CONTENT_VALUES:
        return value
    known = ", ".join(names.CONTENT_VALUES)
    _log.warning("Invalid value of %s; recording no content. Use one of %s", names.CONTENT_VARIABLE, known)
    return "NO_CONTENT"


def _describe_request(facts: RequestFacts) -> dict[str, Any]:
    model = {} if facts.model is None else {names.REQUEST_MODEL: facts.model}
    return {
        names.OPERATION_NAME: names.OPERATIONS[facts.operation],
        names.PROVIDER_NAME: names.PROVIDERS.get(facts.type, facts.type),
        **model,
        **_describe_server(facts),
    }


def _describe_server(facts: RequestFacts) -> dict[str, Any]:
    if facts.server is None:
        return {}
    return {names.SERVER_ADDRESS: facts.server.host, names.SERVER_PORT: facts.server.port}


def _describe_metric(facts: RequestFacts) -> dict[str, Any]:
    served = {} if facts.served_model is None else {names.RESPONSE_MODEL: facts.served_model}
    return {**_describe_request(facts), **served}


def _describe_options(facts: RequestFacts) -> dict[str, Any]:
    options: Mapping[str, Any] = facts.options
    described = {name: options[option] for option, name in names.REQUEST_OPTIONS.items() if option in options}
    if "encoding" in options:
        described[names.REQUEST_ENCODING_FORMATS] = (options["encoding"],)
    if "response_format" in options:
        is_json = options["response_format"] in ("JSONObjectFormat", "JSONSchemaFormat")
        described[names.OUTPUT_TYPE] = "json" if is_json else "text"
    if facts.stream:
        described[names.REQUEST_STREAM] = True
    return described


def _describe_response(facts: RequestFacts) -> dict[str, Any]:
    values = {names.RESPONSE_MODEL: facts.served_model, names.RESPONSE_ID: facts.response_id}
    return {name: value for name, value in values.items() if value is not None}


def _describe_usage(facts: RequestFacts) -> dict[str, Any]:
    counts = {name: getattr(facts.usage, field, None) for field, name in names.USAGE.items()}
    if facts.operation != "chat":
        counts = {name: count for name, count in counts.items() if name == names.USAGE["input_tokens"]}
    return {name: count for name, count in counts.items() if count is not None}


def _describe_content(facts: RequestFacts) -> dict[str, Any]:
    content = facts.content
    assert content is not None, "the observer asked for it"
    described: dict[str, Any] = {names.INPUT_MESSAGES: describe_messages(content.messages)}
    if content.completion is not None:
        described[names.OUTPUT_MESSAGES] = describe_completion(content.completion)
    if content.tools:
        described[names.TOOL_DEFINITIONS] = [{"type": "function", "name": tool.name} for tool in content.tools]
    return described
