"""Ollama's own chat API: encodes requests, and decodes plain responses and streams of NDJSON.

Format: https://docs.ollama.com/api/chat. Ollama's OpenAI-compatible API can neither set the context length nor disable
silent truncation of the prompt; here ``truncate`` and ``shift`` are always off. Contract of the decoder: a response is
whole only with a line that has ``done`` and a known ``done_reason``, and no error before it. Another engine behind the
same API leaves out ``done`` and sends ``done_reason`` only with the last line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent, TextDelta
from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, JSONObjectFormat, JSONSchemaFormat
from ctxbackends._chat.responses import Completion, FinishReason, Usage
from ctxbackends._wire.accumulator import build_completion, complete_stream
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
from ctxbackends._wire.finish_reasons import parse_finish_reason
from ctxbackends._wire.formats.openai_messages import describe_result_image, encode_tool, format_tool_result
from ctxbackends._wire.formats.openai_parts import Logprob, parse_logprob
from ctxbackends._wire.lenient import DECODE_ERRORS, Lenient, LenientDecoder, SurrogateJoiner, parse_json
from ctxbackends._wire.options import RESERVED, OptionTable, check_supported, lookup, set_path
from ctxbackends._wire.sse import LineSplitter
from ctxbackends._wire.tool_calls import Piece, ToolCallAssembler
from ctxbackends._wire.usage import parse_count
from ctxbackends.errors import BackendError, MalformedResponseError, StreamInterruptedError

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
    id: Lenient[str] = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct, gc=False):
    """One line of a stream, or the plain response. Times are in nanoseconds."""

    model: Lenient[str] = None
    created_at: Lenient[str] = None
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    load_duration: Lenient[Nanoseconds] = None
    prompt_eval_count: Any = None
    prompt_eval_duration: Lenient[Nanoseconds] = None
    eval_count: Any = None
    eval_duration: Lenient[Nanoseconds] = None
    logprobs: Lenient[list[Logprob]] = None
    error: Any = None

    @property
    def is_last(self) -> bool:
        """Whether the line ends the response."""
        return self.done or (self.done is None and bool(self.done_reason))


_line_decoder = LenientDecoder(_Line)


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
            body["format"] = request.response_format.described_schema
        elif isinstance(request.response_format, JSONObjectFormat):
            body["format"] = "json"
        if request.tools and request.tool_choice != "none":
            body["tools"] = [encode_tool(tool) for tool in request.tools]
        body = finish_body(body, request.extra_body, _RESERVED, self.table, self.settings)
        return HTTPRequest("POST", "/api/chat", encode_json(body))

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion:
        try:
            line = decode_response(_line_decoder, response, api="Ollama")
        except MalformedResponseError:
            body = response.body.strip()
            if not body.startswith(b"{") or b"\n" not in body:
                raise
            # Several lines: a stream that came for a plain request.
            return complete_stream(self.stream_decoder(), response, requested_model=requested_model)
        if line.message is None:
            raise MalformedResponseError("unexpected response from Ollama: no message", body=response.body)
        calls = ToolCallAssembler()
        events: list[StreamEvent] = []
        _add_events(line, events, calls)
        events.extend(calls.finish())
        reason = self._parse_reason(line, calls) if line.is_last else None
        if reason is None:
            raise StreamInterruptedError(
                f"incomplete response: done_reason is {line.done_reason!r}", body=response.body
            )
        events.append(Finish(reason, _parse_usage(line)))
        return build_completion(
            events,
            requested_model=requested_model,
            served_model=line.model or None,
            response_id=None,
            raw_finish_reason=line.done_reason,
            raw=response.body,
        )

    def _parse_reason(self, line: _Line, calls: ToolCallAssembler) -> FinishReason | None:
        return _parse_reason(line, calls, allow_missing=self.settings.allow_missing_finish_reason)

    def stream_decoder(self) -> StreamDecoder:
        return OllamaStreamDecoder(allow_missing_finish_reason=self.settings.allow_missing_finish_reason)


def _parse_reason(line: _Line, calls: ToolCallAssembler, *, allow_missing: bool) -> FinishReason | None:
    """Return the finish reason of the last line. Ollama has no own word for tool calls."""
    word = "stop" if allow_missing and not line.done_reason else line.done_reason
    return parse_finish_reason(word, called=calls.has_calls)


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
    images: list[dict[str, Any]] = []  # follow all results of a turn
    for message in messages:
        if message.role != "tool":
            encoded += images
            images = []
        names.update((call.id, call.name) for call in message.tool_calls)  # later turns reuse IDs
        encoded += _encode_message(message, names)
        images += _encode_result_images(message)
    return encoded + images


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


def _encode_result_images(message: Message) -> list[dict[str, Any]]:
    """Return one user message for each result with images: a message of a tool contains only text."""
    return [
        {
            "role": "user",
            "content": describe_result_image(part),
            "images": [image.base64 for image in part.images],
        }
        for part in message.parts
        if isinstance(part, ToolResult) and part.images
    ]


def _encode_tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": decode_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _encode_tool_result(result: ToolResult, names: Mapping[str, str]) -> dict[str, Any]:
    name = result.name or names.get(result.tool_call_id)
    wire = {"role": "tool", "content": format_tool_result(result), "tool_call_id": result.tool_call_id}
    return {**wire, **({"tool_name": name} if name else {})}


def _add_events(line: _Line, events: list[StreamEvent], calls: ToolCallAssembler) -> None:
    """Add the events of a line. Ollama sends each tool call whole, with a new ID or none."""
    message = line.message
    if message is None:
        return
    if message.thinking:
        events.append(ReasoningDelta(message.thinking))
    if line.logprobs and not message.thinking:  # those of the reasoning do not count
        events.append(TextDelta(message.content or "", tuple(parse_logprob(one) for one in line.logprobs)))
    elif message.content:
        events.append(TextDelta(message.content))
    if message.tool_calls:
        # Versions before 0.13 send no ID; the time makes the generated one unique across responses.
        calls.seed = calls.seed or line.created_at or ""
        for call in message.tool_calls:
            arguments = encode_arguments(call.function.arguments) or "{}"
            events.extend(calls.begin(Piece(None, call.id or "", call.function.name or "", arguments)))


def _parse_usage(line: _Line) -> Usage | None:
    input_tokens, output_tokens = parse_count(line.prompt_eval_count), parse_count(line.eval_count)
    if input_tokens is None and output_tokens is None:
        return None
    return Usage(
        input_tokens or 0,
        output_tokens or 0,
        load_seconds=_to_seconds(line.load_duration),
        prompt_seconds=_to_seconds(line.prompt_eval_duration),
        generation_seconds=_to_seconds(line.eval_duration),
    )


def _to_seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds * NANOSECONDS


class OllamaStreamDecoder(StreamDecoder):
    """The stream decoder for Ollama's chat API; the module describes its contract."""

    __slots__ = ("_allow_missing_reason", "_calls", "_joiner", "_last_line", "_lines")

    def __init__(self, *, allow_missing_finish_reason: bool = False) -> None:
        super().__init__()
        self._allow_missing_reason = allow_missing_finish_reason
        self._lines = LineSplitter()
        self._joiner = SurrogateJoiner()
        self._calls = ToolCallAssembler()
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
        decode, append = _line_decoder.for_next(self._joiner), events.append
        last = self._last_line
        for data in lines:
            try:
                line = decode(data)
            except DECODE_ERRORS as error:
                if not data.strip():
                    continue
                repaired = self._repair(data, error)
                if repaired is None:
                    return
                line, decode = repaired, _line_decoder.for_next(self._joiner)
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

    def _repair(self, data: bytes, error: Exception) -> _Line | None:
        """Decode a line that the strict decoder rejects; return None if that fails, which sets ``failure``."""
        try:
            value = parse_json(data)
        except ValueError:
            value = None
        if isinstance(value, dict):
            try:
                return _line_decoder.convert(self._joiner.join(value))
            except DECODE_ERRORS as convert_error:
                error = convert_error
        # A proxy may send its own error instead of a line.
        if parse_error_body(data).message is not None:
            self.failure = error_from_event(data)
        else:
            self.failure = StreamInterruptedError(f"a line of the stream is malformed: {error}", body=data)
        return None

    def _handle_line(self, data: bytes, line: _Line, events: list[StreamEvent]) -> None:
        if line.error or (line.error is not None and line.message is None):
            self.failure = error_from_event(data)
            return
        self.served_model = self.served_model or line.model or None
        _add_events(line, events, self._calls)
        if line.is_last:
            self.raw_finish_reason = line.done_reason
            reason = _parse_reason(line, self._calls, allow_missing=self._allow_missing_reason)
            if reason is None:
                self.failure = StreamInterruptedError(
                    f"the server ended the response with done_reason {line.done_reason!r}", body=data
                )
                return
            events.extend(
                ReasoningDelta("\ufffd") if name == "thinking" else TextDelta("\ufffd")
                for name in self._joiner.drain()
                if name in ("content", "thinking")
            )
            try:
                events.extend(self._calls.finish())
            except BackendError as error:
                self.failure = error
                return
            self.finished = True
            events.append(Finish(reason, _parse_usage(line)))
