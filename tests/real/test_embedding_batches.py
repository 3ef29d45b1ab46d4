"""Texts to embed and the batches of llama.cpp: a text may be as long as the context, whatever the pooling."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ctxbackends import Backend, ContextOverflowError, LocalServer, UnsupportedOperationError
from ctxbackends.local._gguf import read_header
from tests.real.conftest import over

pytestmark = pytest.mark.real

POOLING = b"llama.pooling_type" + struct.pack("<I", 4)  # the key, and the type of its value: uint32
NONE, MEAN, LAST = 0, 1, 3
CONTEXT = 1024
LONG = "a b " * (CONTEXT // 4 - 1)


def write_model(path: Path, pooling: int, model: Path) -> None:
    content = model.read_bytes()
    old, new = (POOLING + struct.pack("<I", value) for value in (MEAN, pooling))
    assert 1 == content.count(old)
    path.write_bytes(content.replace(old, new))


@asynccontextmanager
async def serve(path: Path, pooling: int, environment: Mapping[str, str], model: Path) -> AsyncIterator[Backend]:
    write_model(path, pooling, model)
    server = LocalServer(path, alias="m", environment=environment, threads=1, ctx_size=CONTEXT, embeddings=True)
    try:
        async with over(server) as backend:
            yield backend
    finally:
        await server.aclose()


@pytest.mark.parametrize(("pooling", "in_one_batch"), [(MEAN, True), (LAST, False)])
async def test_a_text_of_the_whole_context(
    pooling: int, in_one_batch: bool, tmp_path: Path, environment: Mapping[str, str], model: Callable[[str], Path]
) -> None:
    async with serve(tmp_path / "m.gguf", pooling, environment, model("tiny")) as backend:
        assert in_one_batch == read_header(tmp_path / "m.gguf").embeds_in_one_batch
        answer = await backend.embed(LONG)
        again = await backend.embed(["x", LONG])
    assert answer.usage is not None
    assert CONTEXT - 8 < answer.usage.input_tokens <= CONTEXT
    assert again.vectors[1] == pytest.approx(answer.vectors[0], abs=1e-3)


async def test_a_model_without_pooling(
    tmp_path: Path, environment: Mapping[str, str], model: Callable[[str], Path]
) -> None:
    async with serve(tmp_path / "m.gguf", NONE, environment, model("tiny")) as backend:
        with pytest.raises(UnsupportedOperationError, match="not an embedding model: m; use one"):
            await backend.embed("one")
        assert (await backend.complete("Hello", max_tokens=2)).text


async def test_a_server_with_small_batches_says_what_to_raise(
    tmp_path: Path, environment: Mapping[str, str], model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalServer, "_context", lambda _: (CONTEXT, None))  # as a llama-server of the user's own
    async with serve(tmp_path / "m.gguf", MEAN, environment, model("tiny")) as backend:
        with pytest.raises(ContextOverflowError) as exc_info:
            await backend.embed(LONG)
    error = exc_info.value
    assert (True, 512) == (error.exceeds_batch, error.context_length)
    assert str(error).endswith(
        f"; start llama-server with --batch-size and --ubatch-size of {error.input_tokens} or more tokens, "
        "up to its context"
    )
