"""Inputs of a batch: JSON Lines and CSV, read as a stream, as often as it is needed."""

from __future__ import annotations

import csv
import hashlib
import json
import string
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from ctxbackends.batch._errors import BatchInputError, Problem
from ctxbackends.batch._forms import check_row, parse_line
from ctxbackends.batch._rows import BatchRow

MAX_PROBLEMS = 1000
"""Problems after which the input is not read on."""

_FORMATTER = string.Formatter()


class BatchInput:
    """The rows of a file. Each iteration reads the file from its start, and stores only one row at a time.

    Args:
        path: A JSON Lines file; a CSV file with a header if its name ends in ``.csv`` or ``.tsv``.
        prompt: A template for each row of a CSV file, such as ``Classify: {text}``, with the names of its columns.
        operation: ``embed`` embeds the text of the template instead of asking for an answer.
        id_column: The column of a CSV file with the ID of the row; None for ``id`` or ``custom_id``, or else the
            number of the row.

    Raises:
        BatchInputError: The file cannot be read, or the template does not fit it.
    """

    def __init__(
        self, path: Path, *, prompt: str | None = None, operation: str = "chat", id_column: str | None = None
    ) -> None:
        self.path = path
        self.name = str(path)
        self._is_csv = path.suffix.lower() in (".csv", ".tsv")
        self._template = _Template(prompt) if prompt is not None else None
        self._operation = operation
        self._id_column = id_column
        if self._is_csv and self._template is None:
            raise self._error(1, 'a CSV file needs a prompt; use --prompt "Classify: {text}" with the names of columns')
        if not self._is_csv and self._template is not None:
            raise self._error(1, "a prompt template is only for CSV files; write the prompt into each line")

    def __iter__(self) -> Iterator[BatchRow]:
        """Iterate over the rows. Raises BatchInputError at the first problem."""
        for row in self.read():
            if isinstance(row, Problem):
                raise BatchInputError(self.name, [row])
            yield row

    def read(self) -> Iterator[BatchRow | Problem]:
        """Iterate over the rows and the problems of the file."""
        try:
            yield from self._read_csv() if self._is_csv else self._read_lines()
        except OSError as error:
            raise self._error(1, f"cannot be read: {error.strerror}") from error

    def _read_lines(self) -> Iterator[BatchRow | Problem]:
        decode = msgspec.json.decode
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if number == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if not text:
                    continue
                try:
                    row = parse_line(decode(text), number)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    yield Problem(number, f"not JSON: {_cause(text, error)}")
                except (TypeError, ValueError) as error:
                    yield Problem(number, str(error))
                else:
                    yield row

    def _read_csv(self) -> Iterator[BatchRow | Problem]:
        assert self._template is not None, "checked before"
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        with open(self.path, encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text, delimiter=delimiter, strict=True)
            try:
                self._template.check(rows.fieldnames or ())
            except ValueError as error:
                raise self._error(1, str(error)) from None
            id_column = self._find_id_column(rows.fieldnames or ())
            count = 0
            while True:
                try:
                    fields = next(rows, None)
                except csv.Error as error:
                    yield Problem(rows.line_num, f"not CSV: {error}")
                    return
                except UnicodeDecodeError as error:
                    yield Problem(rows.line_num + 1, f"not UTF-8: byte {error.object[error.start]:#04x}")
                    return
                if fields is None:
                    return
                count += 1
                if None in fields or None in fields.values():
                    yield Problem(
                        rows.line_num,
                        f"the number of columns differs from the header: {len(rows.fieldnames or ())} expected",
                    )
                    continue
                row_id = fields[id_column] if id_column is not None else str(count)
                if not row_id:
                    yield Problem(rows.line_num, f"the column {id_column} is empty; give each row an ID")
                    continue
                prompt = self._template.render(fields)
                yield BatchRow(id=row_id, prompt=prompt, operation=self._operation, line=rows.line_num)  # type: ignore[arg-type]

    def _find_id_column(self, columns: Iterable[str]) -> str | None:
        names = list(columns)
        if self._id_column is None:
            return next((name for name in ("custom_id", "id") if name in names), None)
        if self._id_column not in names:
            raise self._error(1, f"unknown column: {self._id_column}; use one of {', '.join(names)}")
        return self._id_column

    def _error(self, line: int, message: str) -> BatchInputError:
        return BatchInputError(self.name, [Problem(line, message)])


class _Template:
    """A prompt with the names of columns in braces. ``{{`` and ``}}`` are braces."""

    def __init__(self, text: str) -> None:
        try:
            self._parts = [(literal, name) for literal, name, *_ in _FORMATTER.parse(text)]
        except ValueError as error:
            raise ValueError(f"invalid template: {text!r:.60}; write {{{{ and }}}} for braces") from error
        self.columns = [name for _, name in self._parts if name is not None]
        if not self.columns:
            raise ValueError(f"the template names no column: {text!r:.60}; write the name of a column in braces")

    def check(self, columns: Iterable[str]) -> None:
        names = list(columns)
        for column in self.columns:
            if column not in names:
                raise ValueError(f"unknown column: {column!r}; use one of {', '.join(names)}")

    def render(self, fields: Mapping[str, str]) -> str:
        # Not str.format(): a name such as {text.__class__} is a column, and never an expression.
        return "".join(literal + (fields[name] if name is not None else "") for literal, name in self._parts)


def validate(
    rows: Iterable[BatchRow | Problem], check: Callable[[BatchRow], None] = check_row
) -> tuple[int, list[Problem]]:
    """Return the number of rows, and all their problems: those of the input, of options, and duplicate IDs.

    The IDs are compared by hashes of 8 bytes, so that a million rows need 8 MB.
    """
    problems: list[Problem] = []
    hashes, lines = array("Q"), array("Q")
    count = 0
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
        else:
            count += 1
            hashes.append(
                int.from_bytes(hashlib.blake2b(row.id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            )
            lines.append(row.line)
            try:
                check(row)
            except (TypeError, ValueError) as error:
                problems.append(Problem(row.line, str(error)))
        if len(problems) >= MAX_PROBLEMS:
            break
    order = sorted(range(count), key=hashes.__getitem__)
    for before, after in zip(order, order[1:], strict=False):
        if hashes[before] == hashes[after]:
            problems.append(
                Problem(lines[after], f"the custom_id is that of line {lines[before]}; give each row its own")
            )
    return count, sorted(problems)


def _cause(text: bytes, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    try:
        json.loads(text)
    except json.JSONDecodeError as cause:  # its message has the column
        return f"{cause.msg} at column {cause.colno}"
    except (ValueError, RecursionError):
        pass
    return str(error)
