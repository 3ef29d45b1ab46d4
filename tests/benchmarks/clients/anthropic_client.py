"""The client of Anthropic."""

from __future__ import annotations

from collections.abc import Callable

import anthropic

WIRES = ("anthropic",)
DISTRIBUTIONS = ("anthropic", "httpx2", "httpx", "pydantic")


class Anthropic:
    def __init__(self, url: str) -> None:
        self._client = anthropic.AsyncAnthropic(base_url=url, api_key="sk-made-up")

    async def complete(self, model: str) -> str:
        answer = await self._client.messages.create(
            model=model, messages=[{"role": "user", "content": "Say something."}], max_tokens=1000
        )
        return "".join(block.text for block in answer.content if block.type == "text")

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async with await self._client.messages.create(
            model=model, messages=[{"role": "user", "content": "Say something."}], max_tokens=1000, stream=True
        ) as stream:
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    take(event.delta.text)

    async def close(self) -> None:
        await self._client.close()


async def open_client(wire: str, url: str) -> Anthropic:
    return Anthropic(url)  # 1,000 connections, by default
