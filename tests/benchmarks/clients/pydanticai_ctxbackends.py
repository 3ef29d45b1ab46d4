"""pydantic-ai on the SDK: the requests of `pydanticai_client`, with our model instead of its model for OpenAI."""

from __future__ import annotations

from ctxbackends import BackendConfig
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.pydantic_ai import CtxModel
from tests.benchmarks.clients.pydanticai_client import PydanticAI

WIRES = ("openai",)
DISTRIBUTIONS = ("ctxbackends", "pydantic-ai-slim", "aiohttp", "msgspec", "pydantic")


class PydanticAIOnCtxbackends(PydanticAI):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._config = BackendConfig(name="bench", type="openai", endpoint=url, api_key="sk-made-up")

    def _create_model(self, name: str) -> CtxModel:
        return CtxModel(self._config, name)

    async def close(self) -> None:
        await super().close()
        await close_backends()


async def open_client(wire: str, url: str) -> PydanticAIOnCtxbackends:
    return PydanticAIOnCtxbackends(url)
