"""Find sources from file names, directories, globs and ``-`` for standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ctxbackends._util.text import escape_controls, pluralize
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import SkippedInput, Source
from ctxbackends.knowledge._sources.documents import DOCXSource, PDFSource
from ctxbackends.knowledge._sources.text import StdinSource, TextSource
from ctxbackends.knowledge._sources.transcripts import TranscriptSource

SUFFIXES = (".md", ".markdown", ".txt", ".rst", ".jsonl", ".pdf", ".docx")
"""Suffixes of the files that are read in directories. A file that is named is read with any suffix."""

_NAMES_WITHOUT_SUFFIX = (
    "readme",
    "changelog",
    "changes",
    "todo",
    "notes",
    "decisions",
    "architecture",
    "contributing",
    "security",
)
_IGNORED_DIRECTORIES = (".git", ".hg", ".svn", "node_modules", "__pycache__")


class DiscoveryResult(msgspec.Struct, frozen=True):
    """The result of :func:`find_sources`.

    Attributes:
        sources: The sources in order, without duplicates.
        skipped: The files that were not read.
    """

    sources: tuple[Source, ...]
    skipped: tuple[SkippedInput, ...] = ()


def find_sources(arguments: Sequence[str | Source], *, base: Path | None = None) -> DiscoveryResult:
    """Find the sources that the arguments name.

    In directories and globs, files that are hidden, ignored by ``.gitignore`` or cannot be read are skipped.

    Args:
        arguments: Files, directories, globs (``docs/**/*.md``), ``-`` for standard input, or Sources.
        base: The directory that names are relative to; the working directory by default.

    Raises:
        SourceError: An argument matches no file, or there is nothing to read.
    """
    search = _Search(base if base is not None else Path.cwd())
    for argument in arguments:
        search.add(argument)
    if not search.sources:
        first = next((one for one in arguments if isinstance(one, str)), "no input")
        raise SourceError(_display_name(first), "has no file that can be read")
    return DiscoveryResult(tuple(search.sources), tuple(search.skipped))


def source_of(path: Path, *, name: str | None = None) -> Source:
    """Return a source for the file, chosen by its suffix; text by default.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """
    types: dict[str, Any] = {".jsonl": TranscriptSource, ".pdf": PDFSource, ".docx": DOCXSource}
    source: Source = types.get(path.suffix.lower(), TextSource)(path, name=name)
    return source


class _Search:
    def __init__(self, base: Path) -> None:
        self._base = Path(os.path.abspath(base))
        self._real_paths: set[str] = set()
        self.sources: list[Source] = []
        self.skipped: list[SkippedInput] = []

    def add(self, argument: str | Source) -> None:
        if not isinstance(argument, str):
            self.sources.append(argument)
            return
        if argument == "-":
            if "-" not in self._real_paths:
                self._real_paths.add("-")
                if sys.stdin is None:
                    raise SourceError("standard input", "is closed")
                self.sources.append(StdinSource(sys.stdin.buffer))
            return
        path = self._base / argument
        try:
            if path.is_dir():
                self._add_all(argument, _walk(path, _IgnoreRules(path)))
            elif os.path.lexists(path) or not glob.has_magic(argument):
                self._add_file(path)  # prepare() reports a missing file
            else:
                self._add_all(argument, self._glob(argument))
        except ValueError:  # a NUL in the path
            raise SourceError(_display_name(argument), "is not a valid path") from None

    def _glob(self, argument: str) -> Iterator[Path]:
        matches = sorted(glob.glob(argument, root_dir=self._base, recursive=True))
        if not matches:
            raise SourceError(_display_name(argument), "matches no file")
        ignored: dict[Path, _IgnoreRules] = {}
        for match in matches:
            path = self._base / match
            if path.is_dir():
                continue
            rules = ignored.setdefault(path.parent, _IgnoreRules(path.parent))
            if not rules.matches(path):
                yield path

    def _add_all(self, argument: str, paths: Iterator[Path]) -> None:
        """Add the files that can be read, and report the others."""
        others = 0
        for path in paths:
            if not _is_readable(path):
                others += 1
                continue
            real = os.path.realpath(path)
            if real in self._real_paths:
                continue
            source = source_of(path, name=self._name(path))
            try:
                source.prepare()
            except SourceError as error:
                if "documents" in error.problem:
                    raise  # a missing extra is not a problem of the file
                self.skipped.append(
                    SkippedInput(source=source.name, reason=error.problem.removeprefix(f"{source.name}: "))
                )
                self._real_paths.add(real)
                continue
            self._real_paths.add(real)
            self.sources.append(source)
        if others:
            self.skipped.append(
                SkippedInput(source=_display_name(argument), reason=f"{pluralize(others, 'file')} of unsupported types")
            )

    def _add_file(self, path: Path) -> None:
        real = os.path.realpath(path)
        if real not in self._real_paths:
            self._real_paths.add(real)
            self.sources.append(source_of(path, name=self._name(path)))

    def _name(self, path: Path) -> str:
        absolute = Path(os.path.abspath(path))
        inside = absolute.is_relative_to(self._base)
        return _display_name(str(absolute.relative_to(self._base) if inside else absolute))


def _display_name(name: str) -> str:
    """Return a file name for citations and messages, without control characters and invalid Unicode."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t").replace(os.sep, "/")


def _is_readable(path: Path) -> bool:
    if not path.suffix:
        return path.name.lower() in _NAMES_WITHOUT_SUFFIX
    return path.suffix.lower() in SUFFIXES


def _walk(directory: Path, rules: _IgnoreRules) -> Iterator[Path]:
    """Yield all files in the tree, sorted, without hidden and ignored ones. Links to directories are not followed."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(_display_name(str(directory)), f"cannot be read: {error.strerror}") from None
    for entry in entries:
        path = Path(entry.path)
        if (
            entry.name.startswith(".")
            or entry.name in _IGNORED_DIRECTORIES
            or rules.matches(path, is_dir=entry.is_dir())
        ):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, rules.below(path))
        elif entry.is_file():
            yield path


class _IgnoreRules:
    """The ``.gitignore`` files of a directory and of its parents up to the repository's root."""

    def __init__(self, directory: Path, specs: tuple[tuple[Path, Any], ...] | None = None) -> None:
        directory = Path(os.path.abspath(directory))
        if specs is None:
            above = [directory]
            for parent in directory.parents if not (directory / ".git").exists() else ():
                above.append(parent)
                if (parent / ".git").exists():
                    break
            else:
                above = [directory]  # not in a repository: the files of the parents do not apply
            specs = ()
            for one in reversed(above[1:]):
                specs += _read_spec(one)
        self._specs = specs + _read_spec(directory)

    def below(self, directory: Path) -> _IgnoreRules:
        return _IgnoreRules(directory, self._specs)

    def matches(self, path: Path, *, is_dir: bool = False) -> bool:
        absolute = os.path.abspath(path)
        is_ignored = False
        for root, spec in self._specs:  # the nearest file decides
            relative = os.path.relpath(absolute, root) + ("/" if is_dir else "")
            include = spec.check_file(relative).include
            is_ignored = is_ignored if include is None else include
        return is_ignored


def _read_spec(directory: Path) -> tuple[tuple[Path, Any], ...]:
    path = directory / ".gitignore"
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ()
    try:
        pathspec = import_module("pathspec")
    except ImportError:
        raise SourceError(
            _display_name(str(path)), "cannot be applied without pathspec; run pip install 'ctxbackends[documents]'"
        ) from None
    return ((directory, pathspec.GitIgnoreSpec.from_lines(lines)),)
