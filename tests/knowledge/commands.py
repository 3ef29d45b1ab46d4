"""Run ``ctx`` in a directory, in this process or in a separate one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends import _cli as cli

STREAMS = ("stdout", "stderr")
WITHIN = 60.0


@attrs.frozen
class Result:
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


def environment(**more: str) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    return {**variables, "NO_COLOR": "1", **more}


def ctx(directory: Path, *arguments: str, text: bytes = b"", **more: str) -> Result:
    """Run the program in this process."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for name in STREAMS}
    streams["stdin"] = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        variables = environment(**more)
        for name in {*os.environ} - {*variables}:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["ctxbackends", *arguments])
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as exit_info:
            cli.ctxbackends()
    assert isinstance(exit_info.value.code, int), exit_info.value.code
    return Result(exit_info.value.code, *(streams[name].buffer.getvalue().decode() for name in STREAMS))


def ctx_process(directory: Path, *arguments: str, text: bytes = b"", **more: str) -> Result:
    """Run the program as people do."""
    process = subprocess.run(
        [sys.executable, "-m", "ctxbackends", *arguments],
        cwd=directory,
        input=text,
        capture_output=True,
        timeout=WITHIN,
        env=environment(**more),
    )
    return Result(process.returncode, process.stdout.decode(), process.stderr.decode())


def start_process(directory: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ctxbackends", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**more),
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


def snapshot_context(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every ``.context/*.md``."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (directory / ".context").glob("*.md")}


def list_written_files(directory: Path) -> Sequence[str]:
    """The files below ``.context`` that are no ``*.md`` of its own."""
    paths = (directory / ".context").rglob("*")
    return sorted(
        str(path.relative_to(directory / ".context"))
        for path in paths
        if path.is_file() and path.parent.name != ".context"
    )
