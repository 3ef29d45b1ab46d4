"""The commands of ``logs``: turn the log of conversations on and off, list it, show it, and search it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import attrs
import click

from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._cli.live_line import can_redraw, cut, window_size
from ctxbackends._cli.log_entries import Turn
from ctxbackends._cli.log_store import MAX_ID, LogStore
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.options import json_option
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.terminal import print_json, print_table, printable, utf8
from ctxbackends._util.text import one_line, pluralize

_NOT_KEPT = "(not logged: matches privacy.redact)"
_MIN_WIDTH = 10
_ID = Integer(1, MAX_ID)


@click.group()
def logs() -> None:
    """Keep a log of conversations; it is off until you turn it on.

    The log is a SQLite file that only you can read. ctxbackends chat --continue continues from it.
    """


def _number_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("-n", "number", type=Integer(min=1), default=20, show_default=True, help=f"Number of {what}.")


@logs.command()
@debug_option
def on() -> None:
    """Turn the log on."""
    store = LogStore.open()
    store.turn_on()
    click.echo(f"the log is on: {store.path}", err=True)
    click.echo("files that match privacy.redact of .ctxrc, and API keys, are not logged", err=True)


@logs.command()
@debug_option
def off() -> None:
    """Turn the log off, and keep what it has."""
    store = LogStore.open()
    store.turn_off()
    kept = f"; its conversations are kept in {store.path}" if os.path.exists(store.path) else ""
    click.echo(f"the log is off{kept}", err=True)


@logs.command()
@debug_option
def path() -> None:
    """Print the path of the log."""
    click.echo(LogStore.open().path)


@logs.command("list")
@_number_option("conversations")
@json_option
@debug_option
def list_(number: int, as_json: bool) -> None:
    """List the conversations, newest first."""
    store = LogStore.open()
    summaries = store.conversations(limit=number)
    if as_json:
        print_json([attrs.asdict(summary) for summary in summaries])
    elif not summaries:
        click.echo(f"no conversations in {store.path}{store.advice}", err=True)
    else:
        _print_rows(
            {
                "id": str(summary.id),
                "updated": _local_time(summary.updated),
                "turns": pluralize(summary.turns, "turn"),
                "backend": summary.backend,
                "model": summary.model or "",
                "question": summary.title or (_NOT_KEPT if summary.is_private else ""),
            }
            for summary in summaries
        )


@logs.command()
@click.argument("conversation", type=_ID, metavar="[ID]", required=False)
@click.option("--all", "with_all", is_flag=True, help="Also show the turns that were taken back.")
@click.option("--reasoning", is_flag=True, help="Also show the reasoning.")
@json_option
@debug_option
def show(conversation: int | None, with_all: bool, reasoning: bool, as_json: bool) -> None:
    """Show a conversation as Markdown, by default the newest."""
    store = LogStore.open()
    if conversation is None:
        newest = store.conversations(limit=1)
        if not newest:
            raise click.ClickException(f"no conversations in {store.path}{store.advice}")
        conversation = newest[0].id
    turns = [turn for turn in store.turns(conversation) if with_all or not turn.is_taken_back]
    if as_json:
        print_json({"id": conversation, "turns": [attrs.asdict(turn) for turn in turns]})
        return
    click.echo(printable("\n".join(_format_turns(conversation, turns, with_reasoning=reasoning))))


@logs.command()
@click.argument("text", callback=utf8)
@_number_option("turns")
@json_option
@debug_option
def search(text: str, number: int, as_json: bool) -> None:
    """List the newest turns that contain every word of TEXT.

    Case is ignored, and a word may be a part of another.
    """
    if not text.split():
        raise click.UsageError("TEXT is empty")
    store = LogStore.open()
    hits = store.search(text, limit=number)
    if as_json:
        print_json([attrs.asdict(hit) for hit in hits])
    elif not hits:
        click.echo(f"nothing in {store.path} contains this text{store.advice}", err=True)
    else:
        _print_rows(
            {
                "id": str(hit.conversation),
                "created": _local_time(hit.created),
                "backend": hit.backend,
                "model": hit.model or "",
                "text": hit.excerpt,
            }
            for hit in hits
        )


def _print_rows(rows: Iterable[dict[str, str]]) -> None:
    """Print a table; on a terminal, each row as two lines of its width: the text with the ID, and the rest."""
    if not sys.stdout.isatty():
        print_table([*rows])
        return
    columns, _ = window_size(sys.stdout)
    color = None if can_redraw(sys.stdout) else False  # TERM=dumb
    for row in rows:
        number, *details, text = row.values()
        indent = len(number) + 2
        width = max(columns - indent, _MIN_WIDTH)
        click.echo(f"{click.style(number, bold=True)}  {_shorten(text, width)}", color=color)
        facts = _shorten(", ".join(detail for detail in details if detail), width)
        click.secho(f"{'':{indent}}{facts}", dim=True, color=color)


def _shorten(text: str, columns: int) -> str:
    line = printable(one_line(text))
    return line if cut(line, columns) == line else cut(line, columns - 1) + "…"


def _local_time(written: str) -> str:
    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M")


# --- a conversation as Markdown ---------------------------------------------------------------------------


def _format_turns(conversation: int, turns: list[Turn], *, with_reasoning: bool) -> Iterator[str]:
    yield f"# Conversation {conversation}"
    system: str | None = None
    for turn in turns:
        if not turn.messages and not turn.is_private:  # it only took others back
            continue
        yield ""
        yield f"{_local_time(turn.created)}, {_describe_turn(turn)}"
        if turn.system is not None and turn.system != system:
            system = turn.system
            yield from ("", "## System", "", turn.system)
        if turn.is_private:
            yield from ("", _NOT_KEPT)
        for message in turn.parse():
            yield from _format_message(message, with_reasoning=with_reasoning)
        if turn.finish_reason != "stop" and not turn.is_private:
            yield from ("", f"(incomplete: {_END_REASONS.get(turn.finish_reason or '', turn.finish_reason)})")


_END_REASONS = {"": "stopped", "length": "max_tokens reached"}


def _describe_turn(turn: Turn) -> str:
    tokens = None if turn.output_tokens is None else f"{turn.input_tokens} + {pluralize(turn.output_tokens, 'token')}"
    details = (
        turn.backend,
        turn.served_model or turn.model,
        tokens,
        None if turn.seconds is None else f"{turn.seconds:.1f} s",
        "taken back" if turn.is_taken_back else None,
    )
    return ", ".join(detail for detail in details if detail)


def _format_message(message: Message, *, with_reasoning: bool) -> Iterator[str]:
    yield from ("", f"## {message.role.capitalize()}")
    for part in message.parts:
        text = _format_part(part, with_reasoning=with_reasoning)
        if text:
            yield from ("", text)


def _format_part(part: object, *, with_reasoning: bool) -> str:
    match part:
        case TextPart():
            return part.text
        case ReasoningPart():
            if not with_reasoning:
                return f"({pluralize(len(part.text), 'character')} of reasoning; show them with --reasoning)"
            return "\n".join(f"> {line}" for line in part.text.splitlines())
        case ToolCall():
            return f"calls {part.name}({part.arguments})"
        case ToolResult():
            failed = " (failed)" if part.is_error else ""
            images = "".join(f"\n({image.media_type or image.url})" for image in part.images)
            return f"{part.name or part.tool_call_id}{failed}: {part.text}{images}"
        case OpaquePart():
            return ""
        case _:
            return f"({_describe_file(part)})"


def _describe_file(part: Any) -> str:
    data = part.data
    kind = part.media_type or part.url if hasattr(part, "url") else part.media_type
    return f"{kind}" if data is None else f"{kind}, {pluralize(len(data), 'byte')}"
