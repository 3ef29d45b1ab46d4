"""LiteLLM, over OpenAI's wire."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else the import fetches a table of prices
os.environ["AIOHTTP_CONNECTOR_LIMIT_PER_HOST"] = "1000"  # by default 500, and 1,000 over all

import litellm  # it reads the lines above while it is imported

WIRES = ("openai",)
DISTRIBUTIONS = ("litellm", "openai", "httpx", "aiohttp", "pydantic")


class LiteLLM:
    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1"

    async def complete(self, model: str) -> str:
        answer = await litellm.acompletion(
            model=f"openai/{model}",
            messages=[{"role": "user", "content": "Say something."}],
            max_tokens=1000,
            api_base=self._url,
            api_key="sk-made-up",
        )
        return answer.choices[0].message.content or ""

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        stream = await litellm.acompletion(
            model=f"openai/{model}",
            messages=[{"role": "user", "content": "Say something."}],
            max_tokens=1000,
            api_base=self._url,
            api_key="sk-made-up",
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    take(choice.delta.content)

    async def close(self) -> None:
        """It keeps its clients itself, for the life of the process."""


async def open_client(wire: str, url: str) -> LiteLLM:
    return LiteLLM(url)
