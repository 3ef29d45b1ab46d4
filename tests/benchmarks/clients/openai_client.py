"""The client of OpenAI, with its default transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai

WIRES = ("openai",)
DISTRIBUTIONS = ("openai", "httpx2", "httpx", "pydantic")


class OpenAI:
    def __init__(self, url: str, **settings: Any) -> None:
        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-made-up", **settings)

    async def complete(self, model: str) -> str:
        answer = await self._client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say something."}], max_tokens=1000
        )
        return answer.choices[0].message.content or ""

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async with await self._client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Say something."}],
            max_tokens=1000,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            async for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        take(choice.delta.content)

    async def close(self) -> None:
        await self._client.close()


async def open_client(wire: str, url: str) -> OpenAI:
    return OpenAI(url)  # 1,000 connections, by default
