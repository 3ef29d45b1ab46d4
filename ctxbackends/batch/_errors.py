"""The exceptions of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ctxbackends._util.text import escape_for_review
from ctxbackends.errors import BackendError

MAX_PROBLEMS = 20
"""Problems that a message shows. The attribute has all of them."""


class BatchError(BackendError):
    """Base class of the exceptions of a batch."""


class Problem(NamedTuple):
    """A problem of the input.

    Attributes:
        line: The line of the input, counted from 1; 0 if the problem is not in one line.
        message: The problem, with advice.
        id: The ID of the row, empty if it has none.
    """

    line: int
    message: str
    id: str = ""


class BatchInputError(BatchError, ValueError):
    """The input has problems. Nothing was sent.

    Attributes:
        problems: All problems, in the order of their lines.
    """

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        shown = [format_problem(name, problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            shown.append(f"{name}{': ' if name else ''}{len(problems) - MAX_PROBLEMS} more problems")
        super().__init__("\n".join(shown))
        self.problems: tuple[Problem, ...] = tuple(problems)


def format_problem(name: str, problem: Problem) -> str:
    """Return the line of a message about a problem; ``name`` is that of the input, empty if it has none."""
    message = escape_for_review(problem.message)
    if problem.line:
        return f"{name}:{problem.line}: {message}" if name else f"line {problem.line}: {message}"
    row = f"row {problem.id!r:.80}" if problem.id else ""
    return ": ".join(filter(None, (name, row, message)))


class BatchJournalError(BatchError, OSError):
    """The journal cannot be read or written, or another run uses it."""


class BatchOutputError(BatchError, OSError):
    """The output cannot be written. The file that was there is unchanged, and the answers are in the journal."""


class BatchModelError(BatchError):
    """The backends of a batch serve different models."""
