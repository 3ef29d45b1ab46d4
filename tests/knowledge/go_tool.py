"""A stand-in for the Go tool ``ctx``: it adds entries to ``.context/*.md``, fails, hangs and prints as it is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Behaviours by title; `write` whether the entry is written, before the rest.
_PROGRAM = """
import json, os, sys, time
from pathlib import Path
home = Path({home!r})
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("ctx version 0.9.0")
    raise SystemExit
if arguments == ["decision", "add", "--help"]:
    print("Flags:\\n      --json-file string   Read a JSON payload")
    raise SystemExit
file = Path(arguments[3])
payload = json.loads(file.read_text(encoding="utf-8"))
call = dict(arguments=arguments[:3], file=str(file), payload=payload, cwd=os.getcwd(), variable=os.environ["CTX_DIR"])
call["stdin"] = sys.stdin.read()
with open(home / "calls.jsonl", "a", encoding="utf-8") as calls:
    calls.write(json.dumps(call) + "\\n")
behaviour = json.loads((home / "behaviours.json").read_text()).get(payload["title"], dict())
if behaviour.get("write", True):
    name = dict(decision="DECISIONS.md", learning="LEARNINGS.md", task="TASKS.md")[arguments[0]]
    heading = "- [ ]" if arguments[0] == "task" else "## [2026-11-27-180000]"
    with open(Path(".context") / name, "a", encoding="utf-8") as entries:
        entries.write("\\n" + heading + " " + payload["title"] + " " + payload.get("body", "") + "\\n")
sys.stderr.buffer.write(behaviour.get("stderr", "").encode("latin-1") * behaviour.get("times", 1))
sys.stderr.flush()
while behaviour.get("hang") and not (home / "go").exists():
    time.sleep(0.01)
if behaviour.get("signal"):
    os.kill(os.getpid(), behaviour["signal"])
raise SystemExit(behaviour.get("exit", 0))
"""


class GoTool:
    """A program ``ctx`` in a directory of its own, and its calls."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / "bin"
        self.directory.mkdir(parents=True)
        self.program = write_program(self.directory, _PROGRAM.format(home=str(home)))
        self.behave({})

    def behave(self, behaviours: Mapping[str, Mapping[str, Any]]) -> None:
        (self.home / "behaviours.json").write_text(json.dumps(behaviours))

    def go(self) -> None:
        """End what hangs."""
        (self.home / "go").touch()

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.home / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def titles(self) -> list[str]:
        return [call["payload"]["title"] for call in self.calls]


def write_program(directory: Path, code: str) -> Path:
    """Write a program ``ctx`` that runs Python code; on Windows, one with an extension of PATHEXT."""
    if sys.platform == "win32":
        script = directory / "ctx_program.py"
        script.write_text(code, encoding="utf-8")
        program = directory / "ctx.cmd"
        program.write_text(f'@"{sys.executable}" "{script}" %*\n')
        return program
    program = directory / "ctx"
    program.write_text(f"#!{sys.executable} -S\n{code}", encoding="utf-8")
    program.chmod(0o755)
    return program


def search_path(*directories: Path) -> str:
    """Return the PATH with these directories alone; on Windows with those of the system too, for cmd.exe."""
    system = [os.environ["SYSTEMROOT"] + r"\System32"] if sys.platform == "win32" else []
    return os.pathsep.join([*map(str, directories), *system])
