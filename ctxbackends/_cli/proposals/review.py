"""The command review: decide on the rows of a proposal one by one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review, print_states
from ctxbackends._cli.proposals.rows import edit_row, format_row
from ctxbackends._cli.terminal import printable
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.review import Review

_KEYS = "accept, reject, edit, skip, back or quit"
_HELP = """\
a  accept   accept the row
r  reject   reject the row; a reason can follow: r not a decision
e  edit     change its fields
s  skip     decide later (or press Enter)
b  back     go to the previous row
q  quit     stop; all decisions are saved"""


@click.command()
@one_argument
@click.option("--all", "every", is_flag=True, help="Include rows that are already decided.")
@directory_option
def review(directory: Path, proposal: str, every: bool) -> None:
    """Decide the undecided rows one by one. Each decision is saved at once."""
    review_, _ = open_review(directory, proposal)
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
    print_states(review_)
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
