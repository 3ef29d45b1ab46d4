"""any-llm, over OpenAI's wire."""

from __future__ import annotations

from collections.abc import Callable

from any_llm import AnyLLM

WIRES = ("openai",)
DISTRIBUTIONS = ("any-llm-sdk", "openai", "httpx2", "httpx", "pydantic")


class AnyClient:
    def __init__(self, url: str) -> None:
        self._client = AnyLLM.create("openai", api_key="sk-made-up", api_base=f"{url}/v1")

    async def complete(self, model: str) -> str:
        answer = await self._client.acompletion(
            model=model, messages=[{"role": "user", "content": "Say something."}], max_tokens=1000
        )
        return answer.choices[0].message.content or ""

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async for chunk in await self._client.acompletion(
            model=model,
            messages=[{"role": "user", "content": "Say something."}],
            max_tokens=1000,
            stream=True,
            stream_options={"include_usage": True},
        ):
            for choice in chunk.choices:
                if choice.delta.content:
                    take(choice.delta.content)

    async def close(self) -> None:
        await self._client.client.close()


async def open_client(wire: str, url: str) -> AnyClient:
    return AnyClient(url)
