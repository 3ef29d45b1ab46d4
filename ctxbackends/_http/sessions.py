"""The aiohttp sessions of one event loop, with its deadlines and open streams. Knows no request."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import aiohttp

from ctxbackends._http.body import ByteStream
from ctxbackends._http.connector import (
    CheckedConnector,
    Connector,
    LoopbackResolver,
    UnixConnector,
    create_checked_socket,
)
from ctxbackends._http.deadlines import Deadlines
from ctxbackends._util.event_loops import call_on

SESSION_HEADERS = {
    "User-Agent": "ctxbackends",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}

KEEPALIVE_SECONDS = 4.0
"""vLLM and llama-server close idle connections after 5.0 s.

A POST on a connection that closes at that moment is lost, and aiohttp does not retry a POST.
"""

CLOSE_SECONDS = 1.0
"""How long to wait for another loop to close its sessions. A loop that is blocked closes them later."""

Pool: TypeAlias = Literal["generations", "probes", "none"]
"""Which connections a request may reuse. If one pooled connection was closed, others may be closed too, so the retry
uses none."""

_POOLING: Mapping[Pool, Mapping[str, Any]] = {
    "generations": {"keepalive_timeout": KEEPALIVE_SECONDS},
    "probes": {"keepalive_timeout": KEEPALIVE_SECONDS},
    "none": {"force_close": True},
}


class LoopSessions:
    """The sessions of one event loop: one for each pool, created on first use, and closed on that loop.

    Args:
        loop: The event loop.
        airgap: Connect only to loopback and private addresses.
        unix_socket: The path of the Unix socket to connect to, None for TCP.

    Attributes:
        loop: The event loop.
        deadlines: The deadlines of the requests on the loop.
        streams: The open streams of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, airgap: bool, unix_socket: str | None) -> None:
        self.loop = loop
        self.deadlines = Deadlines()
        self.streams: weakref.WeakSet[ByteStream] = weakref.WeakSet()
        self._airgap = airgap
        self._unix_socket = unix_socket
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}
        self._guard: AsyncGenerator[None, None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_closed: list[Callable[[], object]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a request is waited for, or a response is streamed. May be called on any loop."""
        if self.loop.is_closed():
            return False
        try:
            return bool(self.deadlines.active) or any(not stream.is_ended for stream in self.streams)
        except RuntimeError:  # another thread opens or closes a stream
            return True

    async def get(self, pool: Pool) -> aiohttp.ClientSession:
        """Return the session of ``pool``. Call it on the loop."""
        session = self._sessions.get(pool)
        if session is None:
            session = self._sessions[pool] = self._new_session(_POOLING[pool])
            if self._guard is None:
                self._guard = _close_with_loop(self)
                await anext(self._guard)
        return session

    def _new_session(self, pooling: Mapping[str, Any]) -> aiohttp.ClientSession:
        connector: CheckedConnector
        if self._unix_socket is not None:
            connector = UnixConnector(self._unix_socket, limit=0, **pooling)
        else:
            connector = Connector(
                limit=0,
                resolver=LoopbackResolver(airgap=self._airgap),
                socket_factory=create_checked_socket if self._airgap else None,
                **pooling,
            )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a compressed response is not requested, and is an error
            trust_env=False,  # loopback is never proxied
            headers=SESSION_HEADERS,
        )

    async def aclose(self) -> None:
        """End the waits and streams of the loop, and close its sessions. May be called on any loop."""
        running = asyncio.get_running_loop()
        if running is self.loop:
            await self._close()
            return
        is_closed = asyncio.Event()
        self._on_closed.append(lambda: call_on(running, is_closed.set))
        if call_on(self.loop, self._close_soon) and self.loop.is_running():
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await is_closed.wait()

    def _close_soon(self) -> None:
        self._closing = self.loop.create_task(self._close())

    async def _close(self) -> None:
        self.deadlines.close()
        for stream in list(self.streams):  # a reader gets the error at once, and not after a timeout
            stream.close()
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()
        self._notify_closed()

    async def close_sessions(self) -> None:
        """Close the sessions. Also called at the end of the loop."""
        sessions = [*self._sessions.values()]
        self._sessions.clear()
        try:
            await _close_all(sessions)
        finally:
            self._notify_closed()

    def _notify_closed(self) -> None:
        callbacks, self._on_closed = self._on_closed, []
        for callback in callbacks:
            callback()

    def leave_to_parent(self) -> None:
        """Let go of the sessions without closing them. Called in a forked process.

        Its connections, and the selector of its loop, are those of the parent process.
        """
        for session in self._sessions.values():
            connector = session.connector
            assert isinstance(connector, CheckedConnector), "it was created here"
            connector.leave_open()
            session.detach()


async def _close_with_loop(sessions: LoopSessions) -> AsyncGenerator[None, None]:
    """Close the sessions at the end of their loop.

    ``asyncio.run`` closes async generators before the loop, so a client that was never closed leaves no open socket and
    no ResourceWarning.
    """
    try:
        yield
    finally:
        await sessions.close_sessions()


async def _close_all(sessions: list[aiohttp.ClientSession]) -> None:
    """Close each session, also if this is cancelled."""
    if sessions:
        try:
            await sessions[0].close()
        finally:
            await _close_all(sessions[1:])
