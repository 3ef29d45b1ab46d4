"""The command export: print the accepted rows."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ctxbackends._cli.options import parse_kinds
from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review
from ctxbackends._cli.terminal import print_json, utf8
from ctxbackends._util.files import create_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.export import build_payload
from ctxbackends.knowledge._proposals.store import find_context, prepare_directory
from ctxbackends.knowledge._records import PLURALS, Kind


@click.command()
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
    review_, _ = open_review(directory, proposal)
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
