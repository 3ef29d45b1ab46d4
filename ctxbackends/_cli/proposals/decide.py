"""The commands that decide on rows by name: accept, reject, edit and requote."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ctxbackends._cli.proposals.arguments import (
    directory_option,
    one_argument,
    open_review,
    print_states,
    rows_argument,
    select_rows,
)
from ctxbackends._cli.proposals.rows import edit_row
from ctxbackends._cli.terminal import say, utf8
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import find_proposal


@click.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@directory_option
def accept(directory: Path, proposal: str, rows: tuple[str, ...], every: bool) -> None:
    """Accept rows."""
    review, names = open_review(directory, proposal, rows)
    review.accept(select_rows(review, names, every))
    print_states(review)


@click.command()
@one_argument
@rows_argument
@click.option("--all", "every", is_flag=True, help="All rows.")
@click.option("--reason", metavar="TEXT", default="", callback=utf8, help="The reason; it is saved.")
@directory_option
def reject(directory: Path, proposal: str, rows: tuple[str, ...], every: bool, reason: str) -> None:
    """Reject rows."""
    review, names = open_review(directory, proposal, rows)
    review.reject(select_rows(review, names, every), reason=reason)
    print_states(review)


@click.command()
@click.argument("proposal")
@click.argument("row")
@click.option("--set", "assignments", metavar="FIELD=TEXT", multiple=True, help="A field and its new text.")
@directory_option
def edit(directory: Path, proposal: str, row: str, assignments: tuple[str, ...]) -> None:
    """Change the fields of a row; its quotes cannot be changed.

    Without --set, the row opens in an editor.
    """
    review, _ = open_review(directory, proposal, [row])
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


@click.command()
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
    problem = review_.find_problem(row)
    if problem is not None:
        raise click.ClickException(f"the quote is saved ({evidence.where}), but {problem}, and accept it then")
    say(f"{row} accepted: {evidence.where}")
