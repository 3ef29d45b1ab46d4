"""The forms of a prompt and of its options, and the chat request that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, ChatRequest
from ctxbackends._response_formats import build_response_format
from ctxbackends._suggestions import suggest
from ctxbackends._tools import build_tool_choice, build_tools

Conversation: TypeAlias = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""The text of a user message, a message, or several.

A message may be a dict in the form of OpenAI's chat or Anthropic's Messages API.
"""
Prompt: TypeAlias = Conversation | ChatRequest
"""A conversation, or a whole request."""

MISSING_PROMPT: Any = object()
"""The default of the prompt, so that a call without one gets an error that names what would be right."""

_REQUEST_OPTIONS = "pass request_options=RequestOptions(...)"
_FIRST_ARGUMENT = "pass the messages as the first argument"
_BODY = "pass it in extra_body"
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("messages", "input", "inputs", "contents", "conversation"), _FIRST_ARGUMENT),
        **dict.fromkeys(
            ("system", "system_prompt", "system_message", "instructions", "system_instruction"),
            "pass Message.system(...) as the first message",
        ),
        **dict.fromkeys(("stop", "stops", "stop_words", "stop_token"), "stop_sequences"),
        **dict.fromkeys(
            ("max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_length", "num_predict", "n_predict"),
            "max_tokens",
        ),
        **dict.fromkeys(("repeat_penalty", "repetition"), "repetition_penalty"),
        **dict.fromkeys(("model_name", "model_id", "engine", "deployment"), "model"),
        **dict.fromkeys(
            ("format", "output_format", "response_model", "output_type", "json_schema", "text_format", "output_config"),
            "response_format",
        ),
        **dict.fromkeys(("json_mode",), 'pass response_format={"type": "json_object"}'),
        **dict.fromkeys(("grammar", "regex", "guided_json", "guided_regex", "guided_choice"), "response_format"),
        **dict.fromkeys(("functions",), "tools"),
        **dict.fromkeys(("function_call",), "tool_choice"),
        **dict.fromkeys(("effort", "think", "reasoning"), "reasoning_effort"),
        **dict.fromkeys(("thinking", "thinking_budget", "budget_tokens", "max_thinking_tokens"), "reasoning_budget"),
        **dict.fromkeys(("random_seed",), "seed"),
        **dict.fromkeys(("n", "best_of", "num_return_sequences"), "one answer is returned; call it several times"),
        **dict.fromkeys(("stream",), "call stream() instead of complete()"),
        **dict.fromkeys(("stream_options",), "the usage is always requested; remove it"),
        **dict.fromkeys(
            ("timeout", "max_retries", "extra_headers", "headers", "first_token_timeout", "idle_timeout"),
            _REQUEST_OPTIONS,
        ),
        **dict.fromkeys(("logit_bias", "user", "metadata", "store", "service_tier", "extra_query", "options"), _BODY),
    }
)
"""The names of other clients: the option, or the advice."""


def build_messages(prompt: Conversation) -> tuple[Message, ...]:
    """Return the messages of a prompt.

    Raises:
        TypeError: The prompt is of another type or empty, or a member of a dict has the wrong type.
        ValueError: A dict has a member that is unknown or not supported.
    """
    if isinstance(prompt, str):
        return (Message.user(prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    if prompt is MISSING_PROMPT:
        raise TypeError(f"missing prompt; {_FIRST_ARGUMENT}")
    if isinstance(prompt, Mapping):
        prompt = [prompt]
    items: Any = prompt
    if isinstance(items, bytes) or not isinstance(items, Sequence):
        raise TypeError(f"not a prompt: {type(items).__name__}; {_PROMPT_HINT}")
    if not items:
        raise TypeError("the prompt has no messages; pass at least one")
    return _all_messages(items) or tuple(one for index, item in enumerate(items) for one in _parse_item(item, index))


def _all_messages(items: Sequence[Any]) -> tuple[Message, ...]:
    """Return the items if all of them are messages, else none."""
    return tuple(items) if all(isinstance(item, Message) for item in items) else ()


_PROMPT_HINT = "pass a str, a Message, a dict, or a list of Message and dict"


def _parse_item(item: object, index: int) -> tuple[Message, ...]:
    from ctxbackends._chat.message_dicts import parse_prompt_message  # noqa: PLC0415  # needed only for dicts

    if isinstance(item, Message):
        return (item,)
    if isinstance(item, Mapping):
        return parse_prompt_message(item, f"messages[{index}]")
    raise TypeError(f"messages[{index}] is not a message: {type(item).__name__}; pass a Message or a dict")


def build_chat_request(prompt: Prompt, model: str, options: ChatOptions) -> ChatRequest:
    """Return the request for a prompt and its options.

    Raises:
        TypeError: An option is unknown or has the wrong type.
        ValueError: A value is out of range.
    """
    if isinstance(prompt, ChatRequest):
        if options:
            raise TypeError("a ChatRequest has its own options; set them there")
        if not _all_messages(prompt.messages):
            raise TypeError("the messages of a ChatRequest must be one or more Message; pass dicts to complete()")
        return prompt
    fields: dict[str, Any] = {**options, "model": model}
    if "tools" in fields:
        fields["tools"] = build_tools(fields["tools"])
    if "response_format" in fields:
        fields["response_format"] = build_response_format(fields["response_format"])
    if "tool_choice" in fields:
        fields |= build_tool_choice(fields["tool_choice"], fields.get("parallel_tool_calls"))
    try:
        return ChatRequest(messages=build_messages(prompt), **fields)
    except TypeError:
        check_option_names(options)
        raise


def check_option_names(options: Mapping[str, Any]) -> None:
    """Raise TypeError if an option is not one of :class:`ChatOptions`."""
    for name in options:
        if name not in ChatOptions.__annotations__:
            raise TypeError(f"unknown option: {name}; {suggest(name, ChatOptions.__annotations__, OTHER_NAMES)}")
