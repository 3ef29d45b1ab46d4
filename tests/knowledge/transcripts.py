"""Write transcripts, and read them as a command does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxbackends.knowledge._sources.base import Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.formats import source_of


def read_file(path: Path) -> list[Piece]:
    """Return the pieces of a file."""
    source = source_of(path, name=path.name)
    source.prepare()
    return list(source.pieces())


def read_records(directory: Path, *records: Any, name: str = "s.jsonl") -> list[Piece]:
    """Write JSON lines, and return their pieces. Bytes are written as they are."""
    path = directory / name
    path.write_bytes(b"".join(one + b"\n" if isinstance(one, bytes) else encode(one) for one in records))
    return read_file(path)


def encode(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def lines_of(pieces: Sequence[Piece]) -> list[tuple[int, str | None, str, str]]:
    """Return line, speaker, label and text of the segments."""
    return [(one.first, one.speaker, one.label, one.text) for one in pieces if isinstance(one, Segment)]


def said(pieces: Sequence[Piece]) -> list[tuple[int, str | None, str]]:
    """Return line, speaker and text of the segments."""
    return [(one.first, one.speaker, one.text) for one in pieces if isinstance(one, Segment)]


def skipped(pieces: Sequence[Piece]) -> list[str]:
    """Return the reasons of the skipped input."""
    return [str(one) for one in pieces if isinstance(one, SkippedInput)]
