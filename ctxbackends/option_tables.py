"""What each server does with each option, on each wire that it serves: sent, translated or refused. Values only.

The codecs act on these tables, the page of capabilities is made from them, and a test walks every cell. Where a row
rests on more than the API's own reference, a comment says on what.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ctxbackends.wire.options import CELLS, Handling, How, OptionTable, Refused, Sent


def _table(*parts: Mapping[str, Handling]) -> OptionTable:
    """The parts, later ones over earlier ones, in the order of the documentation; every row is there."""
    merged: dict[str, Handling] = {}
    for part in parts:
        merged |= part
    return MappingProxyType({cell: merged[cell] for cell in CELLS})


def _all(cells: tuple[str, ...], reason: str) -> dict[str, Handling]:
    return dict.fromkeys(cells, Refused(reason))


_CONSTRAINED_TEXT = ("response_format: regex", "response_format: choice", "response_format: grammar")
_EXTRA: dict[str, Handling] = {"extra_body": Sent("")}


# --- OpenAI chat completions ---------------------------------------------------------------------------

_NOT_OPENAI = "it is no option of the OpenAI API; where this server has one of its own, pass it with extra_body"
_NO_BUDGET = "the OpenAI API has no budget of reasoning tokens; pass reasoning_effort"
_NO_FORMAT = "this API enforces JSON alone; pass a JSONSchemaFormat with a pattern or an enum"

_ENCRYPTED = "only the server that encrypted this reasoning can read it"

_CHAT: dict[str, Handling] = {
    "max_tokens": Sent("max_tokens"),
    "temperature": Sent("temperature"),
    "top_p": Sent("top_p"),
    **_all(("top_k", "min_p", "repetition_penalty"), _NOT_OPENAI),
    "seed": Sent("seed"),
    "frequency_penalty": Sent("frequency_penalty"),
    "presence_penalty": Sent("presence_penalty"),
    "logprobs": Sent("logprobs"),
    "top_logprobs": Sent("top_logprobs"),
    "reasoning_effort": Sent("reasoning_effort"),
    "reasoning_budget": Refused(_NO_BUDGET),
    "parallel_tool_calls": Sent("parallel_tool_calls"),
    "stop_sequences": Sent("stop"),
    "response_format: json_object": Sent("response_format"),
    "response_format: json_schema": Sent("response_format"),
    **_all(_CONSTRAINED_TEXT, _NO_FORMAT),
    "tools": Sent("tools"),
    "tool_choice: auto": Sent("tool_choice"),
    "tool_choice: none": Sent("tool_choice"),
    "tool_choice: required": Sent("tool_choice"),
    "tool_choice: named": Sent("tool_choice"),
    "message: image data": Sent("messages"),
    "message: image url": Sent("messages"),
    "message: reasoning": Sent("messages.reasoning_content"),
    "message: redacted reasoning": Refused(_ENCRYPTED),
    "message: tool call": Sent("messages"),
    "message: tool result": Sent("messages"),
    **_EXTRA,
}

OPENAI_COMPATIBLE_CHAT = _table(_CHAT)

OPENAI_CHAT = _table(
    _CHAT,
    {
        # max_tokens is deprecated, and reasoning models refuse it.
        "max_tokens": Sent("max_completion_tokens"),
        "message: reasoning": Refused("chat completions at OpenAI take no reasoning of earlier turns"),
    },
)

VLLM_CHAT = _table(
    _CHAT,
    {
        "top_k": Sent("top_k"),
        "min_p": Sent("min_p"),
        "repetition_penalty": Sent("repetition_penalty"),
        "max_tokens": Sent("max_tokens", How.CLAMPED),
        "top_logprobs": Sent("top_logprobs", most=20),
        "reasoning_effort": Sent("reasoning_effort", How.MODEL),
        "reasoning_budget": Sent("thinking_token_budget"),
        # guided_json and its kin are ignored with 200 and free text (measured, 0.32.0).
        "response_format: regex": Sent("structured_outputs.regex"),
        "response_format: choice": Sent("structured_outputs.choice"),
        "response_format: grammar": Sent("structured_outputs.grammar"),
        "response_format: json_schema": Sent("response_format", How.LENGTHS_IN_WORDS),
        "tools": Sent("tools", How.LENGTHS_IN_WORDS),
        "message: reasoning": Sent("messages.reasoning"),
    },
)

LLAMACPP_CHAT = _table(
    _CHAT,
    {
        "top_k": Sent("top_k"),
        "min_p": Sent("min_p"),
        "repetition_penalty": Sent("repeat_penalty"),
        # Every build passes these on to the chat template; the member reasoning_effort came later.
        "reasoning_effort": Sent("chat_template_kwargs.reasoning_effort", How.TEMPLATE),
        "reasoning_budget": Refused(
            "builds of llama-server differ in the name that they read; pass the one of your build with extra_body"
        ),
        "parallel_tool_calls": Sent("parallel_tool_calls", How.NO_PROMISE),
        "response_format: json_schema": Sent("response_format", How.IN_PART),
        "tool_choice: required": Sent("tool_choice", How.TEXT_FIRST),
        # b8672 answers json_object with free text and 200 (measured).
        "response_format: json_object": Sent("response_format", How.AS_SCHEMA),
        "response_format: regex": Refused("llama-server has grammars alone; pass a GrammarFormat"),
        "response_format: choice": Sent("grammar", How.AS_GBNF),
        "response_format: grammar": Sent("grammar"),
        # An object is taken for "auto" in silence (measured).
        "tool_choice: named": Sent("tool_choice", How.ALONE),
    },
)

_OLLAMA_NO_CHOICE = "Ollama cannot be made to call a tool"
_OLLAMA_NO_URL = "Ollama fetches no images; pass their bytes with ImagePart.from_bytes"
_OLLAMA_NO_FORMAT = "Ollama enforces JSON alone; pass a JSONSchemaFormat with a pattern or an enum"
_OLLAMA_TOOLS: dict[str, Handling] = {
    "tool_choice: auto": Sent("tools", How.DEFAULT),
    "tool_choice: none": Sent("tools", How.LEFT_OUT),
    **_all(("tool_choice: required", "tool_choice: named"), _OLLAMA_NO_CHOICE),
    "parallel_tool_calls": Refused("Ollama does not let this be chosen"),
    "message: image url": Refused(_OLLAMA_NO_URL),
}
_OLLAMA_USE_NATIVE = "Ollama's OpenAI-compatible API ignores it; its own API (wire_api: ollama) takes it"

OLLAMA_CHAT = _table(
    _CHAT,
    _OLLAMA_TOOLS,
    _all(("top_k", "min_p", "repetition_penalty", "logprobs", "top_logprobs"), _OLLAMA_USE_NATIVE),
    _all(_CONSTRAINED_TEXT, _OLLAMA_NO_FORMAT),
    {
        "temperature": Sent("temperature", How.ONE_IF_OUT),
        "top_p": Sent("top_p", How.ONE_IF_OUT),
        "message: reasoning": Sent("messages.reasoning"),
    },
)

_LMSTUDIO_NOT_LISTED = "LM Studio does not document it for chat completions; pass it with extra_body if yours takes it"

LMSTUDIO_CHAT = _table(
    _CHAT,
    _all(
        ("min_p", "logprobs", "top_logprobs", "reasoning_effort", "reasoning_budget", "parallel_tool_calls"),
        _LMSTUDIO_NOT_LISTED,
    ),
    {
        "top_k": Sent("top_k"),
        "repetition_penalty": Sent("repeat_penalty"),
        # 400: 'response_format.type' must be 'json_schema' or 'text'
        "response_format: json_object": Sent("response_format", How.AS_SCHEMA),
        "tool_choice: required": Sent("tool_choice", How.ENGINE),
        "tool_choice: named": Sent("tool_choice", How.ALONE),
        "message: image url": Refused("LM Studio fetches no images; pass their bytes with ImagePart.from_bytes"),
    },
)

# https://platform.claude.com/docs/en/api/openai-sdk lists what is ignored.
_FLOOR = "Anthropic's OpenAI-compatible API ignores it; its own API (wire_api: messages) is the default"

ANTHROPIC_CHAT = _table(
    _CHAT,
    _all(
        (
            "seed",
            "frequency_penalty",
            "presence_penalty",
            "logprobs",
            "top_logprobs",
            "reasoning_effort",
            "reasoning_budget",
            "response_format: json_object",
            "response_format: json_schema",
            "message: reasoning",
        ),
        _FLOOR,
    ),
    {"temperature": Sent("temperature", most=1.0)},
)


# --- Anthropic's Messages ------------------------------------------------------------------------------

_NOT_MESSAGES = "the Messages API has no such option"
_NO_ANY_OBJECT = "the Messages API has no format for any object; pass a JSONSchemaFormat"

_MESSAGES: dict[str, Handling] = {
    "max_tokens": Sent("max_tokens"),
    "temperature": Sent("temperature", most=1.0),
    "top_p": Sent("top_p"),
    "top_k": Sent("top_k"),
    **_all(
        ("min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty", "logprobs", "top_logprobs"),
        _NOT_MESSAGES,
    ),
    "reasoning_effort": Sent("output_config.effort", How.THINKING),
    "reasoning_budget": Sent("thinking.budget_tokens"),
    "parallel_tool_calls": Sent("tool_choice.disable_parallel_tool_use", How.INVERTED),
    "stop_sequences": Sent("stop_sequences"),
    "response_format: json_object": Refused(_NO_ANY_OBJECT),
    "response_format: json_schema": Sent("output_config.format"),
    **_all(_CONSTRAINED_TEXT, "the Messages API enforces JSON schemas alone"),
    "tools": Sent("tools"),
    "tool_choice: auto": Sent("tool_choice"),
    "tool_choice: none": Sent("tool_choice"),
    "tool_choice: required": Sent("tool_choice"),
    "tool_choice: named": Sent("tool_choice"),
    "message: image data": Sent("messages"),
    "message: image url": Sent("messages"),
    "message: reasoning": Sent("messages"),
    "message: redacted reasoning": Sent("messages"),
    "message: tool call": Sent("messages"),
    "message: tool result": Sent("messages"),
    **_EXTRA,
}

ANTHROPIC_MESSAGES = _table(
    _MESSAGES,
    {
        "message: reasoning": Sent("messages", How.SIGNED),
        "tools": Sent("tools", How.BOUNDS_IN_WORDS),
        # https://platform.claude.com/docs/en/build-with-claude/structured-outputs lists what is refused.
        "response_format: json_schema": Sent("output_config.format", How.IN_WORDS),
    },
)

_USE_CHAT = "this server ignores it on /v1/messages; the default wire_api takes it"
_LOCAL_MESSAGES: dict[str, Handling] = {
    **_all(("reasoning_effort", "reasoning_budget", "parallel_tool_calls"), _USE_CHAT),
    "temperature": Sent("temperature"),
}

COMPATIBLE_MESSAGES = _table(_MESSAGES)
# The wish for JSON in output_config is enforced (measured, 0.32.0); thinking and effort are ignored.
VLLM_MESSAGES = _table(
    _MESSAGES,
    _LOCAL_MESSAGES,
    {
        "response_format: json_schema": Sent("output_config.format", How.LENGTHS_IN_WORDS),
        "tools": Sent("tools", How.LENGTHS_IN_WORDS),
    },
)
# Measured (b8672, b11549): output_config and the choice "none" are ignored, and a named tool is taken for "any".
LLAMACPP_MESSAGES = _table(
    _MESSAGES,
    _LOCAL_MESSAGES,
    _all(("response_format: json_schema",), _USE_CHAT),
    {"tool_choice: none": Sent("tools", How.LEFT_OUT), "tool_choice: named": Sent("tool_choice", How.ALONE)},
)
# https://docs.ollama.com/api/anthropic-compatibility
OLLAMA_MESSAGES = _table(
    _MESSAGES,
    _LOCAL_MESSAGES,
    _all(("response_format: json_schema",), _USE_CHAT),
    {cell: _OLLAMA_TOOLS[cell] for cell in ("tool_choice: required", "tool_choice: named", "message: image url")},
    {"tool_choice: none": Refused(_USE_CHAT), "tool_choice: auto": Refused(_USE_CHAT)},
)
# https://lmstudio.ai/docs/developer/anthropic-compat
LMSTUDIO_MESSAGES = _table(
    _MESSAGES,
    _LOCAL_MESSAGES,
    _all(("response_format: json_schema",), _USE_CHAT),
    {"message: image url": LMSTUDIO_CHAT["message: image url"], "tool_choice: named": Sent("tool_choice", How.ALONE)},
)


# --- Ollama --------------------------------------------------------------------------------------------

OLLAMA_NATIVE = _table(
    {
        "max_tokens": Sent("options.num_predict"),
        "temperature": Sent("options.temperature"),
        "top_p": Sent("options.top_p"),
        "top_k": Sent("options.top_k"),
        "min_p": Sent("options.min_p"),
        "seed": Sent("options.seed"),
        "frequency_penalty": Sent("options.frequency_penalty"),
        "presence_penalty": Sent("options.presence_penalty"),
        "repetition_penalty": Sent("options.repeat_penalty"),
        "logprobs": Sent("logprobs"),
        "top_logprobs": Sent("top_logprobs", most=20),
        "reasoning_effort": Sent("think", How.LEVEL),
        "reasoning_budget": Refused("Ollama has no budget of reasoning tokens; pass reasoning_effort"),
        "stop_sequences": Sent("options.stop"),
        "response_format: json_object": Sent("format"),
        "response_format: json_schema": Sent("format"),
        **_all(_CONSTRAINED_TEXT, _OLLAMA_NO_FORMAT),
        "tools": Sent("tools"),
        **_OLLAMA_TOOLS,
        "message: image data": Sent("messages.images"),
        "message: reasoning": Sent("messages.thinking"),
        "message: redacted reasoning": Refused(_ENCRYPTED),
        "message: tool call": Sent("messages.tool_calls", How.OBJECT),
        "message: tool result": Sent("messages"),
        **_EXTRA,
    }
)
