"""The commands of ``proposals``: list, show, review, edit and export. They use no model and import no backend."""

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

from ctxbackends._cli.options import json_option, out_option, parse_kinds
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.rows import edit_row, format_row
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

_COLUMNS = ("id", "rows", "accepted", "rejected", "quarantined", "model", "problem")


@click.group()
def proposals() -> None:
    """Review and export proposals.

    PROPOSAL is an ID, the start of one, its name without the time, or "latest".
    """


def directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--out``, and pass its directory or that of the nearest ``.context``."""

    @debug_option
    @out_option
    @wraps(command)
    def run(out: Path | None, *args: Any, **options: Any) -> Any:
        return command(out if out is not None else context_directory() / DIRECTORY, *args, **options)

    return run


one_argument = click.argument("proposal", default=LATEST)
rows_argument = click.argument("rows", metavar="ROW...", nargs=-1)


_ROW = re.compile(r"[a-z][0-9]+")


def _open_review(directory: Path, name: str, rows: Iterable[str] = ()) -> tuple[Review, list[str]]:
    """Return the proposal and the names of rows. If the first argument names a row, the proposal is the latest."""
    names = list(rows)
    if _ROW.fullmatch(name):
        name, names = LATEST, [name, *names]
    review = Review(find_proposal(directory, name))
    for row in names:
        review.row(row)  # raises where there is none
    return review, names


def _select_rows(review: Review, names: list[str], every: bool) -> list[str]:
    if every == bool(names):
        raise click.UsageError(
            "pass rows (such as d1 t2) or --all; to decide them one by one, run ctxbackends proposals review"
        )
    return list(review.proposal.rows_by_name()) if every else names


# --- showing --------------------------------------------------------------------------------------------


@proposals.command("list")
@json_option
@directory_option
def list_(directory: Path, as_json: bool) -> None:
    """List the proposals, newest last."""
    summaries = [_summarize(path) for path in list_proposals(directory)]
    if as_json:
        print_json(summaries)
    elif summaries:
        print_table([{name: str(value) for name, value in _build_row(summary).items()} for summary in summaries])
    else:
        click.echo(f"no proposals in {directory}", err=True)


def _summarize(path: Path) -> dict[str, Any]:
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
        "inputs": [input_.name for input_ in facts.inputs],
        "rows": len(states),
        "accepted": states.count("accepted"),
        "rejected": states.count("rejected"),
        "quarantined": len(review.proposal.quarantined),
        "problem": "",
    }


def _build_row(summary: dict[str, Any]) -> dict[str, Any]:
    columns = {name: summary.get(name, "") for name in _COLUMNS}
    return {**columns, "problem": " ".join(summary["problem"].split())}


@proposals.command()
@one_argument
@rows_argument
@click.option("--quarantined", is_flag=True, help="Show the quarantined rows and the reasons.")
@json_option
@directory_option
def show(directory: Path, proposal: str, rows: tuple[str, ...], quarantined: bool, as_json: bool) -> None:
    """Show a proposal or some of its rows, with the decisions."""
    review, names = _open_review(directory, proposal, rows)
    all_rows = review.rows()
    selection = {name: all_rows[name] for name in names} if names else all_rows
    if as_json:
        print_json(_as_json(review, selection))
        return
    facts = review.proposal.facts
    sources = ", ".join(input_.name for input_ in facts.inputs)
    click.echo(printable(f"{facts.id}: {len(all_rows)} rows from {sources}"))
    for name, row in selection.items():
        click.echo()
        click.echo(printable(format_row(review, name, row)))
    quarantined_rows = review.proposal.quarantined
    if quarantined:
        for number, row_ in enumerate(quarantined_rows, 1):
            click.echo()
            click.echo(
                printable(
                    f"x{number}  {kind_of(row_.record)}: {title_of(row_.record)}\n"
                    f"    {row_.reason} ({row_.where})\n    > {row_.quote}"
                )
            )
    elif quarantined_rows and not names:
        click.echo(f"\n{len(quarantined_rows)} quarantined; use --quarantined to show them", err=True)


def _as_json(review: Review, rows: dict[str, Row]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(review.proposal.facts),
        "rows": [
            {
                "name": name,
                **msgspec.to_builtins(row),
                "review": {"state": "undecided", **msgspec.to_builtins(review.verdict(name))},
            }
            for name, row in rows.items()
        ],
        "quarantined": msgspec.to_builtins(review.proposal.quarantined),
        "skipped": msgspec.to_builtins(review.proposal.skipped),
    }


# --- deciding -------------------------------------------------------------------------------------------


@proposals.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@directory_option
def accept(directory: Path, proposal: str, rows: tuple[str, ...], every: bool) -> None:
    """Accept rows."""
    review, names = _open_review(directory, proposal, rows)
    review.accept(_select_rows(review, names, every))
    _print_states(review)


@proposals.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@click.option("--reason", metavar="TEXT", default="", callback=utf8, help="The reason; it is saved.")
@directory_option
def reject(directory: Path, proposal: str, rows: tuple[str, ...], every: bool, reason: str) -> None:
    """Reject rows."""
    review, names = _open_review(directory, proposal, rows)
    review.reject(_select_rows(review, names, every), reason=reason)
    _print_states(review)


def _print_states(review: Review) -> None:
    states = list(review.states().values())
    accepted, rejected, undecided = (states.count(state) for state in ("accepted", "rejected", "undecided"))
    click.echo(f"{review.path.stem}: {accepted} accepted, {rejected} rejected, {undecided} undecided", err=True)


@proposals.command()
@click.argument("proposal")
@click.argument("row")
@click.option("--set", "assignments", metavar="FIELD=TEXT", multiple=True, help="A field and its new text.")
@directory_option
def edit(directory: Path, proposal: str, row: str, assignments: tuple[str, ...]) -> None:
    """Change the fields of a row; its quotes cannot be changed.

    Without --set, the row opens in an editor.
    """
    review, _ = _open_review(directory, proposal, [row])
    if assignments:
        fields = dict(_parse_assignment(assignment) for assignment in assignments)
    else:
        if not sys.stdin.isatty():
            raise click.UsageError("no terminal for an editor; pass the fields with --set FIELD=TEXT")
        new_fields = edit_row(review, row)
        if new_fields is None:
            click.echo("nothing changed", err=True)
            return
        fields = new_fields
    is_changed = review.edit(row, fields)
    click.echo(f"{row} changed" if is_changed else "nothing changed", err=True)


def _parse_assignment(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise click.UsageError(f"--set must be FIELD=TEXT: {text!r}")
    return field.strip(), value


@proposals.command()
@click.argument("proposal")
@click.argument("row")
@click.option("--quote", metavar="TEXT", required=True, callback=utf8, help="Words copied from the source.")
@click.option(
    "--source", metavar="FILE", type=click.Path(path_type=Path), help="The source, if it is not where it was."
)
@directory_option
def requote(directory: Path, proposal: str, row: str, quote: str, source: Path | None) -> None:
    """Give a quarantined row a quote, and accept it.

    The quote is verified in the source, which must not have changed since.
    """
    review_ = Review(find_proposal(directory, proposal))
    evidence = review_.requote(row, quote, path=source)
    click.echo(printable(f"{row} accepted: {evidence.where}", err=True), err=True)


# --- review at a terminal -------------------------------------------------------------------------------

_KEYS = "accept, reject, edit, skip, back or quit"
_HELP = """\
a  accept   accept the row
r  reject   reject the row; a reason can follow: r not a decision
e  edit     change its fields
s  skip     decide later (or press Enter)
b  back     go to the previous row
q  quit     stop; all decisions are saved"""


@proposals.command()
@one_argument
@click.option("--all", "every", is_flag=True, help="Include rows that are already decided.")
@directory_option
def review(directory: Path, proposal: str, every: bool) -> None:
    """Decide the undecided rows one by one. Each decision is saved at once."""
    review_, _ = _open_review(directory, proposal)
    if not sys.stdin.isatty():
        raise click.UsageError("review requires a terminal; use ctxbackends proposals accept and reject instead")
    names = [name for name, state in review_.states().items() if every or state == "undecided"]
    if not names:
        click.echo("all rows are decided", err=True)
    at = 0
    while at < len(names):
        name = names[at]
        click.echo(f"\n{at + 1} of {len(names)}", err=True)
        click.echo(printable(format_row(review_, name, review_.rows()[name])))
        step = _answer(review_, name)
        if step is None:
            break
        at = max(0, at + step)
    _print_states(review_)
    if "accepted" in review_.states().values():
        click.echo(f"print the accepted rows: ctxbackends proposals export {review_.path.stem}", err=True)


def _answer(review_: Review, name: str) -> int | None:
    """Ask for a decision; return how many rows to move, None to quit."""
    while True:
        answer = click.prompt(
            "[a]ccept [r]eject [e]dit [s]kip [b]ack [q]uit", default="s", show_default=False, err=True
        ).strip()
        key, _, rest = answer.partition(" ")
        match key.lower():
            case "a" | "accept":
                review_.accept([name])
                return 1
            case "r" | "reject":
                review_.reject([name], reason=rest)
                return 1
            case "e" | "edit":
                fields = edit_row(review_, name)
                if fields is not None:
                    try:
                        review_.edit(name, fields)
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
                click.echo(f"unknown answer: {printable(key, err=True)!r}; use {_KEYS} (? for help)", err=True)


# --- export ---------------------------------------------------------------------------------------------


@proposals.command()
@one_argument
@click.option(
    "--kind", "kinds", metavar="KINDS", callback=parse_kinds, help=f"Kinds to export: any of {', '.join(PLURALS)}."
)
@click.option("--section", metavar="NAME", callback=utf8, help="Section of TASKS.md for tasks.")
@click.option(
    "--dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write one file per row to this directory instead of standard output.",
)
@directory_option
def export(directory: Path, proposal: str, kinds: tuple[Kind, ...], section: str | None, target: Path | None) -> None:
    """Print the accepted rows, one JSON object per line.

    The format is that of ctx decision add --json-file, ctx learning add and ctx task add.
    """
    review_, _ = _open_review(directory, proposal)
    rows = {
        name: row
        for name, row in review_.rows().items()
        if review_.verdict(name).state == "accepted" and row.kind in kinds
    }
    # All are built before the first is written, so that an invalid row stops the export.
    payloads = {
        name: build_payload(name, row, proposal=review_.path.stem, section=section) for name, row in rows.items()
    }
    if not payloads:
        click.echo("nothing to export: no accepted rows of these kinds", err=True)
        return
    if target is None:
        for payload in payloads.values():
            print_json(payload)
        return
    prepare_directory(target, context=find_context())
    for name, payload in payloads.items():
        path = target / f"{review_.path.stem}-{rows[name].kind}-{name}.json"
        data = json.dumps(payload, ensure_ascii=False, indent=2).encode() + b"\n"
        with wrap_write_errors(path):
            created = create_file(path, data)
        if created:
            click.echo(str(path))
        elif path.read_bytes() != data:
            raise ProposalError(f"file exists with other content: {path}; remove it, or choose another --dir")
