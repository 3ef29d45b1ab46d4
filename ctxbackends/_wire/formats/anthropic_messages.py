"""Anthropic's Messages API: encodes requests and decodes plain responses.

vLLM, llama-server, Ollama and LM Studio support it too. Format: https://platform.claude.com/docs/en/api/messages. The
stream decoder is :mod:`ctxbackends._wire.formats.anthropic_stream`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ctxbackends._chat.events import Finish
from ctxbackends._chat.media import FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.opaque_members import MESSAGES_WIRE
from ctxbackends._chat.requests import ChatRequest, JSONSchemaFormat, NamedTool, Tool
from ctxbackends._chat.responses import Completion
from ctxbackends._wire.accumulator import build_completion, complete_stream
from ctxbackends._wire.base import (
    HTTPRequest,
    HTTPResponse,
    WireSettings,
    bearer_header,
    decode_arguments,
    decode_opaque,
    encode_json,
)
from ctxbackends._wire.body_settings import finish_body
from ctxbackends._wire.errors import decode_response, error_from_success, find_request_id, raise_for_error_body
from ctxbackends._wire.finish_reasons import parse_finish_reason
from ctxbackends._wire.formats.anthropic_parts import answer_decoder, decode_blocks, incomplete_error, parse_usage
from ctxbackends._wire.formats.anthropic_stream import AnthropicStreamDecoder
from ctxbackends._wire.formats.openai_messages import describe_result_image, format_tool_result
from ctxbackends._wire.options import (
    RESERVED,
    OptionTable,
    Supported,
    Transform,
    check_supported,
    lookup,
    prepare_parameters,
    prepare_schema,
    set_path,
)
from ctxbackends._wire.sse import is_event_stream, without_done
from ctxbackends._wire.tool_calls import ToolCallAssembler
from ctxbackends.errors import MalformedResponseError, UnsupportedOptionError

VERSION_HEADERS = {"anthropic-version": "2023-06-01"}
"""The version of the API; the only one: https://platform.claude.com/docs/en/api/versioning"""

DEFAULT_MAX_TOKENS = 4096
"""Sent if the request has no ``max_tokens``, which this API requires."""

REASONING_TOKENS = 12_288
"""Added to it for a ``reasoning_effort``, since ``max_tokens`` counts the reasoning too."""

_RESERVED = {**RESERVED, "system": "pass a system message"}


def x_api_key(api_key: str) -> Mapping[str, str]:
    """Return the header for the API key as Anthropic documents it."""
    return {"x-api-key": api_key}


@attrs.frozen(kw_only=True)
class AnthropicCodec:
    """The Messages codec, see :class:`ctxbackends._wire.base.Codec`.

    Attributes:
        table: The options that the server supports.
        own_key: Send the key as ``x-api-key``; other servers than Anthropic need a bearer token.
        settings: The settings of the backend.
    """

    table: OptionTable
    own_key: bool = False
    settings: WireSettings = attrs.field(factory=WireSettings)

    def auth_headers(self, api_key: str) -> Mapping[str, str]:
        return x_api_key(api_key) if self.own_key else bearer_header(api_key)

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest:
        body = encode_body(request, self.table)
        body["max_tokens"] = request.max_tokens or DEFAULT_MAX_TOKENS + _reasoning_tokens(request)
        if stream:
            body["stream"] = True
        body = finish_body(body, request.extra_body, _RESERVED, self.table, self.settings)
        return HTTPRequest("POST", "/v1/messages", encode_json(body), VERSION_HEADERS)

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion:
        if is_event_stream(response):
            return complete_stream(self.stream_decoder(), response, requested_model=requested_model)
        plain = without_done(response)
        answer = decode_response(answer_decoder, plain, api="the Messages API")
        if answer.type == "error":
            raise error_from_success(response)
        if answer.content is None:
            raise_for_error_body(response)
            raise MalformedResponseError("no content in the response of the Messages API", body=response.body)
        calls = ToolCallAssembler()
        word = answer.stop_reason
        reason = parse_finish_reason(word)
        events = list(decode_blocks(answer, plain.body, calls))
        if reason is None and not word and self.settings.allow_missing_finish_reason:
            reason = "tool_calls" if calls.has_calls else "stop"
        if reason is None:
            raise incomplete_error(word, body=response.body)
        return build_completion(
            [*events, Finish(reason, parse_usage(answer.usage), answer.stop_sequence)],
            requested_model=requested_model,
            served_model=answer.model or None,
            response_id=answer.id,
            request_id=find_request_id(response.headers),
            raw_finish_reason=word,
            raw=response.body,
        )

    def stream_decoder(self) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder(allow_missing_finish_reason=self.settings.allow_missing_finish_reason)


def _reasoning_tokens(request: ChatRequest) -> int:
    """Return the tokens that the reasoning needs within ``max_tokens``. A budget must be smaller than it."""
    if request.reasoning_budget is not None:
        return request.reasoning_budget
    return 0 if request.reasoning_effort in (None, "none") else REASONING_TOKENS


# --- the body, also for the token counter -------------------------------------


def encode_body(request: ChatRequest, table: OptionTable) -> dict[str, Any]:
    """Encode everything but ``max_tokens``, ``stream`` and ``extra_body``.

    Raises:
        UnsupportedOptionError: The server does not support an option.
    """
    scalars = check_supported(request, table)
    system = [
        {"type": "text", "text": part.text}
        for message in request.messages
        if message.role == "system"
        for part in message.parts
        if isinstance(part, TextPart)
    ]
    turns = [message for message in request.messages if message.role != "system"]
    roles = [message.role == "system" for message in request.messages]
    if roles != sorted(roles, reverse=True):
        raise UnsupportedOptionError(
            "message: system", "the Messages API takes system messages only at the beginning; move it there"
        )
    if not turns:
        raise UnsupportedOptionError(
            "messages", "the Messages API needs at least one message that is not a system message"
        )
    body: dict[str, Any] = {"model": request.model, "messages": encode_messages(turns, table)}
    if system:
        body["system"] = system[0]["text"] if len(system) == 1 else system
    for name, value in scalars:
        if name not in ("max_tokens", "parallel_tool_calls"):
            _set_option(body, table, name, value)
    if request.stop_sequences:
        _set_option(body, table, "stop_sequences", request.stop_sequences)
    if isinstance(request.response_format, JSONSchemaFormat):
        transform = lookup(table, "response_format: json_schema").transform
        schema = prepare_schema(request.response_format, transform, described=True)
        format_ = {"type": "json_schema", "schema": schema}
        _set_option(body, table, "response_format: json_schema", format_)
    _set_tools(body, request, table)
    return body


def _set_option(body: dict[str, Any], table: OptionTable, option: str, value: Any) -> None:
    if option == "reasoning_effort":
        # https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking: effort alone turns no thinking on
        body["thinking"] = {"type": "disabled" if value == "none" else "adaptive"}
        if value == "none":
            return
        if value == "minimal":
            raise UnsupportedOptionError("reasoning_effort", 'the Messages API has no "minimal"; pass "low"')
    if option == "reasoning_budget":
        if body.get("thinking") == {"type": "disabled"}:
            raise UnsupportedOptionError("reasoning_budget", 'contradicts reasoning_effort="none"')
        body["thinking"] = {"type": "enabled"}
    set_path(body, lookup(table, option).path, value)


def _set_tools(body: dict[str, Any], request: ChatRequest, table: OptionTable) -> None:
    tools, tool_choice = request.tools, request.tool_choice
    if request.tool_choice == "none" and lookup(table, "tool_choice: none").transform == Transform.WITHOUT_TOOLS:
        tools = ()
    if not tools:
        return
    choice: dict[str, Any] | None = None
    if isinstance(tool_choice, NamedTool):
        choice = {"type": "tool", "name": tool_choice.name}
        if lookup(table, "tool_choice: named").transform == Transform.ONLY_TOOL:
            tools = tuple(tool for tool in tools if tool.name == tool_choice.name)
            choice = {"type": "any"}
    elif tool_choice is not None and lookup(table, f"tool_choice: {tool_choice}").transform != Transform.SERVER_DEFAULT:
        choice = {"type": {"required": "any"}.get(tool_choice, tool_choice)}
    is_supported = isinstance(table["parallel_tool_calls"], Supported)
    if is_supported and request.parallel_tool_calls is not None and request.tool_choice != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": not request.parallel_tool_calls}
    if choice is not None:
        body["tool_choice"] = choice
    transform = lookup(table, "tools").transform
    body["tools"] = [_encode_tool(tool, transform) for tool in tools]


def _encode_tool(tool: Tool, transform: Transform) -> dict[str, Any]:
    wire = {"name": tool.name, "description": tool.description, "input_schema": prepare_parameters(tool, transform)}
    return {**wire, **({"strict": True} if tool.strict else {})}


def encode_messages(messages: Sequence[Message], table: OptionTable) -> list[dict[str, Any]]:
    """Encode the turns of user and assistant; consecutive tool results are one user turn."""
    reasoning = table["message: reasoning"]
    signed = isinstance(reasoning, Supported) and reasoning.transform == Transform.WITH_SIGNATURE
    in_results = _has_result_images(table)
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        content: str | list[dict[str, Any]]
        if isinstance(message.content, str):
            content = message.content
        else:
            content = [block for part in message.content for block in _encode_part(part, signed, in_results)]
        previous = turns[-1]["content"] if turns and turns[-1]["role"] == role else None
        if message.role == "tool" and isinstance(previous, list) and previous[0]["type"] == "tool_result":
            results, others = _split_results([*previous, *content])
            previous[:] = [*results, *others]
        elif message.role == "tool":
            results, others = _split_results(content)
            turns.append({"role": role, "content": [*results, *others]})
        elif content:
            turns.append({"role": role, "content": content})
    return turns


def _has_result_images(table: OptionTable) -> bool:
    support = table["message: tool result image"]
    return isinstance(support, Supported) and support.transform != Transform.AFTER_RESULTS


def _split_results(content: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the results, which the API requires first, and the images after them."""
    results = [block for block in content if block["type"] == "tool_result"]
    return results, [block for block in content if block["type"] != "tool_result"]


def _encode_part(part: Part, signed: bool, images_in_results: bool) -> Iterator[dict[str, Any]]:
    if isinstance(part, OpaquePart):
        if block := decode_opaque(part, MESSAGES_WIRE):
            yield block
    elif isinstance(part, ToolResult):
        yield _encode_result(part, images_in_results)
        if not images_in_results:
            for image in part.images:
                yield {"type": "text", "text": describe_result_image(part)}
                yield _encode_image(image)
    else:
        yield _encode_block(part, signed)


def _encode_result(result: ToolResult, with_images: bool) -> dict[str, Any]:
    content: str | list[dict[str, Any]] = result.text
    if result.images and with_images and not isinstance(result.content, str):
        content = [
            _encode_image(part) if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
            for part in result.content
        ]
    elif result.images and not result.text:
        content = format_tool_result(msgspec.structs.replace(result, is_error=False))
    wire = {"type": "tool_result", "tool_use_id": result.tool_call_id, "content": content}
    return {**wire, **({"is_error": True} if result.is_error else {})}


def _encode_image(part: ImagePart) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.base64}}


def _encode_block(part: Part, signed: bool) -> dict[str, Any]:
    if isinstance(part, TextPart):
        citations = decode_opaque(part.opaque, MESSAGES_WIRE).get("citations")
        return {"type": "text", "text": part.text, **({"citations": citations} if citations else {})}
    if isinstance(part, ImagePart):
        return _encode_image(part)
    if isinstance(part, FilePart):
        source = {"type": "base64", "media_type": "application/pdf", "data": part.base64}
        return {"type": "document", "source": source, "title": part.name}
    if isinstance(part, ToolCall):
        members = decode_opaque(part.opaque, MESSAGES_WIRE)
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": decode_arguments(part), **members}
    assert isinstance(part, ReasoningPart), "the option table has no other part"
    return _encode_thinking(part, signed)


def _encode_thinking(part: ReasoningPart, signed: bool) -> dict[str, Any]:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature is None and signed:
        raise UnsupportedOptionError(
            "message: reasoning",
            "this reasoning has no signature, so it came from another server; Anthropic takes only its own",
        )
    return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
