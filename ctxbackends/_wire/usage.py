"""The names of token counts at the vendors, and what they mean. One table for every wire format.

``output_tokens`` includes the reasoning. xAI, and Gemini behind Vercel, leave it out of ``completion_tokens``, and the
total shows it: prompt + completion + reasoning. Counts that are not numbers are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctxbackends._chat.responses import Usage

COUNT_NAMES: Mapping[str, tuple[str, ...]] = {
    "input_tokens": ("prompt_tokens", "input_tokens"),
    "output_tokens": ("completion_tokens", "output_tokens"),
    "total_tokens": ("total_tokens",),
    "cached_input_tokens": (
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "cache_read_input_tokens",  # Anthropic
        "prompt_cache_hit_tokens",  # DeepSeek
        "num_cached_tokens",  # Mistral
        "cached_tokens",  # Moonshot, Together
    ),
    "cache_write_tokens": (
        "prompt_tokens_details.cache_write_tokens",  # OpenRouter
        "cache_creation_input_tokens",  # Anthropic
    ),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens",  # Anthropic
        "reasoning_tokens",  # Together
    ),
}
"""Each count with the members that may contain it, dots between nested names; the first one that is a number counts."""


def parse_count(value: object) -> int | None:
    """Return a whole number, also if it is written as a float or as text; None for any other value."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < _MAX_COUNT and value == int(value) else None


_MAX_COUNT = 2**62
_PLAIN_NAMES = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def parse_usage(
    usage: Mapping[str, Any] | None,
    *,
    input_excludes_cache: bool = False,
    prompt_seconds: float | None = None,
    generation_seconds: float | None = None,
) -> Usage | None:
    """Convert the token counts, or return None if there are none.

    Args:
        usage: The object of the server.
        input_excludes_cache: The input does not include the tokens that the cache read and wrote, as at Anthropic.
        prompt_seconds: The time to process the prompt.
        generation_seconds: The time to generate.
    """
    if usage is None:
        return None
    if usage.keys() <= _PLAIN_NAMES:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is int and type(completion) is int:  # the common response
            return Usage(prompt, completion, None, None, None, None, prompt_seconds, generation_seconds)
    counts = _find_counts(usage)
    input_tokens, output_tokens = counts.get("input_tokens"), counts.get("output_tokens")
    cached, written = counts.get("cached_input_tokens"), counts.get("cache_write_tokens")
    reasoning = counts.get("reasoning_tokens")
    if input_tokens is None and (output_tokens is None or input_excludes_cache):
        return None
    total = (input_tokens or 0) + (output_tokens or 0)
    if reasoning and counts.get("total_tokens") == total + reasoning:
        output_tokens = (output_tokens or 0) + reasoning
    if input_excludes_cache:
        input_tokens = (input_tokens or 0) + (cached or 0) + (written or 0)
    return Usage(
        input_tokens or 0,
        output_tokens or 0,
        cached,
        written,
        reasoning,
        prompt_seconds=prompt_seconds,
        generation_seconds=generation_seconds,
    )


def _find_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that are there. It looks at the members of ``usage``, which are fewer than the names."""
    counts: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for name, value in usage.items():
        if name in _TOP_LEVEL:
            _add_count(_TOP_LEVEL[name], value, counts, ranks)
        elif name in _NESTED and isinstance(value, Mapping):
            for key, inner in value.items():
                if key in _NESTED[name]:
                    _add_count(_NESTED[name][key], inner, counts, ranks)
    return counts


def _add_count(name: tuple[str, int], value: object, counts: dict[str, int], ranks: dict[str, int]) -> None:
    count, rank = name
    number = value if type(value) is int and abs(value) < _MAX_COUNT else parse_count(value)
    if number is not None and rank <= ranks.get(count, rank):
        counts[count], ranks[count] = number, rank


def _index_names(parent: str) -> dict[str, tuple[str, int]]:
    """Return the count and the rank of each member of an object with the name ``parent``, "" for the whole."""
    return {
        path.rpartition(".")[2]: (count, rank)
        for count, paths in COUNT_NAMES.items()
        for rank, path in enumerate(paths)
        if path.rpartition(".")[0] == parent
    }


_TOP_LEVEL = _index_names("")
_NESTED = {
    parent: _index_names(parent)
    for paths in COUNT_NAMES.values()
    for path in paths
    if (parent := path.rpartition(".")[0])
}
