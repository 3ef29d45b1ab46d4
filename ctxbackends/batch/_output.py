"""Writes the output of a batch from its input and its journal, whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self, TypeAlias, get_args

import attrs

from ctxbackends._suggestions import suggest
from ctxbackends._util.files import replacing
from ctxbackends.batch._errors import BatchOutputError
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._output_lines import build_openai_line, build_simple_line
from ctxbackends.batch._rows import BatchRow

OutputFormat: TypeAlias = Literal["openai", "simple", "parquet"]

STDOUT = Path("/dev/stdout")
_BUFFER_SIZE = 1 << 20
_DESCRIPTORS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


class AnswerSource(Protocol):
    """A journal."""

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of a row, None if there is none."""


class _RowWriter(Protocol):
    def write(self, row: BatchRow, key: bytes, entry: Entry) -> None: ...

    def finish(self) -> None: ...


@attrs.frozen
class OutputCounts:
    """The rows of an output.

    Attributes:
        rows: All rows.
        answered: Rows with an answer.
        failed: Rows with an error.
    """

    rows: int
    answered: int
    failed: int


def check_output(
    path: Path,
    *,
    format: OutputFormat = "openai",  # noqa: A002  # the name of the command's option
    errors: Path | None = None,
    source: Path | None = None,
) -> None:
    """Check that an output can be written, before the first request.

    Args:
        path: The file of the output.
        format: Its format.
        errors: The file of the failed rows, None if they are in the output.
        source: The file of the input, None if there is none.

    Raises:
        BatchOutputError: It cannot be written; the message says why.
    """
    if format not in get_args(OutputFormat):
        raise BatchOutputError(f"unknown format: {format}; {suggest(format, get_args(OutputFormat), {})}")
    if format == "parquet" and find_spec("pyarrow") is None:
        raise BatchOutputError("cannot write parquet without pyarrow; run pip install 'ctxbackends[ray]'")
    if format == "parquet" and is_stream(path):
        raise BatchOutputError(f"cannot write parquet to a stream: {path}; name a file")
    for file in [path] if errors is None else [path, errors]:
        _check_file(file, source)
    if errors is not None and not is_stream(path) and os.path.realpath(errors) == os.path.realpath(path):
        raise BatchOutputError(f"the output and the errors are one file: {path}; name two files")


def write_output(
    journal: AnswerSource | None,
    rows: Iterable[BatchRow],
    path: Path,
    *,
    key: Callable[[BatchRow], bytes],
    format: OutputFormat = "openai",  # noqa: A002  # public
    errors: Path | None = None,
) -> OutputCounts:
    """Write the answers of a batch that has ended, in the order of its rows.

    The files are written whole or not at all. A file that exists is replaced, and keeps its mode; the target of a
    symbolic link is replaced, and the link stays. Only one row at a time is in memory, with ``parquet`` a group.

    Args:
        journal: The journal of the batch, which is open inside its ``async with`` block.
        rows: The rows of the batch.
        path: The file to write. Answers are streamed into a device or a pipe, such as ``/dev/stdout``.
        key: Returns the key of a row in the journal: ``BatchRun.key``.
        format: ``openai`` for the lines of OpenAI's batch output, ``simple`` for flat lines, ``parquet`` for a table.
        errors: The file for failed rows, which are in the output if it is None. Its lines are simple ones if the
            format is ``parquet``. Without failed rows it is empty.

    Raises:
        BatchOutputError: A file cannot be written, there is no journal, or a row has neither an answer nor an error
            in it.
    """
    check_output(path, format=format, errors=errors, source=getattr(rows, "path", None))
    if journal is None:
        raise BatchOutputError("no journal; pass journal=DIRECTORY to run_batch(), and write the output at its end")
    answered = failed = 0
    with ExitStack() as stack:
        # Closed in reverse: when the output is there, its errors are too.
        output = stack.enter_context(_OutputFile(path))
        failures = None if errors is None else stack.enter_context(_OutputFile(errors))
        writer = _build_writer(output, format, stack)
        failure_writer = writer if failures is None else _LineWriter(failures, format)
        for row in rows:
            row_key = key(row)
            entry = journal.get(row_key)
            if entry is None:
                raise BatchOutputError(
                    f"row without an answer: {_locate(row)}; the input has changed, or the batch has not ended: "
                    "run it again"
                )
            if entry.answer is not None:
                answered += 1
                writer.write(row, row_key, entry)
            else:
                failed += 1
                failure_writer.write(row, row_key, entry)
        writer.finish()
        # A full disk is found here, before one of the files is replaced.
        output.flush()
        if failures is not None:
            failures.flush()
    return OutputCounts(answered + failed, answered, failed)


def _locate(row: BatchRow) -> str:
    return f"{row.id} (line {row.line})" if row.line else row.id


def _build_writer(output: _OutputFile, form: OutputFormat, stack: ExitStack) -> _RowWriter:
    if form != "parquet":
        return _LineWriter(output, form)
    from ctxbackends.batch._output_parquet import ParquetRows  # noqa: PLC0415  # needs an extra

    return stack.enter_context(ParquetRows(output))


class _LineWriter:
    def __init__(self, output: _OutputFile, form: OutputFormat) -> None:
        self._write = output.write
        self._is_openai = form == "openai"

    def write(self, row: BatchRow, key: bytes, entry: Entry) -> None:
        self._write(build_openai_line(row, key, entry) if self._is_openai else build_simple_line(row, entry))

    def finish(self) -> None:
        pass


# --- files --------------------------------------------------------------------------------------------


def is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or an open descriptor, which cannot be replaced."""
    return _find_descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _find_descriptor(path: Path) -> int | None:
    """Return the descriptor that a path such as ``/dev/stdout`` names."""
    if path == STDOUT:  # also on Windows
        return 1
    name = os.path.abspath(path)
    match = _DESCRIPTOR.fullmatch(name)
    return _DESCRIPTORS.get(name) if match is None else int(match[1])


def _check_file(path: Path, source: Path | None) -> None:
    if is_stream(path):
        return
    real = Path(os.path.realpath(path))
    if real.is_dir():
        raise BatchOutputError(f"cannot write the output: {path}: it is a directory; name a file")
    if not real.parent.is_dir():
        raise BatchOutputError(f"cannot write the output: {path}: no directory {real.parent}; create it")
    if not os.access(real.parent, os.W_OK):
        raise BatchOutputError(f"cannot write the output: {path}: {real.parent} is not writable; name another file")
    if source is not None and os.path.realpath(source) == str(real):
        raise BatchOutputError(f"the output is the input: {path}; name another file")


class _OutputFile:
    """A file that is written whole or not at all. Its OSErrors become a BatchOutputError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._file: BinaryIO

    def __enter__(self) -> Self:
        try:
            target: Path | int = self._path
            descriptor = _find_descriptor(self._path)
            if descriptor is not None:
                # Not opened by its name: that would truncate a file that standard output is redirected to.
                target = os.dup(descriptor)
            elif not is_stream(self._path):
                target = self._stack.enter_context(replacing(Path(os.path.realpath(self._path))))
            self._file = self._stack.enter_context(open(target, "wb", buffering=_BUFFER_SIZE))
        except OSError as error:
            self._stack.close()
            raise self._error(error) from error
        return self

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            raise self._error(error) from error

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise self._error(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, exception, traceback)
        except OSError as error:
            if isinstance(exception, BatchOutputError):  # closing the file of a full disk fails again
                return
            raise self._error(error) from error

    def _error(self, error: OSError) -> BatchOutputError:
        return BatchOutputError(
            f"cannot write the output: {self._path}: {error.strerror}; the answers are in the journal: run the batch "
            "again when it can be written, or with another output"
        )
