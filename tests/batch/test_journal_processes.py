from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Journal
from tests.batch.journal_entries import MANIFEST, command, key, list_parts, read, run, text_of


@pytest.fixture
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = command("hold", directory)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time(directory: Path, holder: subprocess.Popen[str]) -> None:
    by = "" if sys.platform == "win32" else rf" by process {holder.pid} on \S+"
    for fresh in (False, True):
        with pytest.raises(BatchJournalError, match=rf"journal is in use{by}: .*; wait for the other batch, or stop"):
            Journal(directory, MANIFEST, fresh=fresh)
    assert {".gitignore", ".lock", "manifest.json"} == set(os.listdir(directory))
    assert holder.stdin is not None
    holder.stdin.close()
    assert 0 == holder.wait(60)
    Journal(directory, MANIFEST).close()


def test_workers_append_to_parts_of_their_own(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    workers = [
        subprocess.Popen(command("worker", directory, start, 200), stdout=subprocess.DEVNULL) for start in (0, 200, 400)
    ]
    assert [0, 0, 0] == [worker.wait(100) for worker in workers]
    journal.refresh()
    assert (600, 3) == (len(journal), len(list_parts(directory)))
    assert [str(number) for number in range(600)] == [
        (read(journal, number) or "").lstrip("x") for number in range(600)
    ]
    journal.remove()
    assert not directory.exists()


@pytest.mark.posix
@pytest.mark.slow
def test_no_entry_that_was_reported_is_lost_when_processes_are_killed(directory: Path) -> None:
    rows, kills = 2000, 10
    reported: set[int] = set()
    for _ in range(kills):
        limit = len(reported) + int.from_bytes(os.urandom(1), "big") % 150 + 1
        with subprocess.Popen(command("driver", directory, 0, rows), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                number = int(line)
                assert number not in reported  # an answered row is not asked again
                reported.add(number)
                if len(reported) == limit:
                    process.kill()
                    break
            reported.update(int(line) for line in process.stdout if line.endswith(b"\n"))
        journal = Journal(directory, MANIFEST)
        assert all(journal.answered(key(number)) for number in reported)
        journal.close()
    assert kills <= len(list_parts(directory))
    result = run("driver", directory, 0, rows)
    journal = Journal(directory, MANIFEST)
    assert rows == len(journal)
    assert rows >= len(reported) + len(result.splitlines())
    assert [text_of(number) for number in range(rows)] == [read(journal, number) for number in range(rows)]
    journal.remove()
