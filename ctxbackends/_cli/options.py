"""Options shared by commands with and without a model. Imports no backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctxbackends._cli.completers import complete_models
from ctxbackends._cli.terminal import utf8

if TYPE_CHECKING:
    from ctxbackends.knowledge._records import Kind

model_option = click.option(
    "-m",
    "--model",
    metavar="NAME",
    callback=utf8,
    shell_complete=complete_models,
    help="Model to use instead of the backend's default_model.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
out_option = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory of the proposals; .context/proposals by default.",
)


def parse_kinds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Kind, ...]:
    """Return the kinds in a comma-separated list; all kinds without one."""
    from ctxbackends.knowledge._records import Kind, kinds_of  # most commands have no kinds

    try:
        return kinds_of(value.split(",")) if value is not None else tuple(Kind)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
