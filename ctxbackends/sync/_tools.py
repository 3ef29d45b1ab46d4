"""Tool loops without async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Unpack

from ctxbackends import _tool_loop, _tool_stream
from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.requests import OptionsWithoutTools, ToolForms
from ctxbackends._chat.tool_runs import ToolEvent, ToolRun
from ctxbackends._client.prompts import Conversation
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._tool_loop import MAX_ROUNDS, Approve, OnToolError, ToolRequest
from ctxbackends._tool_stream import Item, ToolStream
from ctxbackends.sync._backend import SyncBackend, unwrap_backend
from ctxbackends.sync._loop_thread import shared
from ctxbackends.sync._stream import SyncReader


def run_tools(
    backend: SyncBackend,
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
    """Ask the model and run the tools that it calls, until it answers. See :func:`ctxbackends.run_tools`.

    Tools and ``approve`` run in worker threads, and ``on_event`` and ``on_progress`` in the thread of the caller.
    """
    async_backend = unwrap_backend(backend)
    inbox: SimpleQueue[Any] = SimpleQueue()

    def receive(message: tuple[Callable[[Any], object], object]) -> None:
        callback, value = message
        callback(value)

    def send_to(callback: Callable[[Any], object] | None) -> Callable[[Any], None] | None:
        return None if callback is None else lambda value: inbox.put((callback, value))

    return shared.thread.call(
        lambda: _tool_loop.run_tools(
            async_backend,
            messages,
            tools,
            max_rounds=max_rounds,
            approve=_run_in_thread(approve),
            on_tool_error=on_tool_error,
            on_event=send_to(on_event),
            request_options=request_options,
            on_progress=send_to(on_progress),
            **options,
        ),
        inbox=inbox,
        report=receive,
    )


class SyncToolStream(SyncReader[ToolStream, Item]):
    """A :class:`~ctxbackends.ToolStream` without async. Use it with ``with``, and iterate over it.

    Raises:
        ToolRoundsError: The model still called tools in the last round.
        NoToolCallError: ``tool_choice`` requires a call, and the first answer has none.
        BackendError: A request failed.
    """

    def get_result(self) -> ToolRun:
        """Read to the end and return the result.

        Raises:
            ToolRoundsError: The model still called tools in the last round.
            NoToolCallError: ``tool_choice`` requires a call, and the first answer has none.
            ClosedError: The stream was left before its end.
            BackendError: A request failed.
        """
        return self._call(self._stream.get_result)


def stream_tools(
    backend: SyncBackend,
    messages: Conversation,
    tools: ToolForms,
    *,
    max_rounds: int = MAX_ROUNDS,
    approve: Approve | None = None,
    on_tool_error: OnToolError = "return",
    request_options: RequestOptions | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[OptionsWithoutTools],
) -> SyncToolStream:
    """Run a tool loop, and return its events as they happen. See :func:`ctxbackends.stream_tools`.

    Tools and ``approve`` run in worker threads, and ``on_progress`` in the thread that reads.
    """
    async_backend = unwrap_backend(backend)
    return SyncToolStream(
        lambda report: _tool_stream.stream_tools(
            async_backend,
            messages,
            tools,
            max_rounds=max_rounds,
            approve=_run_in_thread(approve),
            on_tool_error=on_tool_error,
            request_options=request_options,
            on_progress=report,
            **options,
        ),
        on_progress,
        registry_closer=backend._registry_closer,
    )


def _run_in_thread(approve: Approve | None) -> Approve | None:
    """Return ``approve`` so that a question to a person does not block the loop."""
    if approve is None or not callable(approve):
        return approve

    async def ask(request: ToolRequest) -> bool:
        answer = await asyncio.to_thread(approve, request)
        return await answer if inspect.isawaitable(answer) else answer

    return ask
