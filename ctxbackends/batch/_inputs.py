"""Inputs of a batch: JSON Lines and CSV, read as a stream, as often as it is needed."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args

import msgspec

from ctxbackends._suggestions import suggest
from ctxbackends._util.text import format_size, pluralize
from ctxbackends.batch._errors import BatchInputError, Problem
from ctxbackends.batch._forms import check_row, find_id, parse_line
from ctxbackends.batch._rows import BatchRow, Operation
from ctxbackends.errors import BackendError

MAX_PROBLEMS = 1000
"""Problems after which the input is not read on."""
MAX_LINE = 128_000_000
"""The maximum of bytes in a line."""

_SPLIT_ARRAY = "write each element on one line: jq -c '.[]' FILE > rows.jsonl"

TABLE_SUFFIXES = (".csv", ".tsv")

_BOM = b"\xef\xbb\xbf"
_OTHER_FILES = {
    b"\xff\xfe": "the file is UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "the file is compressed with gzip; decompress it",
    b"PK\x03\x04": "the file is a ZIP archive or a spreadsheet; save it as CSV or JSON Lines in UTF-8",
    b"PAR1": "the file is Parquet; write it as JSON Lines",
}
"""The first bytes of files that are not text in UTF-8."""


class BatchInput:
    """The rows of a file. Each iteration reads the file from its start, and stores only one row at a time.

    Args:
        path: A file. If its name ends in ``.csv`` or ``.tsv``, a table with a header, else JSON Lines.
        prompt: The prompt of the rows of a table, with the names of columns in braces: ``Classify: {text}``.
        operation: ``embed`` requests the vectors of the rows of a table, and of lines with a ``prompt``. The other
            forms of a line have their operation.
        id_column: The column of a table with the IDs of the rows; None for ``custom_id`` or ``id``, or the number of
            the row if there is neither.

    Attributes:
        path: The file.
        name: The name of the input in errors, the path if you do not set it.

    Raises:
        BatchInputError: The prompt is missing or invalid, or the file is not a table.
        ValueError: The operation is unknown.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        prompt: str | None = None,
        operation: Operation = "chat",
        id_column: str | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.name: str = str(self.path)
        self._is_csv = self.path.suffix.lower() in TABLE_SUFFIXES
        self._operation: Operation = operation
        self._id_column = id_column
        self._template = None
        if operation not in get_args(Operation):
            raise ValueError(f"unknown operation: {operation!r:.60}; use {' or '.join(get_args(Operation))}")
        if self._is_csv and prompt is None:
            raise self._error(0, 'a table needs a prompt with the names of its columns in braces, "Classify: {text}"')
        if not self._is_csv and (prompt is not None or id_column is not None):
            option = "a prompt" if prompt is not None else "id_column"
            raise self._error(0, f"{option} is only for a .csv or .tsv file; write it into each line")
        if prompt is not None:
            try:
                self._template = _Template(prompt)
            except ValueError as error:
                raise self._error(0, str(error)) from None

    def __iter__(self) -> Iterator[BatchRow]:
        """Iterate over the rows.

        Raises:
            BatchInputError: The file cannot be read, or a row has a problem.
        """
        for row in self.read():
            if isinstance(row, Problem):
                raise BatchInputError(self.name, [row])
            yield row

    def read(self) -> Iterator[BatchRow | Problem]:
        """Iterate over the rows and the problems of the file.

        Raises:
            BatchInputError: The file cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise self._error(0, "not a regular file, so it cannot be read twice; write it to a file")
                head = file.read(4)
                file.seek(0)
                for start, advice in _OTHER_FILES.items():
                    if head.startswith(start):
                        raise self._error(0, advice)
                yield from self._read_table(file) if self._template is not None else self._read_lines(file)
        except OSError as error:
            raise self._error(0, f"cannot be read: {error.strerror or error}") from error

    # --- JSON Lines -------------------------------------------------------------------------------

    def _read_lines(self, file: BinaryIO) -> Iterator[BatchRow | Problem]:
        decode = msgspec.json.decode
        is_first = True
        for number, line in _split_lines(file):
            if isinstance(line, Problem):
                yield line
                continue
            text = line.strip()
            if not text:
                continue
            data = None
            try:
                data = decode(text)
                row = parse_line(data, number, self._operation)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if is_first and text.startswith(b"["):
                    yield Problem(number, f"the file is one JSON array over several lines; {_SPLIT_ARRAY}")
                    return
                if is_first and text == b"{":
                    yield Problem(
                        number,
                        "the file has JSON objects over several lines; write each on one line: "
                        "jq -c . FILE > rows.jsonl",
                    )
                    return
                yield Problem(number, _describe(text, error))
            except (TypeError, ValueError) as error:
                if is_first and isinstance(data, list):
                    yield Problem(number, f"the file is one JSON array; {_SPLIT_ARRAY}")
                    return
                yield Problem(number, str(error), find_id(data))
            else:
                yield row
            is_first = False

    # --- CSV --------------------------------------------------------------------------------------

    def _read_table(self, file: BinaryIO) -> Iterator[BatchRow | Problem]:
        assert self._template is not None, "checked by the caller"
        # The limit is one of the whole process, 128 KiB by default, which is too little for documents.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        problems: list[Problem] = []
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else _find_delimiter(file)
        rows = csv.reader(_decode_lines(file, problems), delimiter=delimiter, strict=True)
        columns: list[str] | None = None
        id_column: str | None = None
        count = 0
        while True:
            line = rows.line_num + 1
            values: list[str] | None = None
            try:
                values = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                problems.append(Problem(line, f"not CSV: {error}"))
            if values == [] and not problems:
                continue  # an empty line
            if columns is None:
                if problems:
                    raise BatchInputError(self.name, problems)
                columns = values or []
                id_column = self._check_columns(columns, line)
                continue
            count += 1
            if not problems and values is not None and len(values) != len(columns):
                problems.append(
                    Problem(line, f"{pluralize(len(values), 'column')}; write {len(columns)}, as in the header")
                )
            if problems or values is None:
                yield from sorted(problems)
                problems.clear()
                continue
            fields = dict(zip(columns, values, strict=True))
            row_id = str(count) if id_column is None else fields[id_column]
            if not row_id:
                yield Problem(line, f"the column {id_column} is empty; write an ID that no other row has")
                continue
            yield BatchRow(id=row_id, prompt=self._template.render(fields), operation=self._operation, line=line)
        if columns is None:
            raise self._error(0, "the file is empty; write the names of the columns on the first line")

    def _check_columns(self, columns: Sequence[str], line: int) -> str | None:
        """Return the column of the IDs, None for the number of the row."""
        assert self._template is not None, "checked by the caller"
        repeated = [name for index, name in enumerate(columns) if name and name in columns[:index]]
        if repeated:
            raise self._error(line, f"duplicate column: {repeated[0]!r:.60}; rename one")
        for name in (*self._template.columns, *([self._id_column] if self._id_column is not None else ())):
            if name not in columns:
                raise self._error(line, f"unknown column: {name!r:.60}; {suggest(name, columns)}")
        if self._id_column is not None:
            return self._id_column
        return next((name for name in ("custom_id", "id") if name in columns), None)

    def _error(self, line: int, message: str) -> BatchInputError:
        return BatchInputError(self.name, [Problem(line, message)])


_BRACES = {"{{": "{", "}}": "}"}


class _Template:
    """A prompt with the names of columns in braces. ``{{`` and ``}}`` are braces."""

    def __init__(self, text: str) -> None:
        # Not str.format(): it would read {text.__class__} and {a:b} as expressions, and not as names of columns.
        parts = re.split(r"(\{\{|\}\}|\{[^{}]*\}|[{}])", text)
        if "{" in parts or "}" in parts:
            raise ValueError(f"single brace in the prompt: {text!r:.80}; write {{{{ or }}}} for a brace")
        self._parts = [
            (part[1:-1], True) if index % 2 and part not in _BRACES else (_BRACES.get(part, part), False)
            for index, part in enumerate(parts)  # a text and a brace or a column by turns
        ]
        self.columns = [part for part, is_column in self._parts if is_column]
        if not self.columns:
            raise ValueError(f"no column in the prompt: {text!r:.80}; write the name of a column in braces")

    def render(self, fields: Mapping[str, str]) -> str:
        return "".join([fields[part] if is_column else part for part, is_column in self._parts])


def _find_delimiter(file: BinaryIO) -> str:
    """Return the delimiter of a CSV file: the first of ``,``, ``;`` and the tab that is in its header."""
    header = file.readline(MAX_LINE)
    file.seek(0)
    return next((delimiter for delimiter in ",;\t" if delimiter.encode() in header), ",")


def _split_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]:
    """Iterate over the lines with their numbers. A line that is too long is a problem."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            yield number, Problem(number, f"line too long: more than {format_size(MAX_LINE)}; split it")
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
        else:
            yield number, line.removeprefix(_BOM) if number == 1 else line


def _decode_lines(file: BinaryIO, problems: list[Problem]) -> Iterator[str]:
    """Iterate over the lines as texts. Problems are appended to ``problems`` and do not end the iteration."""
    for number, line in _split_lines(file):
        if isinstance(line, Problem):
            problems.append(line)
            yield "\n"
            continue
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            problems.append(Problem(number, _describe(line, error)))
            yield line.decode(errors="replace")


def _describe(text: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    try:
        text.decode()
    except UnicodeDecodeError as cause:
        return f"not UTF-8: byte {text[cause.start]:#04x} at column {cause.start + 1}; save the file as UTF-8"
    try:
        json.loads(text)
    except json.JSONDecodeError as cause:  # its message has the column
        return f"not JSON: {cause.msg} at column {cause.colno}"
    except (ValueError, RecursionError):
        pass
    return f"not JSON: {error}"


# --- validation ---------------------------------------------------------------------------------------


def validate(
    rows: Iterable[BatchRow | Problem], check: Callable[[BatchRow], None] = check_row
) -> tuple[int, list[Problem]]:
    """Return the number of rows, and their problems: those of the input and of ``check``, and duplicate IDs.

    Args:
        rows: The rows of any source, or of :meth:`BatchInput.read`.
        check: Raises TypeError, ValueError or BackendError for a row with a problem.
    """
    problems: list[Problem] = []
    lines = _LinesByID()
    count = 0
    for index, row in enumerate(rows):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            count += 1
            if not isinstance(row, BatchRow):  # Python code may pass anything
                problems.append(Problem(0, f"rows[{index}] is not a BatchRow: {type(row).__name__}"))
                continue
            try:
                check(row)
            except BackendError as error:
                problems.append(Problem(row.line, error.problem, str(row.id)))
            except RecursionError:
                problems.append(Problem(row.line, "nested too deeply", str(row.id)))
            except (TypeError, ValueError) as error:
                problems.append(Problem(row.line, str(error), str(row.id)))
        row_id: Any = row.id
        if isinstance(row_id, str) and row_id:
            other = lines.set_default(row_id, row.line)
            if other is not None:
                place = f", as on line {other}" if other else ""
                message = f"duplicate ID: {row_id!r:.80}{place}; use a different one for each row"
                problems.append(Problem(row.line, message, row_id))
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem(row.line, f"{MAX_PROBLEMS} problems; the rest of the input was not checked"))
            break
    return count, problems


class _LinesByID:
    """The lines of IDs, in 16 bytes for each: the hash of the ID, and the line.

    A dict would need more than 100 bytes. Two IDs out of a million have the same hash once in 30 million times.
    """

    _BUCKETS = 1024

    def __init__(self) -> None:
        self._buckets = [(bytearray(), array("q")) for _ in range(self._BUCKETS)]

    def set_default(self, row_id: str, line: int) -> int | None:
        """Add an ID, and return None; or return the line of the same ID."""
        number = hash(row_id)
        key = number.to_bytes(8, "little", signed=True)
        hashes, lines = self._buckets[number % self._BUCKETS]
        index = hashes.find(key)
        while index % 8 and index >= 0:
            index = hashes.find(key, index + 1)
        if index >= 0:
            return lines[index // 8]
        hashes += key
        lines.append(line)
        return None
