"""The client of Ollama."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import ollama

WIRES = ("ollama",)
DISTRIBUTIONS = ("ollama", "httpx", "pydantic")


class Ollama:
    def __init__(self, url: str) -> None:
        # By default 100 connections, of which 20 are kept: 200 streams at once would be two times 100.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
        self._client = ollama.AsyncClient(host=url, limits=limits)

    async def complete(self, model: str) -> str:
        answer = await self._client.chat(
            model=model, messages=[{"role": "user", "content": "Say something."}], options={"num_predict": 1000}
        )
        return answer.message.content or ""

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async for part in await self._client.chat(
            model=model,
            messages=[{"role": "user", "content": "Say something."}],
            options={"num_predict": 1000},
            stream=True,
        ):
            if part.message.content:
                take(part.message.content)

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]


async def open_client(wire: str, url: str) -> Ollama:
    return Ollama(url)
