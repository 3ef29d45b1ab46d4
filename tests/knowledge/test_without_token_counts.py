"""Servers that cannot count tokens: the sizes of chunks are estimated, and the run is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from ctxbackends import open_backend
from ctxbackends.knowledge import Kind, find_sources, ingest
from tests.knowledge.scripted_model import MODEL, Answer, ScriptedModel, decision


def answer(_: str) -> Answer:
    return {"decisions": [decision("Keep SQLite", "We decided to keep SQLite.", 1)]}


class WithoutCounts(ScriptedModel):
    """A server, or a proxy before one, that lacks the route."""

    async def _count(self, _: web.Request) -> web.Response:
        raise web.HTTPNotFound


@pytest.mark.parametrize("type_", ["openai", "vllm"])
async def test_a_server_without_the_route(tmp_path: Path, type_: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text("We decided to keep SQLite.\n")
    sources = find_sources([str(path)]).sources
    async with (
        WithoutCounts(answer) as model,
        open_backend(type_, endpoint=model.url, default_model=MODEL, api_key="k" * 20) as backend,
    ):
        run = ingest(backend, sources, kinds=[Kind.DECISION], allow_unenforced=True)
        plan = await run.plan()
        rows = [row async for row in ingest(backend, sources, kinds=[Kind.DECISION], allow_unenforced=True)]
    assert (1, False) == (plan.chunks, plan.is_counted)
    assert ["Keep SQLite"] == [row.title for row in rows]
