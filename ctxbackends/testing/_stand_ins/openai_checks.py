"""The checks of a request's body, with OpenAI's error messages.

The messages are those of errors that users have quoted; the codes are documented.
https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# https://platform.openai.com/docs/api-reference/chat/create, as openai 3.54 types it
CHAT_MEMBERS = frozenset(
    [
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
EMBEDDING_MEMBERS = frozenset(["dimensions", "encoding_format", "input", "model", "user"])
COUNT_MEMBERS = frozenset(
    [
        "conversation",
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "personality",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    ]
)
MOST_INPUTS = 2048
MOST_STOPS = 4
MOST_TOP_LOGPROBS = 20


class OpenAIProblem(Exception):
    """An error response with this body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = dict(headers or {})


def is_reasoning(model: str) -> bool:
    """Return whether the model is a reasoning model, which supports other parameters."""
    return model.startswith(("o", "gpt-5"))


def check_members(body: Any, known: frozenset[str] | None) -> None:
    """Check that the body is an object with no unknown members. With ``known`` None, all members are allowed."""
    if not isinstance(body, dict):
        raise OpenAIProblem(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    for name in body:
        if known is not None and name not in known:
            raise OpenAIProblem(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def missing(name: str) -> OpenAIProblem:
    return OpenAIProblem(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def no_such_model(model: str) -> OpenAIProblem:
    return OpenAIProblem(
        404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found"
    )


def too_long(model: str, *, length: int, most: int) -> OpenAIProblem:
    # gpt-5 has its own words: https://github.com/cline/cline/issues/5474
    message = (
        f"Input tokens exceed the configured limit of {most} tokens. Your messages resulted in {length} tokens. "
        if model.startswith("gpt-5")
        else f"This model's maximum context length is {most} tokens. However, your messages resulted in {length} "
        "tokens. "
    )
    return OpenAIProblem(
        400,
        message + "Please reduce the length of the messages.",
        param="messages",
        code="context_length_exceeded",
    )


def check_chat(body: Mapping[str, Any], *, reasoning: bool) -> None:
    """Check the body of a chat request."""
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list) or not messages:
        raise OpenAIProblem(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    if reasoning and body.get("max_tokens") is not None:
        raise OpenAIProblem(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if body.get("stream_options") is not None and not body.get("stream"):
        raise OpenAIProblem(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    _check_numbers(body)
    _check_tools(body)
    _check_format(body)
    _check_order(messages)


def check_imitated_chat(body: Mapping[str, Any]) -> None:
    """Check the few members that other vendors check (https://platform.claude.com/docs/en/api/openai-sdk)."""
    if not body.get("messages"):
        raise OpenAIProblem(400, "messages: at least one message is required")
    if (body.get("n") or 1) != 1:
        raise OpenAIProblem(400, "n: must be 1")


def _check_numbers(body: Mapping[str, Any]) -> None:
    for name, least, most in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
        ("top_logprobs", 0, MOST_TOP_LOGPROBS),
        ("max_tokens", 1, None),
        ("max_completion_tokens", 1, None),
        ("n", 1, 128),
    ):
        value = body.get(name)
        if value is None:
            continue
        if value < least:
            raise OpenAIProblem(
                400,
                f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
                param=name,
                code="integer_below_min_value" if isinstance(value, int) else "decimal_below_min_value",
            )
        if most is not None and value > most:
            raise OpenAIProblem(
                400,
                f"Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {value} instead.",
                param=name,
                code="integer_above_max_value" if isinstance(value, int) else "decimal_above_max_value",
            )
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise OpenAIProblem(
            400, "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs"
        )
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > MOST_STOPS:
        raise OpenAIProblem(
            400,
            f"Invalid 'stop': array too long. Expected an array with maximum length {MOST_STOPS}, but got an array "
            f"with length {len(stop)} instead.",
            param="stop",
            code="array_above_max_length",
        )


def _check_tools(body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not tools:
            raise OpenAIProblem(
                400, f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", param=name
            )
    names = []
    for index, tool in enumerate(tools or ()):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict) or not function.get("name"):
            raise missing(f"tools[{index}].function")
        names.append(function["name"])
        if function.get("strict"):
            fault = strict_fault(function.get("parameters", {}))
            if fault is not None:
                raise OpenAIProblem(
                    400,
                    f"Invalid schema for function '{function['name']}': {fault}",
                    param=f"tools[{index}].function.parameters",
                    code="invalid_function_parameters",
                )
    choice = body.get("tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise OpenAIProblem(
            400,
            f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'.",
            param="tool_choice",
            code="invalid_value",
        )
    if isinstance(choice, dict) and choice.get("type") == "function" and choice["function"]["name"] not in names:
        raise OpenAIProblem(
            400,
            f"Invalid value for 'tool_choice': 'function.name' was '{choice['function']['name']}', which is not one "
            "of the specified 'tools'.",
            param="tool_choice",
        )


def _check_format(body: Mapping[str, Any]) -> None:
    wanted = body.get("response_format") or {"type": "text"}
    kind = wanted.get("type")
    if kind == "json_object":
        if not any("json" in text.lower() for message in body["messages"] for text in texts(message.get("content"))):
            raise OpenAIProblem(
                400,
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )
    elif kind == "json_schema":
        named = wanted.get("json_schema")
        if not isinstance(named, dict) or not named.get("name"):
            raise missing(
                "response_format.json_schema.name" if isinstance(named, dict) else "response_format.json_schema"
            )
        if named.get("strict"):
            fault = strict_fault(named.get("schema", {}))
            if fault is not None:
                raise OpenAIProblem(
                    400,
                    f"Invalid schema for response_format '{named['name']}': {fault}",
                    param="response_format",
                    code="invalid_json_schema",
                )
    elif kind != "text":
        raise OpenAIProblem(
            400,
            f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
            param="response_format.type",
            code="invalid_value",
        )


def _check_order(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check that each call has its result right after it, and each result its call."""
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in ("developer", "system", "user", "assistant", "tool", "function"):
            raise OpenAIProblem(
                400,
                f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', "
                "and 'developer'.",
                param=f"messages[{index}].role",
                code="invalid_value",
            )
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise OpenAIProblem(
                    400,
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceeding message with 'tool_calls'.",  # as OpenAI spells it; codespell:ignore preceeding
                    param=f"messages.[{index}].role",
                )
            open_calls.remove(message["tool_call_id"])
            continue
        _check_answered(open_calls)
        open_calls = [call["id"] for call in message.get("tool_calls") or ()]
    _check_answered(open_calls)


def _check_answered(open_calls: Sequence[str]) -> None:
    if open_calls:
        raise OpenAIProblem(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
            param="messages",
        )


def strict_fault(schema: Mapping[str, Any]) -> str | None:
    """Return why strict mode does not allow ``schema``, None if it does.

    Each object must require all its members and allow no others:
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    for context, node in objects(schema, ()):
        shown = "(" + "".join(f"'{step}', " for step in context).rstrip(" ") + ")"
        if node.get("additionalProperties") is not False:
            return f"In context={shown}, 'additionalProperties' is required to be supplied and to be false."
        left_out = [name for name in node.get("properties", {}) if name not in node.get("required", ())]
        if left_out:
            return (
                f"In context={shown}, 'required' is required to be supplied and to be an array including every key "
                f"in properties. Missing '{left_out[0]}'."
            )
    return None


def objects(node: Any, context: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the object schemas within a schema, each with its path."""
    if not isinstance(node, dict):
        return
    if node.get("type") == "object" or "properties" in node:
        yield context, node
    for holder in ("properties", "$defs", "definitions"):
        for name, inner in node.get(holder, {}).items():
            yield from objects(inner, (*context, holder, name))
    for several in ("anyOf", "oneOf", "allOf"):
        for index, inner in enumerate(node.get(several, ())):
            yield from objects(inner, (*context, several, str(index)))
    yield from objects(node.get("items"), (*context, "items"))


def texts(content: Any) -> list[str]:
    """Return the text of a message's content, a string or parts."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    return [part[key] for part in content for key in ("text", "refusal") if isinstance(part.get(key), str)]
