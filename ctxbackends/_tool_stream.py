"""Tool loops as a stream: the pieces of each answer, and events about the tools, as they happen."""

from __future__ import annotations

import asyncio
from typing import Self, TypeAlias, Unpack

import anyio

from ctxbackends._chat.events import OnProgress, StreamEvent
from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, OptionsWithoutTools, ToolForms
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.tool_runs import ToolEvent, ToolRun
from ctxbackends._client.backend import Backend, check_backend
from ctxbackends._client.prompts import Conversation, build_messages
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._tool_loop import MAX_ROUNDS, Approve, OnToolError, ToolLoop
from ctxbackends.errors import ClosedError

Item: TypeAlias = StreamEvent | ToolEvent | ToolRun


class ToolStream:
    """A tool loop that is running. Use it with ``async with``, and iterate over it.

    The items are the events of each answer (such as :class:`TextDelta`), :class:`RoundStart`, :class:`ToolStart`,
    :class:`ToolEnd` and :class:`RoundEnd`, and the :class:`ToolRun` as the last. The loop waits while nobody reads.
    Leaving the ``async with`` early cancels the generation and the tools that run.

    Raises:
        ToolRoundsError: The model still called tools in the last round.
        NoToolCallError: ``tool_choice`` requires a call, and the first answer has none.
        BackendError: A request failed.
    """

    def __init__(
        self,
        backend: Backend,
        messages: tuple[Message, ...],
        loop: ToolLoop,
        options: OptionsWithoutTools,
        *,
        request_options: RequestOptions | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._backend = backend
        self._messages = messages
        self._loop = loop
        self._options = options
        self._request_options = request_options
        self._on_progress = on_progress
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._result: ToolRun | None = None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ClosedError("a stream can be opened only once; call stream_tools() again")
        self._send, self._receive = anyio.create_memory_object_stream[Item](0)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is None:
            return
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            self._send.close()
            self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        if self._task is None:
            raise ClosedError("the stream is not open; use it with async with")
        try:
            return await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None

    async def get_result(self) -> ToolRun:
        """Read to the end and return the result.

        Raises:
            ToolRoundsError: The model still called tools in the last round.
            NoToolCallError: ``tool_choice`` requires a call, and the first answer has none.
            ClosedError: The stream was left before its end.
            BackendError: A request failed.
        """
        async for _ in self:
            pass
        if self._result is None:
            raise ClosedError("no result: the stream has not been read to its end")
        return self._result

    async def _run(self) -> None:
        try:
            self._result = await self._loop.run(self._messages, self._options, self._ask, self._send.send)
            await self._send.send(self._result)
        except Exception as error:  # noqa: BLE001  # raised to the reader of the stream
            self._error = error
        finally:
            self._send.close()

    async def _ask(self, messages: tuple[Message, ...], options: ChatOptions) -> Completion:
        stream = self._backend.stream(
            messages, request_options=self._request_options, on_progress=self._on_progress, **options
        )
        async with stream:
            async for event in stream:
                await self._send.send(event)
            return await stream.get_final_completion()


def stream_tools(
    backend: Backend,
    messages: Conversation,
    tools: ToolForms,
    *,
    max_rounds: int = MAX_ROUNDS,
    approve: Approve | None = None,
    on_tool_error: OnToolError = "return",
    request_options: RequestOptions | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[OptionsWithoutTools],
) -> ToolStream:
    """Run a tool loop like :func:`run_tools`, and return its events as they happen.

    Args:
        backend: The backend to ask.
        messages: The conversation.
        tools: The tools, as for :func:`run_tools`.
        max_rounds: How often the model is asked at most, at least 1.
        approve: Asked before each call, as for :func:`run_tools`.
        on_tool_error: ``return`` gives the exception of a tool to the model; ``raise`` ends the loop with it.
        request_options: The timeouts, retries and headers of each request, None for those of the configuration.
        on_progress: Called with a :class:`Loading` for each probe of a server that starts.
        **options: The options of each request, see :class:`ChatOptions`.

    Returns:
        A stream whose last item is the :class:`ToolRun`. Entering its ``async with`` starts the loop.

    Raises:
        TypeError: An argument has the wrong type, or a tool has no function.
        ValueError: ``max_rounds`` is less than 1.
    """
    check_backend(backend)
    loop = ToolLoop(tools, max_rounds=max_rounds, approve=approve, on_tool_error=on_tool_error)
    return ToolStream(
        backend, build_messages(messages), loop, options, request_options=request_options, on_progress=on_progress
    )
