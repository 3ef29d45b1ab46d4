"""The steps of a review: decide, undo, search, move. Each decision is saved at once."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias

import attrs
import click

from ctxbackends._cli.live_line import window_size
from ctxbackends._cli.proposals.rows import edit_row
from ctxbackends._cli.terminal import say
from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.review import Review, Verdict
from ctxbackends.knowledge._records import QuarantinedRow, Row, fields_of, kind_of

KEYS = {
    "a": ("accept", "accept the row; a quarantined one with a quote that you give"),
    "r": ("reject", "reject the row"),
    "R": ("reason", "reject the row, with a reason"),
    "e": ("edit", "change its fields in your editor"),
    "s": ("skip", "decide later, and go to the next row (or Enter)"),
    "b": ("back", "go to the previous row"),
    "u": ("undo", "undo the last decision, and then those before it"),
    "/": ("search", "search the rows for a text"),
    "n": ("next hit", "go to the next row with the text"),
    "?": ("help", "show this help"),
    "q": ("quit", "stop; all decisions are saved (or Ctrl-C)"),
}
"""The keys with their names and their use."""

CHOICES = "[a]ccept [r]eject [e]dit [s]kip [b]ack [u]ndo [/]search [?]help [q]uit"
SHORT_CHOICES = "a r e s b u / q, ? for help"
"""The most frequent keys."""

Next: TypeAlias = Literal["show", "ask", "quit"]
"""Show the row at the position, ask again without it, or end."""


class Front(Protocol):
    """Asks for keys and texts, at a terminal that redraws or line by line."""

    def read(self) -> tuple[str, str]:
        """Return a key and the text that follows it.

        Raises:
            EOFError: There is no more input.
        """
        ...

    def ask(self, question: str) -> str | None:
        """Return the answer to a question; None if it was cancelled."""
        ...

    def pause(self) -> AbstractContextManager[None]:
        """Return a block in which another program has the terminal."""
        ...


class View(Protocol):
    """Prints the rows."""

    def is_ready(self, name: str) -> bool:
        """Return whether the row can be printed at once."""
        ...

    def prepare(self, name: str) -> None:
        """Read everything that the row needs."""
        ...

    def print(self, name: str, heading: str) -> None:
        """Print the row."""
        ...


@attrs.frozen
class Change:
    """A change of a verdict, which can be undone.

    Attributes:
        name: The name of the row.
        before: The verdict before.
        after: The verdict after.
    """

    name: str
    before: Verdict
    after: Verdict


class ReviewSession:
    """Steps through rows of a review.

    Args:
        review: The review.
        names: The names of the rows, in their order.
        front: Asks for keys and texts.
        view: Prints the rows.
    """

    def __init__(self, review: Review, names: Sequence[str], front: Front, view: View) -> None:
        self._review = review
        self._names = names
        self._front = front
        self._view = view
        self._at = 0
        self._skips_decided = False  # after the end was reached once
        self._query = ""
        self._changes: list[Change] = []

    def run(self) -> None:
        """Ask for decisions until the user quits.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        step: Next = "show"
        while step != "quit":
            if step == "show":
                self._show()
            try:
                key, rest = self._front.read()
            except EOFError:
                return
            step = self._act(key, rest)

    @property
    def _name(self) -> str | None:
        return self._names[self._at] if self._at < len(self._names) else None

    def _show(self) -> None:
        name = self._name
        if name is None:
            left = self._find_undecided()
            rest = f"{pluralize(len(left), 'row')} left; press Enter to go on with them" if left else "all are decided"
            say(f"\nend of the rows: {rest}, u to undo, b to go back, or q to quit")
            return
        if not self._view.is_ready(name):
            with self._front.pause():
                self._view.prepare(name)
        self._view.print(name, f"{self._at + 1} of {len(self._names)} · {count_states(self._review)}")

    def _act(self, key: str, rest: str) -> Next:
        match key:
            case "q":
                return "quit"
            case "s":
                return self._skip()
            case "b":
                self._at = max(0, self._at - 1)
                return "show"
            case "u":
                return self._undo()
            case "/":
                return self._search(rest)
            case "n":
                return self._find_next()
            case "?":
                say(_format_help(window_size(sys.stdout)[0]))
                return "ask"
            case "a" | "r" | "R" | "e" if self._name is not None:
                return self._decide(key, self._name, rest)
            case "a" | "r" | "R" | "e":
                say("there is no row here; b goes back")
                return "ask"
        say(f"unknown key: {key!r}; press ? for help")
        return "ask"

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, key: str, name: str, rest: str) -> Next:
        if key == "e":
            return self._edit(name)
        if key == "a" and name in self._review.quarantined():
            return self._requote(name, rest)
        if key == "a":
            return self._change(name, lambda: self._review.accept([name]))
        reason = self._front.ask("reason: ") if key == "R" and not rest else rest
        if reason is None:
            return "ask"
        return self._change(name, lambda: self._review.reject([name], reason=reason))

    def _requote(self, name: str, rest: str) -> Next:
        quote = rest or self._front.ask(f"{name} needs a quote; copy words from the source: ")
        if not quote or not quote.strip():
            say(f"{name} stays quarantined")
            return "ask"
        problem = self._review.find_problem(name)
        step = self._change(name, lambda: self._review.requote(name, quote), moves=problem is None)
        if problem is not None and step == "show":
            say(f"the quote is saved, but {problem}")
        return step

    def _edit(self, name: str) -> Next:
        if name in self._review.quarantined():
            say(f"{name} is quarantined; accept it with a quote first")
            return "ask"
        with self._front.pause():
            try:
                fields = edit_row(self._review, name)
            except click.ClickException as error:
                say(error.format_message())
                return "ask"
        if fields is None:
            say("nothing changed")
            return "ask"
        self._change(name, lambda: self._review.edit(name, fields), moves=False)
        return "show"

    def _change(self, name: str, action: Callable[[], object], *, moves: bool = True) -> Next:
        before = self._review.verdict(name)
        try:
            action()
        except ProposalError as error:
            say(str(error))
            return "ask"
        after = self._review.verdict(name)
        if after != before:
            self._changes.append(Change(name, before, after))
        say(f"{name} {after.state if moves else 'changed'}")
        if moves:
            self._move_on()
        return "show"

    def _undo(self) -> Next:
        if not self._changes:
            say("nothing to undo")
            return "ask"
        change = self._changes.pop()
        try:
            self._review.restore(change.name, change.before, after=change.after)
        except ProposalError as error:
            say(str(error))
            return "ask"
        say(f"undone: {change.name} is {change.before.state}")
        self._at = self._names.index(change.name)
        return "show"

    # --- moving -----------------------------------------------------------------------------------

    def _skip(self) -> Next:
        if self._name is not None:
            self._move_on()
            return "show"
        left = self._find_undecided()
        if not left:
            return "quit"
        self._at, self._skips_decided = left[0], True
        return "show"

    def _move_on(self) -> None:
        later = [at for at in self._find_undecided() if at > self._at] if self._skips_decided else [self._at + 1]
        self._at = next(iter(later), len(self._names))

    def _find_undecided(self) -> list[int]:
        return [at for at, name in enumerate(self._names) if self._review.verdict(name).state == "undecided"]

    def _search(self, rest: str) -> Next:
        query = rest or self._front.ask("search: ")
        if not query or not query.strip():
            return "ask"
        self._query = " ".join(query.split()).casefold()
        return self._find_next()

    def _find_next(self) -> Next:
        if not self._query:
            say("nothing to search for; press / first")
            return "ask"
        count = len(self._names)
        texts = self._join_texts()
        for at in ((self._at + step) % count for step in range(1, count + 1)):
            if self._query in texts[self._names[at]]:
                if at <= self._at:
                    say("search continues from the first row")
                self._at = at
                return "show"
        say(f"no row with {self._query!r}")
        return "ask"

    def _join_texts(self) -> dict[str, str]:
        """Return the texts of each row, which are searched."""
        rows: dict[str, Row | QuarantinedRow] = {**self._review.quarantined(), **self._review.rows()}
        return {name: " ".join([name, *_list_texts(row)]).casefold() for name, row in rows.items()}


def _list_texts(row: Row | QuarantinedRow) -> Iterator[str]:
    yield kind_of(row.record)
    yield from fields_of(row.record).values()
    for one in (row,) if isinstance(row, QuarantinedRow) else row.evidence:
        yield from (one.quote, one.where)


def count_states(review: Review) -> str:
    """Return how many rows are accepted, rejected and left, with the quarantined ones."""
    names = (*review.proposal.rows_by_name(), *review.proposal.quarantined_by_name())
    states = [review.verdict(name).state for name in names]
    accepted, rejected, left = (states.count(state) for state in ("accepted", "rejected", "undecided"))
    return f"{accepted} accepted, {rejected} rejected, {left} left"


def _format_help(columns: int) -> str:
    indent = 13
    width = max(columns - 1, indent + 10)
    return "\n".join(
        textwrap.fill(f"{key}  {name:9} {use}", width, subsequent_indent=" " * indent)
        for key, (name, use) in KEYS.items()
    )
