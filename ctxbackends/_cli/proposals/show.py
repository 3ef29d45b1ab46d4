"""The commands that show proposals: list and show."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from ctxbackends._cli.options import json_option
from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review, rows_argument
from ctxbackends._cli.proposals.output import write_file
from ctxbackends._cli.proposals.rows import format_row
from ctxbackends._cli.terminal import print_json, print_table, printable
from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.applied import AppliedRows
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import list_proposals
from ctxbackends.knowledge._records import QuarantinedRow, Row, kind_of, title_of

_COLUMNS = ("id", "rows", "accepted", "rejected", "quarantined", "model", "problem")


@click.command("list")
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


@click.command()
@one_argument
@rows_argument
@click.option("--quarantined", is_flag=True, help="Show the quarantined rows and the reasons.")
@json_option
@click.option("--html", "as_html", is_flag=True, help="Print an HTML page with the quotes marked in their sources.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the HTML page to this file instead of standard output.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@directory_option
def show(
    directory: Path,
    *,
    proposal: str,
    rows: tuple[str, ...],
    quarantined: bool,
    as_json: bool,
    as_html: bool,
    output: Path | None,
    force: bool,
) -> None:
    """Show a proposal or some of its rows, with the decisions.

    The HTML page loads nothing. It does not show more than the quotes of files
    that match privacy.redact of .ctxrc.
    """
    _check_output(as_json=as_json, as_html=as_html, output=output)
    review, names = open_review(directory, proposal, rows)
    all_rows = review.rows()
    selection = {name: review.row(name) for name in names} if names else all_rows
    applied = AppliedRows(review.path)
    if as_json:
        print_json(_as_json(review, selection, applied))
        return
    if as_html:
        page = _render_page(review, selection, quarantined=quarantined or not names)
        if output is None:
            click.echo(page.encode(), nl=False)  # in UTF-8, as the page says
        else:
            write_file(output, page, force=force)
        return
    facts = review.proposal.facts
    sources = ", ".join(input_.name for input_ in facts.inputs)
    click.echo(printable(f"{facts.id}: {pluralize(len(all_rows), 'row')} from {sources}"))
    for name, row in selection.items():
        click.echo()
        click.echo(printable(format_row(review, name, row)))
        state = applied.state(name)
        if state is not None:
            click.echo("    applied" if state == "applied" else "    uncertain: see ctxbackends proposals apply")
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


def _check_output(*, as_json: bool, as_html: bool, output: Path | None) -> None:
    if as_json and as_html:
        raise click.UsageError("--json and --html are mutually exclusive")
    if output is not None and not as_html:
        raise click.UsageError("-o requires --html")
    if as_html and output is None and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; write the page to a file with -o FILE")


def _render_page(review: Review, rows: dict[str, Row], *, quarantined: bool) -> str:
    from ctxbackends._config.ctxrc_file import find_ctxrc  # needed only for a page
    from ctxbackends._config.reader import redact_of
    from ctxbackends.knowledge._privacy.redaction import is_redacted
    from ctxbackends.knowledge._proposals.page import LINES, render_page
    from ctxbackends.knowledge._proposals.passages import Passages, withhold_nothing
    from ctxbackends.knowledge._proposals.sources import find_roots

    ctxrc = find_ctxrc()
    withholds = withhold_nothing
    if ctxrc is not None:
        withholds = partial(is_redacted, globs=redact_of(ctxrc), root=ctxrc.absolute().parent)
    passages = Passages(review.proposal, lines=LINES, roots=find_roots(review.path), withholds=withholds)
    return render_page(review, rows, passages, quarantined=quarantined)


def _as_json(review: Review, rows: dict[str, Row], applied: AppliedRows) -> dict[str, Any]:
    def describe(name: str, row: Row | QuarantinedRow) -> dict[str, Any]:
        verdict = {"state": "undecided", **msgspec.to_builtins(review.verdict(name))}
        return {"name": name, **msgspec.to_builtins(row), "review": verdict}

    return {
        **msgspec.to_builtins(review.proposal.facts),
        "rows": [{**describe(name, row), "applied": applied.state(name)} for name, row in rows.items()],
        "quarantined": [describe(name, row) for name, row in review.proposal.quarantined_by_name().items()],
        "skipped": msgspec.to_builtins(review.proposal.skipped),
    }
