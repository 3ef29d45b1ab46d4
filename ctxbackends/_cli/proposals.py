"""The commands below ``proposals``: what was taken out, for a person to accept, reject and edit. No command here asks a
model, and none imports a backend."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from ctxbackends._cli.options import kinds_named, out_option
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.rows import in_editor, row_text
from ctxbackends._cli.terminal import print_json, print_table, printable, utf8
from ctxbackends._util.files import create_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.export import build_payload
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import (
    DIRECTORY,
    LATEST,
    context_directory,
    find_context,
    find_proposal,
    list_proposals,
    prepare_directory,
)
from ctxbackends.knowledge._records import PLURALS, Kind, Row, kind_of, title_of

_MARKS = {"accepted": "accepted", "rejected": "rejected", "undecided": "-"}


@click.group()
def proposals() -> None:
    """Review what was taken out of sessions and documents.

    PROPOSAL is an id, its beginning, the name after the time, or "latest".
    """


def place_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--out``, and the directory that it or the nearest ``.context`` means."""

    @debug_option
    @out_option
    @wraps(command)
    def run(out: Path | None, *args: Any, **options: Any) -> Any:
        return command(out if out is not None else context_directory() / DIRECTORY, *args, **options)

    return run


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
one_argument = click.argument("proposal", default=LATEST)
rows_argument = click.argument("rows", metavar="ROW...", nargs=-1)


_ROW = re.compile(r"[a-z][0-9]+")


def _opened(directory: Path, name: str, rows: Iterable[str] = ()) -> tuple[Review, list[str]]:
    """The proposal and the rows that are meant. Where the first argument names a row, the proposal is the latest."""
    named = list(rows)
    if _ROW.fullmatch(name):
        name, named = LATEST, [name, *named]
    review = Review(find_proposal(directory, name))
    for row in named:
        review.row(row)  # raises where there is none
    return review, named


def _chosen(review: Review, named: list[str], every: bool) -> list[str]:
    if every == bool(named):
        raise click.UsageError(
            "name rows (d1 t2), or all of them with --all; ctxbackends proposals review goes through them"
        )
    return list(review.proposal.rows_by_name()) if every else named


# --- looking --------------------------------------------------------------------------------------------


@proposals.command("list")
@json_option
@place_option
def list_(directory: Path, as_json: bool) -> None:
    """List the proposals, the newest last."""
    found = [_told(path) for path in list_proposals(directory)]
    if as_json:
        print_json(found)
    elif found:
        print_table([{name: str(value) for name, value in _listed(one).items()} for one in found])
    else:
        click.echo(f"no proposals in {directory}", err=True)


def _told(path: Path) -> dict[str, Any]:
    try:
        review = Review(path)
    except ProposalError as error:
        return {"id": path.stem, "problem": str(error)}
    states = list(review.states().values())
    facts = review.proposal.facts
    return {
        "id": facts.id,
        "command": facts.command,
        "model": facts.served_model or facts.requested_model,
        "inputs": [one.name for one in facts.inputs],
        "rows": len(states),
        "accepted": states.count("accepted"),
        "rejected": states.count("rejected"),
        "quarantined": len(review.proposal.quarantined),
        "problem": "",
    }


def _listed(one: dict[str, Any]) -> dict[str, Any]:
    if one["problem"]:
        return dict.fromkeys(("id", "rows", "accepted", "rejected", "quarantined", "model", "problem"), "") | {
            "id": one["id"],
            "problem": " ".join(one["problem"].split()),
        }
    return {name: one[name] for name in ("id", "rows", "accepted", "rejected", "quarantined", "model", "problem")}


@proposals.command()
@one_argument
@rows_argument
@click.option("--quarantined", is_flag=True, help="Show what is not believed, and why.")
@json_option
@place_option
def show(directory: Path, proposal: str, rows: tuple[str, ...], quarantined: bool, as_json: bool) -> None:
    """Show a proposal, or some of its rows, with what was decided."""
    review, chosen = _opened(directory, proposal, rows)
    named = review.rows()
    wanted = {name: named[name] for name in chosen} if chosen else named
    if as_json:
        print_json(_as_json(review, wanted))
        return
    facts = review.proposal.facts
    sources = ", ".join(one.name for one in facts.inputs)
    click.echo(printable(f"{facts.id}: {len(named)} rows from {sources}"))
    for name, row in wanted.items():
        click.echo()
        click.echo(printable(row_text(review, name, row)))
    hidden = review.proposal.quarantined
    if quarantined:
        for number, one in enumerate(hidden, 1):
            click.echo()
            click.echo(
                printable(
                    f"x{number}  {kind_of(one.record)}: {title_of(one.record)}\n"
                    f"    {one.reason} ({one.where})\n    > {one.quote}"
                )
            )
    elif hidden and not chosen:
        click.echo(f"\n{len(hidden)} quarantined; --quarantined shows them", err=True)


def _as_json(review: Review, wanted: dict[str, Row]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(review.proposal.facts),
        "rows": [
            {
                "name": name,
                **msgspec.to_builtins(row),
                "review": {"state": "undecided", **msgspec.to_builtins(review.verdict(name))},
            }
            for name, row in wanted.items()
        ],
        "quarantined": msgspec.to_builtins(review.proposal.quarantined),
        "skipped": msgspec.to_builtins(review.proposal.skipped),
    }


# --- deciding -------------------------------------------------------------------------------------------


@proposals.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@place_option
def accept(directory: Path, proposal: str, rows: tuple[str, ...], every: bool) -> None:
    """Accept rows: they are right."""
    review, chosen = _opened(directory, proposal, rows)
    review.accept(_chosen(review, chosen, every))
    _say_states(review)


@proposals.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@click.option("--reason", metavar="TEXT", default="", callback=utf8, help="Why; it is kept.")
@place_option
def reject(directory: Path, proposal: str, rows: tuple[str, ...], every: bool, reason: str) -> None:
    """Reject rows."""
    review, chosen = _opened(directory, proposal, rows)
    review.reject(_chosen(review, chosen, every), reason=reason)
    _say_states(review)


def _say_states(review: Review) -> None:
    states = list(review.states().values())
    accepted, rejected, left = (states.count(state) for state in ("accepted", "rejected", "undecided"))
    click.echo(f"{review.path.stem}: {accepted} accepted, {rejected} rejected, {left} to decide", err=True)


@proposals.command()
@click.argument("proposal")
@click.argument("row")
@click.option("--set", "given", metavar="FIELD=TEXT", multiple=True, help="A field and its new text.")
@place_option
def edit(directory: Path, proposal: str, row: str, given: tuple[str, ...]) -> None:
    """Change the texts of a row; its quotes stay. Without --set, your editor opens."""
    review, _ = _opened(directory, proposal, [row])
    if given:
        fields = dict(_pair(one) for one in given)
    else:
        if not sys.stdin.isatty():
            raise click.UsageError("name the fields with --set FIELD=TEXT; there is no terminal for an editor")
        edited = in_editor(review, row)
        if edited is None:
            click.echo("nothing was changed", err=True)
            return
        fields = edited
    changed = review.edit(row, fields)
    click.echo(f"{row} was changed" if changed else "nothing was changed", err=True)


def _pair(given: str) -> tuple[str, str]:
    field, equals, value = given.partition("=")
    if not equals or not field.strip():
        raise click.UsageError(f"--set takes FIELD=TEXT, and not {given!r}")
    return field.strip(), value


# --- one after the other --------------------------------------------------------------------------------

_KEYS = "accept, reject, edit, skip, back or quit"
_HELP = """\
a  accept   the row is right
r  reject   it is not; a reason may follow: r not a decision
e  edit     change its texts
s  skip     decide later (also: Enter)
b  back     to the row before
q  quit     what was decided is kept"""


@proposals.command()
@one_argument
@click.option("--all", "every", is_flag=True, help="Go through rows that are decided as well.")
@place_option
def review(directory: Path, proposal: str, every: bool) -> None:
    """Go through the rows that are not decided, one after the other. Each answer is kept at once."""
    under_review, _ = _opened(directory, proposal)
    if not sys.stdin.isatty():
        raise click.UsageError("this asks at a terminal; without one, use ctxbackends proposals accept and reject")
    names = [name for name, state in under_review.states().items() if every or state == "undecided"]
    if not names:
        click.echo("every row is decided", err=True)
    at = 0
    while at < len(names):
        name = names[at]
        click.echo(f"\n{at + 1} of {len(names)}", err=True)
        click.echo(printable(row_text(under_review, name, under_review.rows()[name])))
        step = _answer(under_review, name)
        if step is None:
            break
        at = max(0, at + step)
    _say_states(under_review)
    if "accepted" in under_review.states().values():
        click.echo(f"ctxbackends proposals export {under_review.path.stem} prints what was accepted", err=True)


def _answer(under_review: Review, name: str) -> int | None:
    """Ask until there is an answer: how far to go on, None for not at all."""
    while True:
        said = click.prompt(
            "[a]ccept [r]eject [e]dit [s]kip [b]ack [q]uit", default="s", show_default=False, err=True
        ).strip()
        key, _, rest = said.partition(" ")
        match key.lower():
            case "a" | "accept":
                under_review.accept([name])
                return 1
            case "r" | "reject":
                under_review.reject([name], reason=rest)
                return 1
            case "e" | "edit":
                fields = in_editor(under_review, name)
                if fields is not None:
                    try:
                        under_review.edit(name, fields)
                    except ProposalError as error:
                        click.echo(printable(str(error), err=True), err=True)
                return 0
            case "s" | "skip":
                return 1
            case "b" | "back":
                return -1
            case "q" | "quit":
                return None
            case "?" | "h" | "help":
                click.echo(_HELP, err=True)
            case _:
                click.echo(f"{printable(key, err=True)!r} is none of {_KEYS}; ? explains them", err=True)


# --- out of here ----------------------------------------------------------------------------------------


@proposals.command()
@one_argument
@click.option("--kind", "kinds", metavar="KINDS", callback=kinds_named, help=f"Some of {', '.join(PLURALS)}.")
@click.option("--section", metavar="NAME", callback=utf8, help="The section of TASKS.md that tasks go to.")
@click.option(
    "--dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write a file for each row there, in the place of lines on standard output.",
)
@place_option
def export(directory: Path, proposal: str, kinds: tuple[Kind, ...], section: str | None, target: Path | None) -> None:
    """Print the accepted rows, a JSON object a line, as ctx decision add --json-file takes it; ctx learning add and ctx
    task add alike."""
    opened, _ = _opened(directory, proposal)
    rows = {
        name: row
        for name, row in opened.rows().items()
        if opened.verdict(name).state == "accepted" and row.kind in kinds
    }
    # All of them before the first is written: one that the other tool would refuse stops the rest.
    payloads = {
        name: build_payload(name, row, proposal=opened.path.stem, section=section) for name, row in rows.items()
    }
    if not payloads:
        click.echo("no row of these kinds is accepted; nothing to export", err=True)
        return
    if target is None:
        for one in payloads.values():
            print_json(one)
        return
    prepare_directory(target, context=find_context())
    for name, one in payloads.items():
        path = target / f"{opened.path.stem}-{rows[name].kind}-{name}.json"
        data = json.dumps(one, ensure_ascii=False, indent=2).encode() + b"\n"
        with wrap_write_errors(path):
            created = create_file(path, data)
        if created:
            click.echo(str(path))
        elif path.read_bytes() != data:
            raise ProposalError(f"{path} is there already, and is another one; remove it, or name another --dir")
