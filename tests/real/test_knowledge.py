"""Extraction with a real llama.cpp server. The model is tiny and random: it writes rows that fit the schema and mean
nothing, so none may be proposed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxbackends import Backend
from ctxbackends.knowledge import Kind, TextSource, find_sources, ingest, read_proposal
from ctxbackends.knowledge._extract.progress import Progress
from ctxbackends.local import LocalServer
from tests.knowledge.commands import ctx, project, snapshot_context

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


async def test_nonsense_is_quarantined(llama_backend: Backend) -> None:
    updates: list[Progress] = []
    run = ingest(
        llama_backend,
        find_sources([str(ROOT / "SECURITY.md")]).sources,
        kinds=[Kind.DECISION, Kind.TASK],
        chunk_tokens=600,
        on_event=lambda event: updates.append(event) if isinstance(event, Progress) else None,
    )
    assert [] == [row async for row in run]
    report = run.report
    assert report.chunks > 1
    assert report.quarantined > 0
    long_enough = [item for item in run.quarantined if len(item.quote.replace(" ", "")) >= 8]
    assert {one.reason for one in long_enough} <= {"its quote is not in the source", "no title"}
    assert ("grammar", 0) == (report.enforcement, report.rows)
    assert report.context_length is not None
    assert [*range(1, report.chunks + 1)] == [progress.chunks for progress in updates]
    assert report.output_tokens is not None
    assert report.output_tokens > 0


async def test_the_prefix_of_the_prompt_is_cached(llama_backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("\n\n".join(f"Part {number}. {'We went on for a while. ' * 20}" for number in range(6)))
    cached = []

    async def after(count: int) -> int:
        run = ingest(llama_backend, [TextSource(path)], kinds=[Kind.TASK], chunk_tokens=300, max_concurrency=1)
        async for _ in run:
            pass
        assert run.report.chunks >= count
        return run.report.cached_input_tokens or 0

    cached.append(await after(3))
    # Every chunk but the first finds the instructions in the cache of its slot: more than 150 tokens each.
    assert cached[0] >= 2 * 150


def test_the_command_end_to_end(llama_server: LocalServer, tmp_path: Path) -> None:
    import asyncio  # noqa: PLC0415

    url = asyncio.run(llama_server.start())
    directory = project(tmp_path, None)
    (directory / ".ctxrc").write_text(f"backends: [{{name: llamacpp, endpoint: '{url}', default_model: tiny}}]\n")
    (directory / "notes.md").write_text("# Meeting\n\nWe keep option 1, since it is cheap.\n\nAda writes it down.\n")
    before = snapshot_context(directory)
    done = ctx(directory, "ingest", "notes.md", "--extract", "decisions,tasks")
    assert 0 == done.code, done.err
    if done.out:  # it may find nothing at all, which is right as well
        proposal = read_proposal(directory / done.proposal)
        assert (0, "tiny", "grammar") == (len(proposal.rows), proposal.facts.served_model, proposal.facts.enforcement)
        assert len(proposal.quarantined) > 0
        assert f"show them: ctxbackends proposals show {proposal.facts.id} --quarantined\n" in done.err
    assert before == snapshot_context(directory)
