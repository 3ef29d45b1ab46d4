"""The manifest of a journal: the run that it belongs to."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

VERSION = 1
MANIFEST_FILE = "manifest.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="ctxbackends batch journal"):
    """The run that a journal belongs to, without its input.

    Attributes:
        fingerprint: Hash of the run's options and backends, in hex.
        parts: A hash of each option and of the backends by name, to tell which of them differ.
        version: Version of the journal.
        outputs: The files that were written from the journal.
    """

    fingerprint: str
    parts: dict[str, str] = {}
    version: int = VERSION
    outputs: tuple[str, ...] = ()

    def has_output(self, path: Path) -> bool:
        """Return whether a file was written from the journal."""
        return os.path.realpath(path) in self.outputs

    def describe_difference(self, other: Manifest) -> str:
        """Return the names of the options that differ, for people."""
        names = [name for name in {**self.parts, **other.parts} if self.parts.get(name) != other.parts.get(name)]
        return ", ".join(names) if self.parts and other.parts and names else "options or backends"


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a journal, None if the directory has none that can be read."""
    try:
        return msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
