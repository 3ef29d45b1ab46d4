"""Decide which arguments of ``ctx`` are for this package, and pass the others to the Go tool.

The next one is usually the Go tool of that name. Imports neither click nor rich.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Collection, Sequence

TRAIL = "CTXBACKENDS_HANDED_ON"
"""Environment variable with the process that passed its arguments on, the number of hops, and the programs started."""

_FLAGS = ("--debug", "--version", "--help", "-h")
# Where the Go tool has a command of the same name, the option tells ours.
_OPTION_OF_OURS = {"compact": "--emit", "setup": "--backend"}
_MAX_DEPTH = 10
_MAX_LAUNCHER_SIZE = 1024 * 1024  # a launcher has a few hundred bytes, on Windows 100 KB; a Go program has megabytes


def is_ours(arguments: Sequence[str]) -> bool:
    """Return whether this package has the command. Bare ``ctx`` with its flags is ours; unknown options are not."""
    word, rest = _split(arguments)
    if word in _OPTION_OF_OURS:
        return _has_option(_OPTION_OF_OURS[word], rest)
    return word in (None, "ai", "ingest")


def _split(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Return the first argument that is not one of our flags, and those after it."""
    at = 0
    while at < len(arguments) and arguments[at] in _FLAGS:
        at += 1
    if arguments[at : at + 1] == ["--"]:
        at += 1
    return (arguments[at], arguments[at + 1 :]) if at < len(arguments) else (None, ())


def _has_option(option: str, arguments: Sequence[str]) -> bool:
    before_end = itertools.takewhile(lambda argument: argument != "--", arguments)
    return any(argument.partition("=")[0] == option for argument in before_end)


def find_next(excluded: Collection[str] = ()) -> str | None:
    """Return the first ``ctx`` on the PATH that is not a launcher of this package, from any environment.

    Args:
        excluded: Real paths to skip.
    """
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
    """Return whether ``path`` is a console script of this package, in this or another environment."""
    try:
        if os.path.getsize(path) > _MAX_LAUNCHER_SIZE:
            return False
        with open(path, "rb") as file:
            content = file.read()
    except OSError:  # may be executable and not readable
        return False
    return b"from ctxbackends" in content or b"import ctxbackends" in content


def hand_on(arguments: Sequence[str]) -> int:
    """Replace this process with the next ``ctx`` on the PATH.

    Returns:
        An exit code, if there is no such program, and on Windows, where it runs as a child process.
    """
    depth, tried = _read_trail()
    path = find_next(tried)
    if path is None:
        return _print_error(_describe_unknown(arguments), code=2)
    if depth >= _MAX_DEPTH:
        return _print_error(f"{path} starts this ctx again; remove it from the PATH", code=1)
    os.environ[TRAIL] = "\n".join((str(os.getpid()), str(depth + 1), *tried, os.path.realpath(path)))
    if sys.platform == "win32":
        return run_and_wait([path, *arguments])
    _restore_signals()
    try:
        os.execv(path, ["ctx", *arguments])  # noqa: S606  # the user's own program, with the user's arguments
    except OSError as error:
        return _print_error(f"cannot start {path}: {error.strerror}", code=1)


def _read_trail() -> tuple[int, tuple[str, ...]]:
    """Return the number of hops so far, and the programs that led back to this process.

    An unrecognised launcher (a pyenv shim, a shell script) becomes this program again in the same process, so it is
    skipped. In a child process it is allowed again, since the other ``ctx`` may call ``ctx``; only the depth ends a
    loop there.
    """
    try:
        process, depth, *tried = os.environ.pop(TRAIL, "").split("\n")
        return int(depth), tuple(tried) if int(process) == os.getpid() else ()
    except ValueError:
        return 0, ()


def run_and_wait(command: Sequence[str]) -> int:
    """Run ``command`` on these streams and return its exit code; a Ctrl-C is handled by it, not here."""
    import signal  # only needed to pass arguments on
    import subprocess

    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which a child inherits
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        return _print_error(f"cannot start {command[0]}: {error.strerror}", code=1)
    # Windows has 32 bits without a sign, and sys.exit() takes a C long.
    return code - 2**32 if code >= 2**31 else code


def _restore_signals() -> None:
    """Python ignores these, and a program that it becomes would inherit that."""
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def _describe_unknown(arguments: Sequence[str]) -> str:
    from ctxbackends._cli.commands import VERBS  # only needed on failure

    word, _ = _split(arguments)
    option = _OPTION_OF_OURS.get(word or "")
    name = f"{word} without {option}" if option else ascii(word)[1:-1]
    if option:
        advice = f"add {option}, or run ctxbackends {word}"
    elif word in VERBS:
        advice = f"did you mean ctx ai {word}?"
    else:
        advice = "see ctx --help"
    return (
        f"no such command: {name}; this is the ctx of the Python package ctxbackends ({advice}); the Go tool ctx "
        "(https://ctx.ist) is not on the PATH"
    )


def _print_error(text: str, *, code: int) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"ctx: {text}\n")
    return code
