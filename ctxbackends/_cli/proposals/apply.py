"""The command apply: add the accepted rows to the project with the Go tool ``ctx``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
import click

from ctxbackends._cli.go_tool import ProgramResult, add_entry, find_go_tool
from ctxbackends._cli.numbers import Number
from ctxbackends._cli.options import json_option
from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review, rows_argument
from ctxbackends._cli.proposals.export import format_gaps, print_gaps
from ctxbackends._cli.terminal import print_json, printable, say, utf8
from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.applied import AppliedRows
from ctxbackends.knowledge._proposals.existing import ExistingEntries
from ctxbackends.knowledge._proposals.export import GO_TOOL_FIELDS, build_payload, find_gaps
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import context_directory
from ctxbackends.knowledge._records import Row

Outcome: TypeAlias = Literal["applied", "failed", "uncertain", "incomplete"]


@attrs.frozen(kw_only=True)
class _Settings:
    program: str
    context: Path
    section: str | None
    timeout: float
    as_json: bool
    ask: bool


@click.command()
@one_argument
@rows_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--section", metavar="NAME", callback=utf8, help="Section of TASKS.md for tasks.")
@click.option("--ctx", "program", metavar="PATH", help="The Go tool, if it is not the first on the PATH.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Number(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Time for one row.",
)
@click.option(
    "--uncertain",
    type=click.Choice(["retry", "applied"]),
    help="Apply rows again whose result is unknown, or mark them as applied.",
)
@click.option("--skip-incomplete", is_flag=True, help="Exit with 0 if rows are left out because a field is empty.")
@json_option
@directory_option
def apply(
    directory: Path,
    *,
    proposal: str,
    rows: tuple[str, ...],
    yes: bool,
    section: str | None,
    program: str | None,
    timeout: float,
    uncertain: Literal["retry", "applied"] | None,
    skip_incomplete: bool,
    as_json: bool,
) -> None:
    """Add the accepted rows to the project with the Go tool ctx.

    Runs ctx decision add --json-file, ctx learning add and ctx task add, one row after another. Rows that were applied
    are marked, and not applied again. The exit code is 1 if a row failed, is uncertain or was left out.
    """
    review, names = open_review(directory, proposal, rows)
    accepted = _select_accepted(review, names)
    context = context_directory()
    applied = AppliedRows(review.path)
    with applied.lock():
        states = {name: applied.state(name) for name in accepted}
        unknown = [name for name, state in states.items() if state == "started"]
        if uncertain == "applied":
            for name in unknown:
                applied.finish(name)
        done = [name for name, state in states.items() if state == "applied"]
        if done:
            click.echo(f"already applied: {' '.join(done)}", err=True)
        new = [name for name, state in states.items() if state is None or (state == "started" and uncertain == "retry")]
        gaps = {name: problems for name in new if (problems := find_gaps(accepted[name], "json"))}
        todo = {name: accepted[name] for name in new if name not in gaps}
        if todo and not yes and not sys.stdin.isatty():
            raise click.UsageError("apply asks before it changes files, which requires a terminal; use --yes")
        is_complete = not gaps or skip_incomplete
        if uncertain is None and unknown:
            is_complete = False
            _report_unknown({name: accepted[name] for name in unknown}, review.path.stem, context, as_json=as_json)
        if gaps:
            print_gaps(review.path.stem, gaps)
            for name, problems in gaps.items() if as_json else ():
                _print(name, accepted[name], "incomplete", format_gaps(problems), None, as_json=True)
        if todo:
            go_tool = find_go_tool(program)
            settings = _Settings(
                program=go_tool, context=context, section=section, timeout=timeout, as_json=as_json, ask=not yes
            )
            is_complete &= _apply(applied, todo, settings, review.path)
        else:
            click.echo("nothing to apply", err=True)
    if not is_complete:
        click.get_current_context().exit(1)


def _select_accepted(review: Review, names: list[str]) -> dict[str, Row]:
    """Return the accepted rows that the Go tool has a command for, and report the others."""
    states = review.states()
    undecided = " ".join(name for name in names if states[name] != "accepted")
    if undecided:
        command = f"ctxbackends proposals accept {review.path.stem} {undecided}"
        raise ProposalError(f"not accepted: {undecided}; run {command}")
    chosen = names or [name for name, state in states.items() if state == "accepted"]
    rows = {name: row for name, row in review.rows().items() if name in chosen}
    others = [name for name, row in rows.items() if str(row.kind) not in GO_TOOL_FIELDS]
    if others:
        kinds = ", ".join(dict.fromkeys(str(rows[name].kind) for name in others))
        click.echo(f"not applied, since ctx has no command for {kinds}: {' '.join(others)}", err=True)
    return {name: row for name, row in rows.items() if name not in others}


def _report_unknown(rows: Mapping[str, Row], proposal: str, context: Path, *, as_json: bool) -> None:
    existing = ExistingEntries.read(context)
    for name, row in rows.items():
        place = existing.find(row)
        hint = f"its title is in {place}" if place is not None else f"its title is not in {context}"
        command = f"ctxbackends proposals apply {proposal} {name} --uncertain"
        message = f"an earlier run did not see the end of ctx; {hint}; run {command} applied, or {command} retry"
        _print(name, row, "uncertain", message, None, as_json=as_json)


# --- applying -------------------------------------------------------------------------------------------


def _apply(applied: AppliedRows, rows: Mapping[str, Row], settings: _Settings, path: Path) -> bool:
    """Apply rows, and return whether all were applied."""
    existing = ExistingEntries.read(settings.context)
    say(f"to apply with {settings.program} to {settings.context}:")
    for name, row in rows.items():
        place = existing.find(row)
        note = f" (already in {place})" if place is not None else ""
        say(f"  {name}  {row.kind}: {row.title}{note}")
    if settings.ask and not click.confirm(f"Apply {pluralize(len(rows), 'row')}?", err=True):
        click.echo("nothing was applied", err=True)
        return False
    outcomes = []
    with tempfile.TemporaryDirectory(prefix=".apply-", dir=path.parent) as directory:
        for name, row in rows.items():
            file = Path(directory) / f"{name}.json"
            payload = build_payload(row, section=settings.section)
            file.write_text(json.dumps(payload, ensure_ascii=False), encoding="utf-8")
            result = _run(applied, name, row, file, settings)
            outcome, message = _judge(result, row, existing, settings)
            if outcome == "applied":
                applied.finish(name)
            elif outcome == "failed":
                applied.reset(name)
            outcomes.append(outcome)
            _print(name, row, outcome, message, result.code, as_json=settings.as_json)
            if result.is_interrupted:
                raise KeyboardInterrupt
    return all(outcome == "applied" for outcome in outcomes)


def _run(applied: AppliedRows, name: str, row: Row, file: Path, settings: _Settings) -> ProgramResult:
    applied.start(name)
    try:
        return add_entry(settings.program, str(row.kind), file, context=settings.context, timeout=settings.timeout)
    except click.ClickException:  # it was not started
        applied.reset(name)
        raise


def _judge(result: ProgramResult, row: Row, existing: ExistingEntries, settings: _Settings) -> tuple[Outcome, str]:
    """Return whether a row was applied, with the reason if it was not."""
    if result.code == 0:
        return "applied", ""
    if result.code is None:
        reason = "interrupted" if result.is_interrupted else f"did not end within {settings.timeout:g} s"
        return "uncertain", f"{reason}: {result.message}" if result.message else reason
    end = f"exit code {result.code}" if result.code > 0 else f"ended by signal {-result.code}"
    reason = f"{end}: {result.message or 'no output'}"
    place = ExistingEntries.read(settings.context).find(row)
    if place is not None and existing.find(row) is None:
        return "uncertain", f"{reason}; but its title is now in {place}"
    return ("uncertain" if result.code < 0 else "failed"), reason


def _print(name: str, row: Row, outcome: Outcome, message: str, code: int | None, *, as_json: bool) -> None:
    if as_json:
        facts = {"row": name, "kind": str(row.kind), "title": row.title}
        print_json({**facts, "result": outcome, "exit_code": code, "message": message})
    else:
        click.echo(printable(f"{name}  {outcome}{f': {message}' if message else ''}"))
