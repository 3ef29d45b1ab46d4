"""Notice that a server has gone while its response is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ctxbackends.errors import APIConnectionError

T = TypeVar("T")

WATCH_SECONDS = 10.0
"""Seconds between two probes."""


async def watch_server(sending: Coroutine[Any, Any, T], is_refused: Callable[[], Awaitable[bool]]) -> T:
    """Return the result of ``sending``, or raise APIConnectionError when ``is_refused`` says that the server has gone.

    A machine that is switched off closes no connection, so that its response would be awaited until the timeout.
    """
    response, refusal = asyncio.ensure_future(sending), asyncio.ensure_future(_wait_for(is_refused))
    try:
        await asyncio.wait([response, refusal], return_when=asyncio.FIRST_COMPLETED)
        if not response.done():
            refusal.result()
            raise APIConnectionError("the server stopped listening before it answered the request", sent=True)
        return response.result()
    finally:
        response.cancel()
        refusal.cancel()
        await asyncio.wait([response, refusal])


async def _wait_for(is_refused: Callable[[], Awaitable[bool]]) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if await is_refused():
            return
