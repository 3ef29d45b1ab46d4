"""The rounds of a tool loop: calls, their results, and events about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends._chat.messages import Message, ToolCall, ToolResult
from ctxbackends._chat.responses import Completion, Usage

ToolStatus: TypeAlias = Literal["ok", "failed", "invalid", "denied"]


@attrs.frozen(kw_only=True)
class ToolOutcome:
    """A tool call with its result.

    Attributes:
        call: The call that the model made.
        result: The result, as the model gets it.
        status: ``ok``; ``failed`` if the tool raised or reported an error; ``invalid`` if the tool is unknown or the
            arguments do not match its parameters; ``denied`` if ``approve`` returned False. Only ``ok`` and ``failed``
            calls were executed.
        error: The exception behind ``failed`` and ``invalid``, None if there is none.
        seconds: How long the tool ran, in seconds; 0 if it was not executed.
    """

    call: ToolCall
    result: ToolResult
    status: ToolStatus = "ok"
    error: Exception | None = attrs.field(default=None, eq=False)
    seconds: float = attrs.field(default=0.0, eq=False)


@attrs.frozen(kw_only=True)
class ToolRound:
    """One answer of the model with the tool calls in it.

    Attributes:
        completion: The answer.
        outcomes: The calls in their order, with their results; empty for an answer without calls.
    """

    completion: Completion
    outcomes: tuple[ToolOutcome, ...] = ()


@attrs.frozen(kw_only=True)
class ToolRun:
    """The result of a tool loop.

    Attributes:
        completion: The last answer, which calls no tool.
        messages: The whole conversation, from the given messages to the last answer.
        rounds: All answers with their tool calls, including the last.
        usage: The token counts of all rounds together; None if the server did not report one of them.
    """

    completion: Completion
    messages: tuple[Message, ...]
    rounds: tuple[ToolRound, ...]
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return self.completion.text


@attrs.frozen
class RoundStart:
    """Event: the model is asked. ``number`` counts the rounds from 1."""

    number: int


@attrs.frozen
class ToolStart:
    """Event: a tool is about to run.

    Attributes:
        call: The call that the model made.
        arguments: The arguments as Python values.
    """

    call: ToolCall
    arguments: Mapping[str, Any]


@attrs.frozen
class ToolEnd:
    """Event: a call has its result, whether it was executed or not."""

    outcome: ToolOutcome


@attrs.frozen
class RoundEnd:
    """Event: all calls of an answer have their results."""

    round: ToolRound


ToolEvent: TypeAlias = RoundStart | ToolStart | ToolEnd | RoundEnd


def sum_usage(rounds: tuple[ToolRound, ...]) -> Usage | None:
    """Return the token counts of all rounds together; a count that one of them lacks is None."""
    counts = [round_.completion.usage for round_ in rounds]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    totals: dict[str, Any] = {}
    for name in Usage.__struct_fields__:
        values = [getattr(count, name) for count in known]
        totals[name] = None if None in values else sum(values)
    return Usage(**totals)
