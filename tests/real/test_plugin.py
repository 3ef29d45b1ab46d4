"""The fixtures that users of the SDK import in their own tests, used as they would use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctxbackends import Backend, LocalServer

pytestmark = pytest.mark.real


async def test_a_running_server_with_a_ready_backend(llama_backend: Backend) -> None:
    answer = await llama_backend.complete("Hello", max_tokens=8)
    assert answer.served_model == "tiny"
    assert len((await llama_backend.embed(["one", "two"])).vectors) == 2


async def test_the_session_shares_one_server(llama_backend: Backend, llama_server: LocalServer) -> None:
    assert await llama_server.start() == llama_backend.endpoint


@pytest.mark.parametrize("variant", ["tiny", "tiny-tools", "slow-load", "slow-tokens"])
def test_the_model_fixtures_exist(tiny_model: Callable[[str], Path], variant: str) -> None:
    path = tiny_model(variant)
    assert path.read_bytes()[:4] == b"GGUF"
    assert path == tiny_model(variant)
