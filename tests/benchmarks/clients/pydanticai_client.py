"""pydantic-ai, over OpenAI's wire: its direct requests, without an agent, which would cost more."""

from __future__ import annotations

from collections.abc import Callable

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelRequest, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

WIRES = ("openai",)
DISTRIBUTIONS = ("pydantic-ai-slim", "openai", "httpx2", "httpx", "pydantic")
SETTINGS = ModelSettings(max_tokens=1000)


class PydanticAI:
    def __init__(self, url: str) -> None:
        self._provider = OpenAIProvider(base_url=f"{url}/v1", api_key="sk-made-up")
        self._models: dict[str, Model] = {}

    def _create_model(self, name: str) -> Model:
        return OpenAIChatModel(name, provider=self._provider)

    def _model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = self._create_model(name)
        return self._models[name]

    async def complete(self, model: str) -> str:
        prompt = [ModelRequest.user_text_prompt("Say something.")]
        answer = await model_request(self._model(model), prompt, model_settings=SETTINGS)
        return "".join(part.content for part in answer.parts if isinstance(part, TextPart))

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        prompt = [ModelRequest.user_text_prompt("Say something.")]
        async with model_request_stream(self._model(model), prompt, model_settings=SETTINGS) as stream:
            async for event in stream:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    take(event.part.content)
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    take(event.delta.content_delta)

    async def close(self) -> None:
        await self._provider.client.close()


async def open_client(wire: str, url: str) -> PydanticAI:
    return PydanticAI(url)
