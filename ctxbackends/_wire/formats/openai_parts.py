"""The parts that plain and streamed OpenAI chat responses share. Unknown members are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ctxbackends._chat.events import ReasoningDelta, RefusalDelta, StreamEvent, TextDelta
from ctxbackends._chat.responses import FINISH_REASONS, FinishReason, TokenLogprob, Usage
from ctxbackends._wire.base import encode_arguments

# Text Generation Inference has other names: https://huggingface.co/docs/text-generation-inference
_FINISH_ALIASES: Mapping[str, FinishReason] = {"eos_token": "stop", "stop_sequence": "stop"}


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class WireTimings(msgspec.Struct):
    """llama-server's timings, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class WireToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None

    @property
    def name(self) -> str:
        return (self.function.name if self.function else None) or ""

    @property
    def arguments(self) -> str:
        """The arguments as JSON text; empty if there are none."""
        return encode_arguments(self.function.arguments) if self.function else ""


class WireMessage(msgspec.Struct, gc=False):
    """A delta or a message. vLLM and Ollama name the reasoning ``reasoning``, llama-server ``reasoning_content``."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None


class _OneLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(_OneLogprob):
    """A token with its alternatives, which have none: a recursive type would let a server nest them too deeply."""

    top_logprobs: list[_OneLogprob] | None = None


class WireLogprobs(msgspec.Struct):
    content: list[Logprob] | None = None


def parse_usage(usage: WireUsage | None, timings: WireTimings | None = None) -> Usage | None:
    """Convert the token counts."""
    if usage is None:
        return None
    input_details, output_details = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
        input_details.cached_tokens if input_details else None,
        input_details.cache_write_tokens if input_details else None,
        output_details.reasoning_tokens if output_details else None,
        None,
        _to_seconds(timings.prompt_ms) if timings else None,
        _to_seconds(timings.predicted_ms) if timings else None,
    )


def _to_seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def parse_finish_reason(reason: str | None, *, called: bool) -> FinishReason | None:
    """Return the finish reason, or None if the response is not complete (vLLM's ``abort``).

    ``called`` means that there are tool calls: OpenAI and vLLM send ``stop`` after a call that was forced by name.
    """
    if reason == "stop" and called:
        return "tool_calls"
    if reason in FINISH_REASONS:
        return reason  # type: ignore[return-value]  # narrowed by the set, which mypy does not follow
    return _FINISH_ALIASES.get(reason or "")


def add_message_events(message: WireMessage, logprobs: WireLogprobs | None, events: list[StreamEvent]) -> None:
    """Add the events of a message or delta, except its tool calls."""
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        events.append(ReasoningDelta(reasoning))
    if logprobs is not None:  # also for tokens without a character yet
        events.append(TextDelta(message.content or "", tuple(parse_logprob(one) for one in logprobs.content or ())))
    elif message.content:
        events.append(TextDelta(message.content))
    if message.refusal:
        events.append(RefusalDelta(message.refusal))


def parse_logprob(one: Logprob) -> TokenLogprob:
    """Convert one token, which Ollama sends in the same form."""
    return _build_logprob(one, tuple(_build_logprob(other) for other in one.top_logprobs or ()))


def _build_logprob(one: _OneLogprob, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    raw = one.bytes
    token_bytes = bytes(raw) if raw is not None and all(0 <= byte < 256 for byte in raw) else None
    return TokenLogprob(one.token, one.logprob, token_bytes, top)
