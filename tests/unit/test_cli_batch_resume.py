"""A batch that is stopped: by Ctrl-C, SIGTERM, SIGKILL, a full disk or another batch; and the run after it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.batch_server import MODEL, BatchServer, serve_batches
from tests.unit.test_cli import _alone, command, environment, poll  # noqa: F401  # a fixture
from tests.unit.test_cli_batch import exists, read, read_rows, read_texts, write_rows

pytestmark = pytest.mark.posix

ROWS = 60
AT_ONCE = 4


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


class Run:
    """The command in a process of its own."""

    def __init__(self, server: BatchServer, *options: str, at_once: int = AT_ONCE) -> None:
        self._arguments = ("in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
        self._options = ("--max-concurrency", str(at_once), *options)
        self.code: int | None = None
        self.err = ""
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *command("batch", *self._arguments, *self._options),
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self) -> int:
        async with asyncio.timeout(120):
            _, err = await self.process.communicate()
        self.err = err.decode()
        assert self.process.returncode is not None, "ended"
        return self.process.returncode


async def run(server: BatchServer, *options: str, at_once: int = AT_ONCE) -> Run:
    """Run the command to its end."""
    process = Run(server, *options, at_once=at_once)
    await process.start()
    process.code = await process.end()
    return process


async def stop_halfway(server: BatchServer, number: int) -> Run:
    """Run the command, and send it a signal when half of the rows are answered and the next ones are sent."""
    server.hold = lambda _: len(server.prompts) > ROWS // 2
    process = Run(server)
    await process.start()
    await server.wait_for(lambda one: len(one.prompts) == ROWS // 2 + AT_ONCE)
    await asyncio.to_thread(poll, lambda: count_journal() == ROWS // 2)
    process.process.send_signal(number)
    process.code = await process.end()
    server.hold = lambda _: False
    return process


def expected(rows: int) -> dict[str, str]:
    return {f"r{at}": f"answer to question {at}" for at in range(rows)}


def journal_files() -> list[Path]:
    return [*Path("out.jsonl.journal").glob("part-*.jsonl")]


def count_journal() -> int:
    return sum(path.read_bytes().count(b"\n") for path in journal_files())


# --- signals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])
async def test_a_signal_and_the_next_run(server: BatchServer, number: int, code: int) -> None:
    write_rows(Path("in.jsonl"), ROWS)
    stopped = await stop_halfway(server, number)
    assert code == stopped.code
    half = ROWS // 2
    line = re.fullmatch(
        r"interrupted: (\d+) of 60 rows answered; run the same command again to continue\n", stopped.err
    )
    assert line is not None, stopped.err
    assert 0 < int(line[1]) <= half
    assert (half, 0) == (count_journal(), server.in_flight)
    assert ["in.jsonl", "out.jsonl.journal"] == sorted(os.listdir())

    resumed = await run(server)
    assert 0 == resumed.code
    assert f"{ROWS} rows: {ROWS} answered, {half} of them in an earlier run\n" in resumed.err
    assert expected(ROWS) == read_texts(Path("out.jsonl"))
    assert list(expected(ROWS)) == [row["custom_id"] for row in read_rows(Path("out.jsonl"))]
    assert ROWS + AT_ONCE == len(server.prompts)
    assert ["in.jsonl", "out.jsonl"] == sorted(os.listdir())


async def test_a_second_ctrl_c_while_the_workers_end(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), ROWS)
    server.hold = lambda _: True
    stopped = Run(server, "--engine", "processes", "--workers", "2")
    await stopped.start()
    await server.wait_for(lambda one: len(one.prompts) == AT_ONCE)
    stopped.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        while server.in_flight:
            await asyncio.sleep(0.01)
    stopped.process.send_signal(signal.SIGINT)
    assert await stopped.end() in (130, -signal.SIGINT)
    lines = {"interrupted: 0 of 60 rows answered; run the same command again to continue", "interrupted", ""}
    assert lines >= {*stopped.err.splitlines()}


async def test_a_killed_run_and_the_next_ones(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), ROWS)
    if sys.platform == "win32":
        raise NotImplementedError("skipped there")
    assert -signal.SIGKILL == (await stop_halfway(server, signal.SIGKILL)).code
    assert not exists("out.jsonl")
    assert 0 == (await run(server, "--keep")).code
    assert expected(ROWS) == read_texts(Path("out.jsonl"))
    assert server.counts.keys() == {f"question {at}" for at in range(ROWS)}
    assert ROWS + AT_ONCE >= len(server.prompts)
    count = len(server.prompts)
    assert 0 == (await run(server, "--keep")).code
    assert (count, expected(ROWS)) == (len(server.prompts), read_texts(Path("out.jsonl")))


async def test_a_second_batch_does_not_use_the_same_journal(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), ROWS)
    server.hold = lambda _: True
    first = Run(server)
    await first.start()
    await server.wait_for(lambda one: len(one.prompts) == AT_ONCE)
    second = await run(server)
    assert 1 == second.code
    assert "journal is in use" in second.err
    assert AT_ONCE == len(server.prompts)
    server.release.set()
    assert 0 == await first.end()
    assert expected(ROWS) == read_texts(Path("out.jsonl"))


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(10))
async def test_batches_that_are_killed_at_random_moments(server: BatchServer, seed: int) -> None:
    """Each row is answered once, and a third run sends nothing.

    Sent again are only rows whose answer was not on the disk: those in flight, and as many that waited for the disk.
    """
    rows, at_once = 2000, 32
    write_rows(Path("in.jsonl"), rows)
    server.delay = 0.005
    moment = random.Random(seed).randrange(1, rows)  # noqa: S311  # no secret
    killed = Run(server, at_once=at_once)
    await killed.start()
    await server.wait_for(lambda one: len(one.prompts) >= moment)
    killed.process.kill()
    if sys.platform == "win32":
        raise NotImplementedError("skipped there")
    assert -signal.SIGKILL == await killed.end()
    counts = []
    for _ in range(2):
        assert 0 == (await run(server, "--keep", at_once=at_once)).code
        assert expected(rows) == read_texts(Path("out.jsonl"))
        assert {f"question {at}" for at in range(rows)} == server.counts.keys()
        assert len(server.prompts) <= rows + 2 * at_once, f"killed after {moment} requests"
        counts.append(len(server.prompts))
    assert counts[0] == counts[1]


# --- full disks -----------------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from ctxbackends._cli import ctxbackends
sys.argv[0] = "ctxbackends"
ctxbackends()
"""
"""The command, for which a file has room for a number of bytes: writing more is an error, as on a full disk."""


async def run_with_limit(server: BatchServer, size: int) -> tuple[int | None, str]:
    arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", "-c", LIMITED, str(size), *arguments, "--max-concurrency", str(AT_ONCE)),
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        _, err = await process.communicate()
    return process.returncode, err.decode()


async def test_a_disk_that_is_full_in_the_middle(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), ROWS)
    code, err = await run_with_limit(server, 8000)
    assert 1 == code
    assert "cannot write the journal: out.jsonl.journal: " in err
    asked = len(server.prompts)
    assert 0 < count_journal() < ROWS
    assert 0 == (await run(server)).code
    assert expected(ROWS) == read_texts(Path("out.jsonl"))
    assert ROWS + AT_ONCE >= len(server.prompts) > asked


async def test_a_disk_that_is_full_at_the_end(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), ROWS, prefix="long" * 50)
    assert 0 == (await run(server, "--keep")).code
    size = max(map(os.path.getsize, journal_files()))
    content = read("out.jsonl")
    os.unlink("out.jsonl")
    assert size < len(content), "the output is larger than the journal"
    code, err = await run_with_limit(server, size)
    assert (1, ROWS) == (code, len(server.prompts))
    assert "cannot write the output: out.jsonl: " in err
    assert "the answers are in the journal: run the batch again when it can be written" in err
    assert ["in.jsonl", "out.jsonl.journal"] == sorted(os.listdir())
    assert 0 == (await run(server)).code
    assert (ROWS, content) == (len(server.prompts), read("out.jsonl"))
