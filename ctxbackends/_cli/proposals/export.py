"""The command export: print the accepted rows, or write them to files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review
from ctxbackends._cli.proposals.output import write_file, write_files
from ctxbackends._cli.terminal import printable, say, utf8
from ctxbackends._util.text import plural, pluralize
from ctxbackends.knowledge._proposals.export import FORMATS, Format, build_payload, find_gaps
from ctxbackends.knowledge._proposals.formats import render_csv, render_markdown
from ctxbackends.knowledge._proposals.madr import choose_files, render_madr
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import find_context, prepare_directory
from ctxbackends.knowledge._records import PLURALS, Row


@click.command()
@one_argument
@click.option("--kind", "kinds", metavar="KINDS", help=f"Kinds to export: any of {', '.join(PLURALS)}, and own kinds.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="json",
    show_default=True,
    help="json is for the Go tool ctx, madr writes decision records.",
)
@click.option("--section", metavar="NAME", callback=utf8, help="Section of TASKS.md for tasks.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write to this file instead of standard output; with madr, to this directory, one file per decision.",
)
@click.option(
    "--dir", "target", metavar="DIR", type=click.Path(path_type=Path), help="Write one file per row; json and madr."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option("--skip-incomplete", is_flag=True, help="Exit with 0 if rows are left out because a field is empty.")
@directory_option
def export(
    directory: Path,
    *,
    proposal: str,
    kinds: str | None,
    format_: Format,
    section: str | None,
    output: Path | None,
    target: Path | None,
    force: bool,
    skip_incomplete: bool,
) -> None:
    """Print the accepted rows, with their quotes, as JSON, Markdown or CSV.

    Rows without a field that the format requires are left out and listed. The exit code is 1 then.

    The format json has one object per line, for ctx decision add --json-file, ctx learning add and ctx task add.
    """
    target = output if format_ == "madr" and target is None else target
    if target is not None and format_ in ("markdown", "csv"):
        raise click.UsageError(f"--dir is not supported with --format {format_}; use -o FILE")
    if target is not None and output not in (None, target):
        raise click.UsageError("-o and --dir are mutually exclusive")
    review, _ = open_review(directory, proposal)
    selection = _select_kinds(review, kinds)
    rows = {
        name: row
        for name, row in review.rows().items()
        if review.verdict(name).state == "accepted" and row.kind in selection
    }
    if format_ == "madr":
        rows = _select_decisions(rows)
    gaps = {name: problems for name, row in rows.items() if (problems := find_gaps(row, format_))}
    complete = {name: row for name, row in rows.items() if name not in gaps}
    if not rows:
        click.echo("nothing to export: no accepted rows of these kinds", err=True)
    elif complete and target is not None:
        prepare_directory(target, context=find_context())
        write_files(_render_files(review, complete, format_, target, section=section), force=force)
    elif complete and output is not None:
        write_file(output, _render_document(review, complete, format_, section=section), force=force)
    elif complete:
        _print(_render_document(review, complete, format_, section=section))
    if gaps:
        print_gaps(review.path.stem, gaps)
        if not skip_incomplete:
            click.get_current_context().exit(1)


def _select_kinds(review: Review, names: str | None) -> set[str]:
    """Return the kinds in a comma-separated list, singular or plural; all kinds without one."""
    own_kinds = [kind.name for kind in review.proposal.facts.own_kinds]
    kinds = {name: kind.value for name, kind in PLURALS.items()} | {plural(name): name for name in own_kinds}
    if names is None:
        return set(kinds.values())
    known = kinds | {kind: kind for kind in kinds.values()}
    wanted = [name.strip().lower() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise click.BadParameter(
            f"unknown kind: {unknown[0]!r}; the kinds are {', '.join(kinds)}", param_hint="'--kind'"
        )
    return {known[name] for name in wanted}


def _select_decisions(rows: Mapping[str, Row]) -> dict[str, Row]:
    others = [name for name, row in rows.items() if row.kind != "decision"]
    if others:
        click.echo(f"not exported, since MADR has only decisions: {' '.join(others)}", err=True)
    return {name: row for name, row in rows.items() if name not in others}


def print_gaps(proposal: str, gaps: Mapping[str, Mapping[str, str]]) -> None:
    """List rows that are incomplete, each with the command that completes it."""
    review = f"ctxbackends proposals review {proposal} --all"
    count = pluralize(len(gaps), "row")
    click.echo(f"left out, since fields are missing: {count}; fill them in (key e of {review}), or run:", err=True)
    for name, problems in gaps.items():
        options = " ".join(f"--set {field}=..." for field in problems)
        text = f"  {name}: {format_gaps(problems)}: ctxbackends proposals edit {proposal} {name} {options}"
        say(text)


def format_gaps(problems: Mapping[str, str]) -> str:
    """Return the fields that a row does not have, each with its problem."""
    return ", ".join(f"{field} {problem}" for field, problem in problems.items())


# --- writing --------------------------------------------------------------------------------------------


def _render_document(review: Review, rows: Mapping[str, Row], format_: Format, *, section: str | None) -> str:
    match format_:
        case "markdown":
            return render_markdown(review.proposal, rows)
        case "csv":
            return render_csv(review.proposal, rows)
        case "madr":
            return "\n".join(_render_records(review, rows).values())
        case "json":
            payloads = [build_payload(row, section=section) for row in rows.values()]
            return "".join(f"{json.dumps(payload, ensure_ascii=False)}\n" for payload in payloads)


def _render_files(
    review: Review, rows: Mapping[str, Row], format_: Format, target: Path, *, section: str | None
) -> dict[Path, str]:
    if format_ == "madr":
        files = choose_files(target, rows, proposal=review.path.stem)
        return {files[name]: text for name, text in _render_records(review, rows).items()}
    return {
        target / f"{review.path.stem}-{row.kind}-{name}.json": f"{json.dumps(payload, ensure_ascii=False, indent=2)}\n"
        for name, row in rows.items()
        for payload in [build_payload(row, section=section)]
    }


def _render_records(review: Review, rows: Mapping[str, Row]) -> dict[str, str]:
    return {
        name: render_madr(row, name=name, proposal=review.path.stem, accepted_at=review.verdict(name).at)
        for name, row in rows.items()
    }


def _print(text: str) -> None:
    # In UTF-8 with these line ends, whatever the encoding of the terminal is.
    click.echo(printable(text) if sys.stdout.isatty() else text.encode(), nl=False)
