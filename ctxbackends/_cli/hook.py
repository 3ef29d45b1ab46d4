"""``compact --hook``: compact a session in the background, when an agent's hook says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

HOOKS = ("claude-code",)
_EVENTS = ("SessionEnd", "PreCompact")
_LOG = "hook.log"


class HookInput(msgspec.Struct, frozen=True):
    """The members of a hook's input that are used; the others are ignored.

    Attributes:
        hook_event_name: ``SessionEnd`` or ``PreCompact``.
        transcript_path: The file of the session.
        cwd: The directory of the session.
        reason: Why the session ended.
        trigger: Why it is compacted.
    """

    hook_event_name: str
    transcript_path: str
    cwd: str = ""
    reason: str = ""
    trigger: str = ""


def run_hook() -> None:
    """Read a hook's input from standard input, start the run in a separate process, and return.

    An agent waits for its hooks, and ends them after a second or two. Nothing goes to standard output, which some
    events show to the model; the output of the run goes to ``.context/journal/hook.log``.

    Raises:
        ClickException: The input is not that of a supported event.
    """
    from ctxbackends.knowledge._proposals.store import find_context

    event = _read_input()
    transcript = Path(event.transcript_path).expanduser()
    directory = Path(event.cwd or os.curdir)
    context = find_context(directory)
    if context is None:
        click.echo(f"nothing was compacted: no .context directory in {directory} or above it", err=True)
    elif not transcript.is_file():
        click.echo(f"nothing was compacted: the session has no transcript: {transcript}", err=True)
    else:
        _start(event, transcript.absolute(), directory, context / "journal")


def _read_input() -> HookInput:
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("--hook reads the input of a hook from standard input; see the page on hooks")
    try:
        event = msgspec.json.decode(sys.stdin.buffer.read(), type=HookInput)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"invalid input of a hook: {error}") from None
    if event.hook_event_name not in _EVENTS:
        raise click.ClickException(f"hook event not supported: {event.hook_event_name!r}; use {' or '.join(_EVENTS)}")
    return event


def _start(event: HookInput, transcript: Path, directory: Path, journal: Path) -> None:
    from ctxbackends.knowledge._extract.journal import create_directory

    create_directory(journal)
    command = [sys.executable, "-m", "ctxbackends", *child_arguments(sys.argv[1:], transcript)]
    why = event.reason or event.trigger
    with open(journal / _LOG, "ab") as log:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        log.write(f"{now} {event.hook_event_name}{f' ({why})' if why else ''}: {transcript}\n".encode())
        log.flush()
        apart: dict[str, Any] = {"start_new_session": True}  # it survives the agent, which ends its own processes
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
        subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **apart
        )


def child_arguments(arguments: Sequence[str], transcript: Path) -> list[str]:
    """Return the arguments of the run: those of the hook without ``--hook``, and with the transcript.

    A run that was interrupted is continued, since nobody is there to decide it.
    """
    rest: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument.partition("=")[0] == "--hook":
            skip = not skip and argument == "--hook"
        else:
            rest.append(argument)
    resume = [] if {"--resume", "--no-resume"} & set(rest) else ["--resume"]
    return [*rest, *resume, "--", str(transcript)]
