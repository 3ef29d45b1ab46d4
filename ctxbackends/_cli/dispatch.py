"""Which arguments of ``ctx`` are for this package, and how all others reach the next ``ctx`` on the PATH, such as the
Go tool of that name. Needs neither click nor rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

TRAIL = "CTXBACKENDS_HANDED_ON"
"""Environment variable: the process that handed on, how often that happened in a row, and what it started."""

_FLAGS = ("--debug", "--version", "--help", "-h")
# Where the Go tool has a command of the same name, the option tells ours.
_OPTION_OF_OURS = {"compact": "--emit", "setup": "--backend"}
_MAX_DEPTH = 10
_MAX_LAUNCHER_SIZE = 1024 * 1024  # a launcher has a few hundred bytes, on Windows 100 KB; a Go program has megabytes


def is_ours(arguments: Sequence[str]) -> bool:
    """Whether this package has the command. Bare ``ctx`` with its own flags is; an option of another program is not."""
    word, rest = _split(arguments)
    if word in _OPTION_OF_OURS:
        return _has_option(_OPTION_OF_OURS[word], rest)
    return word in (None, "ai", "ingest")


def _split(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The first argument that is not a flag of ours, and those after it."""
    at = 0
    while at < len(arguments) and arguments[at] in _FLAGS:
        at += 1
    if arguments[at : at + 1] == ["--"]:
        at += 1
    return (arguments[at], arguments[at + 1 :]) if at < len(arguments) else (None, ())


def _has_option(option: str, arguments: Sequence[str]) -> bool:
    for argument in arguments:
        if argument == "--":
            return False
        if argument.partition("=")[0] == option:
            return True
    return False


def find_next(excluded: Collection[str] = ()) -> str | None:
    """The first ``ctx`` on the PATH that does not belong to this package, in whatever environment that is installed.
    ``excluded``: real paths to pass over."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for name in _file_names():
            path = os.path.join(directory or os.curdir, name)
            is_program = os.path.isfile(path) and os.access(path, os.X_OK)
            if is_program and os.path.realpath(path) not in excluded and not _is_launcher(path):
                return path
    return None


def _file_names() -> list[str]:
    if sys.platform == "win32":
        return ["ctx" + extension for extension in os.environ.get("PATHEXT", ".EXE").split(os.pathsep)]
    return ["ctx"]


def _is_launcher(path: str) -> bool:
    """Whether ``path`` is a console script of this package: this one, or that of another environment."""
    try:
        if os.path.getsize(path) > _MAX_LAUNCHER_SIZE:
            return False
        with open(path, "rb") as file:
            content = file.read()
    except OSError:  # may be executable and not readable
        return False
    return b"from ctxbackends" in content or b"import ctxbackends" in content


def hand_on(arguments: Sequence[str]) -> int:
    """Become the next ``ctx`` on the PATH. Returns an exit code where there is none, and on Windows, where a process
    cannot become another program: there it waits for the end of that one."""
    depth, tried = _read_trail()
    path = find_next(tried)
    if path is None:
        return _complain(_unknown(arguments), code=2)
    if depth >= _MAX_DEPTH:
        return _complain(f"{path} starts this ctx again; remove it from the PATH", code=1)
    os.environ[TRAIL] = "\n".join((str(os.getpid()), str(depth + 1), *tried, os.path.realpath(path)))
    if sys.platform == "win32":
        return run_and_wait([path, *arguments])
    _restore_signals()
    try:
        os.execv(path, ["ctx", *arguments])  # noqa: S606  # the user's own program, with the user's arguments
    except OSError as error:
        return _complain(f"{path} cannot be started: {error.strerror}", code=1)


def _read_trail() -> tuple[int, tuple[str, ...]]:
    """How often arguments were handed on, one process below the other, and which programs led back to here.

    A launcher that is not recognised (a shim of pyenv, a shell script) becomes this program again: then the process is
    the same one, and the next ``ctx`` is taken. In a child process the same program is right once more, as where the
    other ``ctx`` calls ``ctx``; there only the depth ends a loop.
    """
    try:
        process, depth, *tried = os.environ.pop(TRAIL, "").split("\n")
        return int(depth), tuple(tried) if int(process) == os.getpid() else ()
    except ValueError:
        return 0, ()


def run_and_wait(command: Sequence[str]) -> int:
    """Run ``command`` on these streams, and return its exit code. A Ctrl-C is left to it: the console sends it to both
    processes."""
    import signal  # noqa: PLC0415  # only who hands on pays for it
    import subprocess  # noqa: PLC0415

    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which a child inherits
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        return _complain(f"{command[0]} cannot be started: {error.strerror}", code=1)
    # Windows has 32 bits without a sign, and sys.exit() takes a C long.
    return code - 2**32 if code >= 2**31 else code


def _restore_signals() -> None:
    """Python ignores these, and a program that it becomes would inherit that."""
    import signal  # noqa: PLC0415

    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def _unknown(arguments: Sequence[str]) -> str:
    from ctxbackends._cli.commands import VERBS  # noqa: PLC0415  # only who fails pays for it

    word, _ = _split(arguments)
    option = _OPTION_OF_OURS.get(word or "")
    name = f"{word} without {option}" if option else ascii(word)[1:-1]
    if option:
        advice = f"add {option}, or run ctxbackends {word}"
    elif word in VERBS:
        advice = f"did you mean ctx ai {word}?"
    else:
        advice = "run ctx --help for its commands"
    return (
        f"no such command: {name}; this ctx belongs to the Python package ctxbackends ({advice}), and the Go tool ctx "
        "(https://ctx.ist), which has other commands, is not on the PATH"
    )


def _complain(text: str, *, code: int) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"ctx: {text}\n")
    return code
