from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import JournalError
from ctxbackends.knowledge._extract.journal import Journal


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
