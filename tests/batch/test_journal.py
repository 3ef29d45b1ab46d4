from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Entry, Journal, JournalPart
from tests.batch.journal_entries import (
    MANIFEST,
    answer,
    encode_key,
    failure,
    inode,
    key,
    list_parts,
    raw,
    read,
    read_part,
)
from tests.batch.slow_disk import Disk

# --- entries --------------------------------------------------------------------------------------


async def test_entries_survive_a_reopen(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    await journal.append([answer(1), failure(2)])
    await journal.append([])
    journal.refresh()
    assert (2, "yes", "!no", None) == (len(journal), read(journal, 1), read(journal, 2), read(journal, 3))
    journal.close()
    journal.close()
    second = Journal(directory, MANIFEST)
    assert [True, False, False] == [second.answered(key(number)) for number in (1, 2, 3)]
    entry = second.get(key(1))
    assert entry is not None
    assert (key(1), None, "local", 2, 0.5) == (entry.key, entry.error, entry.backend, entry.attempts, entry.seconds)
    assert b'{"text":"yes"}' == bytes(entry.answer or b"")
    error = second.get(key(2))
    assert error is not None
    assert (None, None, 1) == (error.answer, error.backend, error.attempts)
    second.close()


@pytest.mark.parametrize("is_refreshed", [False, True])
async def test_an_answer_wins_over_errors(directory: Path, is_refreshed: bool) -> None:
    entries = [failure(1, "a"), answer(1, "first"), failure(1, "b"), answer(1, "second")]
    entries += [failure(2, "a"), failure(2, "b"), answer(3, "x"), failure(3, "a")]
    journal = Journal(directory, MANIFEST)
    for entry in entries:
        await journal.append([entry])
        if is_refreshed:
            journal.refresh()
    journal.close()
    journal = Journal(directory, MANIFEST)
    assert ["first", "!b", "x"] == [read(journal, number) for number in (1, 2, 3)]
    assert [True, False, True] == [journal.answered(key(number)) for number in (1, 2, 3)]
    assert 3 == len(journal)
    journal.close()


async def test_an_answer_in_another_part_wins_over_errors(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    for entry in (failure(1, "a"), answer(1, "one"), failure(1, "b")):
        part = JournalPart(directory)
        await part.append([entry])
        part.close()
    journal.refresh()
    assert (3, "one") == (len(list_parts(directory)), read(journal, 1))
    journal.remove()


async def test_refresh_indexes_whole_lines_of_other_processes(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    part = JournalPart(directory)
    await part.append([answer(1, "one")])
    assert not journal.answered(key(1))
    journal.refresh()
    assert "one" == read(journal, 1)
    (path,) = list_parts(directory)
    line = path.read_bytes().replace(b"one", b"two").replace(encode_key(1), encode_key(2))
    with path.open("ab", buffering=0) as file:  # a write that is still going on
        file.write(line[:30])
        journal.refresh()
        assert 1 == len(journal)
        file.write(line[30:])
    journal.refresh()
    assert ["one", "two"] == [read(journal, number) for number in (1, 2)]
    part.close()
    journal.remove()


async def test_long_answers_and_answers_of_several_lines(directory: Path) -> None:
    text = "line\nnext " * 10_000
    journal = Journal(directory, MANIFEST)
    pretty = msgspec.json.format(msgspec.json.encode({"text": text, "more": [1, 2]}), indent=2)
    await journal.append([answer(1, text), Entry(key=key(2), answer=msgspec.Raw(pretty)), answer(3)])
    journal.refresh()
    assert [text, text, "yes"] == [read(journal, number) for number in (1, 2, 3)]
    assert 3 == read_part(directory).count(b"\n")
    journal.remove()


@pytest.mark.posix
def test_whether_a_row_is_answered_needs_no_file(stored: Path) -> None:
    journal = Journal(stored, MANIFEST)
    for part in list_parts(stored):
        part.unlink()
    assert [True, True, False] == [journal.answered(key(number)) for number in (1, 2, 3)]
    with pytest.raises(BatchJournalError, match=r"cannot read the journal: .*: No such file or directory"):
        journal.get(key(1))
    journal.close()


@pytest.mark.parametrize(
    "entry",
    [
        Entry(key=b"short", answer=raw(1)),
        Entry(key=key(1)),
        Entry(key=key(1), answer=raw(1), error=raw(2)),
    ],
)
async def test_an_entry_that_could_not_be_read_is_not_written(directory: Path, entry: Entry) -> None:
    journal = Journal(directory, MANIFEST)
    with pytest.raises(ValueError, match=r"the key must have 16 bytes|either an answer or an error is required"):
        await journal.append([answer(1), entry])
    assert [] == list_parts(directory)
    journal.close()


# --- groups ---------------------------------------------------------------------------------------


async def test_entries_that_wait_are_synced_together(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    disk.is_free.clear()
    first = [asyncio.create_task(journal.append([answer(number)])) for number in range(3)]
    await disk.is_syncing.wait()  # the event loop runs while the file is synced
    rest = [asyncio.create_task(journal.append([answer(number)])) for number in range(3, 100)]
    await asyncio.sleep(0)
    assert 100 == read_part(directory).count(b"\n")
    assert not any(task.done() for task in (*first, *rest))  # written, but not on the disk
    disk.is_free.set()
    await asyncio.gather(*first, *rest)
    assert 2 == disk.syncs
    journal.refresh()
    assert all(journal.answered(key(number)) for number in range(100))
    journal.remove()


async def test_appends_one_after_another_are_synced_each(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    for number in range(4):
        await journal.append([answer(number), failure(number + 10)])
    assert 4 == disk.syncs
    journal.remove()


@pytest.mark.posix
async def test_the_name_of_a_part_is_on_the_disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    journal = Journal(directory, MANIFEST)
    assert {inode(directory.parent), inode(directory)} == set(disk.directories)
    disk.directories.clear()
    await journal.append([answer(1)])
    await journal.append([answer(2)])
    assert [inode(directory)] == disk.directories
    journal.remove()


async def test_entries_of_a_caller_that_was_cancelled_are_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    disk.is_free.clear()
    first = asyncio.create_task(journal.append([answer(1)]))
    await disk.is_syncing.wait()
    second = asyncio.create_task(journal.append([answer(2)]))
    third = asyncio.create_task(journal.append([answer(3)]))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    disk.is_free.set()
    await third
    journal.refresh()
    assert [True] * 3 == [journal.answered(key(number)) for number in (1, 2, 3)]
    journal.remove()


def test_a_journal_outlives_an_event_loop(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    for number in range(3):
        asyncio.run(journal.append([answer(number)]))
    journal.refresh()
    assert (3, 1) == (len(journal), len(list_parts(directory)))
    journal.remove()


async def test_a_closed_journal(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    await journal.append([answer(1)])
    journal.close()
    with pytest.raises(BatchJournalError, match=r"journal is closed: \S+; use it inside the async with block"):
        await journal.append([answer(2)])
    assert 1 == read_part(directory).count(b"\n")


async def test_close_syncs_what_was_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    disk.is_free.clear()
    first = asyncio.create_task(journal.append([answer(1)]))
    await disk.is_syncing.wait()
    second = asyncio.create_task(journal.append([answer(2)]))
    await asyncio.sleep(0)
    threading.Timer(0.05, disk.is_free.set).start()
    journal.close()
    assert 2 == disk.syncs
    await asyncio.gather(first, second)
    reopened = Journal(directory, MANIFEST)
    assert [True, True] == [reopened.answered(key(number)) for number in (1, 2)]
    reopened.close()


def test_a_closed_journal_cannot_be_read(stored: Path) -> None:
    journal = Journal(stored, MANIFEST)
    journal.close()
    with pytest.raises(BatchJournalError, match=r"journal is closed: \S+; use it inside the async with block"):
        journal.refresh()
    with pytest.raises(BatchJournalError, match=r"journal is closed: \S+; use it inside the async with block"):
        journal.get(key(1))
