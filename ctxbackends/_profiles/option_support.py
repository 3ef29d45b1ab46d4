"""The option tables: which options each server supports on each of its wire formats.

Values only: the codecs use them, the capabilities page is generated from them, and a test covers every key. A comment
gives the source of a row that goes beyond the API's reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ctxbackends._wire.options import OPTION_KEYS, OptionSupport, OptionTable, Supported, Transform, Unsupported


def _merge(*parts: Mapping[str, OptionSupport]) -> OptionTable:
    """Merge the parts, later ones over earlier ones, in the order of the documentation; raise for a missing key."""
    merged: dict[str, OptionSupport] = {}
    for part in parts:
        merged |= part
    return MappingProxyType({key: merged[key] for key in OPTION_KEYS})


def _unsupported(keys: tuple[str, ...], reason: str) -> dict[str, OptionSupport]:
    return dict.fromkeys(keys, Unsupported(reason))


def _by_name(*keys: str, prefix: str = "") -> dict[str, OptionSupport]:
    """Return options that the server has under the SDK's name."""
    return {key: Supported(prefix + key) for key in keys}


_CONSTRAINED_TEXT = ("response_format: regex", "response_format: choice", "response_format: grammar")
_JSON = ("response_format: json_object", "response_format: json_schema")
_REASONING = ("reasoning_effort", "reasoning_budget")
_SAMPLING = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
_LOGPROBS = ("logprobs", "top_logprobs")
_TOOL_CHOICES = ("tool_choice: auto", "tool_choice: none", "tool_choice: required", "tool_choice: named")
_PARTS = ("message: image data", "message: image url", "message: tool call", "message: tool result")
# In every table, unless a row there differs.
_COMMON: dict[str, OptionSupport] = {
    **_by_name("max_tokens", "temperature", "top_p", "tools"),
    **dict.fromkeys(_TOOL_CHOICES, Supported("tool_choice")),
    **dict.fromkeys(_PARTS, Supported("messages")),
    "message: tool result image": Supported("messages", Transform.AFTER_RESULTS),
    "extra_body": Supported(""),
}
_NO_AUDIO = Unsupported("this API takes no audio; send a transcript as text")
_NO_FILE = Unsupported("this API takes no documents; send their text, or their pages as images")


# --- OpenAI chat completions ---------------------------------------------------------------------------

_NOT_OPENAI_OPTIONS = ("top_k", "min_p", "repetition_penalty")
_NOT_OPENAI = "not an option of the OpenAI API; if this server supports it, pass it in extra_body"
_NO_BUDGET = "the OpenAI API has no budget of reasoning tokens; pass reasoning_effort"
_NO_FORMAT = "this API enforces only JSON; pass a JSONSchemaFormat with a pattern or an enum"

_ENCRYPTED = "only the server that encrypted this reasoning can read it"

_CHAT: dict[str, OptionSupport] = {
    **_COMMON,
    **_by_name(*_SAMPLING, *_LOGPROBS, "reasoning_effort", "parallel_tool_calls"),
    **_unsupported(_NOT_OPENAI_OPTIONS, _NOT_OPENAI),
    "reasoning_budget": Unsupported(_NO_BUDGET),
    "stop_sequences": Supported("stop"),
    **dict.fromkeys(_JSON, Supported("response_format")),
    **_unsupported(_CONSTRAINED_TEXT, _NO_FORMAT),
    # https://platform.openai.com/docs/guides/audio, https://platform.openai.com/docs/guides/pdf-files
    **dict.fromkeys(("message: audio", "message: file"), Supported("messages")),
    "message: reasoning": Supported("messages.reasoning_content"),
    "message: redacted reasoning": Unsupported(_ENCRYPTED),
}

_STRICT: dict[str, OptionSupport] = {
    "response_format: json_schema": Supported("response_format", Transform.STRICT_IF_POSSIBLE)
}

OPENAI_COMPATIBLE_CHAT = _merge(_CHAT, _STRICT)

OPENAI_CHAT = _merge(
    _CHAT,
    _STRICT,
    {
        # max_tokens is deprecated, and reasoning models reject it.
        "max_tokens": Supported("max_completion_tokens"),
        "message: reasoning": Unsupported("OpenAI's chat completions do not accept reasoning of earlier turns"),
    },
)

VLLM_CHAT = _merge(
    _CHAT,
    _by_name(*_NOT_OPENAI_OPTIONS),
    {
        "max_tokens": Supported("max_tokens", Transform.SILENT_CLAMP),
        "top_logprobs": Supported("top_logprobs", maximum=20),
        "reasoning_effort": Supported("reasoning_effort", Transform.MODEL_TEMPLATE),
        "reasoning_budget": Supported("thinking_token_budget"),
        # guided_json and similar options are ignored: 200 and free text (measured, 0.32.0).
        "response_format: regex": Supported("structured_outputs.regex"),
        "response_format: choice": Supported("structured_outputs.choice"),
        "response_format: grammar": Supported("structured_outputs.grammar"),
        "response_format: json_schema": Supported("response_format", Transform.LENGTHS_DESCRIBED),
        "tools": Supported("tools", Transform.LENGTHS_DESCRIBED),
        "message: reasoning": Supported("messages.reasoning"),
        # https://docs.vllm.ai/en/latest/features/multimodal_inputs.html: input_audio, and no documents
        "message: file": _NO_FILE,
    },
)

LLAMACPP_CHAT = _merge(
    _CHAT,
    _by_name("top_k", "min_p"),
    {
        "repetition_penalty": Supported("repeat_penalty"),
        # Every build passes these on to the chat template; the member reasoning_effort came later.
        "reasoning_effort": Supported("chat_template_kwargs.reasoning_effort", Transform.TEMPLATE_SWITCH),
        "reasoning_budget": Unsupported(
            "the name differs between builds of llama-server; pass the one of your build in extra_body"
        ),
        "parallel_tool_calls": Supported("parallel_tool_calls", Transform.BEST_EFFORT),
        "response_format: json_schema": Supported("response_format", Transform.PARTIAL_ENFORCEMENT),
        "tool_choice: required": Supported("tool_choice", Transform.TEXT_FIRST),
        # b8672 answers json_object with free text and 200 (measured).
        "response_format: json_object": Supported("response_format", Transform.AS_SCHEMA),
        "response_format: regex": Unsupported("llama-server supports only grammars; pass a GrammarFormat"),
        "response_format: choice": Supported("grammar", Transform.AS_GBNF),
        "response_format: grammar": Supported("grammar"),
        # An object is silently treated as "auto" (measured).
        "tool_choice: named": Supported("tool_choice", Transform.ONLY_TOOL),
        # https://github.com/ggml-org/llama.cpp/blob/master/docs/multimodal.md: input_audio, and no documents
        "message: file": _NO_FILE,
    },
)

_OLLAMA_NO_CHOICE = "Ollama cannot force a tool call"
_OLLAMA_NO_URL = "Ollama does not fetch images; pass their bytes with ImagePart.from_bytes"
_OLLAMA_NO_FORMAT = "Ollama enforces only JSON; pass a JSONSchemaFormat with a pattern or an enum"
_OLLAMA_TOOLS: dict[str, OptionSupport] = {
    "tool_choice: auto": Supported("tools", Transform.SERVER_DEFAULT),
    "tool_choice: none": Supported("tools", Transform.WITHOUT_TOOLS),
    **_unsupported(("tool_choice: required", "tool_choice: named"), _OLLAMA_NO_CHOICE),
    "parallel_tool_calls": Unsupported("Ollama does not support this option"),
    "message: image url": Unsupported(_OLLAMA_NO_URL),
}
_OLLAMA_USE_NATIVE = "Ollama's OpenAI-compatible API ignores it; its own API (wire_api: ollama) supports it"

OLLAMA_CHAT = _merge(
    _CHAT,
    _OLLAMA_TOOLS,
    _unsupported((*_NOT_OPENAI_OPTIONS, *_LOGPROBS), _OLLAMA_USE_NATIVE),
    _unsupported(_CONSTRAINED_TEXT, _OLLAMA_NO_FORMAT),
    {
        "temperature": Supported("temperature", Transform.DEFAULT_ONE),
        "top_p": Supported("top_p", Transform.DEFAULT_ONE),
        "message: reasoning": Supported("messages.reasoning"),
        "message: audio": _NO_AUDIO,
        "message: file": _NO_FILE,
    },
)

_LMSTUDIO_NOT_LISTED = (
    "LM Studio does not document it for chat completions; if your version supports it, pass it in extra_body"
)

LMSTUDIO_CHAT = _merge(
    _CHAT,
    _unsupported(("min_p", *_LOGPROBS, *_REASONING, "parallel_tool_calls"), _LMSTUDIO_NOT_LISTED),
    {
        "top_k": Supported("top_k"),
        "repetition_penalty": Supported("repeat_penalty"),
        # 400: 'response_format.type' must be 'json_schema' or 'text'
        "response_format: json_object": Supported("response_format", Transform.AS_SCHEMA),
        "tool_choice: required": Supported("tool_choice", Transform.LLAMACPP_ENGINE),
        "tool_choice: named": Supported("tool_choice", Transform.ONLY_TOOL),
        "message: image url": Unsupported(
            "LM Studio does not fetch images; pass their bytes with ImagePart.from_bytes"
        ),
        "message: audio": _NO_AUDIO,
        "message: file": _NO_FILE,
    },
)

# https://platform.claude.com/docs/en/api/openai-sdk lists what is ignored.
_FLOOR = "Anthropic's OpenAI-compatible API ignores it; its own API (wire_api: messages) is the default"

ANTHROPIC_CHAT = _merge(
    _CHAT,
    _unsupported(
        ("seed", "frequency_penalty", "presence_penalty", *_LOGPROBS, *_REASONING, *_JSON, "message: reasoning"),
        _FLOOR,
    ),
    {"temperature": Supported("temperature", maximum=1.0), "message: audio": _NO_AUDIO, "message: file": _NO_FILE},
)


# --- Anthropic's Messages ------------------------------------------------------------------------------

_NOT_MESSAGES = "the Messages API has no such option"
_NO_ANY_OBJECT = "the Messages API has no format for arbitrary objects; pass a JSONSchemaFormat"

_MESSAGES: dict[str, OptionSupport] = {
    **_COMMON,
    **_by_name("top_k", "stop_sequences"),
    "temperature": Supported("temperature", maximum=1.0),
    **_unsupported(
        ("min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty", *_LOGPROBS), _NOT_MESSAGES
    ),
    "reasoning_effort": Supported("output_config.effort", Transform.THINKING),
    "reasoning_budget": Supported("thinking.budget_tokens"),
    "parallel_tool_calls": Supported("tool_choice.disable_parallel_tool_use", Transform.INVERTED),
    "response_format: json_object": Unsupported(_NO_ANY_OBJECT),
    "response_format: json_schema": Supported("output_config.format"),
    **_unsupported(_CONSTRAINED_TEXT, "the Messages API enforces only JSON schemas"),
    **dict.fromkeys(("message: reasoning", "message: redacted reasoning"), Supported("messages")),
    "message: audio": _NO_AUDIO,
    # https://platform.claude.com/docs/en/build-with-claude/pdf-support
    "message: file": Supported("messages"),
    "message: tool result image": Supported("messages"),
}

ANTHROPIC_MESSAGES = _merge(
    _MESSAGES,
    {
        "message: reasoning": Supported("messages", Transform.WITH_SIGNATURE),
        "tools": Supported("tools", Transform.STRICT_BOUNDS_DESCRIBED),
        # https://platform.claude.com/docs/en/build-with-claude/structured-outputs lists what is rejected.
        "response_format: json_schema": Supported("output_config.format", Transform.CONSTRAINTS_DESCRIBED),
    },
)

_USE_CHAT = "this server ignores it on /v1/messages; the default wire_api supports it"
_LOCAL_MESSAGES: dict[str, OptionSupport] = {
    **_unsupported((*_REASONING, "parallel_tool_calls", "response_format: json_schema"), _USE_CHAT),
    "temperature": Supported("temperature"),
    "message: file": _NO_FILE,
    "message: tool result image": Supported("messages", Transform.AFTER_RESULTS),
}

COMPATIBLE_MESSAGES = _merge(_MESSAGES)
# The format in output_config is enforced (measured, 0.32.0); thinking and effort are ignored.
VLLM_MESSAGES = _merge(
    _MESSAGES,
    _LOCAL_MESSAGES,
    {
        "response_format: json_schema": Supported("output_config.format", Transform.LENGTHS_DESCRIBED),
        "tools": Supported("tools", Transform.LENGTHS_DESCRIBED),
    },
)
# Measured (b8672, b11549): output_config and the choice "none" are ignored, and a named tool is treated as "any".
LLAMACPP_MESSAGES = _merge(
    _MESSAGES,
    _LOCAL_MESSAGES,
    {
        "tool_choice: none": Supported("tools", Transform.WITHOUT_TOOLS),
        "tool_choice: named": Supported("tool_choice", Transform.ONLY_TOOL),
    },
)
# https://docs.ollama.com/api/anthropic-compatibility
OLLAMA_MESSAGES = _merge(
    _MESSAGES,
    _LOCAL_MESSAGES,
    _OLLAMA_TOOLS,
)
# https://lmstudio.ai/docs/developer/anthropic-compat
LMSTUDIO_MESSAGES = _merge(
    _MESSAGES,
    _LOCAL_MESSAGES,
    {
        "message: image url": LMSTUDIO_CHAT["message: image url"],
        "tool_choice: named": Supported("tool_choice", Transform.ONLY_TOOL),
    },
)


# --- Ollama --------------------------------------------------------------------------------------------

OLLAMA_NATIVE = _merge(
    _COMMON,
    _by_name(*_SAMPLING, "top_k", "min_p", prefix="options."),
    {
        "max_tokens": Supported("options.num_predict"),
        "repetition_penalty": Supported("options.repeat_penalty"),
        "logprobs": Supported("logprobs"),
        "top_logprobs": Supported("top_logprobs", maximum=20),
        "reasoning_effort": Supported("think", Transform.THINK_LEVEL),
        "reasoning_budget": Unsupported("Ollama has no budget of reasoning tokens; pass reasoning_effort"),
        "stop_sequences": Supported("options.stop"),
        **dict.fromkeys(_JSON, Supported("format")),
        **_unsupported(_CONSTRAINED_TEXT, _OLLAMA_NO_FORMAT),
        **_OLLAMA_TOOLS,
        "message: image data": Supported("messages.images"),
        "message: audio": _NO_AUDIO,
        "message: file": _NO_FILE,
        "message: reasoning": Supported("messages.thinking"),
        "message: redacted reasoning": Unsupported(_ENCRYPTED),
        "message: tool call": Supported("messages.tool_calls", Transform.ARGUMENTS_OBJECT),
    },
)
