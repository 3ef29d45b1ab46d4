"""Which commands of ``ctx`` belong to this package, and how all others are passed to another program of that name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

import ctxbackends
from ctxbackends._cli import dispatch

WITHIN = 60.0

# The other program: it tells how it was started, and then does as its first argument says.
STAND_IN = """
import json, os, signal, sys
facts = {
    "arguments": [os.fsencode(argument).hex() for argument in sys.argv[1:]],
    "input": sys.stdin.buffer.read().hex(),
    "process": os.getpid(),
    "broken_pipe": os.environ["SIGPIPE_WAS"],
}
sys.stdout.buffer.write(json.dumps(facts).encode() + b"\\n\\xff\\x00")
sys.stderr.buffer.write(b"to stderr \\xfe\\n")
sys.exit(7)
"""
# Python sets SIGPIPE for itself: a shell tells what the process was started with.
SHELL = '#!/bin/sh\nSIGPIPE_WAS=$(grep SigIgn /proc/$$/status) exec "{python}" "{code}" "$@"\n'


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def launcher(directory: Path) -> Path:
    """``ctx`` as an installer writes it."""
    return script(
        directory / "ctx",
        f"#!{sys.executable}\nimport sys\nfrom ctxbackends._cli import ctx\nsys.exit(ctx())\n",
    )


def stand_in(directory: Path) -> Path:
    code = directory / "code.py"
    directory.mkdir(parents=True, exist_ok=True)
    code.write_text(STAND_IN)
    return script(directory / "ctx", SHELL.format(python=sys.executable, code=code))


def run(
    program: Path, *arguments: str | bytes, path: Sequence[Path], stdin: bytes = b"", **more: str
) -> subprocess.CompletedProcess[bytes]:
    search = os.pathsep.join([*map(str, path), os.defpath])
    package = str(Path(ctxbackends.__file__).parent.parent)
    return subprocess.run(
        [program, *arguments],
        input=stdin,
        capture_output=True,
        timeout=WITHIN,
        env={**os.environ, "PYTHONPATH": package, "PATH": search, **more},
    )


@attrs.frozen
class Programs:
    """Ours and the other one, in directories of the PATH, in this order."""

    own: Path
    other: Path

    @property
    def path(self) -> list[Path]:
        return [self.own.parent, self.other.parent]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    if sys.platform == "win32":
        pytest.skip("the programs are shell scripts")
    return Programs(launcher(tmp_path / "ours"), stand_in(tmp_path / "other"))


def arguments_of(result: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    record = json.loads(result.stdout.partition(b"\n")[0])
    return [bytes.fromhex(argument) for argument in record["arguments"]]


# --- whose command it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--help",
        "-h",
        "--version",
        "--debug",
        "ai",
        "ai ping",
        "--debug ai ping",
        "-- ai ping",
        "ingest notes.md",
        "compact s.jsonl --emit decisions",
        "compact --emit=decisions s.jsonl",
        "setup --backend vllm",
        "setup --endpoint http://gpu:8000 --backend=vllm",
    ],
)
def test_commands_of_this_package(line: str) -> None:
    assert dispatch.is_ours(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "decision add",
        "serve",
        "proposals list",
        "compact",
        "compact s.jsonl",
        "compact -- --emit",
        "compact --emitted",
        "setup",
        "setup claude-code",
        "setup --backends vllm",
        "--debug status",
        "--help status",
        "--context-dir x ai ping",
        "-",
    ],
)
def test_commands_of_another_program(line: str) -> None:
    assert not dispatch.is_ours(line.split())


# --- handing on ---------------------------------------------------------------------------------------


def test_streams_and_exit_code_are_unchanged(programs: Programs) -> None:
    result = run(programs.own, "status", path=programs.path, stdin=b"in \xff\x00\n")
    first, _, rest = result.stdout.partition(b"\n")
    assert (7, b"\xff\x00", b"to stderr \xfe\n") == (result.returncode, rest, result.stderr)
    assert b"in \xff\x00\n" == bytes.fromhex(json.loads(first)["input"])


def test_arguments_are_unchanged(programs: Programs) -> None:
    arguments = [b"decision", b"add", b"two words", "größer".encode(), b"\xff", b"", b"--", b"*", b'"quoted"', b"a\nb"]
    assert arguments == arguments_of(run(programs.own, *arguments, path=programs.path))


@pytest.mark.parametrize(
    "line", ["--debug status", "--context-dir x status", "compact --archive", "setup claude-code", "-h status"]
)
def test_options_go_along(programs: Programs, line: str) -> None:
    assert line.split() == [
        item.decode() for item in arguments_of(run(programs.own, *line.split(), path=programs.path))
    ]


def test_the_process_becomes_the_other_program(programs: Programs) -> None:
    with subprocess.Popen(
        [programs.own, "status"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": os.pathsep.join([*map(str, programs.path), os.defpath])},
    ) as process:
        assert process.stdout is not None
        record = json.loads(process.stdout.readline())
        process.stdout.read()
    assert process.pid == record["process"]
    assert not int(record["broken_pipe"].split()[1], 16) & 1 << 12  # SIGPIPE is 13: not ignored, as in a shell


def test_the_first_other_program_is_used(programs: Programs, tmp_path: Path) -> None:
    """A directory, a file that is no program, and this package in another environment are passed over."""
    (tmp_path / "directory" / "ctx").mkdir(parents=True)
    script(tmp_path / "file" / "ctx", "").chmod(0o644)
    other_environment = launcher(tmp_path / "environment")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ctx").symlink_to(other_environment)
    between = [tmp_path / name for name in ("missing", "directory", "file", "environment", "linked")]
    for path in ([programs.own.parent, *between, programs.other.parent], [*between, *programs.path]):
        result = run(programs.own, "status", path=path)
        assert (7, [b"status"]) == (result.returncode, arguments_of(result))


def test_a_wrapper_that_becomes_this_program_is_skipped(programs: Programs, tmp_path: Path) -> None:
    """Like a shim of pyenv, which names no package."""
    wrapper = script(tmp_path / "shims" / "ctx", f'#!/bin/sh\nexec "{programs.own}" "$@"\n')
    path = [programs.own.parent, wrapper.parent, programs.other.parent]
    for program in (programs.own, wrapper):
        result = run(program, "decision", "a b", path=path)
        assert (7, [b"decision", b"a b"]) == (result.returncode, arguments_of(result))


def test_a_wrapper_around_this_program_does_not_loop(programs: Programs, tmp_path: Path) -> None:
    """It starts a process of its own each time, which cannot be told from the other program calling ``ctx``."""
    wrapper = script(tmp_path / "shims" / "ctx", f'#!/bin/sh\n"{programs.own}" "$@"\n')
    result = run(programs.own, "status", path=[programs.own.parent, wrapper.parent])
    problem = f"ctx: {wrapper} starts this ctx again; remove it from the PATH\n"
    assert (1, problem) == (result.returncode, result.stderr.decode())


def test_two_of_this_package_and_no_other(programs: Programs, tmp_path: Path) -> None:
    result = run(programs.own, "status", path=[programs.own.parent, launcher(tmp_path / "second").parent])
    assert (2, b"") == (result.returncode, result.stdout)
    assert result.stderr.startswith(b"ctx: no such command: status; ")


def test_the_other_program_may_call_ctx(programs: Programs, tmp_path: Path) -> None:
    caller = script(
        tmp_path / "caller" / "ctx",
        f'#!/bin/sh\nif [ "$1" = inner ]; then echo inner; else "{programs.own}" inner; fi\n',
    )
    result = run(programs.own, "outer", path=[programs.own.parent, caller.parent])
    assert (0, b"inner\n", b"") == (result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize("trail", ["", "x", "1\n", "x\ny", f"{2**70}\n1\n/somewhere"])
def test_an_invalid_trail_is_ignored(programs: Programs, trail: str) -> None:
    result = run(programs.own, "status", path=programs.path, CTXBACKENDS_HANDED_ON=trail)
    assert (7, [b"status"]) == (result.returncode, arguments_of(result))


def test_a_program_that_cannot_be_started(programs: Programs, tmp_path: Path) -> None:
    program = script(tmp_path / "broken" / "ctx", "no program")
    result = run(programs.own, "status", path=[programs.own.parent, program.parent])
    assert (1, f"ctx: cannot start {program}: Exec format error\n") == (result.returncode, result.stderr.decode())


def test_run_and_wait(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print(sys.argv[1]); sys.exit(5)"
    before = signal.getsignal(signal.SIGINT)
    try:
        assert 5 == dispatch.run_and_wait([sys.executable, "-c", code, "a b"])
        assert 1 == dispatch.run_and_wait(["/nowhere/ctx"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ("a b\n", "ctx: cannot start /nowhere/ctx: No such file or directory\n") == capfd.readouterr()


# --- where there is no other --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "decision add",
            "no such command: decision; this is the ctx of the Python package ctxbackends (see ctx --help",
        ),
        (
            "serve m.gguf",
            "no such command: serve; this is the ctx of the Python package ctxbackends (did you mean ctx ai",
        ),
        (
            "compact s.jsonl",
            "no such command: compact without --emit; this is the ctx of the Python package ctxbackends",
        ),
        (
            "setup",
            "no such command: setup without --backend; this is the ctx of the Python package ctxbackends (add --b",
        ),
        ("\x1b[2J", "no such command: \\x1b[2J; this is the ctx"),
    ],
)
def test_no_other_program(programs: Programs, line: str, problem: str) -> None:
    result = run(programs.own, *line.split(" "), path=[programs.own.parent])
    assert (2, b"") == (result.returncode, result.stdout)
    assert result.stderr.decode().startswith(f"ctx: {problem}")
    assert result.stderr.decode().endswith("the Go tool ctx (https://ctx.ist) is not on the PATH\n")


# --- ours ---------------------------------------------------------------------------------------------


def test_help_and_version_name_the_other_program(programs: Programs) -> None:
    alone = run(programs.own, "--version", path=[programs.own.parent])
    assert (0, f"ctx (ctxbackends) {ctxbackends.__version__}\n") == (alone.returncode, alone.stdout.decode())
    both = run(programs.own, "--version", path=programs.path)
    assert alone.stdout.decode() + f"other commands are passed to {programs.other}\n" == both.stdout.decode()
    for arguments in ([], ["--help"], ["-h"]):
        help_run = run(programs.own, *arguments, path=programs.path)
        text = (help_run.stdout + help_run.stderr).decode()
        assert text.startswith("Usage: ctx [OPTIONS] COMMAND")
        assert str(programs.other) in "".join(text.split())
        assert b"Other commands are passed" not in run(programs.own, *arguments, path=[programs.own.parent]).stdout


def test_the_tree_of_ctx(programs: Programs) -> None:
    path = [programs.own.parent]
    for line in (
        "ai ping",
        "ai serve",
        "ai proposals list",
        "ingest",
        "compact --emit decisions",
        "setup --backend vllm",
    ):
        result = run(programs.own, *line.split(), "--help", path=path)
        words = " ".join(word for word in line.split() if word.isalpha() and word not in ("decisions", "vllm"))
        assert (0, True) == (result.returncode, result.stdout.startswith(f"Usage: ctx {words} ".encode())), result


HIDDEN = """
import sys
sys.modules["{name}"] = None
sys.argv[0] = "{program}"
from ctxbackends import _cli as cli
cli.{program}()
"""
MISSING = "{}: the command line requires an extra; run pip install 'ctxbackends[cli]'\n"


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_the_extra(programs: Programs, name: str) -> None:
    """Only our own commands need it."""
    for program, arguments in (("ctx", ["ai", "ping"]), ("ctx", []), ("ctxbackends", ["--version"])):
        code = HIDDEN.format(name=name, program=program)
        result = run(Path(sys.executable), "-c", code, *arguments, path=programs.path)
        assert (1, b"", MISSING.format(program)) == (result.returncode, result.stdout, result.stderr.decode())
    code = HIDDEN.format(name=name, program="ctx")
    result = run(Path(sys.executable), "-c", code, "status", path=programs.path)
    assert (7, [b"status"]) == (result.returncode, arguments_of(result))
