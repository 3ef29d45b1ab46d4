from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import JournalError
from ctxbackends.knowledge._extract.journal import Journal, JournalPart


def test_answers_survive_a_reopen(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "a.jsonl"
    first = Journal(path)
    first.put("one", b'{"x":1}')
    first.put("two", b"[]")
    first.close()
    second = Journal(path)
    assert 2 == len(second)
    assert (b'{"x":1}', b"[]", None) == tuple(
        None if answer is None else bytes(answer)
        for answer in (second.get("one"), second.get("two"), second.get("three"))
    )
    second.put("three", b"3")
    assert b"3" == bytes(second.get("three") or b"")
    second.close()


def test_a_journal_stays_out_of_the_repository(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal" / "a.jsonl")
    assert "*\n" == (tmp_path / "journal" / ".gitignore").read_text()
    journal.close()


def test_an_empty_journal_leaves_no_file(tmp_path: Path) -> None:
    Journal(tmp_path / "a.jsonl").close()
    assert [] == list(tmp_path.iterdir())


def test_an_empty_gitignore_is_written_again(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    Journal(directory / "a.jsonl").close()
    ignore = directory / ".gitignore"
    assert "*\n" == ignore.read_text()
    ignore.write_text("")
    Journal(directory / "a.jsonl").close()
    assert "*\n" == ignore.read_text()
    ignore.unlink()  # somebody wants it so
    Journal(directory / "a.jsonl").close()
    assert not ignore.exists()


def test_remove(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.put("one", b"1")
    journal.remove()
    assert [] == list(tmp_path.iterdir())


def test_clear(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.put("one", b"1")
    journal.clear()
    assert (0, None) == (len(journal), journal.get("one"))
    journal.put("two", b"2")
    journal.close()
    second = Journal(tmp_path / "a.jsonl")
    assert b"2" == bytes(second.get("two") or b"")
    second.close()


@pytest.mark.parametrize("torn", [b'{"key":"two","answer":{"x"', b'{"key":"two","answer":2}', b"\x00\x00\x00"])
def test_an_incomplete_line_is_ignored(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    journal.put("one", b"1")
    journal.close()
    with path.open("ab") as file:
        file.write(torn)
    second = Journal(path)
    assert (1, None) == (len(second), second.get("two"))
    second.put("two", b"22")
    second.close()
    last = Journal(path)
    assert b"22" == bytes(last.get("two") or b"")
    last.close()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    with pytest.raises(JournalError, match="journal is locked by another run of these inputs"):
        Journal(tmp_path / "a.jsonl")
    journal.close()
    Journal(tmp_path / "a.jsonl").close()


def test_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"cannot write the journal .*file/journal/a.jsonl: Not a directory"):
        Journal(tmp_path / "file" / "journal" / "a.jsonl")


def test_a_full_disk_keeps_earlier_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    room = 30
    real_write = os.write

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real_write(descriptor, data[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", write)
    journal = Journal(path)
    journal.put("one", b"1")
    with pytest.raises(JournalError, match=r"cannot write the journal .*: No space left on device"):
        journal.put("two", b"2")
    assert b'{"key":"one","answer":1}\n' == path.read_bytes()
    journal.close()
    assert os.path.exists(path)


# --- parts of worker processes --------------------------------------------------------------------------


def test_answers_of_parts_are_read_by_the_journal_and_by_other_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    journal.put("one", b"1")
    part, other = JournalPart(path), JournalPart(path)
    part.put("two", b"22")
    assert (b"1", None) == (bytes(other.get("one") or b""), other.get("two"))
    other.refresh()
    journal.refresh()
    other.put("three", b"3")
    assert b"22" == bytes(other.get("two") or b"") == bytes(journal.get("two") or b"")
    part.close()
    other.close()
    journal.close()
    second = Journal(path)  # after the driver was killed: it did not refresh
    assert (3, b"3") == (len(second), bytes(second.get("three") or b""))
    second.close()


def test_an_incomplete_line_of_a_part_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    part = JournalPart(path)
    part.put("one", b"1")
    part.close()
    (file,) = tmp_path.glob("a.part-*.jsonl")
    with file.open("ab") as lines:
        lines.write(b'{"key":"two","answer":2}')
    journal.refresh()
    assert (1, None) == (len(journal), journal.get("two"))
    with file.open("ab") as lines:  # the worker is still writing
        lines.write(b'\n{"key":"three","answer":3}\n')
    journal.refresh()
    assert (3, b"2", b"3") == (len(journal), bytes(journal.get("two") or b""), bytes(journal.get("three") or b""))
    journal.close()


def test_a_part_without_answers_is_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    part = JournalPart(tmp_path / "a.jsonl")
    part.close()
    assert [] == list(tmp_path.glob("*part*"))
    journal.close()


@pytest.mark.parametrize("name", ["clear", "remove"])
def test_parts_are_deleted_with_their_journal_alone(tmp_path: Path, name: str) -> None:
    journals = [Journal(tmp_path / "a.jsonl"), Journal(tmp_path / "ab.jsonl")]
    for journal in journals:
        part = JournalPart(journal.path)
        part.put("one", b"1")
        part.close()
        journal.refresh()
    getattr(journals[0], name)()
    assert 1 == len([*tmp_path.glob("*.part-*")])
    assert b"1" == bytes(journals[1].get("one") or b"")
    for journal in journals:
        journal.close()
