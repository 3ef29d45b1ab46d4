"""Entries of a journal, and programs that append them. Without pytest, since the tests start processes with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Entry, Journal, JournalPart
from ctxbackends.batch._journal_manifest import Manifest

MANIFEST = Manifest(fingerprint="ab12")
PROGRAM = "tests.batch.journal_entries"


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def answer(number: int, text: str = "yes") -> Entry:
    return Entry(key=key(number), answer=raw({"text": text}), backend="local", attempts=2, seconds=0.5)


def failure(number: int, message: str = "no") -> Entry:
    return Entry(key=key(number), error=raw({"message": message}))


def text_of(number: int) -> str:
    """Return the text that :func:`append_all` stores for a row."""
    return "x" * (number % 7 * 100) + str(number)


def read(journal: Journal, number: int) -> str | None:
    """Return the text of an answer, ``!`` and the message of an error, or None."""
    entry = journal.get(key(number))
    if entry is None:
        return None
    if entry.answer is not None:
        return str(msgspec.json.decode(entry.answer)["text"])
    assert entry.error is not None
    return "!" + str(msgspec.json.decode(entry.error)["message"])


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


def store(directory: Path) -> Path:
    """Create a journal with two answers, and close it."""
    journal = Journal(directory, MANIFEST)
    fill(directory, answer(1, "one"), answer(2, "two"))
    journal.close()
    return directory


def encode_key(number: int) -> bytes:
    """Return a key as it is in a line."""
    return msgspec.json.encode(key(number))


async def append_until_full(directory: Path, count: int) -> None:
    """Append rows one after another; print the first that fails, and its error."""
    try:
        journal = Journal(directory, MANIFEST)
        for number in range(count):
            try:
                await journal.append([answer(number, "x" * 300)])
            except BatchJournalError as error:
                os.write(1, b"%d %s\n" % (number, str(error).encode()))
                return
    except BatchJournalError as error:
        os.write(1, b"%s\n" % str(error).encode())


async def append_all(part: Journal | JournalPart, numbers: list[int]) -> None:
    """Append rows, 16 at once; print the number of each when it is stored."""
    slots = asyncio.Semaphore(16)

    async def append(number: int) -> None:
        async with slots:
            await part.append([answer(number, text_of(number))])
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*map(append, numbers))
    part.close()


def command(program: str, directory: Path, start: int = 0, count: int = 0) -> list[str]:
    """Return the command of a program of this file."""
    return [sys.executable, "-m", PROGRAM, program, str(directory), str(start), str(count)]


def run(program: str, directory: Path, start: int = 0, count: int = 0) -> str:
    """Run a program of this file, and return its output."""
    arguments = command(program, directory, start, count)
    return subprocess.run(arguments, stdout=subprocess.PIPE, text=True, timeout=100, check=True).stdout


def main() -> None:
    program, directory, start, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if program == "fill":
        if start and sys.platform != "win32":
            import resource  # noqa: PLC0415  # not on Windows

            resource.setrlimit(resource.RLIMIT_FSIZE, (start, start))
        asyncio.run(append_until_full(directory, count))
    elif program == "driver":
        journal = Journal(directory, MANIFEST)
        asyncio.run(append_all(journal, [number for number in range(count) if not journal.answered(key(number))]))
    elif program == "worker":
        asyncio.run(append_all(JournalPart(directory), list(range(start, start + count))))
    elif program == "hold":
        journal = Journal(directory, MANIFEST)
        os.write(1, b"\n")
        sys.stdin.read()
        journal.close()


if __name__ == "__main__":
    main()
