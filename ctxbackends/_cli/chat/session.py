"""A conversation and how to continue it. Knows no terminal: a display shows the events of each answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import attrs

from ctxbackends._chat.events import Finish, Loading, PromptProgress, StreamEvent, TextDelta
from ctxbackends._chat.messages import Message, OpaquePart
from ctxbackends._chat.requests import Tool
from ctxbackends._chat.responses import Completion, Usage
from ctxbackends._chat.tool_runs import RoundEnd, RoundStart, ToolEnd, ToolEvent, ToolRound, ToolRun, ToolStart
from ctxbackends._cli.chat.queue import watch_slots
from ctxbackends._client.backend import Backend

if TYPE_CHECKING:
    from ctxbackends._cli.chat.display import Display
    from ctxbackends._cli.chat.recorder import Recorder
    from ctxbackends._config.request_options import RequestOptions
    from ctxbackends._tool_loop import Approve, ToolRequest

_NO_TOKEN = (Loading, PromptProgress, OpaquePart, Finish, RoundStart, ToolStart, ToolEnd, RoundEnd, ToolRun)


@attrs.frozen(kw_only=True)
class Turn:
    """One complete answer, with its tool rounds.

    Attributes:
        completion: The last answer of the model.
        rounds: All answers with their tool calls, including the last; empty without tools.
        usage: The token counts of all rounds together, None if the server reports none.
        first_token_seconds: From the request to the first token of any kind, None for an answer without one.
        generation_seconds: From the first token of each round to its last, all rounds together.
        seconds: From the request to the end of the answer.
    """

    completion: Completion
    rounds: tuple[ToolRound, ...] = ()
    usage: Usage | None = None
    first_token_seconds: float | None = None
    generation_seconds: float = 0.0
    seconds: float = 0.0


@attrs.define(kw_only=True)
class ChatSession:
    """A conversation with one model.

    Attributes:
        backend: The backend that is asked.
        model: The model, None for the backend's ``default_model``.
        system: The system message, None for none.
        options: The other options of each request, see :class:`ctxbackends.ChatOptions`.
        request_options: The timeouts, retries and headers of each request, None for those of the configuration.
        messages: The conversation so far, without the system message.
        tools: The tools that the model may call.
        approve: Asked before each call of a tool, while the display pauses; None to run them all.
        log: Records each answer, None to record none.
        turns: The complete answers of this session.
        failed: The last message if it got no answer, so that it can be sent again.
    """

    backend: Backend
    model: str | None = None
    system: str | None = None
    options: dict[str, Any] = attrs.field(factory=dict)
    request_options: RequestOptions | None = None
    messages: list[Message] = attrs.field(factory=list)
    tools: tuple[Tool, ...] = ()
    approve: Approve | None = None
    log: Recorder | None = None
    turns: list[Turn] = attrs.field(factory=list)
    failed: Message | None = None

    async def ask(self, message: Message, display: Display) -> Completion:
        """Stream the answer to a message, with its tool rounds, to the display.

        When it is cancelled, the text so far is kept as the answer. When it fails, or is cancelled before any text, the
        conversation is as before, and the message is in ``failed``.

        Raises:
            BackendError: A request failed.
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range.
        """
        self.failed = message
        progress = _Progress()
        display.start()
        watch = asyncio.create_task(watch_slots(self.backend, display))
        try:
            result = await self._stream(message, display, progress)
        except BaseException as error:
            display.finish(None)
            if isinstance(error, asyncio.CancelledError):
                self._keep(message, progress.partial_answer(), None)
            raise
        finally:
            watch.cancel()
            await asyncio.wait([watch])  # its request ends before the backend is closed
        turn = progress.finish(result)
        display.finish(turn.completion)
        self.turns.append(turn)
        self._keep(message, progress.rounds if turn.rounds else [turn.completion.message], turn)
        return turn.completion

    async def _stream(self, message: Message, display: Display, progress: _Progress) -> Completion | ToolRun:
        system = [] if self.system is None else [Message.system(self.system)]
        prompt = [*system, *self.messages, message]
        options: dict[str, Any] = {
            **self.options,
            "request_options": self.request_options,
            "on_progress": display.progress,
        }
        if self.model is not None:
            options["model"] = self.model
        if not self.tools:
            async with self.backend.stream(prompt, **options) as stream:
                async for event in stream:
                    progress.record(event)
                    display.event(event)
                return await stream.get_final_completion()
        from ctxbackends._tool_stream import stream_tools  # needed only for tools

        async with stream_tools(self.backend, prompt, self.tools, approve=self._approver(display), **options) as loop:
            async for item in loop:
                progress.record(item)
                display.event(item)
            return await loop.get_result()

    def _approver(self, display: Display) -> Approve | None:
        approve = self.approve
        if approve is None:
            return None

        async def ask(request: ToolRequest) -> bool:
            display.pause()
            answer = approve(request)
            return answer if isinstance(answer, bool) else await answer

        return ask

    def _keep(self, message: Message, answer: list[Message], turn: Turn | None) -> None:
        if not answer:
            return
        self.messages += [message, *answer]
        self.failed = None
        if self.log is not None:
            self.log.record(self, [message, *answer], turn)


class _Progress:
    """The times of an answer, and the part of it that has arrived."""

    def __init__(self) -> None:
        self.rounds: list[Message] = []
        self._texts: list[str] = []
        self._start = time.monotonic()
        self._first: float | None = None
        self._first_of_round: float | None = None
        self._generation_seconds = 0.0

    def record(self, item: StreamEvent | ToolEvent | ToolRun) -> None:
        if isinstance(item, TextDelta):
            self._texts.append(item.text)
        if self._first_of_round is None and not isinstance(item, _NO_TOKEN):
            self._first_of_round = time.monotonic()
            self._first = self._first or self._first_of_round
        elif isinstance(item, Finish) and self._first_of_round is not None:
            self._generation_seconds += time.monotonic() - self._first_of_round
            self._first_of_round = None
        elif isinstance(item, RoundEnd):
            from ctxbackends._tool_loop import message_to_send  # loaded already, by the tools

            self.rounds.append(message_to_send(item.round.completion))
            if item.round.outcomes:
                self.rounds.append(Message("tool", tuple(outcome.result for outcome in item.round.outcomes)))
            self._texts.clear()

    def partial_answer(self) -> list[Message]:
        """Return the rounds that are complete, and the text of the one that is not."""
        text = "".join(self._texts)
        return [*self.rounds, Message.assistant(text)] if text else self.rounds

    def finish(self, result: Completion | ToolRun) -> Turn:
        """Return the turn of a complete answer."""
        rounds = () if isinstance(result, Completion) else result.rounds
        completion = result if isinstance(result, Completion) else result.completion
        return Turn(
            completion=completion,
            rounds=rounds,
            usage=result.usage,
            first_token_seconds=None if self._first is None else self._first - self._start,
            generation_seconds=self._generation_seconds,
            seconds=time.monotonic() - self._start,
        )
