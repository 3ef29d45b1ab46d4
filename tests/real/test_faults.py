"""A real server that fails in mid-stream: nothing is lost silently, and nothing hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    LocalServer,
    RequestOptions,
    StreamInterruptedError,
    TextDelta,
)
from tests.real.conftest import ServerFactory, over

if sys.platform == "win32":
    pytest.skip("sends signals to the server", allow_module_level=True)

pytestmark = pytest.mark.real


@pytest.fixture
async def own_server(server_of: ServerFactory) -> AsyncIterator[LocalServer]:
    """A slow server of this test's own, to be killed."""
    server = server_of("slow-tokens", parallel=2, ctx_size=2048)
    await server.start()
    yield server
    await server.aclose()


async def test_killed_in_mid_stream(own_server: LocalServer) -> None:
    text = ""
    async with over(own_server) as backend:
        with pytest.raises(StreamInterruptedError) as exc_info:
            async with backend.stream("Hello", max_tokens=100_000) as stream:
                async for event in stream:
                    text += event.text if isinstance(event, TextDelta) else ""
                    if len(text) > 20 and own_server.pid is not None:
                        os.kill(own_server.pid, signal.SIGKILL)
        assert exc_info.value.partial.text == text
        assert exc_info.value.partial.served_model == "slow-tokens"
        assert exc_info.value.__cause__ is not None
        for _ in range(20):
            with pytest.raises(APIConnectionError) as ping_info:
                await backend.ping(wait=False)
            if ping_info.value.refused:
                break
            # The process listens a moment longer than its stream is open. What comes then is reset, and was not sent.
            assert ("Connection reset by peer", False) == (ping_info.value.problem, ping_info.value.sent)
            await asyncio.sleep(0.05)
        assert ping_info.value.refused


async def test_a_completion_of_a_killed_server_is_an_error(own_server: LocalServer) -> None:
    async with over(own_server) as backend:
        task = asyncio.create_task(backend.complete("Hello", max_tokens=100_000))
        await asyncio.sleep(0.5)  # it generates by then; any moment would do
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        with pytest.raises((StreamInterruptedError, APIConnectionError)):
            await task


async def test_a_terminated_server_hangs_until_the_idle_timeout(own_server: LocalServer) -> None:
    """After SIGTERM llama-server stops generating and leaves its clients without a byte and without an end."""
    text = ""
    async with over(own_server, idle_timeout=1.5) as backend:
        with pytest.raises((APITimeoutError, StreamInterruptedError)) as exc_info:
            async with backend.stream("Hello", max_tokens=100_000) as stream:
                async for event in stream:
                    text += event.text if isinstance(event, TextDelta) else ""
                    if len(text) > 20 and own_server.pid is not None:
                        os.kill(own_server.pid, signal.SIGTERM)
    error = exc_info.value
    assert isinstance(error, APITimeoutError | StreamInterruptedError)
    assert error.partial is not None
    assert error.partial.text == text
    if isinstance(error, APITimeoutError):
        assert (error.phase, error.key) == ("idle", "idle_timeout")


async def test_a_stopped_process_times_out_with_its_phase(own_server: LocalServer) -> None:
    assert own_server.pid is not None
    async with over(own_server, idle_timeout=0.7) as backend:
        with pytest.raises(APITimeoutError) as exc_info:
            async with backend.stream("Hello", max_tokens=100_000) as stream:
                async for event in stream:
                    if isinstance(event, TextDelta):
                        os.kill(own_server.pid, signal.SIGSTOP)
        assert exc_info.value.phase == "idle"
        short = RequestOptions(first_token_timeout=0.7)
        with pytest.raises(APITimeoutError) as exc_info:
            await backend.complete("Hello", max_tokens=4, request_options=short)
        assert (exc_info.value.phase, exc_info.value.limit, exc_info.value.key) == (
            "first_token",
            0.7,
            "first_token_timeout",
        )
        os.kill(own_server.pid, signal.SIGCONT)
