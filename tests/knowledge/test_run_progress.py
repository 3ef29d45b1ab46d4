"""The work of a run as it is seen: events from a timer, and the line on a terminal."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import Backend, Loading, open_backend
from ctxbackends._util.text import format_rate
from ctxbackends.knowledge._extract import activity
from ctxbackends.knowledge._extract.activity import Activity, Monitor
from ctxbackends.knowledge._extract.progress import Event, Progress
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Kind
from ctxbackends.knowledge._sources.base import Input
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import MODEL, ScriptedModel, decision, scripted_backend

with suppress(ImportError):  # not on Windows
    from tests.terminals import terminal

QUOTE = "We keep service 1."
ANSWER = json.dumps({"decisions": [decision("Keep it", QUOTE, 1)]})
PIECES = [ANSWER[at : at + 2] for at in range(0, len(ANSWER), 2)]
"""More than by their size, at 3 bytes for a token."""

Serve = Callable[..., ScriptedModel]


class StreamingModel(ScriptedModel):
    """Streams the answer in pieces: the first half, and the rest after ``resume``. Remembers the forms of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.resume = asyncio.Event()
        self.is_streamed: list[bool] = []

    async def _chat(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        body = await request.json()
        self.is_streamed.append(bool(body.get("stream")))
        if not body.get("stream"):
            await self.resume.wait()
            self.script = lambda _: ANSWER
            return self._respond(body)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for at, piece in enumerate(PIECES):
            if at == len(PIECES) // 2:
                await self.resume.wait()
            await response.write(_chunk({"content": piece}))
        await response.write(_chunk({}, finish_reason="stop") + b"data: [DONE]\n\n")
        return response


def _chunk(delta: dict[str, Any], *, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@asynccontextmanager
async def streaming(type_: str = "openai-compatible", **settings: Any) -> AsyncIterator[tuple[StreamingModel, Backend]]:
    async with (
        StreamingModel() as model,
        open_backend(type_, endpoint=model.url, api_key="test-key", default_model=MODEL, **settings) as backend,
    ):
        yield model, backend


class Events:
    """The events of a run, and a wait for one that fits."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.all.append(event)
        self._news.set()

    @property
    def activities(self) -> list[Activity]:
        return [event for event in self.all if isinstance(event, Activity)]

    async def wait_for(self, fits: Callable[[Activity], bool]) -> Activity:
        async with asyncio.timeout(30):
            at = 0
            while True:
                for event in self.all[at:]:
                    at += 1
                    if isinstance(event, Activity) and fits(event):
                        return event
                self._news.clear()
                await self._news.wait()


async def finish(run: Ingestion) -> None:
    async for _ in run:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer as fast as the loop."""
    monkeypatch.setattr(activity, "INTERVAL", 0.0)
    monkeypatch.setattr(activity, "_SOONEST", 0.0)


# --- events ---------------------------------------------------------------------------------------------


async def test_the_first_event_comes_before_anything_is_read_or_sent() -> None:
    events = Events()
    source = LinesSource(QUOTE)
    async with scripted_backend() as (model, backend):
        run = ingest(backend, [source], on_event=events)
        assert [] == events.all
        task = asyncio.ensure_future(anext(aiter(run), None))
        await asyncio.sleep(0)
        assert [("connecting", "notes.md", None)] == [(one.phase, one.source, one.chunk) for one in events.activities]
        assert (0, []) == (source.reads, model.prompts)
        await task


@pytest.mark.usefixtures("quick")
async def test_a_streamed_answer_is_seen_while_it_is_written() -> None:
    events = Events()
    async with streaming() as (model, backend):
        run = ingest(backend, [LinesSource(QUOTE)], kinds=[Kind.DECISION], allow_unenforced=True, on_event=events)
        task = asyncio.create_task(finish(run))
        half = len(PIECES) // 2
        seen = await events.wait_for(lambda one: one.phase == "writing" and one.output_tokens >= half)
        assert ("notes.md", 1, 1, 1, 0) == (seen.source, seen.chunk, seen.chunks, seen.in_flight, seen.rows)
        assert half == seen.output_tokens
        assert (await events.wait_for(lambda one: bool(one.tokens_per_second))).tokens_per_second
        assert re.match(rf"notes\.md: chunk 1 of 1, writing, {half} tokens", str(seen))
        model.resume.set()
        await task
    assert [True] == model.is_streamed
    assert ["Keep it"] == [row.title for row in run.rows()]
    phases = [*dict.fromkeys(one.phase for one in events.activities)]
    assert phases == [
        phase for phase in ("connecting", "preparing", "waiting", "reading", "writing") if phase in phases
    ]
    assert {"connecting", "preparing", "writing"} <= {*phases}


@pytest.mark.usefixtures("quick")
async def test_an_answer_in_one_piece_is_waited_for() -> None:
    events = Events()
    async with streaming(complete_streams=False) as (model, backend):
        run = ingest(backend, [LinesSource(QUOTE)], kinds=[Kind.DECISION], allow_unenforced=True, on_event=events)
        task = asyncio.create_task(finish(run))
        seen = await events.wait_for(lambda one: one.chunk == 1 and model.is_streamed == [False])
        assert ("waiting", 0, None) == (seen.phase, seen.output_tokens, seen.tokens_per_second)
        model.resume.set()
        await task
    assert ["Keep it"] == [row.title for row in run.rows()]


@pytest.mark.parametrize(
    ("type_", "endpoint", "settings", "expected"),
    [
        ("vllm", "http://127.0.0.1:1", {}, True),
        ("llamacpp", "http://127.0.0.1:1", {"complete_streams": False}, False),
        ("openai-compatible", "http://127.0.0.1:1", {}, True),
        ("openai", "http://127.0.0.1:1", {}, False),
        ("openai", None, {}, False),
        ("openai", None, {"complete_streams": True}, True),
        ("anthropic", None, {}, False),
    ],
)
async def test_which_backends_stream(type_: str, endpoint: str | None, settings: Any, expected: bool) -> None:
    async with open_backend(type_, endpoint=endpoint, api_key="test-key", default_model=MODEL, **settings) as backend:
        assert expected is backend.streams_long_answers  # type: ignore[attr-defined]


async def test_the_probe_for_schemas_is_a_phase() -> None:
    events = Events()
    seen: list[str] = []
    async with (
        ScriptedModel(before_answer=lambda _: _note(seen, events)) as model,
        open_backend("openai-compatible", endpoint=model.url, default_model=MODEL) as backend,
    ):
        with pytest.raises(Exception, match="schema not enforced"):
            await finish(ingest(backend, [LinesSource(QUOTE)], on_event=events))
    assert ["probing"] == seen
    assert "testing whether the server enforces schemas" == str(Activity(phase="probing"))


async def _note(seen: list[str], events: Events) -> None:
    await events.wait_for(lambda one: one.phase == "probing")
    seen.append(events.activities[-1].phase)


@pytest.mark.usefixtures("quick")
async def test_sources_are_counted_while_they_are_read() -> None:
    events = Events()

    class SlowSource(LinesSource):
        def prepare(self) -> Input:
            asyncio.run_coroutine_threadsafe(
                events.wait_for(lambda one: one.phase == "preparing" and one.source == "b.md"), loop
            ).result(30)
            return super().prepare()

    loop = asyncio.get_running_loop()
    async with scripted_backend() as (_, backend):
        await finish(
            ingest(backend, [LinesSource(QUOTE, name="a.md"), SlowSource(QUOTE, name="b.md")], on_event=events)
        )
    assert "reading b.md (2 of 2 files)" in {str(one) for one in events.activities}


async def test_a_run_with_several_chunks_counts_them() -> None:
    events = Events()
    lines = [f"{number} {'word ' * 100}" for number in range(6)]
    async with scripted_backend() as (_, backend):
        run = ingest(backend, [LinesSource(*lines)], kinds=[Kind.DECISION], chunk_tokens=130, on_event=events)
        await finish(run)
    numbers = [one.chunk for one in events.activities if one.chunk is not None]
    assert sorted(numbers) == numbers
    assert {one.chunks for one in events.activities} <= {None, run.report.chunks}
    assert any(isinstance(event, Progress) for event in events.all)


async def test_the_timer_stops_with_the_run() -> None:
    events = Events()
    async with streaming() as (_, backend):
        run = ingest(backend, [LinesSource(QUOTE)], allow_unenforced=True, on_event=events)
        task = asyncio.create_task(finish(run))
        await events.wait_for(lambda one: one.chunk == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert run._monitor._timer is None
        assert run._monitor.first is None


async def test_a_forgotten_monitor_is_freed() -> None:
    def start() -> weakref.ref[Monitor]:
        monitor = Monitor(lambda: Activity(phase="connecting"), lambda _: None)
        monitor.__enter__()
        return weakref.ref(monitor)

    reference = start()
    gc.collect()
    assert reference() is None


@pytest.mark.usefixtures("quick")
async def test_a_failure_of_the_callback_ends_the_run() -> None:
    def fail(event: Event) -> None:
        if isinstance(event, Activity) and event.chunk is not None:
            raise OSError("the pipe is closed")

    async with scripted_backend(seconds=0.01) as (_, backend):
        lines = [f"{number} {'word ' * 100}" for number in range(6)]
        run = ingest(backend, [LinesSource(*lines)], kinds=[Kind.DECISION], chunk_tokens=130, on_event=fail)
        with pytest.raises(OSError, match="the pipe is closed"):
            await finish(run)


# --- the words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"phase": "searching"}, "searching for files"),
        ({"phase": "connecting"}, "asking the server for its state"),
        ({"phase": "preparing", "source": "a.md", "sources": 1}, "reading a.md"),
        (
            {"phase": "preparing", "source": "a.md", "sources": 2197, "sources_done": 1233},
            "reading a.md (1,234 of 2,197 files)",
        ),
        (
            {"phase": "waiting", "source": "a.md", "chunk": 3, "size": 1000, "size_done": 250},
            "a.md: chunk 3 (25%), waiting for the server, 0 rows",
        ),
        (
            {
                "phase": "writing",
                "source": "a.md",
                "chunk": 3,
                "chunks": 12,
                "in_flight": 4,
                "output_tokens": 214,
                "tokens_per_second": 38.2,
                "rows": 1,
                "quarantined": 2,
            },
            "a.md: chunk 3 of 12, 4 at once, writing, 214 tokens, 38 tokens/s, 1 row, 2 quarantined",
        ),
    ],
)
def test_the_line(fields: dict[str, Any], expected: str) -> None:
    assert expected == str(Activity(**fields))


@pytest.mark.parametrize(("rate", "expected"), [(0.0, "0"), (0.34, "0.3"), (9.96, "10.0"), (38.2, "38")])
def test_rates(rate: float, expected: str) -> None:
    assert expected == format_rate(rate)


# --- commands -------------------------------------------------------------------------------------------


def test_a_quiet_run_prints_only_the_path(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(lambda _: {"decisions": [decision("Keep it", QUOTE, 1)]}).url)
    (directory / "docs").mkdir()
    (directory / "docs" / "a.md").write_text(QUOTE)
    (directory / "docs" / "b.bin").write_bytes(b"\0")
    result = ctx(directory, "ingest", "docs", "--quiet")
    assert (0, "") == (result.code, result.err)
    assert result.proposal.exists() or (directory / result.proposal).exists()


def test_the_time_of_a_dry_run_follows_the_rates(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(QUOTE)
    plan = ctx(tmp_path, "ingest", "a.md", "--dry-run", "--rate", "100", "10", "--json").events[-1]
    assert ([100.0, 10.0], 300) == (plan["rate"], plan["answer_tokens"])
    assert pytest.approx(plan["tokens"] / 100 + 300 / 10) == plan["seconds"]
    text = ctx(tmp_path, "ingest", "a.md", "--dry-run", "--rate", "0.5", "10").out
    assert f"about {round(plan['tokens'] * 2 + 30) // 60} min " in text
    assert "if the server reads 0.5 and writes 10 tokens per second (--rate), 300 in each answer" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--rate", "1", "1"), "--rate requires --dry-run"), (("--rate", "0", "1"), "out of range")],
)
def test_invalid_rates(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "a.md").write_text(QUOTE)
    result = ctx(tmp_path, "ingest", "a.md", *arguments)
    assert 2 == result.code
    assert words in result.err


def test_json_has_an_activity_each_second(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctxbackends._cli import run_output  # noqa: PLC0415  # needs the extra `cli`

    monkeypatch.setattr(run_output, "ACTIVITY_INTERVAL", 0.0)
    directory = project(tmp_path, serve(lambda _: {"decisions": []}).url)
    (directory / "a.md").write_text(QUOTE)
    events = ctx(directory, "ingest", "a.md", "--json").events
    activities = [event for event in events if event["event"] == "activity"]
    assert ["searching", "connecting"] == [event["phase"] for event in activities[:2]]
    assert ("done", "a.md") == (events[-1]["event"], activities[-1]["source"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_line_on_a_terminal(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hold(_: str) -> None:
        while not released:
            await asyncio.sleep(0.01)

    released: list[bool] = []
    model = serve(lambda _: {"decisions": [decision("Keep it", QUOTE, 1)]}, before_answer=hold)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text(QUOTE)
    monkeypatch.chdir(directory)
    with terminal("ingest", "a.md", "--extract", "decisions", columns=110) as at:
        at.read_until("starting")
        at.read_until("searching for files")
        at.read_until("a.md: chunk 1 of 1, ")
        at.read_until(lambda text: re.search(r"0 rows, 2 s", text))  # without an event of the server
        released.append(True)
        assert 0 == at.end()
    assert at.raw.rindex("\x1b[J\r") < at.raw.index("1 row in 1 chunk")  # erased before the report
    assert "chunk" not in at.raw[at.raw.index(".md\r\n") :]


def test_loading_is_an_event() -> None:
    """A server that restarts within a run is waited for, and the wait is reported."""
    events: list[Any] = []
    monitor = Monitor(lambda: Activity(phase="waiting"), events.append)
    loading = Loading(endpoint="http://127.0.0.1:1", state="loading", elapsed=1.0, budget=90.0)
    monitor.on_loading(loading)
    assert [loading] == events
