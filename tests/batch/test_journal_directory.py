from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

import msgspec
import pytest

from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Journal, JournalPart
from ctxbackends.batch._journal_manifest import Manifest, read_manifest
from tests.batch.journal_entries import MANIFEST, answer, failure, fill, list_parts, read


def list_tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_journal_of_another_run(stored: Path) -> None:
    before = list_tree(stored)
    with pytest.raises(BatchJournalError) as caught:
        Journal(stored, Manifest(fingerprint="other"))
    assert (
        f"journal belongs to a batch with other options or backends: {stored}; "
        "use the same as before, use --fresh to ask all rows again, or use --journal for another directory"
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


def test_a_gitignore_of_somebody_else_is_kept(directory: Path) -> None:
    directory.mkdir()
    (directory / ".gitignore").write_text("*\n!.gitignore\n")
    journal = Journal(directory, MANIFEST)
    fill(directory, answer(1))
    journal.remove()
    assert {".gitignore": "*\n!.gitignore\n"} == {path.name: path.read_text() for path in directory.iterdir()}


def test_a_first_part_that_could_not_be_written_leaves_no_journal(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(directory, MANIFEST)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(BatchJournalError, match="No space left on device"):
            asyncio.run(JournalPart(directory).append([answer(1)]))
    assert [0] == [path.stat().st_size for path in list_parts(directory)]
    journal.close()
    assert not directory.exists()


def test_the_content_of_another_lock_is_kept(directory: Path) -> None:
    directory.mkdir()
    (directory / ".lock").write_text("123\nhost\n")  # as filelock writes it on file systems without locks
    journal = Journal(directory, MANIFEST)
    assert "123\nhost\n" == (directory / ".lock").read_text()
    with pytest.raises(BatchJournalError, match=r"journal is in use: \S+; wait for the other batch, or stop it"):
        Journal(directory, MANIFEST)
    journal.close()


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


def test_a_removal_that_was_interrupted_leaves_no_journal_without_its_answers(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(stored, MANIFEST)
    parts = sorted(stored.glob("part-*"))

    def fail(_: Journal) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "_delete_parts", fail)
    with pytest.raises(KeyboardInterrupt):
        journal.remove()
    assert (None, parts) == (read_manifest(stored), sorted(stored.glob("part-*")))
    with pytest.raises(BatchJournalError, match="is not a journal"):
        Journal(stored, MANIFEST)


def test_remove_after_close(stored: Path) -> None:
    journal = Journal(stored, MANIFEST)
    journal.close()
    other = Journal(stored, MANIFEST)
    with pytest.raises(BatchJournalError, match="journal is in use"):
        journal.remove()
    with pytest.raises(BatchJournalError, match="journal is in use"):  # still
        Journal(stored, MANIFEST)
    other.close()
    journal.remove()
    assert not stored.exists()


def test_remove_deletes_the_files_of_an_engine_that_was_killed(stored: Path) -> None:
    with contextlib.closing(SharedDirectory(stored)):
        Journal(stored, MANIFEST).remove()
        assert not stored.exists()


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


def test_a_journal_with_errors_alone_is_taken_over(directory: Path) -> None:
    other = Manifest(fingerprint="other")
    Journal(directory, MANIFEST).close()
    directory.mkdir(0o700)
    (directory / "manifest.json").write_bytes(msgspec.json.encode(MANIFEST))
    fill(directory, failure(1), failure(2))
    before = [path.read_bytes() for path in list_parts(directory)]
    Journal(directory, other).close()
    assert before == [path.read_bytes() for path in list_parts(directory)]
    fill(directory, answer(3))
    with pytest.raises(BatchJournalError, match="other options or backends"):
        Journal(directory, MANIFEST)
    journal = Journal(directory, other)
    assert "yes" == read(journal, 3)
    journal.close()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"model": "1", "temperature": "2"}, "other model:"),
        ({"model": "0", "temperature": "3"}, "other temperature:"),
        ({"model": "1", "top_p": "2"}, "other model, temperature, top_p:"),
        ({}, "other options or backends:"),
    ],
    ids=str,
)
def test_the_options_that_differ_are_named(directory: Path, parts: dict[str, str], expected: str) -> None:
    first = Manifest(fingerprint="first", parts={"model": "0", "temperature": "2"})
    journal = Journal(directory, first)
    fill(directory, answer(1))
    journal.close()
    with pytest.raises(BatchJournalError, match=expected):
        Journal(directory, Manifest(fingerprint="second", parts=parts))
    Journal(directory, Manifest(fingerprint="first")).close()  # the fingerprint decides
