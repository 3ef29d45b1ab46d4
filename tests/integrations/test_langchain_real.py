"""Structured output of LangChain on a real llama.cpp server, whose grammar enforces the schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain: nox -s integrations")

from pydantic import BaseModel

from ctxbackends import BackendConfig, LocalServer
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.langchain import ChatCtxbackends
from tests.integrations.pages import llama_server, tiny_model  # noqa: F401  # fixtures

pytestmark = pytest.mark.real


class Review(BaseModel):
    language: Literal["English", "French"]
    is_positive: bool


@pytest.fixture
async def model(llama_server: LocalServer) -> AsyncIterator[Any]:  # noqa: F811  # the fixture
    endpoint = await llama_server.start()
    config = BackendConfig(name="local", type="llamacpp", endpoint=endpoint, default_model="tiny")
    yield ChatCtxbackends(backend=config, max_tokens=100).with_structured_output(Review)
    await close_backends()


async def test_the_answer_is_of_the_type(model: Any) -> None:
    assert isinstance(await model.ainvoke("Quel beau livre !"), Review)


async def test_a_stream_ends_with_the_value(model: Any) -> None:
    values = [value async for value in model.astream("Quel beau livre !")]
    assert isinstance(values[-1], Review)
