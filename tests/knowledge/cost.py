"""What a run costs this process, for each chunk: ``python -m tests.knowledge.cost 10000``. The model is a process of
its own that answers after 5 ms; the input is a file that is read as a stream.

Prints one line of JSON: chunks, rows, CPU milliseconds for each chunk (user and system), the most memory (resident),
and what it was after a tenth of the chunks.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctxbackends import open_backend
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.progress import Progress
from ctxbackends.knowledge._extract.run import ingest
from ctxbackends.knowledge._records import Kind
from ctxbackends.knowledge._sources.text import TextSource
from tests.benchmarks.processes import child_environment, command
from tests.knowledge.scripted_model import MODEL, ScriptedModel, decision

with suppress(ImportError):  # not on Windows
    import resource

PARAGRAPH = 1_400
"""Characters: with the limit below, a chunk each."""
CHUNK_TOKENS = 500


def paragraphs(count: int) -> Iterator[str]:
    for number in range(count):
        filler = "The meeting went on for a while, and nothing that matters was said. " * (PARAGRAPH // 68)
        yield f"In part {number} we decided to keep option {number}. {filler}"


def answer(prompt: str) -> dict[str, Any]:
    """One good row for each part, and one with an invented quote."""
    number = prompt.partition("In part ")[2].partition(" ")[0]
    line = int(prompt.partition("\n\n[")[2].partition("]")[0])
    quote = f"In part {number} we decided to keep option {number}."
    good = decision(f"Keep option {number}", quote, line)
    return {"decisions": [good, decision(f"Drop option {number}", "Nobody said this sentence.", line)]}


async def serve() -> None:
    async with ScriptedModel(answer, seconds=0.005, records=False) as model:
        sys.stdout.write(model.url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def run(url: str, path: Path, journal: Path) -> dict[str, Any]:
    early = 0

    def on_event(event: object) -> None:
        nonlocal early
        if isinstance(event, Progress) and event.size_done * 10 <= event.size:
            early = _peak()

    async with open_backend("openai", endpoint=url, api_key="k" * 20, default_model=MODEL) as backend:
        before = _cpu()
        store = Journal(journal)
        async with ingest(
            backend,
            [TextSource(path)],
            kinds=[Kind.DECISION],
            chunk_tokens=CHUNK_TOKENS,
            journal=store,
            on_event=on_event,
        ) as ingestion:
            async for _ in ingestion:
                pass
        store.remove()
        report = ingestion.report
    return {
        "chunks": report.chunks,
        "rows": report.rows,
        "quarantined": report.quarantined,
        "cpu_ms_per_chunk": round((_cpu() - before) * 1000 / report.chunks, 3),
        "peak_mb": round(_peak() / 1e6, 1),
        "early_mb": round(early / 1e6, 1),
        "seconds": round(report.elapsed, 1),
    }


def _cpu() -> float:
    if sys.platform == "win32":
        raise NotImplementedError
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak() -> int:
    # Not ru_maxrss, which begins with what the process was forked from.
    (line,) = (
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


def measure(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "long.md")
        with path.open("w", encoding="utf-8") as file:
            for paragraph in paragraphs(count):
                file.write(paragraph + "\n\n")
        with subprocess.Popen(
            command(sys.executable, "tests.knowledge.cost", "serve"),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            try:
                return asyncio.run(run(server.stdout.readline().strip(), path, Path(directory, "journal.jsonl")))
            finally:
                server.communicate("")


def main(argument: str = "10000") -> None:
    if argument == "serve":
        asyncio.run(serve())
    else:
        sys.stdout.write(json.dumps(measure(int(argument))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
