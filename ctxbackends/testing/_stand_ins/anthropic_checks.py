"""The checks of a request's body, with Anthropic's error messages.

The messages are those of errors that users have quoted. https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# https://platform.claude.com/docs/en/api/versioning
OLD_VERSIONS = ("2023-01-01", "2023-06-01")
VERSION = "2026-10-21"
LEAST_BUDGET = 1024
_SECRET = b"the stand-in's"
_TOOL_NAME = "^[a-zA-Z0-9_-]{1,128}$"

# https://platform.claude.com/docs/en/api/messages/create, as anthropic 2.12 types it
COUNT_MEMBERS = frozenset(
    [
        "cache_control",
        "messages",
        "model",
        "output_config",
        "speed",
        "system",
        "thinking",
        "tool_choice",
        "tools",
        "user_profile_id",
    ]
)
MESSAGE_MEMBERS = COUNT_MEMBERS | {
    "container",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
}
# Removed by 2026-10-21: https://platform.claude.com/docs/en/api/migration-2026-10-21
_SAMPLING = frozenset(["temperature", "top_k", "top_p"])

# https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
_UNSUPPORTED = {
    "integer": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "number": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "string": ("maxLength", "minLength"),
    "array": ("maxItems", "uniqueItems"),
}


class AnthropicProblem(Exception):
    """An error response."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = dict(headers or {})


def invalid(message: str) -> AnthropicProblem:
    return AnthropicProblem(400, "invalid_request_error", message)


# --- signatures of the stand-in -------------------------------------------------------------------


def signature_of(thinking: str) -> str:
    """Return the signature of a thinking block with this text."""
    return base64.b64encode(hmac.digest(_SECRET, thinking.encode(), hashlib.sha256)).decode()


def redacted(thinking: str) -> str:
    """Return the data of a redacted thinking block, which can be verified."""
    return base64.b64encode(hmac.digest(_SECRET, thinking.encode(), hashlib.sha256) + thinking.encode()).decode()


def _is_redacted(data: Any) -> bool:
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return False
    return hmac.compare_digest(raw[:32], hmac.digest(_SECRET, raw[32:], hashlib.sha256))


# --- the whole body -------------------------------------------------------------------------------


def check_version(version: str | None) -> None:
    if version is None:
        raise invalid("anthropic-version: header is required")
    if version not in (*OLD_VERSIONS, VERSION):
        raise invalid(f'anthropic-version: "{version}" is not a valid version')


def check_body(body: Any, version: str, *, counting: bool) -> None:
    """Check the body of a request for a message or a token count."""
    known = COUNT_MEMBERS if counting else MESSAGE_MEMBERS
    if version in OLD_VERSIONS and not counting:
        known |= _SAMPLING
    if not isinstance(body, dict):
        raise invalid("The request body is not valid JSON")
    for name in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if body.get(name) is None:
            raise invalid(f"{name}: Field required")
    for name in body:
        if name not in known:
            raise invalid(f"{name}: Extra inputs are not permitted")
    if not isinstance(body["messages"], list) or not body["messages"]:
        raise invalid("messages: at least one message is required")
    _check_numbers(body)
    _check_tools(body)
    _check_thinking(body)
    _check_output(body.get("output_config") or {})
    for index, block in enumerate(body["system"] if isinstance(body.get("system"), list) else ()):
        _check_text(f"system.{index}", block)
    for index, message in enumerate(body["messages"]):
        _check_message(f"messages.{index}", message)
        if version == VERSION:
            _check_parts_of_new_version(f"messages.{index}", message)
    _check_order(body["messages"])


def _check_numbers(body: Mapping[str, Any]) -> None:
    for name, least, most in (("max_tokens", 0, None), ("temperature", 0, 1), ("top_p", 0, 1), ("top_k", 0, None)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(f"{name}: Input should be a valid number")
        if value < least:
            raise invalid(f"{name}: Input should be greater than or equal to {least}")
        if most is not None and value > most:
            raise invalid(f"{name}: Input should be less than or equal to {most}")
    if body.get("temperature") is not None and body.get("top_p") is not None:
        raise invalid("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    for index, stop in enumerate(body.get("stop_sequences") or ()):
        if not stop.strip():
            raise invalid(f"stop_sequences.{index}: each stop sequence must contain non-whitespace")


def _check_tools(body: Mapping[str, Any]) -> None:
    names = []
    for index, tool in enumerate(body.get("tools") or ()):
        if tool.get("type", "custom") != "custom":
            continue  # a tool of the vendor's own
        at = f"tools.{index}.custom"
        for name in ("name", "input_schema"):
            if name not in tool:
                raise invalid(f"{at}.{name}: Field required")
        if not re.match(_TOOL_NAME, tool["name"]):
            raise invalid(f"{at}.name: String should match pattern '{_TOOL_NAME}'")
        if tool["input_schema"].get("type") != "object":
            raise invalid(
                f"{at}.input_schema.type: "
                + ("Input should be 'object'" if "type" in tool["input_schema"] else "Field required")
            )
        if tool.get("strict"):
            check_schema(f"{at}.input_schema", tool["input_schema"])
        if tool["name"] in names:
            raise invalid("tools: Tool names must be unique.")
        names.append(tool["name"])
    choice = body.get("tool_choice")
    if choice is None:
        return
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise invalid(
            f"tool_choice: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'auto', "
            "'any', 'tool', 'none'"
        )
    if not body.get("tools"):
        raise invalid("tool_choice: tool_choice may only be specified while providing tools")
    if kind == "tool" and choice.get("name") not in names:
        raise invalid(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_thinking(body: Mapping[str, Any]) -> None:
    thinking = body.get("thinking") or {"type": "disabled"}
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive", "disabled", "between_tools"):
        raise invalid(
            f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'adaptive', "
            "'between_tools', 'disabled', 'enabled'"
        )
    if kind == "enabled":
        budget: Any = thinking.get("budget_tokens")
        if budget is None:
            raise invalid("thinking.enabled.budget_tokens: Field required")
        if budget < LEAST_BUDGET:
            raise invalid(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {LEAST_BUDGET}")
        if body.get("max_tokens") is not None and body["max_tokens"] <= budget:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    elif "budget_tokens" in thinking:
        raise invalid(f"thinking.{kind}.budget_tokens: Extra inputs are not permitted")
    if thinks(body):
        if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
        if body.get("temperature") not in (None, 1):
            raise invalid("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")


def thinks(body: Mapping[str, Any]) -> bool:
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def _check_output(config: Mapping[str, Any]) -> None:
    for name in config:
        if name not in ("effort", "format"):
            raise invalid(f"output_config.{name}: Extra inputs are not permitted")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    wanted = config.get("format")
    if wanted is not None:
        if wanted.get("type") != "json_schema":
            raise invalid("output_config.format.type: Input should be 'json_schema'")
        if "schema" not in wanted:
            raise invalid("output_config.format.schema: Field required")
        check_schema("output_config.format.schema", wanted["schema"])


def check_schema(at: str, schema: Any) -> None:
    """Check that structured outputs support the schema."""
    for node in _schemas(schema):
        kind = node.get("type")
        if kind == "object" and node.get("additionalProperties") is not False:
            raise invalid(f"{at}: For 'object' type, 'additionalProperties' must be explicitly set to false")
        found = [name for name in _UNSUPPORTED.get(kind, ()) if name in node] if isinstance(kind, str) else []
        if len(found) == 1:
            raise invalid(f"{at}: For '{kind}' type, property '{found[0]}' is not supported")
        if found:
            raise invalid(f"{at}: For '{kind}' type, properties {', '.join(found)} are not supported")
        if node.get("minItems", 0) not in (0, 1):
            raise invalid(f"{at}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")


def _schemas(node: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(node, dict):
        return
    yield node
    for holder in ("properties", "$defs", "definitions"):
        for inner in node.get(holder, {}).values():
            yield from _schemas(inner)
    for several in ("anyOf", "oneOf", "allOf"):
        for inner in node.get(several, ()):
            yield from _schemas(inner)
    yield from _schemas(node.get("items"))


# --- the messages ---------------------------------------------------------------------------------


def _check_message(at: str, message: Mapping[str, Any]) -> None:
    if message.get("role") not in ("user", "assistant", "system"):
        raise invalid(f"{at}.role: Input should be 'user', 'assistant' or 'system'")
    content = message.get("content")
    if content is None:
        raise invalid(f"{at}.content: Field required")
    if not content:
        raise invalid(f"{at}: all messages must have non-empty content except for the optional final assistant message")
    if isinstance(content, list):
        for index, block in enumerate(content):
            _check_block(f"{at}.content.{index}", block)


def _check_parts_of_new_version(at: str, message: Mapping[str, Any]) -> None:
    for index, block in enumerate(message["content"] if isinstance(message["content"], list) else ()):
        if message["role"] == "assistant" and block["type"] == "document":
            raise invalid(f"{at}.content.{index}: `document` blocks are not permitted in `assistant` messages")
        texts = [block, *(block["content"] if block["type"] == "search_result" else ())]
        if message["role"] == "user" and any(part["type"] == "text" and part.get("citations") for part in texts):
            raise invalid(f"{at}.content.{index}.text.citations: `citations` are not permitted in `user` messages")


def _check_block(at: str, block: Mapping[str, Any]) -> None:
    kind = str(block.get("type"))
    if kind not in _BLOCKS:
        raise invalid(
            f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags: "
            + ", ".join(f"'{name}'" for name in _BLOCKS)
        )
    members, check = _BLOCKS[kind]
    for name in members:
        if name not in block:
            raise invalid(f"{at}.{kind}.{name}: Field required")
    check(at, block)


def _check_text(at: str, block: Mapping[str, Any]) -> None:
    if not block.get("text"):
        raise invalid(f"{at}: text content blocks must be non-empty")


def _check_image(at: str, block: Mapping[str, Any]) -> None:
    source = block["source"]
    kind = source.get("type")
    at = f"{at}.image.source"
    if kind not in ("base64", "url", "file"):
        raise invalid(
            f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'base64', 'file', "
            "'url'"
        )
    for name in {"base64": ("data", "media_type"), "url": ("url",), "file": ("file_id",)}[kind]:
        if name not in source:
            raise invalid(f"{at}.{kind}.{name}: Field required")
    if kind == "base64":
        if source["media_type"] not in ("image/jpeg", "image/png", "image/gif", "image/webp"):
            raise invalid(
                f"{at}.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
            )
        try:
            base64.b64decode(source["data"], validate=True)
        except binascii.Error:
            raise invalid(f"{at}.base64: invalid base64 data") from None


def _check_thinking_block(at: str, block: Mapping[str, Any]) -> None:
    if not hmac.compare_digest(str(block["signature"]), signature_of(block["thinking"])):
        raise invalid(f"{at}: Invalid `signature` in `thinking` block")


def _check_redacted_block(at: str, block: Mapping[str, Any]) -> None:
    if not _is_redacted(block["data"]):
        raise invalid(f"{at}: Invalid `data` in `redacted_thinking` block")


def _check_result(at: str, block: Mapping[str, Any]) -> None:
    content = block.get("content")
    for index, inner in enumerate(content if isinstance(content, list) else ()):
        _check_block(f"{at}.tool_result.content.{index}", inner)


def _check_nothing(at: str, block: Mapping[str, Any]) -> None:
    pass


_BLOCKS: Mapping[str, tuple[Sequence[str], Callable[[str, Mapping[str, Any]], None]]] = {
    "document": (["source"], _check_nothing),
    "image": (["source"], _check_image),
    "redacted_thinking": (["data"], _check_redacted_block),
    "search_result": (["content", "source", "title"], _check_nothing),
    "text": (["text"], _check_text),
    "thinking": (["thinking", "signature"], _check_thinking_block),
    "tool_result": (["tool_use_id"], _check_result),
    "tool_use": (["id", "name", "input"], _check_nothing),
}


def _check_order(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check that each tool use has its result in the next message, and each result its use in the one before."""
    used: list[str] = []
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for position, block in enumerate(blocks):
            if block["type"] == "tool_result" and block["tool_use_id"] not in used:
                raise invalid(
                    f"messages.{index}.content.{position}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` block in "
                    "the previous message."
                )
        _check_answered(index - 1, [call for call in used if call not in given])
        used = [block["id"] for block in blocks if block["type"] == "tool_use"]
    _check_answered(len(messages) - 1, used)


def _check_answered(index: int, unanswered: Sequence[str]) -> None:
    if unanswered:
        raise invalid(
            f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(unanswered)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message."
        )
