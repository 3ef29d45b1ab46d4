"""Tool loops: ask the model, run the tools that it calls, send the results, and repeat."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, Unpack

import anyio
import attrs
from anyio import to_thread

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.messages import Message, Part, ToolCall
from ctxbackends._chat.requests import ChatOptions, NamedTool, OptionsWithoutTools, Tool, ToolForms
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.tool_runs import (
    RoundEnd,
    RoundStart,
    ToolEnd,
    ToolEvent,
    ToolOutcome,
    ToolRound,
    ToolRun,
    ToolStart,
    sum_usage,
)
from ctxbackends._client.backend import Backend, check_backend
from ctxbackends._client.prompts import Conversation, build_messages
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._tool_results import build_error, build_result
from ctxbackends._tools import arguments_of, build_tool_choice, build_tools
from ctxbackends._wire.base import normalize_arguments
from ctxbackends.errors import NoToolCallError, StructuredOutputError, ToolRoundsError, UnsupportedOptionError

MAX_ROUNDS = 10
_QUOTED = 500  # characters of arguments that are not JSON

OnToolError: TypeAlias = Literal["return", "raise"]
Emit: TypeAlias = Callable[[Any], Awaitable[None]]
Ask: TypeAlias = Callable[[tuple[Message, ...], ChatOptions], Awaitable[Completion]]


@attrs.frozen(kw_only=True)
class ToolRequest:
    """A tool call that waits for approval.

    Attributes:
        call: The call that the model made.
        arguments: The arguments as Python values, checked against the tool's parameters.
        tool: The tool.
        round: The number of the round, from 1.
    """

    call: ToolCall
    arguments: Mapping[str, Any]
    tool: Tool
    round: int


Approve: TypeAlias = Callable[[ToolRequest], bool | Awaitable[bool]]


async def run_tools(
    backend: Backend,
    messages: Conversation,
    tools: ToolForms,
    *,
    max_rounds: int = MAX_ROUNDS,
    approve: Approve | None = None,
    on_tool_error: OnToolError = "return",
    on_event: Callable[[ToolEvent], object] | None = None,
    request_options: RequestOptions | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[OptionsWithoutTools],
) -> ToolRun:
    """Ask the model, run the tools that it calls, and send it the results, until it answers without a call.

    Calls of one answer run in parallel, and their results keep the order of the calls. Functions that are not ``async``
    run in worker threads. A call of an unknown tool, or with arguments that do not match the tool's parameters, is
    never executed; the model gets the error. ``tool_choice`` applies to the first round if it forces a call.

    Args:
        backend: The backend to ask.
        messages: The conversation.
        tools: Typed functions (``async`` or not), or :class:`Tool` values with a function, such as MCP tools.
        max_rounds: How often the model is asked at most, at least 1.
        approve: Asked before each call, one after the other; may be ``async``. The model is told about a call for which
            it returns False.
        on_tool_error: ``return`` gives the exception of a tool to the model; ``raise`` ends the loop with it.
        on_event: Called with each :class:`RoundStart`, :class:`ToolStart`, :class:`ToolEnd` and :class:`RoundEnd`; may
            be ``async``.
        request_options: The timeouts, retries and headers of each request, None for those of the configuration.
        on_progress: Called with a :class:`Loading` for each probe of a server that starts.
        **options: The options of each request, see :class:`ChatOptions`.

    Returns:
        The last answer with the whole conversation, all rounds and the sum of the token counts.

    Raises:
        ToolRoundsError: The model still called tools in the last round; the error has the conversation.
        NoToolCallError: ``tool_choice`` requires a call, and the first answer has none.
        TypeError: An argument has the wrong type, a tool has no function, or ``approve`` returned something other than
            a bool.
        ValueError: ``max_rounds`` is less than 1.
        BackendError: A request failed.
    """

    async def ask(conversation: tuple[Message, ...], given: ChatOptions) -> Completion:
        return await backend.complete(conversation, request_options=request_options, on_progress=on_progress, **given)

    async def emit(event: ToolEvent) -> None:
        if on_event is not None:
            await _await_if_needed(on_event(event))

    check_backend(backend)
    if on_event is not None and not callable(on_event):
        raise TypeError(f"on_event must be a function: {on_event!r:.80}")
    loop = ToolLoop(tools, max_rounds=max_rounds, approve=approve, on_tool_error=on_tool_error)
    return await loop.run(build_messages(messages), options, ask, emit)


class ToolLoop:
    """The loop, without the way in which the model is asked and events are told."""

    def __init__(
        self, tools: ToolForms, *, max_rounds: int, approve: Approve | None, on_tool_error: OnToolError
    ) -> None:
        if isinstance(max_rounds, bool) or not isinstance(max_rounds, int):
            raise TypeError(f"max_rounds must be an integer: {max_rounds!r:.80}")
        if approve is not None and not callable(approve):
            raise TypeError(f"approve must be a function: {approve!r:.80}")
        if max_rounds < 1:
            raise ValueError(f"max_rounds must be at least 1: {max_rounds}")
        if on_tool_error not in ("return", "raise"):
            raise ValueError(f"invalid on_tool_error: {on_tool_error!r}; use return or raise")
        self._tools = build_tools(tools)
        for tool in self._tools:
            if tool.function is None:
                raise TypeError(f"the tool {tool.name} has no function to run; pass a function, or Tool(function=...)")
        self._by_name = {tool.name: tool for tool in self._tools}
        self._max_rounds = max_rounds
        self._approve = approve
        self._raises = on_tool_error == "raise"

    async def run(self, messages: tuple[Message, ...], given: OptionsWithoutTools, ask: Ask, emit: Emit) -> ToolRun:
        options: ChatOptions = {**given, "tools": self._tools}
        tool_choice = given.get("tool_choice")
        if tool_choice is not None:
            choice: Any = build_tool_choice(tool_choice, given.get("parallel_tool_calls"))
            options |= choice
        rounds: list[ToolRound] = []
        for number in range(1, self._max_rounds + 1):
            await emit(RoundStart(number))
            completion = await ask(messages, options)
            messages = (*messages, message_to_send(completion))
            is_paused = completion.raw_finish_reason == "pause_turn"  # Anthropic's server continues its own tools
            choice = options.get("tool_choice")
            if choice not in (None, "auto", "none"):
                del options["tool_choice"]  # else the model could never answer
                if not completion.tool_calls and not is_paused:
                    tool = choice.name if isinstance(choice, NamedTool) else None
                    raise NoToolCallError(tool, completion=completion, messages=messages)
            outcomes: Sequence[ToolOutcome] = ()
            is_last = completion.finish_reason != "tool_calls" or not completion.tool_calls
            if not is_last:
                outcomes = await self._run_calls(completion.tool_calls, number, emit)
                messages = (*messages, Message("tool", tuple(outcome.result for outcome in outcomes)))
            rounds.append(ToolRound(completion=completion, outcomes=tuple(outcomes)))
            await emit(RoundEnd(rounds[-1]))
            if is_last and not is_paused:
                usage = sum_usage(tuple(rounds))
                return ToolRun(completion=completion, messages=messages, rounds=tuple(rounds), usage=usage)
        raise ToolRoundsError(self._max_rounds, messages=messages, rounds=tuple(rounds), usage=sum_usage(tuple(rounds)))

    async def _run_calls(self, calls: Sequence[ToolCall], number: int, emit: Emit) -> list[ToolOutcome]:
        outcomes: list[ToolOutcome | None] = [None] * len(calls)
        requests: list[tuple[int, ToolRequest]] = []
        for index, call in enumerate(calls):
            ready = await self._prepare(call, number)
            if isinstance(ready, ToolRequest):
                requests.append((index, ready))
            else:
                outcomes[index] = ready
                await emit(ToolEnd(ready))
        failures: list[Exception] = []

        async def run_one(index: int, request: ToolRequest, scope: anyio.CancelScope) -> None:
            try:
                outcomes[index] = await self._run_call(request, emit)
            except Exception as error:  # noqa: BLE001  # raised below, without a group around it
                failures.append(error)
                scope.cancel()

        async with anyio.create_task_group() as group:
            for index, request in requests:
                group.start_soon(run_one, index, request, group.cancel_scope)
        if failures:
            raise failures[0]
        return [outcome for outcome in outcomes if outcome is not None]

    async def _prepare(self, call: ToolCall, number: int) -> ToolRequest | ToolOutcome:
        """Return the request to run, or the outcome of a call that is not executed."""
        tool = self._by_name.get(call.name)
        if tool is None:
            names = ", ".join(self._by_name) or "none"
            problem = f"unknown tool: {call.name}; the tools are: {names}"
            return ToolOutcome(
                call=call, result=build_error(call, problem), status="invalid", error=LookupError(problem)
            )
        try:
            arguments = parse_arguments(tool, call)
        except StructuredOutputError as error:
            quote = "" if _is_object(call) else f": {call.arguments[:_QUOTED]}"
            problem = f"invalid arguments of {call.name}: {error.problem}{quote}"
            return ToolOutcome(call=call, result=build_error(call, problem), status="invalid", error=error)
        request = ToolRequest(call=call, arguments=arguments, tool=tool, round=number)
        if self._approve is not None:
            is_approved = await _await_if_needed(self._approve(request))
            if not isinstance(is_approved, bool):
                raise TypeError(f"approve must return a bool, not {type(is_approved).__name__}")
            if not is_approved:
                problem = f"the call of {call.name} was not approved and not executed"
                return ToolOutcome(call=call, result=build_error(call, problem), status="denied")
        return request

    async def _run_call(self, request: ToolRequest, emit: Emit) -> ToolOutcome:
        call, function = request.call, request.tool.function
        assert function is not None, "checked when the loop was built"
        await emit(ToolStart(call, request.arguments))
        start = time.monotonic()
        try:
            result = build_result(call, await _guard(call_function(function, request.arguments)))
            status: Literal["ok", "failed"] = "failed" if result.is_error else "ok"
            outcome = ToolOutcome(call=call, result=result, status=status, seconds=time.monotonic() - start)
        except Exception as error:
            if self._raises:
                error.add_note(f"in the tool {call.name}, called with {call.arguments}")
                raise
            problem = f"{call.name} failed: {type(error).__name__}: {error}"
            outcome = ToolOutcome(
                call=call,
                result=build_error(call, problem),
                status="failed",
                error=error,
                seconds=time.monotonic() - start,
            )
        await emit(ToolEnd(outcome))
        return outcome


def message_to_send(completion: Completion) -> Message:
    """Return the answer as a message, with ``{}`` as the arguments of calls that are not JSON objects.

    Servers reject a conversation with such calls. The result of the call quotes them.
    """
    message = completion.message
    if all(_is_object(call) for call in message.tool_calls):
        return message
    return Message("assistant", tuple(_repair_call(part) for part in message.parts))


def _repair_call(part: Part) -> Part:
    if not isinstance(part, ToolCall) or _is_object(part):
        return part
    return ToolCall(part.id, part.name, "{}", part.opaque)


def _is_object(call: ToolCall) -> bool:
    try:
        normalize_arguments(call)
    except UnsupportedOptionError:
        return False
    return True


def parse_arguments(tool: Tool, call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call, checked against the types of the function, or the schema of the tool.

    Raises:
        StructuredOutputError: The arguments do not match.
    """
    if call.arguments.strip() in ("", "null"):  # models write this for a tool without parameters
        call = ToolCall(call.id, call.name, "{}")
    return arguments_of(tool, call)


async def call_function(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function; one that is not ``async`` runs in a worker thread."""
    called = partial(function, **arguments)
    call = getattr(function, "__call__", None)  # noqa: B004  # whether it can be called is known
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        return await called()
    return await _await_if_needed(await to_thread.run_sync(called))


async def _guard(running: Awaitable[Any]) -> Any:
    """Await a tool; one that raises CancelledError by itself has failed, and does not cancel the loop."""
    try:
        return await running
    except anyio.get_cancelled_exc_class() as error:
        if anyio.current_effective_deadline() == -math.inf:  # the loop is being cancelled
            raise
        raise RuntimeError("the tool was cancelled") from error


async def _await_if_needed(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
