"""The options that select sessions and speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.terminal import printable
from ctxbackends._util.text import pluralize

if TYPE_CHECKING:
    from ctxbackends.knowledge._records import Speaker

_DIALOGUE = ("user", "assistant")


def speakers_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--dialogue-only`` and ``--speakers``; the command gets ``speakers``."""

    @click.option(
        "--dialogue-only",
        is_flag=True,
        help="Of transcripts, read only what the user and the assistant say: no tools, summaries and notices.",
    )
    @click.option(
        "--speakers",
        metavar="SPEAKERS",
        callback=_parse_speakers,
        help="Of transcripts, read only these speakers: any of user, assistant, tool, summary, system.",
    )
    @wraps(command)
    def run(*arguments: Any, dialogue_only: bool, speakers: tuple[Speaker, ...] | None, **values: Any) -> Any:
        if dialogue_only and speakers is not None:
            raise click.UsageError("--dialogue-only and --speakers exclude each other; pass one of them")
        return command(*arguments, speakers=_DIALOGUE if dialogue_only else speakers, **values)

    return run


def _parse_speakers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Speaker, ...] | None:
    from ctxbackends.knowledge._records import speakers_of  # help needs none of it

    try:
        return speakers_of(value.split(",")) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def newest_session() -> str:
    """Return the file of the newest session of this directory, and say which it is.

    Raises:
        ClickException: There is none.
    """
    from ctxbackends.knowledge._sources.transcripts.sessions import find_newest_session

    session = find_newest_session(Path.cwd())
    if session is None:
        raise click.ClickException(
            f"no session of an agent found for {Path.cwd()}; run the command in the directory of the session, "
            "or pass its file"
        )
    changed = datetime.fromtimestamp(session.changed, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    click.echo(
        f"session of {session.agent}, last changed {changed}: {printable(str(session.path), err=True)}", err=True
    )
    return str(session.path)


def add_sub_agents(inputs: Sequence[Any]) -> list[Any]:
    """Return the inputs, each session of Claude Code followed by its sub-agents, and say how many they are."""
    from ctxbackends.knowledge._errors import SourceError
    from ctxbackends.knowledge._sources.formats import source_of
    from ctxbackends.knowledge._sources.transcripts.sessions import find_sub_agents

    names: list[Any] = []
    count = 0
    for one in inputs:
        names.append(one)
        for path in find_sub_agents(Path(one)) if isinstance(one, str) else ():
            source = source_of(path)
            try:
                source.prepare()
            except SourceError as error:
                click.echo(f"skipped: {printable(str(error), err=True)}", err=True)
                continue
            names.append(source)
            count += 1
    if count:
        transcripts = pluralize(count, "transcript")
        click.echo(f"{transcripts} of sub-agents read too; use --no-subagents to leave them out", err=True)
    return names
