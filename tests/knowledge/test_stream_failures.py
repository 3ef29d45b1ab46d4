"""Streamed answers that break off: no rows of them are used, and a full context splits the chunk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import Backend, StreamInterruptedError, open_backend
from ctxbackends.knowledge import Kind, ingest
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import MODEL, ScriptedModel, decision

YAML = "We chose YAML because people edit it by hand."
TOML = "We chose TOML for the package because the tools read it."
FULL = {"message": "Context size has been exceeded.", "type": "server_error", "code": 500}


class BreakingModel(ScriptedModel):
    """Streams rows for the sentences of the prompt; prompts with both break off after the first piece.

    ``end`` is sent then: an error event, or nothing before the stream ends.
    """

    end = b""

    async def _chat(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        self.prompts.append(prompt)
        rows = [decision(one[:13], one) for one in (YAML, TOML) if one in prompt]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_event({"content": json.dumps({"decisions": rows})}))
        await response.write(self.end if len(rows) == 2 else _event({}, finish_reason="stop") + b"data: [DONE]\n\n")
        return response


def _event(delta: dict[str, Any], *, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@asynccontextmanager
async def breaking(end: bytes) -> AsyncIterator[tuple[BreakingModel, Backend]]:
    async with (
        BreakingModel() as model,
        open_backend("openai-compatible", endpoint=model.url, default_model=MODEL) as backend,
    ):
        model.end = end
        yield model, backend


async def test_a_context_that_is_full_within_an_answer_splits_the_chunk() -> None:
    async with breaking(b"data: " + json.dumps({"error": FULL}).encode() + b"\n\n") as (model, backend):
        run = ingest(backend, [LinesSource(YAML, TOML)], kinds=[Kind.DECISION], allow_unenforced=True)
        rows = [row async for row in run]
    assert [(YAML, 1), (TOML, 2)] == [(row.evidence[0].quote, row.evidence[0].first) for row in rows]
    assert (3, 3) == (len(model.prompts), run.report.requests)


@pytest.mark.parametrize(
    "end", [b"", b"data: [DONE]\n\n", b'data: {"error": {"message": "out of memory", "code": 500}}\n\n']
)
async def test_a_complete_text_without_its_end_is_not_used(end: bytes) -> None:
    async with breaking(end) as (model, backend):
        run = ingest(backend, [LinesSource(YAML, TOML)], kinds=[Kind.DECISION], allow_unenforced=True)
        with pytest.raises(StreamInterruptedError):
            [row async for row in run]
    assert (1, ()) == (len(model.prompts), run.rows())
