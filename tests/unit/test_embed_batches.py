"""The sizes of the batches of ``embed()``, and the models that embed nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Self

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aioresponses import aioresponses

from ctxbackends import Embeddings, open_backend
from ctxbackends._wire.base import MAX_BODY_BYTES
from ctxbackends._wire.operations.openai import fitting_batch_size
from ctxbackends.errors import MalformedResponseError, UnsupportedOperationError

URL = "http://localhost:8000"
FIRST = 40  # of vectors of 8192 numbers


class EmbeddingServer:
    """Answers with vectors of one length, and notes the sizes of the requests."""

    def __init__(self, length: int) -> None:
        self.sizes: list[int] = []
        self._vector = [0.5] * length
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._respond)
        self._server = TestServer(app)

    async def _respond(self, request: web.Request) -> web.Response:
        count = len((await request.json())["input"])
        self.sizes.append(count)
        return web.json_response({"data": [{"index": n, "embedding": self._vector} for n in range(count)]})

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def embed(self, count: int, **options: Any) -> Embeddings:
        async with open_backend("vllm", endpoint=str(self._server.make_url("")), default_model="m") as backend:
            return await backend.embed(["text"] * count, **options)


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    with aioresponses() as mock:
        yield mock


@pytest.mark.parametrize(
    ("length", "count", "options", "sizes"),
    [
        (4, 3, {}, [3]),
        (4, FIRST, {}, [FIRST]),
        (4, 600, {}, [FIRST, 512, 48]),  # the most texts in a request to this type
        (4096, 200, {}, [FIRST, 81, 79]),
        (4096, 200, {"dimensions": 4096}, [81, 81, 38]),
        (4, 5, {"batch_size": 2}, [2, 2, 1]),
        (4096, 200, {"batch_size": 200}, [200]),  # a value that is set counts
    ],
)
async def test_batches_are_as_large_as_the_response_allows(
    length: int, count: int, options: dict[str, int], sizes: list[int]
) -> None:
    async with EmbeddingServer(length) as server:
        assert count == len((await server.embed(count, **options)).vectors)
    assert sizes == server.sizes


@pytest.mark.parametrize("length", [1, 384, 1536, 4096, 8192, 20_000])
def test_the_longest_vectors_fit_into_a_response(length: int) -> None:
    vector = {"object": "embedding", "index": 10**6, "embedding": [-1.2345678901234567e-05] * length}
    size = fitting_batch_size(length)
    assert len(json.dumps(vector)) * size <= MAX_BODY_BYTES or size == 1


async def test_a_vector_without_numbers_is_an_error() -> None:
    async with EmbeddingServer(0) as server:
        with pytest.raises(MalformedResponseError, match=r"unexpected lengths of vectors: \[0\]"):
            await server.embed(1)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (501, "This server does not support embeddings. Start it with `--embeddings`"),
        (400, "Pooling type 'none' is not OAI compatible. Please use a different pooling type"),
        (400, "The model does not support Embeddings API"),
    ],
)
async def test_a_generative_model_is_not_an_embedding_model(status: int, message: str, mocked: aioresponses) -> None:
    mocked.post(f"{URL}/v1/embeddings", status=status, payload={"error": {"message": message, "code": status}})
    async with open_backend("vllm", endpoint=URL, default_model="m") as backend:
        with pytest.raises(UnsupportedOperationError, match="not an embedding model: m; use one"):
            await backend.embed("text")


async def test_a_generative_model_of_ollama(mocked: aioresponses) -> None:
    mocked.post(f"{URL}/api/embed", status=400, payload={"error": "this model does not support embeddings"})
    async with open_backend("ollama", endpoint=URL, default_model="m") as backend:
        with pytest.raises(UnsupportedOperationError, match="not an embedding model: m; use one"):
            await backend.embed("text")
