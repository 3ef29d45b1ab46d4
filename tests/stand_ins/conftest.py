"""The stand-ins, each with its vendor's client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.stand_ins import anthropic_requests
from tests.stand_ins.openai_requests import KEY


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(api_key=KEY, context_length=3000) as server:
        yield server


@pytest.fixture
async def openai_client(openai_server: OpenAIStandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{openai_server.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_server() -> AsyncIterator[AnthropicStandIn]:
    async with AnthropicStandIn(api_key=anthropic_requests.KEY, context_length=3000) as server:
        yield server


@pytest.fixture
async def anthropic_client(anthropic_server: AnthropicStandIn) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        api_key=anthropic_requests.KEY, base_url=anthropic_server.url, max_retries=0
    ) as client:
        yield client
