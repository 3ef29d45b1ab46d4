"""ctxbackends, as a program uses it. The wires ``vllm`` and ``llamacpp`` are OpenAI's, with the types whose
``complete()`` streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ctxbackends import BackendConfig, BackendError, Registry, TextDelta

WIRES = ("openai", "vllm", "llamacpp", "anthropic", "ollama")
DISTRIBUTIONS = ("ctxbackends", "aiohttp", "msgspec")
TYPES = {"openai": "openai-compatible"}


class SDK:
    def __init__(self, wire: str, url: str) -> None:
        # The API keys are made up: the types of paid APIs want one.
        key = "sk-made-up" if wire == "anthropic" else None
        config = BackendConfig(name="b", type=TYPES.get(wire, wire), endpoint=url, api_key=key)
        self._registry = Registry([config])
        self._backend = self._registry.resolve("b")

    async def complete(self, model: str) -> str:
        return (await self._backend.complete("Say something.", model=model, max_tokens=1000)).text

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async with self._backend.stream("Say something.", model=model, max_tokens=1000) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    take(event.text)

    async def close(self) -> None:
        await self._registry.aclose()


async def open_client(wire: str, url: str) -> SDK:
    return SDK(wire, url)


async def cold_start(kind: str, url: str, budget: float) -> dict[str, Any]:
    """The first completion from a server that is not ready: when the answer came, on the clock that all processes
    share, and the name of the error where there was one."""
    config = BackendConfig(name="b", type=kind, endpoint=url, ready_timeout=budget)
    error = ""
    async with Registry([config]) as registry:
        try:
            await registry.resolve("b").complete("Say something.", model="tiny")
        except BackendError as failure:
            error = type(failure).__name__
        end = time.monotonic()
    return {"ended_at": end, "error": error}
