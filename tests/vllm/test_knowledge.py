"""Extraction with a real vLLM, which holds the answer to the schema: rows that stand in the text are found, others are
not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxbackends import open_backend
from ctxbackends.knowledge import Kind, TextSource, ingest
from tests.knowledge.scripted_model import decision
from tests.vllm.server import CONTEXT_TOKENS, MODEL_NAME, VLLMServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]  # the first test of a server waits for its start

YAML = "We chose YAML because people edit it by hand."
BOAT = 'We all want "a boat".'


async def test_rows_of_a_real_vllm(vllm_server: VLLMServer, tmp_path: Path) -> None:
    rows = {"decisions": [decision("Use YAML", YAML, 1), decision("Buy a boat", BOAT, 1)]}
    path = tmp_path / "notes.md"
    # What is to be said is part of the text; there the boat's quote has a backslash before each quotation mark.
    path.write_text(f"{YAML}\n\n[[say]]{json.dumps(rows, separators=(',', ':'))}[[/say]]\n")
    async with open_backend("vllm", endpoint=vllm_server.endpoint, default_model=MODEL_NAME) as backend:
        run = ingest(backend, [TextSource(path, name="notes.md")], kinds=[Kind.DECISION])
        found = [row async for row in run]
    assert [("Use YAML", "notes.md:1")] == [(row.title, row.evidence[0].where) for row in found]
    assert [(BOAT, "its quote is not in the source")] == [(item.quote, item.reason) for item in run.quarantined]
    assert ("grammar", CONTEXT_TOKENS, MODEL_NAME) == (
        run.report.enforcement,
        run.report.context_length,
        run.report.served_model,
    )
