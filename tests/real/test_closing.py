"""Closing with answers of a real server in flight: streams, registries and their embedded servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxbackends import BackendConfig, ClosedError, Registry, TextDelta

pytestmark = pytest.mark.real

LONG = 100_000  # slow-tokens writes on and on


def embedded(model: Callable[[str], Path]) -> Registry:
    """A registry whose backend starts its own server."""
    config = BackendConfig(name="mine", type="llamacpp", model_path=str(model("slow-tokens")), threads=1)
    return Registry([config])


async def test_a_registry_that_closes_ends_the_stream_of_its_own_server(model: Callable[[str], Path]) -> None:
    registry = embedded(model)
    async with registry.default().stream("Hello", max_tokens=LONG) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        reading = asyncio.ensure_future(stream.get_final_completion())
        await asyncio.sleep(0)
        await registry.aclose()
        with pytest.raises(ClosedError) as exc_info:
            await reading
    assert exc_info.value.partial is not None
    assert stream.text_so_far == exc_info.value.partial.text
    assert stream.text_so_far


async def test_a_drain_lets_an_answer_end(model: Callable[[str], Path]) -> None:
    registry = embedded(model)
    async with registry.default().stream("Hello", max_tokens=20) as stream:
        await anext(stream)
        assert await registry.drain(timeout=60)
        completion = await stream.get_final_completion()
    assert completion.usage is not None
    assert 20 == completion.usage.output_tokens


async def test_aclose_of_a_stream_frees_the_slot(model: Callable[[str], Path]) -> None:
    async with embedded(model) as registry:
        backend = registry.default()
        async with backend.stream("Hello", max_tokens=LONG) as stream:
            while not stream.text_so_far:
                await anext(stream)
            await stream.aclose()
            async with asyncio.timeout(10):
                while (await backend.status()).busy_slots:
                    await asyncio.sleep(0.02)
        assert stream.partial.text == stream.text_so_far
