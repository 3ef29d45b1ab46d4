"""The command review: decide on the rows of a proposal one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import click

from ctxbackends._cli.live_line import can_redraw
from ctxbackends._cli.proposals.arguments import directory_option, one_argument, open_review
from ctxbackends._cli.proposals.session import CHOICES, KEYS, Front, ReviewSession, count_states
from ctxbackends.knowledge._proposals.review import Review


@click.command()
@one_argument
@click.option("--all", "every", is_flag=True, help="Include rows that are already decided.")
@directory_option
def review(directory: Path, proposal: str, every: bool) -> None:
    """Decide the undecided rows one by one, with single keys.

    Each row is shown with its quotes in their sources. Each decision is saved
    at once; press ? for the keys.
    """
    from ctxbackends._cli.proposals.view import LINES, RowView  # needs rich
    from ctxbackends.knowledge._proposals.passages import Passages  # reads sources
    from ctxbackends.knowledge._proposals.sources import find_roots

    review_, _ = open_review(directory, proposal)
    if not sys.stdin.isatty():
        raise click.UsageError("review requires a terminal; use ctxbackends proposals accept and reject instead")
    names = _select_names(review_, every=every)
    if not names:
        click.echo(f"{review_.path.stem}: all rows are decided; use --all to see them", err=True)
    else:
        view = RowView(review_, Passages(review_.proposal, lines=LINES, roots=find_roots(review_.path)))
        try:
            with _open_front() as front:
                ReviewSession(review_, names, front, view).run()
        finally:
            click.echo(f"{review_.path.stem}: {count_states(review_)}", err=True)
    if "accepted" in review_.states().values():
        click.echo(f"print the accepted rows: ctxbackends proposals export {review_.path.stem}", err=True)


def _select_names(review_: Review, *, every: bool) -> list[str]:
    names = [*review_.proposal.rows_by_name(), *review_.proposal.quarantined_by_name()]
    return [name for name in names if every or review_.verdict(name).state == "undecided"]


@contextmanager
def _open_front() -> Iterator[Front]:
    if can_redraw(sys.stdout) and find_spec("prompt_toolkit") is not None:
        from ctxbackends._cli.proposals.keys import open_keys  # needs prompt_toolkit

        with open_keys() as front:
            yield front
    else:
        yield LineFront()


class LineFront:
    """Reads a letter or a word and Enter; a text can follow it."""

    def read(self) -> tuple[str, str]:
        """Return the key of the answer and its text; an empty answer skips the row."""
        answer = self.ask(CHOICES)
        if answer is None:
            raise EOFError
        answer = answer.strip()
        if answer.startswith("/"):
            return "/", answer[1:].strip()
        word, _, rest = answer.partition(" ")
        names = {name: key for key, (name, _) in KEYS.items()} | {"": "s", "next": "n", "h": "?"}
        key = names.get(word.lower(), word.lower() if word != "R" else word)
        return ("R", rest.strip()) if key == "r" and rest.strip() else (key, rest.strip())

    def ask(self, question: str) -> str | None:
        """Return the answer to a question; None at the end of the input."""
        try:
            return str(click.prompt(question.rstrip(": "), default="", show_default=False, err=True))
        except click.Abort as abort:
            if isinstance(abort.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            return None

    def pause(self) -> AbstractContextManager[None]:
        """Do nothing: the terminal has lines already."""
        return nullcontext()
