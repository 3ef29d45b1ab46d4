"""The servers' words for why a generation ended, and their meaning. One table for all formats.

A word that is not in the table means that the response is not complete, such as vLLM's ``abort`` or ``error``. Case
does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends._chat.responses import FinishReason

_WORDS: Mapping[FinishReason, tuple[str, ...]] = {
    "stop": (
        "stop",
        "stop_sequence",
        *("eos", "eos_token"),  # Together, Text Generation Inference
        "end_turn",  # Anthropic, and gateways to it
        "complete",  # Cohere
        *("end", "completed", "finished", "normal"),  # gateways
        # Anthropic: a server tool runs longer than one response; the server goes on with the next request.
        "pause_turn",
    ),
    "length": (
        "length",
        *("max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "token_limit"),
        "model_length",  # Mistral
        "model_context_window_exceeded",  # Anthropic
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    "content_filter": (
        *("content_filter", "content_filtered", "refusal"),
        # Gemini: https://ai.google.dev/api/generate-content#FinishReason
        *("safety", "recitation", "blocklist", "prohibited_content", "spii", "image_safety"),
        "error_toxic",  # Cohere
        "sensitive",  # z.ai
        "guardrail_intervened",  # Bedrock
    ),
}
FINISH_WORDS: Mapping[str, FinishReason] = {word: reason for reason, words in _WORDS.items() for word in words}


def parse_finish_reason(word: str | None, *, called: bool = False, native: str | None = None) -> FinishReason | None:
    """Return the finish reason, or None if the response is not complete.

    Args:
        word: The word of the server.
        called: Whether there are tool calls: OpenAI and vLLM send ``stop`` after a call that was forced by name.
        native: The word of the server behind a gateway. OpenRouter sends ``tool_calls`` for a call that was cut.
    """
    if not word:
        return None
    reason = FINISH_WORDS.get(word) or FINISH_WORDS.get(word.casefold())
    if native and reason in ("stop", "tool_calls") and FINISH_WORDS.get(native.casefold()) == "length":
        return "length"
    return "tool_calls" if reason == "stop" and called else reason
