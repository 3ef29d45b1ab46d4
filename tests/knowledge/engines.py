"""Workers and documents for the tests of extraction on an engine.

The workers of :class:`LocalEngine` are in this process, and all that would be sent to another one is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic

import attrs

from ctxbackends import BackendConfig, open_backend
from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import Engine, EngineError, Item, Result, WorkerDiedError, WorkerSpec
from ctxbackends._engines.hosting import WorkerHost, decode, decode_outcome, encode, encode_spec
from ctxbackends.knowledge import Kind, Outcome, OwnKind, Run, RunOptions, Workers, find_sources
from tests.knowledge.scripted_model import MODEL, ScriptedModel, completion, decision, line_of


class LocalWorker(Generic[Item, Result]):
    """A worker in this process."""

    host = ""

    def __init__(self, engine: LocalEngine, on_note: Callable[[Any], None]) -> None:
        self._engine = engine
        self.process = WorkerHost(lambda note: on_note(decode(note)))
        self.blocks = 0
        self.has_died = False

    async def answer(self, items: Sequence[Item], /) -> Sequence[Result]:
        self.blocks += 1
        outcome = await self.process.answer(encode(items))
        if self.has_died or self._engine.kills(self):
            self.has_died = True
            raise WorkerDiedError("worker ended: killed", settle=0)
        results: Sequence[Result] = decode_outcome(outcome)
        return results

    def send(self, note: Any, /) -> None:
        self.process.receive(encode(note))

    async def aclose(self) -> None:
        await self.process.aclose()


class LocalEngine:
    """An engine without processes, for fast tests. All that would be sent to a process is pickled.

    Args:
        kills: Called after a block was answered: whether the worker dies before its outcome arrives.
        resources: The most workers.
        directory: The directory of the journal as workers see it; None for the driver's.
    """

    def __init__(
        self,
        *,
        kills: Callable[[LocalWorker[Any, Any]], bool] = lambda _: False,
        resources: int = 100,
        directory: Path | None = None,
    ) -> None:
        self.kills = kills
        self.specs: list[bytes] = []
        self.workers: list[LocalWorker[Any, Any]] = []
        self.is_closed = False
        self._resources = resources
        self._directory = directory

    async def open(self, workers: int) -> None:
        if workers > self._resources:
            raise EngineError(f"too few CPUs for {workers} workers: {self._resources}; use fewer")

    async def start(
        self, spec: WorkerSpec[Item, Result], _: str, on_note: Callable[[Any], None]
    ) -> LocalWorker[Item, Result]:
        if self._directory is not None:
            spec = attrs.evolve(spec, directory=self._directory)  # type: ignore[misc]  # a SharedSpec
        self.specs.append(encode_spec(spec))
        worker = LocalWorker[Item, Result](self, on_note)
        self.workers.append(worker)
        decode_outcome(await worker.process.open(self.specs[-1]))
        return worker

    async def aclose(self) -> None:
        for worker in self.workers:
            await worker.aclose()
        self.is_closed = True


def config(model: ScriptedModel, **settings: Any) -> BackendConfig:
    return BackendConfig(name="model", type="openai", endpoint=model.url, default_model=MODEL, **settings)


def workers(model: ScriptedModel, count: int, engine: Engine | None = None, **settings: Any) -> Workers:
    """Workers for a model that needs no key."""
    return Workers(engine or LocalEngine(), count, BackendOpener(config(model, **{"api_key_env": "", **settings})))


# --- documents, and a model that reads them ---------------------------------------------------------------

FAILURE = OwnKind("failure", {"properties": {"machine": {"type": "string"}, "hours": {"type": "integer"}}})
SECRET = "ghp_" + "a1B2c3D4e5" * 4
FILLER = "The meeting went on for a while, and nothing else was decided. " * 20
PARTS = 20


def quote_of(number: str) -> str:
    return f"In part {number} we chose option {number}."


def answer(prompt: str) -> Any:
    """One decision of each part; part 5 is quoted wrongly at first, part 7 has no answer, the list of 9 is cut."""
    if prompt.startswith("Passage:"):
        return {"quote": quote_of("5")}
    rows = []
    for number in re.findall(r"In part (\d+) we chose", prompt):
        if number == "7":
            return "no JSON"
        quote = quote_of(number)
        wrong = f"In part {number} they took something like option {number}, as it seems"
        line = line_of(prompt, quote)
        rows.append(decision(f"Choose option {number}", wrong if number == "5" else quote, line))
        if number == "9":
            return completion(f'{{"decisions": [{json.dumps(rows[0])}, {{"quote": "In pa', finish_reason="length")
    failures = [
        {"quote": quote, "line": line_of(prompt, quote), "machine": quote.split(" ")[0], "hours": 3}
        for quote in re.findall(r"pump\d+ failed for 3 hours\.", prompt)
    ]
    return {"decisions": rows, "failures": failures}


def write_documents(directory: Path, parts: int = PARTS) -> Path:
    documents = directory / "docs"
    documents.mkdir(parents=True)
    paragraphs = [f"{quote_of(str(number))} {FILLER}" for number in range(parts)]
    (documents / "minutes.md").write_text("\n\n".join([*paragraphs, f"The key is {SECRET}."]))
    for number in range(4):  # they are packed
        (documents / f"note{number}.md").write_text(f"We saw that pump{number} failed for 3 hours.\n")
    return documents


async def propose(model: ScriptedModel, directory: Path, **fields: Any) -> Outcome:
    """Run over the documents in a directory, with a backend of the tests."""
    found = find_sources([str(directory / "docs")], base=directory)
    options = RunOptions(
        kinds=[Kind.DECISION, FAILURE],
        chunk_tokens=500,
        second_look=True,
        passes=2,
        skip_failed=True,
        max_concurrency=4,
    )
    fields = {"options": options, "directory": directory / "proposals", **fields}
    (directory / "proposals").mkdir(exist_ok=True)
    run = Run(command="ingest", sources=found.sources, skipped=found.skipped, **fields)
    async with open_backend("openai", name="model", endpoint=model.url, api_key_env="", default_model="scripted") as it:
        return await run.propose(it)


def read(outcome: Outcome) -> str:
    assert outcome.path is not None
    return without_time(outcome.path)


def without_time(proposal: Path) -> str:
    """The proposal without its name, which has the time and a number, and without its time."""
    return re.sub(r"(?m)^created: .*$", "", proposal.read_text().replace(proposal.stem, "NAME"))
