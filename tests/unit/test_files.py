from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctxbackends._util import files
from ctxbackends._util.files import create_file, replace_file, replacing


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


def test_bytes_are_written_unchanged(path: Path) -> None:
    replace_file(path, b"a\nb\r\n\x1a")
    assert (b"a\nb\r\n\x1a", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_replacement_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left on device"):
        replace_file(path, b"new")
    assert (b"old", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


@pytest.mark.parametrize(
    ("denials", "platform", "succeeds"),
    [(5, "win32", True), (6, "win32", False), pytest.param(1, "linux", False, marks=pytest.mark.posix)],
)
def test_windows_denies_a_replacement_for_a_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch, denials: int, platform: str, succeeds: bool
) -> None:
    path.write_bytes(b"old")
    replace = os.replace
    pauses: list[float] = []
    remaining = iter(range(denials))

    def deny(source: Path, target: Path) -> None:
        if next(remaining, None) is not None:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", deny)
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=pauses.append))
    with nullcontext() if succeeds else pytest.raises(PermissionError):
        replace_file(path, b"new")
    assert (b"new" if succeeds else b"old", [path]) == (path.read_bytes(), list(path.parent.iterdir()))
    assert [0.02, 0.04, 0.08, 0.16, 0.32][: len(pauses)] == pauses
    assert (5 if platform == "win32" else 0) == len(pauses)


def test_a_block_that_fails_leaves_the_old_file(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        interrupted()
    assert (b"old", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_replacement_keeps_the_mode(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    replace_file(path, b"new")
    assert mode == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.posix
def test_a_new_file_has_the_default_mode(path: Path) -> None:
    other = path.with_name("b.txt")
    other.touch()
    create_file(path, b"new")
    assert other.stat().st_mode == path.stat().st_mode


def test_an_existing_file_is_not_overwritten(path: Path) -> None:
    assert create_file(path, b"first")
    assert not create_file(path, b"second")
    assert (b"first", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


def test_an_existing_file_is_not_overwritten_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    assert create_file(path, b"first")
    assert not create_file(path, b"second")
    assert (b"first", [path]) == (path.read_bytes(), list(path.parent.iterdir()))


@pytest.mark.parametrize(("step", "failure"), [("fsync", full), ("link", full), ("fsync", interrupted)])
def test_a_creation_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: object
) -> None:
    monkeypatch.setattr(os, step, failure)
    with pytest.raises((OSError, KeyboardInterrupt)):
        create_file(path, b"new")
    assert [] == list(path.parent.iterdir())


def test_without_hard_links_a_failure_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        create_file(path, b"new")
    assert [] == list(path.parent.iterdir())
