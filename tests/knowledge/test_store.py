from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.store import (
    context_directory,
    find_proposal,
    list_proposals,
    prepare_directory,
    proposal_id,
    read_proposal,
    slugify,
    write_proposal,
)
from tests.knowledge.factories import PROPOSAL, write_example


def test_write_and_read(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    assert "20261123T130500Z-notes.md" == path.name
    assert PROPOSAL == read_proposal(path)
    assert [path] == list(path.parent.iterdir())


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    paths = [write_example(tmp_path) for _ in range(3)]
    names = ["20261123T130500Z-notes", "20261123T130500Z-notes-2", "20261123T130500Z-notes-3"]
    assert names == [path.stem for path in paths]
    assert names == [read_proposal(path).facts.id for path in paths]


def test_names() -> None:
    when = datetime(2026, 11, 23, 13, 5, 0, tzinfo=UTC)
    assert "20261123T130500Z-a-b" == proposal_id(when, "a-b")


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Meeting Notes (final)", "meeting-notes-final"),
        ("Größe über alles", "groe-uber-alles"),
        ("中文", "input"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 100, "x" * 40),
        ("a" * 39 + " b", "a" * 39),
        ("", "input"),
    ],
)
def test_slugs(text: str, slug: str) -> None:
    assert slug == slugify(text)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProposalError, match=r"cannot write .*notes.md: No space left on device; nothing was changed"):
        write_proposal(tmp_path, PROPOSAL)
    assert [] == list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_proposal(tmp_path, PROPOSAL)
    assert [] == list(tmp_path.iterdir())


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    prepare_directory(tmp_path / "proposals")
    assert [] == list((tmp_path / "proposals").iterdir())
    with pytest.raises(ProposalError, match=r"not a directory: .*file"):
        prepare_directory(tmp_path / "file")
    with pytest.raises(ProposalError, match=r"cannot create .*: No such file or directory"):
        prepare_directory(tmp_path / "no" / "proposals")


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(ProposalError, match=r"cannot write to .*: Permission denied"):
        prepare_directory(tmp_path)


def test_the_context_directory_is_searched_upwards(tmp_path: Path) -> None:
    (tmp_path / ".context").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert tmp_path / ".context" == context_directory(tmp_path / "a" / "b")


def test_find_proposal(tmp_path: Path) -> None:
    directory = write_example(tmp_path).parent
    facts = msgspec.structs.replace(PROPOSAL.facts, id="20261124T080000Z-plan")
    later = write_proposal(directory, msgspec.structs.replace(PROPOSAL, facts=facts))
    (directory / "README.md").write_text("not a proposal")
    first = directory / "20261123T130500Z-notes.md"
    assert (first, later) == list_proposals(directory)
    for name, path in (
        ("latest", later),
        ("plan", later),
        ("20261123", first),
        (first.stem, first),
        (first.name, first),
    ):
        assert path == find_proposal(directory, name)
    with pytest.raises(ProposalError, match="several proposals match '2026': 20261123T130500Z-notes, 20261124"):
        find_proposal(directory, "2026")
    with pytest.raises(
        ProposalError, match="no proposal matches 'x'; the proposals are 20261123T130500Z-notes, 20261124"
    ):
        find_proposal(directory, "x")
    with pytest.raises(ProposalError, match="no proposals in"):
        find_proposal(tmp_path, "latest")
    assert () == list_proposals(tmp_path / "missing")


def test_invalid_files(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    text = path.read_text()
    for fields, words in (
        (text.replace("### t1", "### t2"), r"notes.md:\d+: expected the row t1; restore the file, and edit rows with"),
        (text.replace("130500Z", "130501Z"), "id does not match the file name"),
    ):
        path.write_text(fields)
        with pytest.raises(ProposalError, match=words):
            read_proposal(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ProposalError, match="not UTF-8"):
        read_proposal(path)
    path.unlink()
    with pytest.raises(ProposalError, match=r"cannot read .*: No such file"):
        read_proposal(path)
