"""LangChain on the SDK: the requests of `langchain_client`, with our model instead of its model for OpenAI."""

from __future__ import annotations

from ctxbackends import BackendConfig
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.langchain import ChatCtxbackends
from tests.benchmarks.clients.langchain_client import MAX_TOKENS, LangChain

WIRES = ("openai",)
DISTRIBUTIONS = ("ctxbackends", "langchain-core", "aiohttp", "msgspec", "pydantic")


class LangChainOnCtxbackends(LangChain):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._config = BackendConfig(name="bench", type="openai", endpoint=url, api_key="sk-made-up")

    def _create_model(self, name: str) -> ChatCtxbackends:
        return ChatCtxbackends(backend=self._config, model=name, max_tokens=MAX_TOKENS)

    async def close(self) -> None:
        await super().close()
        await close_backends()


async def open_client(wire: str, url: str) -> LangChainOnCtxbackends:
    return LangChainOnCtxbackends(url)
