from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Journal, JournalPart
from ctxbackends.batch._journal_part import encode_entry
from tests.batch.journal_entries import MANIFEST, PROGRAM, answer, encode_key, fill, key, list_parts, read, run
from tests.batch.slow_disk import Disk

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
    assert path.read_bytes() in (content[:end], content[:cut])  # Windows does not cut it
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
