"""Runs ``ctx`` as people do, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

WITHIN = 60.0


@attrs.frozen
class Done:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def proposal(self) -> Path:
        """The path that was printed."""
        return Path(self.out.strip())


def environment(**more: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    return {**kept, "NO_COLOR": "1", **more}


def ctx(directory: Path, *arguments: str, text: bytes = b"", **more: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "ctxbackends", *arguments],
        cwd=directory,
        input=text,
        capture_output=True,
        timeout=WITHIN,
        env=environment(**more),
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def started(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ctxbackends", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def project(directory: Path, url: str | None, *, kind: str = "openai", more: str = "") -> Path:
    """A directory with ``.context``, and a ``.ctxrc`` that names the server at ``url``."""
    (directory / ".context").mkdir()
    (directory / ".context" / "DECISIONS.md").write_text(
        "# Decisions\n\n## [2026-02-26] Keep option 1\n\n**Context**: asked\n"
    )
    (directory / ".context" / "TASKS.md").write_text("# Tasks\n\n- [ ] Write it down #priority:high\n")
    if url is not None:
        entry = f"  - name: model\n    type: {kind}\n    endpoint: {url}\n    default_model: scripted\n"
        (directory / ".ctxrc").write_text(f"backends:\n{entry}{more}")
    return directory


def untouched(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every ``.context/*.md``."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (directory / ".context").glob("*.md")}


def written(directory: Path) -> Sequence[str]:
    """The files below ``.context`` that are no ``*.md`` of its own."""
    found = (directory / ".context").rglob("*")
    return sorted(
        str(path.relative_to(directory / ".context"))
        for path in found
        if path.is_file() and path.parent.name != ".context"
    )
