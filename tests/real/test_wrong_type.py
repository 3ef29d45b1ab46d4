"""A real llama-server configured as another type is an error that says so."""

from __future__ import annotations

import pytest

from ctxbackends import LocalServer, MalformedResponseError, NotFoundError, StreamInterruptedError, open_backend
from ctxbackends._chat.servers import ServerStatus
from tests.real.conftest import over

pytestmark = pytest.mark.real


async def test_the_server_is_not_ollama(server: LocalServer) -> None:
    """b8672 has routes that look like Ollama's, and answers there in OpenAI's format; later builds have none."""
    async with over(server) as ready:
        endpoint = ready.endpoint
    async with open_backend("ollama", endpoint=endpoint, default_model="tiny") as backend:
        with pytest.raises((NotFoundError, MalformedResponseError, StreamInterruptedError)):
            await backend.complete("Hello", max_tokens=4)
        with pytest.raises(NotFoundError):
            await backend.embed("Hello")
        status: ServerStatus = await backend.status()
        assert "error" == status.state
        assert "404" in (status.problem or "")


async def test_the_server_is_not_lm_studio(server: LocalServer) -> None:
    """Its models are listed, as an LM Studio before 0.4 lists them; loading is said to need a newer one."""
    endpoint = await server.start()
    async with open_backend("lmstudio", endpoint=endpoint, default_model="tiny", ready_timeout=30.0) as backend:
        assert "tiny" == (await backend.models())[0].id
        with pytest.raises(Exception, match=r"needs version 0\.4 or newer"):
            await backend.load()


async def test_the_server_is_not_vllm(server: LocalServer) -> None:
    endpoint = await server.start()
    async with open_backend("vllm", endpoint=endpoint, default_model="tiny") as backend:
        await backend.wait_ready()
        status = await backend.status()
        assert ("ready", None) == (status.state, status.version)  # nor does a vLLM tell it behind some proxies
        with pytest.raises(Exception, match="no sleep endpoints"):
            await backend.unload()
