from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Entry, Journal, JournalPart, Manifest
from ctxbackends.batch._journal_part import encode_entry
from tests.batch.journal_entries import MANIFEST, answer, failure, key, raw, text_of

PROGRAM = "tests.batch.journal_entries"


def read(journal: Journal, number: int) -> str | None:
    """Return the text of an answer, ``!`` and the message of an error, or None."""
    entry = journal.get(key(number))
    if entry is None:
        return None
    if entry.answer is not None:
        return str(json.loads(bytes(entry.answer))["text"])
    assert entry.error is not None
    return "!" + json.loads(bytes(entry.error))["message"]


def list_parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*"))


def read_part(directory: Path) -> bytes:
    """Return the content of the only part of a journal."""
    (path,) = list_parts(directory)
    return path.read_bytes()


def inode(path: Path) -> int:
    return path.stat().st_ino


def fill(directory: Path, *entries: Entry) -> Path:
    """Append entries in a new part of a journal, and return the part."""

    async def append() -> None:
        part = JournalPart(directory)
        await part.append(entries)
        part.close()

    before = set(list_parts(directory))
    asyncio.run(append())
    (path,) = set(list_parts(directory)) - before
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.journal"


@pytest.fixture
def stored(directory: Path) -> Path:
    """A journal with two answers, closed."""
    journal = Journal(directory, MANIFEST)
    fill(directory, answer(1, "one"), answer(2, "two"))
    journal.close()
    return directory


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
    line = path.read_bytes().replace(b"one", b"two").replace(*(encode_key(number) for number in (1, 2)))
    with path.open("ab", buffering=0) as file:  # a write that is still going on
        file.write(line[:30])
        journal.refresh()
        assert 1 == len(journal)
        file.write(line[30:])
    journal.refresh()
    assert ["one", "two"] == [read(journal, number) for number in (1, 2)]
    part.close()
    journal.remove()


def encode_key(number: int) -> bytes:
    return msgspec.json.encode(key(number))


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


class Disk:
    """Counts the syncs of files, and lets a test delay or fail them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.directories: list[int] = []
        self.error: OSError | None = None
        self.is_free = threading.Event()
        self.is_free.set()
        self._fsync = os.fsync
        self._loop = asyncio.get_running_loop()
        self.is_syncing = asyncio.Event()
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.directories.append(status.st_ino)
            return
        self.syncs += 1
        self._loop.call_soon_threadsafe(self.is_syncing.set)
        assert self.is_free.wait(60)
        if self.error is not None:
            raise self.error
        self._fsync(descriptor)


async def test_entries_that_wait_are_synced_together(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    disk.is_free.clear()
    first = [asyncio.create_task(journal.append([answer(number)])) for number in range(3)]
    await disk.is_syncing.wait()  # the event loop runs while the file is synced
    rest = [asyncio.create_task(journal.append([answer(number)])) for number in range(3, 100)]
    await asyncio.sleep(0)
    assert 3 == read_part(directory).count(b"\n")
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
    with pytest.raises(BatchJournalError, match=r"journal is closed: \S+; start the batch again"):
        await journal.append([answer(2)])
    assert 1 == read_part(directory).count(b"\n")


async def test_close_waits_for_a_write(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    disk.is_free.clear()
    first = asyncio.create_task(journal.append([answer(1)]))
    await disk.is_syncing.wait()
    second = asyncio.create_task(journal.append([answer(2)]))
    await asyncio.sleep(0)
    threading.Timer(0.05, disk.is_free.set).start()
    journal.close()
    await first
    with pytest.raises(BatchJournalError):  # never written, so never reported
        await second
    reopened = Journal(directory, MANIFEST)
    assert [True, False] == [reopened.answered(key(number)) for number in (1, 2)]
    reopened.close()


# --- disks that fail ------------------------------------------------------------------------------


async def test_a_sync_that_fails(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, MANIFEST)
    disk = Disk(monkeypatch)
    await journal.append([answer(1)])
    disk.error = OSError(errno.EIO, "Input/output error")
    tasks = [asyncio.create_task(journal.append([answer(number)])) for number in (2, 3)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, BatchJournalError)
        assert f"cannot write the journal: {directory}: Input/output error; use --journal for another directory" == str(
            result
        )
    disk.error = None
    await journal.append([answer(4)])
    assert 2 == len(list_parts(directory))  # nothing is appended to a part that failed
    journal.close()
    journal = Journal(directory, MANIFEST)
    assert [True, True] == [journal.answered(key(number)) for number in (1, 4)]
    journal.close()


@pytest.mark.parametrize("can_truncate", [True, False])
async def test_a_disk_that_is_full_within_a_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch, can_truncate: bool
) -> None:
    journal = Journal(directory, MANIFEST)
    await journal.append([answer(1)])
    (path,) = list_parts(directory)
    size = path.stat().st_size
    room = size + 20  # one more line, and a part of the next
    real_write = os.write

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real_write(descriptor, data[:room])
        room -= count
        return count

    def ftruncate(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        if not can_truncate:
            patch.setattr(os, "ftruncate", ftruncate)
        with pytest.raises(BatchJournalError) as caught:
            await journal.append([answer(2), answer(3)])
        assert (
            f"cannot write the journal: {directory}: No space left on device; "
            "free space on the disk and start again; answered rows are kept"
        ) == str(caught.value)
        assert 2 * size + (0 if can_truncate else 20) == path.stat().st_size
    await journal.append([answer(4)])
    journal.close()
    journal = Journal(directory, MANIFEST)
    assert [True, True, False, True] == [journal.answered(key(number)) for number in (1, 2, 3, 4)]
    journal.close()


@pytest.mark.posix
def test_a_limit_on_the_size_of_files(directory: Path) -> None:
    result = run("fill", directory, 5000, 1000)
    match = re.fullmatch(r"(\d+) cannot write the journal: \S+: File too large; free space on .*\n", result)
    assert match is not None
    count = int(match[1])
    assert count > 5
    journal = Journal(directory, MANIFEST)
    assert [True] * count == [journal.answered(key(number)) for number in range(count)]
    assert not journal.answered(key(count))
    journal.close()
    assert "" == run("fill", directory, 0, 1000)
    journal = Journal(directory, MANIFEST)
    assert 1000 == len(journal)
    assert "x" * 300 == read(journal, 999)
    journal.remove()


def run(program: str, directory: Path, start: int, count: int) -> str:
    command = [sys.executable, "-m", PROGRAM, program, str(directory), str(start), str(count)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=True).stdout


FULL_DISK = """\
set -e
mount -t tmpfs -o size=64k,mode=700 none "$1"
"$PYTHON" -m "$PROGRAM" fill "$1/journal" 0 300
grep -c . "$1"/journal/part-*.jsonl
mount -o remount,size=4m "$1"
"$PYTHON" -m "$PROGRAM" fill "$1/journal" 0 300
cat "$1"/journal/part-*.jsonl | grep -c '^{.*}$'
mount -o remount,ro "$1"
"$PYTHON" -m "$PROGRAM" fill "$1/journal" 0 300
"$PYTHON" -m "$PROGRAM" fill "$1/new" 0 300
"""


@pytest.mark.linux
@pytest.mark.slow
def test_a_real_disk_that_is_full_and_one_that_is_read_only(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, of util-linux")
    result = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHON": sys.executable, "PROGRAM": PROGRAM},
        check=False,
    )
    if re.match(r"(unshare|mount): .*", result.stderr):
        pytest.skip(result.stderr.strip())
    assert "" == result.stderr
    full, lines, total, *read_only = result.stdout.splitlines()
    count, message = full.split(" ", 1)
    assert "No space left on device; free space on the disk and start again; answered rows are kept" in message
    assert int(count) > 50
    assert count == lines
    assert int(count) + 300 == int(total)  # the program asks all rows again
    assert [
        f"cannot write the journal: {tmp_path}/{name}: Read-only file system; use --journal for another directory"
        for name in ("journal", "new")
    ] == read_only


# --- lines that are cut or damaged ----------------------------------------------------------------


@given(st.data())
def test_a_cut_leaves_the_whole_lines_before_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=40), min_size=1, max_size=5))
    content = b"".join(encode_entry(answer(number, text)) for number, text in enumerate(texts))
    cut = data.draw(st.integers(0, len(content)))
    directory = tmp_path_factory.mktemp("journal")
    (directory / "manifest.json").write_bytes(msgspec.json.encode(MANIFEST))
    path = directory / "part-20261127T220345051641-cf5c64b3.jsonl"
    path.write_bytes(content[:cut])
    end = content.rfind(b"\n", 0, cut) + 1
    count = content.count(b"\n", 0, cut)
    journal = Journal(directory, MANIFEST)
    assert [*texts[:count], None] == [read(journal, number) for number in range(count + 1)]
    assert content[: cut if sys.platform == "win32" else end] == path.read_bytes()
    journal.remove()


@pytest.mark.posix
def test_the_last_line_of_each_part_is_cut(stored: Path) -> None:
    journal = Journal(stored, MANIFEST)
    for number in (3, 4):
        fill(stored, answer(number))
    journal.close()
    contents = {}
    for path in list_parts(stored):
        contents[path] = path.read_bytes()
        with path.open("ab") as file:
            file.write(b"\0\0\0" if len(contents) == 1 else encode_entry(answer(5))[: -len(contents)])
    assert 3 == len(contents)
    journal = Journal(stored, MANIFEST)
    assert 4 == len(journal)
    assert contents == {path: path.read_bytes() for path in contents}
    journal.close()


@pytest.mark.posix
async def test_the_last_line_of_a_part_that_is_written_is_not_cut(stored: Path) -> None:
    worker = JournalPart(stored)  # it outlived the driver of an earlier run
    await worker.append([answer(3)])
    path = max(list_parts(stored))
    line = path.read_bytes().replace(encode_key(3), encode_key(4))
    with path.open("ab", buffering=0) as file:
        file.write(line[:20])
        journal = Journal(stored, MANIFEST)
        assert 3 == len(journal)
        file.write(line[20:])
    journal.refresh()
    assert "yes" == read(journal, 4)
    worker.close()
    journal.close()


DAMAGE = [
    b"\0\0\0\0\n",
    b"{}\n",
    b"\n",
    b'{"key":"AAAA","answer":1}\n',
    b'{"key":"AAAAAAAAAAAAAAAAAAAAAA==","answer":1,"error":2}\n',
    b'{"key":"AAAAAAAAAAAAAAAAAAAAAA=="}\n',
    b'{"key":"AAAAAAAAAAAAAAAAAAAAAA==","answer":{"text":"\xff"}}\n',
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("is_refreshed", [False, True])
def test_a_damaged_line(stored: Path, damage: bytes, is_refreshed: bool) -> None:
    (path,) = list_parts(stored)
    journal = Journal(stored, MANIFEST)
    lines = path.read_bytes().splitlines(keepends=True)
    if not is_refreshed:
        journal.close()
        lines[0:1] = [lines[0], damage]
        line = 2
    else:
        lines += [damage, lines[0]]
        line = 3
    content = b"".join(lines)
    path.write_bytes(content)
    with pytest.raises(BatchJournalError) as caught:
        journal.refresh() if is_refreshed else Journal(stored, MANIFEST)
    at = sum(map(len, lines[: line - 1]))
    assert f"journal is damaged: {path}, line {line} (byte {at}): " in str(caught.value)
    assert str(caught.value).endswith("; delete this line to ask its row again, or use --fresh to ask all rows again")
    assert content == path.read_bytes()
    journal.close()
    del lines[line - 1]
    path.write_bytes(b"".join(lines))
    journal = Journal(stored, MANIFEST)
    assert ["one", "two"] == [read(journal, number) for number in (1, 2)]
    journal.close()


def test_a_part_that_was_changed_during_the_run(stored: Path) -> None:
    (path,) = list_parts(stored)
    journal = Journal(stored, MANIFEST)
    path.write_bytes(path.read_bytes().replace(encode_key(1), encode_key(9)))
    with pytest.raises(BatchJournalError, match=r"journal was changed during the run: \S+; start the batch again"):
        journal.get(key(1))
    journal.close()


# --- the directory --------------------------------------------------------------------------------


def list_tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_journal_of_another_run(stored: Path) -> None:
    before = list_tree(stored)
    with pytest.raises(BatchJournalError) as caught:
        Journal(stored, Manifest(fingerprint="other"))
    assert (
        f"journal belongs to a batch with other options or backends: {stored}; "
        "use those options, use --fresh to ask all rows again, or use --journal for another directory"
    ) == str(caught.value)
    assert before == list_tree(stored)
    journal = Journal(stored, Manifest(fingerprint="other"), fresh=True)
    assert (0, None) == (len(journal), read(journal, 1))
    fill(stored, answer(5))
    journal.close()
    with pytest.raises(BatchJournalError, match="other options or backends"):
        Journal(stored, MANIFEST)


def test_a_journal_of_another_version(stored: Path) -> None:
    manifest = stored / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"version":1', b'"version":2,"more":[]'))
    with pytest.raises(BatchJournalError) as caught:
        Journal(stored, MANIFEST)
    assert (
        f"journal has another version: {stored}: 2; update ctxbackends, or use --fresh to ask all rows again"
    ) == str(caught.value)
    Journal(stored, MANIFEST, fresh=True).remove()
    assert not stored.exists()


def test_a_run_without_entries_leaves_no_journal(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    killed = directory.with_name("killed")
    shutil.copytree(directory, killed)
    journal.close()
    assert not directory.exists()
    other = Manifest(fingerprint="other")
    journal = Journal(killed, other)
    fill(killed, answer(1))
    journal.close()
    with pytest.raises(BatchJournalError, match="other options"):
        Journal(killed, MANIFEST)
    journal = Journal(killed, other)
    assert "yes" == read(journal, 1)
    journal.close()


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    for fresh in (False, True):
        with pytest.raises(BatchJournalError) as caught:
            Journal(path, MANIFEST, fresh=fresh)
        assert f"cannot write the journal: {path}: Not a directory; use --journal for another directory" == str(
            caught.value
        )
    assert "mine" == path.read_text()


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {"manifest.json": '{"name": "an app"}'},
        {"manifest.json": "{"},
        {"manifest.json": '{"format": "other", "fingerprint": "ab12"}'},
        {"part-20261127T220345051641-cf5c64b3.jsonl": "{}\n"},
        {".gitignore": "*\n", "src/a.py": ""},
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_with_another_purpose(directory: Path, files: dict[str, str], fresh: bool) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    before = list_tree(directory)
    with pytest.raises(BatchJournalError) as caught:
        Journal(directory, MANIFEST, fresh=fresh)
    assert f"directory is not a journal: {directory}; use --journal for another directory" == str(caught.value)
    assert before == list_tree(directory)


def test_a_directory_whose_parent_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BatchJournalError, match=r"cannot write the journal: .*: No such file or directory; use"):
        Journal(tmp_path / "a" / "b", MANIFEST)


@pytest.mark.parametrize("leftovers", [[], [".lock"], [".lock", ".gitignore", ".manifest.json.0a1b2c3d4e5f.tmp"]])
def test_an_empty_directory_and_one_whose_creation_was_interrupted(directory: Path, leftovers: list[str]) -> None:
    directory.mkdir()
    for name in leftovers:
        (directory / name).touch()
    journal = Journal(directory, MANIFEST)
    fill(directory, answer(1))
    assert "*\n" == (directory / ".gitignore").read_text()
    journal.close()
    Journal(directory, MANIFEST).remove()
    assert not directory.exists()


def test_fresh_deletes_only_the_files_of_the_journal(stored: Path) -> None:
    (stored / "notes.txt").write_text("mine")
    (stored / "part-mine.jsonl").write_text("{}\n")
    journal = Journal(stored, MANIFEST, fresh=True)
    assert 0 == len(journal)
    assert {".gitignore", ".lock", "manifest.json", "notes.txt", "part-mine.jsonl"} == set(os.listdir(stored))
    journal.close()
    assert {"notes.txt", "part-mine.jsonl"} == set(os.listdir(stored))


def test_remove(directory: Path) -> None:
    journal = Journal(directory, MANIFEST)
    asyncio.run(journal.append([answer(1)]))
    journal.refresh()
    assert "yes" == read(journal, 1)
    journal.remove()
    journal.remove()
    journal.close()
    assert not directory.exists()


def test_remove_leaves_other_files(stored: Path) -> None:
    (stored / "notes.txt").write_text("mine")
    (stored / ".gitignore").write_text("*.tmp\n")
    Journal(stored, MANIFEST).remove()
    assert {"notes.txt", ".gitignore"} == set(os.listdir(stored))


@pytest.mark.posix
def test_modes(directory: Path) -> None:
    umask = os.umask(0)
    try:
        journal = Journal(directory, MANIFEST)
        asyncio.run(journal.append([answer(1)]))
        modes = {path.name.split("-")[0]: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    finally:
        os.umask(umask)
    assert {".lock": 0o600, ".gitignore": 0o600, "manifest.json": 0o600, "part": 0o600} == modes
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
    journal.remove()


# --- several processes ----------------------------------------------------------------------------


@pytest.fixture
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", PROGRAM, "hold", str(directory), "0", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
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
        subprocess.Popen(
            [sys.executable, "-m", PROGRAM, "worker", str(directory), str(start), "200"], stdout=subprocess.DEVNULL
        )
        for start in (0, 200, 400)
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
        with subprocess.Popen(
            [sys.executable, "-m", PROGRAM, "driver", str(directory), "0", str(rows)], stdout=subprocess.PIPE
        ) as process:
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
