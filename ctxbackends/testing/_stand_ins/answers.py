"""Custom answers for stand-ins, independent of the wire format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from ctxbackends._chat.messages import Message, ToolCall, ToolResult
from ctxbackends._chat.requests import JSONObjectFormat, JSONSchemaFormat, Tool, ToolChoice
from ctxbackends._chat.responses import FinishReason, Usage
from ctxbackends._profiles.profile import WireAPI


@attrs.frozen(kw_only=True)
class Question:
    """A chat request to a stand-in, in one form for all wire formats.

    Message parts that :class:`~ctxbackends.Message` does not support are left out. The full body is in the stand-in's
    ``requests``.

    Attributes:
        wire: The wire format of the request.
        model: The requested model.
        messages: The messages in their order, including system messages.
        tools: The tools that the model may call, without functions.
        tool_choice: The choice of tools; None if the request has none.
        response_format: The format of the answer; None for text.
        options: The other members of the body, with their names in the wire format.
        stream: Whether the answer is streamed.
    """

    wire: WireAPI
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    response_format: JSONObjectFormat | JSONSchemaFormat | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    stream: bool = False

    @property
    def prompt(self) -> str:
        """The text of the last user message, empty if there is none."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results after the last message of the model."""
        results: list[ToolResult] = []
        for message in reversed(self.messages):
            if message.role == "assistant":
                break
            results[:0] = [part for part in message.parts if isinstance(part, ToolResult)]
        return tuple(results)


def _to_calls(calls: Sequence[ToolCall | tuple[str, Mapping[str, Any] | str]]) -> tuple[ToolCall, ...]:
    return tuple(
        call
        if isinstance(call, ToolCall)
        else ToolCall("", call[0], call[1] if isinstance(call[1], str) else json.dumps(call[1]))
        for call in calls
    )


@attrs.frozen(kw_only=True)
class Answer:
    """An answer that a stand-in sends.

    Attributes:
        text: The text of the answer.
        reasoning: The reasoning before the text. It is not sent if the request turns reasoning off, or if the vendor's
            API does not return reasoning.
        tool_calls: :class:`~ctxbackends.ToolCall` values, or pairs of a name and arguments (a dict, or JSON text). The
            stand-in creates an ID for a call without one. Text that is not a JSON object can only be sent as chat
            completions.
        finish_reason: The finish reason. None means ``tool_calls`` if there are calls and ``stop`` otherwise; the
            stand-in then applies the request's stop sequences and token limit.
        usage: The token counts to report. None uses the counts of the stand-in.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=_to_calls)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


AnswerFunction: TypeAlias = Callable[[Question], Answer]
"""Returns the answer to a question."""


class AnswerError(Exception):
    """No answer could be sent: the response is a 500 with this message."""


def call_answer_function(function: AnswerFunction, question: Question) -> Answer:
    """Return the answer of the function.

    Raises:
        AnswerError: The function raised, or did not return an Answer.
    """
    try:
        answer = function(question)
    except Exception as error:
        raise AnswerError(f"answer= of the stand-in raised {type(error).__name__}: {error}") from error
    if not isinstance(answer, Answer):
        raise AnswerError(f"answer= of the stand-in must return an Answer, not {type(answer).__name__}")
    return answer


def arguments_object(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call, for wire formats that send them as an object.

    Raises:
        AnswerError: The arguments are not a JSON object.
    """
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise AnswerError(f"the arguments of the tool call {call.name} must be a JSON object: {call.arguments}")
    return arguments
