"""Ollama's own chat API: encodes requests, and decodes plain responses and streams of NDJSON.

Format: https://docs.ollama.com/api/chat. Ollama's OpenAI-compatible API can neither set the context length nor disable
silent truncation of the prompt; here ``truncate`` and ``shift`` are always off. Contract of the decoder: a response is
whole only with a line that has ``done`` and a known ``done_reason``, and no error before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, JSONObjectFormat, JSONSchemaFormat
from ctxbackends._chat.responses import Completion, FinishReason, Usage
from ctxbackends._wire.accumulator import build_completion
from ctxbackends._wire.base import (
    HTTPRequest,
    HTTPResponse,
    StreamDecoder,
    WireSettings,
    bearer_header,
    decode_arguments,
    encode_arguments,
    encode_json,
)
from ctxbackends._wire.body_settings import finish_body
from ctxbackends._wire.errors import decode_response, error_from_event, parse_error_body
from ctxbackends._wire.formats.openai_chat import encode_tool, format_tool_result
from ctxbackends._wire.formats.openai_parts import Logprob, parse_logprob
from ctxbackends._wire.options import RESERVED, OptionTable, check_supported, lookup, set_path
from ctxbackends._wire.sse import LineSplitter
from ctxbackends.errors import MalformedResponseError, StreamInterruptedError

# Without "load" and "unload", the reasons for requests without messages.
_FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}

_RESERVED = {
    **RESERVED,
    "truncate": "a prompt that does not fit is an error, and never cut",
    "shift": "an answer that does not fit ends with length, and never loses its beginning",
}

NANOSECONDS = 1e-9
_MAX_LAST_LINE = 512
Nanoseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""At most 146 years, so that the conversion cannot overflow."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: dict[str, Any] | str | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct, gc=False):
    """One line of a stream, or the plain response. Times are in nanoseconds."""

    model: str | None = None
    created_at: str | None = None
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    load_duration: Nanoseconds | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: Nanoseconds | None = None
    eval_count: int | None = None
    eval_duration: Nanoseconds | None = None
    logprobs: list[Logprob] | None = None
    error: Any = None


_line_decoder = msgspec.json.Decoder(_Line)


@attrs.frozen(kw_only=True)
class OllamaCodec:
    """The codec for Ollama's chat API, see :class:`ctxbackends._wire.base.Codec`.

    Attributes:
        table: The options that the server supports.
        settings: The settings of the backend.
    """

    table: OptionTable
    settings: WireSettings = attrs.field(factory=WireSettings)

    def auth_headers(self, api_key: str) -> Mapping[str, str]:
        return bearer_header(api_key)

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest:
        scalars = check_supported(request, self.table)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": _encode_messages(request.messages),
            "stream": stream,
            "truncate": False,
            "shift": False,
            **encode_keep_alive(self.settings.keep_alive),
        }
        if self.settings.context_length is not None:
            set_path(body, "options.num_ctx", self.settings.context_length)
        if request.stop_sequences:
            scalars = [*scalars, ("stop_sequences", request.stop_sequences)]
        for name, value in scalars:
            is_off = name == "reasoning_effort" and value == "none"
            set_path(body, lookup(self.table, name).path, False if is_off else value)
        if isinstance(request.response_format, JSONSchemaFormat):
            body["format"] = request.response_format.schema
        elif isinstance(request.response_format, JSONObjectFormat):
            body["format"] = "json"
        if request.tools and request.tool_choice != "none":
            body["tools"] = [encode_tool(tool) for tool in request.tools]
        body = finish_body(body, request.extra_body, _RESERVED, self.table, self.settings)
        return HTTPRequest("POST", "/api/chat", encode_json(body))

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion:
        line = decode_response(_line_decoder, response, api="Ollama")
        if line.message is None:
            raise MalformedResponseError("unexpected response from Ollama: no message", body=response.body)
        reason = _FINISH_REASONS.get(line.done_reason or "")
        if not line.done or reason is None:
            raise StreamInterruptedError(
                f"incomplete response: done_reason is {line.done_reason!r}", body=response.body
            )
        events: list[StreamEvent] = []
        calls = _add_events(line, events)
        events.append(_build_finish(line, reason, calls))
        return build_completion(
            events,
            requested_model=requested_model,
            served_model=line.model or None,
            response_id=None,
            raw=response.body,
        )

    def stream_decoder(self) -> StreamDecoder:
        return OllamaStreamDecoder()


def encode_keep_alive(keep_alive: float | None) -> dict[str, Any]:
    """Return the member that keeps the model loaded for ``keep_alive`` seconds; Ollama's value for forever is -1."""
    if keep_alive is None:
        return {}
    if math.isinf(keep_alive):
        return {"keep_alive": -1}
    return {"keep_alive": f"{keep_alive:f}".rstrip("0").rstrip(".") + "s"}  # Go reads no exponents


def _encode_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    encoded: list[dict[str, Any]] = []
    for message in messages:
        names.update((call.id, call.name) for call in message.tool_calls)  # later turns reuse IDs
        encoded += _encode_message(message, names)
    return encoded


def _encode_message(message: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_encode_tool_result(part, names) for part in message.content if isinstance(part, ToolResult)]
    wire: dict[str, Any] = {"role": message.role, "content": message.text}
    images = [part.base64 for part in message.parts if isinstance(part, ImagePart)]
    reasoning_text = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart))
    if images:
        wire["images"] = images
    if reasoning_text:
        wire["thinking"] = reasoning_text
    if message.tool_calls:
        wire["tool_calls"] = [_encode_tool_call(call) for call in message.tool_calls]
    return [wire]


def _encode_tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": decode_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _encode_tool_result(result: ToolResult, names: Mapping[str, str]) -> dict[str, Any]:
    name = result.name or names.get(result.tool_call_id)
    wire = {"role": "tool", "content": format_tool_result(result), "tool_call_id": result.tool_call_id}
    return {**wire, **({"tool_name": name} if name else {})}


def _add_events(line: _Line, events: list[StreamEvent], calls: int = 0) -> int:
    """Add the events of a line that follows ``calls`` tool calls, and return their new number.

    Ollama sends each tool call whole, with a new ID or none.
    """
    message = line.message
    if message is None:
        return calls
    if message.thinking:
        events.append(ReasoningDelta(message.thinking))
    if line.logprobs and not message.thinking:  # those of the reasoning do not count
        events.append(TextDelta(message.content or "", tuple(parse_logprob(one) for one in line.logprobs)))
    elif message.content:
        events.append(TextDelta(message.content))
    for index, call in enumerate(message.tool_calls or (), calls):
        arguments = encode_arguments(call.function.arguments) or "{}"
        # Versions before 0.13 send no ID; the time makes it unique across responses.
        timestamp = "".join(character for character in line.created_at or "" if character.isdigit())
        call_id = call.id or "_".join(("call", *([timestamp] if timestamp else []), str(index)))
        events.append(ToolCallDelta(index, call_id, call.function.name or "", arguments))
    return calls + len(message.tool_calls or ())


def _build_finish(line: _Line, reason: FinishReason, calls: int) -> Finish:
    # Ollama has no own reason for tool calls.
    return Finish("tool_calls" if calls and reason == "stop" else reason, _parse_usage(line))


def _parse_usage(line: _Line) -> Usage | None:
    if line.prompt_eval_count is None and line.eval_count is None:
        return None
    return Usage(
        line.prompt_eval_count or 0,
        line.eval_count or 0,
        load_seconds=_to_seconds(line.load_duration),
        prompt_seconds=_to_seconds(line.prompt_eval_duration),
        generation_seconds=_to_seconds(line.eval_duration),
    )


def _to_seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds * NANOSECONDS


class OllamaStreamDecoder(StreamDecoder):
    """The stream decoder for Ollama's chat API; the module describes its contract."""

    __slots__ = ("_calls", "_last_line", "_lines")

    def __init__(self) -> None:
        super().__init__()
        self._lines = LineSplitter()
        self._calls = 0
        self._last_line = b""

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.decode_each(self._decode_lines, self._lines.feed, data)

    def close(self) -> list[StreamEvent]:
        events = self.decode_each(self._decode_lines, lambda: [self._lines.close()])
        if not self.is_ended():
            self.failure = StreamInterruptedError(
                "the stream ended without a line that says done", body=self._last_line
            )
        return events

    def _decode_lines(self, lines: Sequence[bytes], events: list[StreamEvent]) -> None:
        decode, append = _line_decoder.decode, events.append
        last = self._last_line
        for data in lines:
            try:
                line = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if not data.strip():
                    continue
                # A proxy may send its own error instead of a line.
                if parse_error_body(data).message is not None:
                    self.failure = error_from_event(data)
                else:
                    self.failure = StreamInterruptedError(f"a line of the stream is malformed: {error}", body=data)
                return
            last = data
            # Fast path for text, the common case: without a call.
            message = line.message
            if (
                message is not None
                and message.content
                and not message.thinking
                and not message.tool_calls
                and not line.done
                and not line.logprobs
                and line.error is None
                and self.served_model is not None
            ):
                append(TextDelta(message.content))
                continue
            self._handle_line(data, line, events)
            if self.is_ended():
                return
        self._last_line = last[:_MAX_LAST_LINE]

    def _handle_line(self, data: bytes, line: _Line, events: list[StreamEvent]) -> None:
        if line.error is not None:
            self.failure = error_from_event(data)
            return
        self.served_model = self.served_model or line.model or None
        self._calls = _add_events(line, events, self._calls)
        if line.done:
            reason = _FINISH_REASONS.get(line.done_reason or "")
            if reason is None:
                self.failure = StreamInterruptedError(
                    f"the server ended the response with done_reason {line.done_reason!r}", body=data
                )
                return
            self.finished = True
            events.append(_build_finish(line, reason, self._calls))
