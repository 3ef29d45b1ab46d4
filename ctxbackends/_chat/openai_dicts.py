"""A completion in the form of OpenAI's chat completions, for programs that read that form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends._chat.responses import Completion, TokenLogprob, Usage


def build_openai_dict(completion: Completion) -> dict[str, Any]:
    """Return the body of a response. See :meth:`Completion.to_openai_dict`."""
    has_other = completion.tool_calls or completion.refusal
    message: dict[str, Any] = {
        "role": "assistant",
        "content": completion.text or (None if has_other else ""),
        "refusal": completion.refusal or None,
    }
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in completion.tool_calls
        ]
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": completion.finish_reason,
        "message": message,
        "logprobs": None,
    }
    if completion.logprobs:
        choice["logprobs"] = {"content": [_build_logprob(one) for one in completion.logprobs], "refusal": None}
    body: dict[str, Any] = {
        "id": completion.response_id or "",
        "object": "chat.completion",
        "created": 0,
        "model": completion.served_model or completion.requested_model,
        "choices": [choice],
    }
    if completion.usage is not None:
        body["usage"] = _build_usage(completion.usage)
    return body


def _build_logprob(one: TokenLogprob) -> dict[str, Any]:
    return {**_build_token(one), "top_logprobs": [_build_token(other) for other in one.top]}


def _build_token(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": None if one.bytes is None else [*one.bytes]}


def _build_usage(usage: Usage) -> dict[str, Any]:
    values: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    details = {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if any(count is not None for count in details.values()):
        values["prompt_tokens_details"] = {name: count for name, count in details.items() if count is not None}
    if usage.reasoning_tokens is not None:
        values["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return values
