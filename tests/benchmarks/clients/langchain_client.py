"""LangChain, over OpenAI's wire: `ainvoke()` and `astream()` of its own model."""

from __future__ import annotations

from collections.abc import Callable

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

WIRES = ("openai",)
DISTRIBUTIONS = ("langchain-openai", "langchain-core", "openai", "httpx2", "httpx", "pydantic")
MAX_TOKENS = 1000


class LangChain:
    def __init__(self, url: str) -> None:
        self._url = url
        self._models: dict[str, BaseChatModel] = {}

    def _create_model(self, name: str) -> BaseChatModel:
        key = SecretStr("sk-made-up")
        # The usage of a stream is left out by default with another address; ours always has it.
        return ChatOpenAI(
            model=name, base_url=f"{self._url}/v1", api_key=key, max_completion_tokens=MAX_TOKENS, stream_usage=True
        )

    def _model(self, name: str) -> BaseChatModel:
        if name not in self._models:
            self._models[name] = self._create_model(name)
        return self._models[name]

    async def complete(self, model: str) -> str:
        return str((await self._model(model).ainvoke("Say something.")).text)

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async for chunk in self._model(model).astream("Say something."):
            if chunk.text:
                take(str(chunk.text))

    async def close(self) -> None:
        self._models.clear()


async def open_client(wire: str, url: str) -> LangChain:
    return LangChain(url)
