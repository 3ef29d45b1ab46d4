"""Options shared by commands with and without a model. Imports no backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ctxbackends.knowledge._records import Kind

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
out_option = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory of the proposals; .context/proposals by default.",
)


def parse_kinds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Kind, ...]:
    """Return the kinds in a comma-separated list; all kinds without one."""
    from ctxbackends.knowledge._records import Kind, kinds_of  # noqa: PLC0415  # most commands have no kinds

    try:
        return kinds_of(value.split(",")) if value is not None else tuple(Kind)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
