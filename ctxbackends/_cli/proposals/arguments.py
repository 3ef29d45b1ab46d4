"""The arguments that name a proposal and its rows, and the directory of the proposals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ctxbackends._cli.options import out_option
from ctxbackends._cli.root import debug_option
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import DIRECTORY, LATEST, context_directory, find_proposal


def directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--out``, and pass its directory or that of the nearest ``.context``."""

    @debug_option
    @out_option
    @wraps(command)
    def run(out: Path | None, *args: Any, **options: Any) -> Any:
        return command(out if out is not None else context_directory() / DIRECTORY, *args, **options)

    return run


one_argument = click.argument("proposal", default=LATEST)
rows_argument = click.argument("rows", metavar="[ROW...]", nargs=-1)

_ROW = re.compile(r"[a-z][0-9]+")


def open_review(directory: Path, name: str, rows: Iterable[str] = ()) -> tuple[Review, list[str]]:
    """Return the proposal and the names of rows, which may not exist.

    If the first argument names a row, the proposal is the latest.
    """
    names = list(rows)
    if _ROW.fullmatch(name):
        name, names = LATEST, [name, *names]
    return Review(find_proposal(directory, name)), names


def select_rows(review: Review, names: list[str], every: bool) -> list[str]:
    """Return the names, or those of all rows with ``--all``."""
    if every == bool(names):
        raise click.UsageError(
            "pass rows (such as d1 t2) or --all; to decide them one by one, run ctxbackends proposals review"
        )
    return list(review.proposal.rows_by_name()) if every else names


def print_states(review: Review) -> None:
    """Print how many rows are accepted, rejected and undecided."""
    states = list(review.states().values())
    accepted, rejected, undecided = (states.count(state) for state in ("accepted", "rejected", "undecided"))
    click.echo(f"{review.path.stem}: {accepted} accepted, {rejected} rejected, {undecided} undecided", err=True)
