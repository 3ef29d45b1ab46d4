"""The output of one answer, after it was shown or instead: JSON, notes and token counts."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click
import msgspec

from ctxbackends._chat.responses import Completion
from ctxbackends._chat.tool_runs import ToolRound
from ctxbackends._cli.chat.session import Turn
from ctxbackends._cli.live_line import window_size
from ctxbackends._cli.terminal import print_json, printable
from ctxbackends._util.text import pluralize

_NOT_PRINTED = ("raw", "parts", "logprobs")


def print_turn(turn: Turn, **members: Any) -> None:
    """Print the answer as one JSON object, with its rounds if there are tools, and further members."""
    rounds = {"rounds": [_describe_round(round_) for round_ in turn.rounds]} if turn.rounds else {}
    print_json(_describe(turn.completion) | rounds | members)


def _describe(completion: Completion) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(completion).items() if name not in _NOT_PRINTED}


def _describe_round(round_: ToolRound) -> dict[str, Any]:
    calls = [
        {
            "id": outcome.call.id,
            "name": outcome.call.name,
            "arguments": outcome.call.arguments,
            "status": outcome.status,
            "result": outcome.result.text,
            "seconds": outcome.seconds,
        }
        for outcome in round_.outcomes
    ]
    completion = round_.completion
    usage = msgspec.to_builtins(completion.usage)
    return {"text": completion.text, "reasoning": completion.reasoning, "calls": calls, "usage": usage}


def print_value(value: Any) -> None:
    """Print a JSON value: indented on a terminal, else on one line."""
    is_terminal = sys.stdout.isatty()
    click.echo(printable(json.dumps(value, ensure_ascii=False, indent=2 if is_terminal else None)))


def print_notes(completion: Completion, *, has_limit: bool) -> None:
    """Print what the reader of the text must know: a refusal, and that the answer was truncated."""
    if completion.refusal:
        click.echo(f"the model refused: {printable(completion.refusal, err=True)}", err=True)
    if completion.finish_reason != "stop":
        is_truncated = completion.finish_reason == "length" and has_limit
        reason = "max_tokens reached" if is_truncated else f"finish_reason {completion.finish_reason}"
        click.echo(f"(truncated: {reason})", err=True)


def print_stats(turn: Turn) -> None:
    """Print the token counts and times of an answer on standard error; on a terminal, lines break between words."""
    text = printable(describe_stats(turn), err=True)
    if sys.stderr.isatty():
        text = textwrap.fill(text, window_size(sys.stderr)[0], break_on_hyphens=False)
    click.echo(text, err=True)


def describe_stats(turn: Turn) -> str:
    """Return the token counts and times of an answer in one line, as far as the server reports them."""
    usage, parts = turn.usage, []
    if usage is not None:
        cached = f" ({usage.cached_input_tokens} cached)" if usage.cached_input_tokens else ""
        reasoning = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
        parts = [f"{pluralize(usage.input_tokens, 'token')} in{cached}", f"{usage.output_tokens} out{reasoning}"]
    if turn.first_token_seconds is not None:
        parts.append(f"first token after {turn.first_token_seconds:.2f} s")
    rate = _find_rate(turn)
    if rate is not None:
        parts.append(f"{rate:.1f} tokens/s")
    parts.append(f"{turn.seconds:.2f} s in all")
    if len(turn.rounds) > 1:
        parts.append(pluralize(len(turn.rounds), "round"))
    parts.append(f"model {turn.completion.served_model or turn.completion.requested_model}")
    return ", ".join(parts)


def _find_rate(turn: Turn) -> float | None:
    """Return the tokens per second, by the server's clock if it reports one."""
    if turn.usage is None:
        return None
    if turn.usage.generation_seconds:
        return turn.usage.output_tokens / turn.usage.generation_seconds
    # The first token of each round is there when the clock begins.
    count = turn.usage.output_tokens - max(len(turn.rounds), 1)
    return count / turn.generation_seconds if count > 0 and turn.generation_seconds > 0 else None
