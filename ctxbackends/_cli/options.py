"""Options that the commands that ask a model share with those that ask none. Imports no backend."""

from __future__ import annotations

from pathlib import Path

import click

from ctxbackends.knowledge._records import Kind, kinds_of

out_option = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where proposals are; .context/proposals by default.",
)


def kinds_named(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Kind, ...]:
    """The kinds of a comma-separated list; all of them where there is none."""
    try:
        return kinds_of(value.split(",")) if value is not None else tuple(Kind)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
