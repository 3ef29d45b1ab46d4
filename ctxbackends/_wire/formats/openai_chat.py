"""OpenAI chat completions: encodes requests and decodes plain responses.

The option table describes what a server supports. Format: https://platform.openai.com/docs/api-reference/chat. The
stream decoder is :mod:`ctxbackends._wire.formats.openai_stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent
from ctxbackends._chat.requests import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    JSONObjectFormat,
    JSONSchemaFormat,
    NamedTool,
    RegexFormat,
    ResponseFormat,
)
from ctxbackends._chat.responses import Completion
from ctxbackends._wire.accumulator import build_completion, complete_stream
from ctxbackends._wire.base import HTTPRequest, HTTPResponse, WireSettings, bearer_header, encode_json
from ctxbackends._wire.body_settings import add_instruction, describe_schema, finish_body
from ctxbackends._wire.citations import parse_sources
from ctxbackends._wire.errors import decode_response, error_from_choice, find_request_id, raise_for_error_body
from ctxbackends._wire.finish_reasons import parse_finish_reason
from ctxbackends._wire.formats.openai_messages import encode_messages, encode_tool
from ctxbackends._wire.formats.openai_parts import (
    REPAIRS,
    Opaque,
    WireLogprobs,
    WireMessage,
    add_message_events,
    parse_usage,
)
from ctxbackends._wire.formats.openai_stream import MISSING_REASON_HINT, OpenAIStreamDecoder
from ctxbackends._wire.lenient import Lenient, LenientDecoder
from ctxbackends._wire.options import (
    RESERVED,
    OptionTable,
    Transform,
    check_supported,
    lookup,
    prepare_strict_schema,
    set_path,
)
from ctxbackends._wire.sse import is_event_stream, without_done
from ctxbackends._wire.tool_calls import ToolCallAssembler
from ctxbackends.errors import EmptyChoicesError, StreamInterruptedError

# Members that extra_body may not set: this codec writes them, or the decoder ignores their effect.
_RESERVED = {
    **RESERVED,
    "stream_options": "usage is always asked for",
    "n": "one choice is read; ask several times",
}


class _Choice(msgspec.Struct):
    index: int | None = 0
    message: WireMessage | None = None
    finish_reason: str | None = None
    native_finish_reason: Lenient[str] = None
    logprobs: Lenient[WireLogprobs] = None
    stop_reason: Any = None
    error: Any = None


class _Completion(msgspec.Struct):
    id: Lenient[str] = None
    model: Lenient[str] = None
    choices: list[_Choice] | None = None
    usage: Lenient[dict[str, Any]] = None
    error: Any = None
    created: Any = None
    timings: Lenient[dict[str, Any]] = None
    citations: Any = None
    search_results: Any = None


_completion_decoder = LenientDecoder(_Completion, REPAIRS)


@attrs.frozen(kw_only=True)
class OpenAIChatCodec:
    """The chat completions codec, see :class:`ctxbackends._wire.base.Codec`.

    Attributes:
        table: The options that the server supports.
        members: Added to every body.
        stream_members: Added to the body of every streamed request.
        settings: The settings of the backend.
        auth: Builds the headers that carry an API key.
    """

    table: OptionTable
    members: Mapping[str, Any] = attrs.field(factory=dict)
    stream_members: Mapping[str, Any] = attrs.field(factory=dict)
    settings: WireSettings = attrs.field(factory=WireSettings)
    auth: Callable[[str], Mapping[str, str]] = bearer_header

    def auth_headers(self, api_key: str) -> Mapping[str, str]:
        return self.auth(api_key)

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest:
        scalars = check_supported(request, self.table)
        body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.messages, self.table)}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}, **self.stream_members}
        body |= self.members
        for name, value in scalars:
            self._set_option(body, name, value)
        if request.stop_sequences:
            self._set_option(body, "stop_sequences", request.stop_sequences)
        if request.response_format is not None:
            self._set_response_format(body, request.response_format)
        if request.tools:
            self._set_tools(body, request)
        body = finish_body(body, request.extra_body, _RESERVED, self.table, self.settings)
        return HTTPRequest("POST", "/v1/chat/completions", encode_json(body))

    def _set_option(self, body: dict[str, Any], option: str, value: Any) -> None:
        support = lookup(self.table, option)
        if support.transform == Transform.TEMPLATE_SWITCH and value == "none":
            set_path(body, "chat_template_kwargs.enable_thinking", value=False)
        set_path(body, support.path, value)

    def _set_response_format(self, body: dict[str, Any], response_format: ResponseFormat) -> None:
        if isinstance(response_format, JSONObjectFormat):
            if lookup(self.table, "response_format: json_object").transform != Transform.AS_SCHEMA:
                body["response_format"] = {"type": "json_object"}
                return
            response_format = JSONSchemaFormat("object", {"type": "object"})
        if isinstance(response_format, JSONSchemaFormat):
            # The nested form: llama-server reads the schema only here, and treats the flat form as "any object".
            transform = lookup(self.table, "response_format: json_schema").transform
            if transform == Transform.IN_PROMPT:
                body["response_format"] = {"type": "json_object"}
                add_instruction(body["messages"], describe_schema(response_format))
                return
            schema, strict = prepare_strict_schema(response_format, transform)
            named = {"name": response_format.name, "schema": schema, "strict": strict}
            if response_format.description is not None:
                named["description"] = response_format.description
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif isinstance(response_format, RegexFormat):
            self._set_option(body, "response_format: regex", response_format.pattern)
        elif isinstance(response_format, GrammarFormat):
            self._set_option(body, "response_format: grammar", response_format.grammar)
        elif isinstance(response_format, ChoiceFormat):
            as_gbnf = lookup(self.table, "response_format: choice").transform == Transform.AS_GBNF
            self._set_option(
                body,
                "response_format: choice",
                _format_gbnf(response_format.choices) if as_gbnf else list(response_format.choices),
            )

    def _set_tools(self, body: dict[str, Any], request: ChatRequest) -> None:
        tools, choice = request.tools, request.tool_choice
        if isinstance(choice, NamedTool):
            if lookup(self.table, "tool_choice: named").transform == Transform.ONLY_TOOL:
                tools = tuple(tool for tool in tools if tool.name == choice.name)
                body["tool_choice"] = "required"
            else:
                body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        elif choice is not None:
            transform = lookup(self.table, f"tool_choice: {choice}").transform
            if transform == Transform.WITHOUT_TOOLS:
                tools = ()
            elif transform != Transform.SERVER_DEFAULT:
                body["tool_choice"] = choice
        if tools:
            transform = lookup(self.table, "tools").transform
            body["tools"] = [encode_tool(tool, transform) for tool in tools]

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion:
        plain = response
        if response.body[:1] != b"{" or response.body[-1:] != b"}":  # not the common response
            if is_event_stream(response):
                return complete_stream(self.stream_decoder(), response, requested_model=requested_model)
            plain = without_done(response)
        answer = decode_response(_completion_decoder, plain, api="the OpenAI API")
        choices = answer.choices or ()
        choice = choices[0] if choices and not choices[0].index else _find_first_choice(choices)
        if choice is None:
            raise_for_error_body(response)
            raise EmptyChoicesError("no choices in the response", body=response.body)
        if choice.error:
            raise error_from_choice(choice.error, response)
        message = choice.message or WireMessage()
        events: list[StreamEvent] = []
        add_message_events(message, choice.logprobs, events)
        has_calls = False
        if message.tool_calls:
            calls = ToolCallAssembler()
            calls.seed = f"{answer.id or ''} {answer.created or ''}".strip()
            events.extend(calls.add([call.to_piece() for call in message.tool_calls]))
            events.extend(calls.finish())
            has_calls = calls.has_calls
        word = choice.finish_reason
        reason = parse_finish_reason(word, called=has_calls, native=choice.native_finish_reason)
        if reason is None and not word and self.settings.allow_missing_finish_reason:
            reason = "tool_calls" if has_calls else "stop"
        if reason is None:
            hint = "" if word else f"; {MISSING_REASON_HINT}"
            raise StreamInterruptedError(f"incomplete response: finish_reason is {word!r}{hint}", body=response.body)
        if answer.citations or answer.search_results:
            events.extend(parse_sources(answer.citations, answer.search_results))
        if message.reasoning_details or message.reasoning_encrypted or message.extra_content or message.executed_tools:
            opaque = Opaque()
            opaque.add(message)
            events.extend(opaque.build())
        stop_sequence = choice.stop_reason if isinstance(choice.stop_reason, str) else None
        events.append(Finish(reason, parse_usage(answer.usage, answer.timings), stop_sequence))
        return build_completion(
            events,
            requested_model=requested_model,
            served_model=answer.model or None,
            response_id=answer.id,
            request_id=find_request_id(response.headers),
            raw_finish_reason=word,
            reasoning_member=message.reasoning_member if isinstance(events[0], ReasoningDelta) else None,
            raw=response.body,
        )

    def stream_decoder(self) -> OpenAIStreamDecoder:
        return OpenAIStreamDecoder(allow_missing_finish_reason=self.settings.allow_missing_finish_reason)


def _find_first_choice(choices: Sequence[_Choice]) -> _Choice | None:
    return next((choice for choice in choices if not choice.index), None)


def _format_gbnf(choices: Sequence[str]) -> str:
    # https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
    quoted = (
        '"' + "".join(_GBNF_ESCAPES.get(character, character) for character in choice) + '"' for choice in choices
    )
    return f"root ::= {' | '.join(quoted)}"


_GBNF_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
