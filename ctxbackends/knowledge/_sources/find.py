"""What a command names, as sources: files, directories, globs and standard input. Reads no file but ``.gitignore``."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ctxbackends._util.text import escape_controls
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import SkippedInput, Source
from ctxbackends.knowledge._sources.documents import DOCXSource, PDFSource
from ctxbackends.knowledge._sources.text import StdinSource, TextSource
from ctxbackends.knowledge._sources.transcripts import TranscriptSource

SUFFIXES = (".md", ".markdown", ".txt", ".rst", ".jsonl", ".pdf", ".docx")
"""What is taken out of directories. A file that is named is taken whatever its suffix is."""

_NAMES = ("readme", "changelog", "changes", "todo", "notes", "decisions", "architecture", "contributing", "security")
_NEVER = (".git", ".hg", ".svn", "node_modules", "__pycache__")


class DiscoveryResult(msgspec.Struct, frozen=True):
    """The ``sources`` in their order, each once, and what was left out."""

    sources: tuple[Source, ...]
    skipped: tuple[SkippedInput, ...] = ()


def find_sources(arguments: Sequence[str | Source], *, base: Path | None = None) -> DiscoveryResult:
    """The sources that ``arguments`` name: files, directories (all that can be read in them), globs (``docs/**/*.md``),
    and ``-`` for standard input; a Source stays what it is. ``base`` is what names are relative to, the working
    directory by default.

    In directories and globs, what ``.gitignore`` names, what is hidden, and what cannot be read is left out. Raises
    SourceError for an argument that names nothing, and where there is nothing to read.
    """
    search = _Search(base if base is not None else Path.cwd())
    for argument in arguments:
        search.add(argument)
    if not search.sources:
        first = next((one for one in arguments if isinstance(one, str)), "no input")
        raise SourceError(_shown(first), "holds nothing that can be read")
    return DiscoveryResult(tuple(search.sources), tuple(search.skipped))


def source_of(path: Path, *, name: str | None = None) -> Source:
    """The source that fits the file's suffix."""
    kinds: dict[str, Any] = {".jsonl": TranscriptSource, ".pdf": PDFSource, ".docx": DOCXSource}
    source: Source = kinds.get(path.suffix.lower(), TextSource)(path, name=name)
    return source


class _Search:
    def __init__(self, base: Path) -> None:
        self._base = Path(os.path.abspath(base))
        self._taken: set[str] = set()
        self.sources: list[Source] = []
        self.skipped: list[SkippedInput] = []

    def add(self, argument: str | Source) -> None:
        if not isinstance(argument, str):
            self.sources.append(argument)
            return
        if argument == "-":
            if "-" not in self._taken:
                self._taken.add("-")
                if sys.stdin is None:
                    raise SourceError("standard input", "is closed")
                self.sources.append(StdinSource(sys.stdin.buffer))
            return
        path = self._base / argument
        try:
            if path.is_dir():
                self._add_all(argument, _walked(path, _Ignored(path)))
            elif os.path.lexists(path) or not glob.has_magic(argument):
                self._take(path)  # one that is missing says so when it is prepared
            else:
                self._add_all(argument, self._globbed(argument))
        except ValueError:  # a NUL in the path
            raise SourceError(_shown(argument), "is no path of a file") from None

    def _globbed(self, argument: str) -> Iterator[Path]:
        matches = sorted(glob.glob(argument, root_dir=self._base, recursive=True))
        if not matches:
            raise SourceError(_shown(argument), "matches no file")
        ignored: dict[Path, _Ignored] = {}
        for match in matches:
            path = self._base / match
            if path.is_dir():
                continue
            rules = ignored.setdefault(path.parent, _Ignored(path.parent))
            if not rules.has(path):
                yield path

    def _add_all(self, argument: str, paths: Iterator[Path]) -> None:
        """The files that can be read, those that cannot be are told of."""
        others = 0
        for path in paths:
            if not _is_readable(path):
                others += 1
                continue
            real = os.path.realpath(path)
            if real in self._taken:
                continue
            source = source_of(path, name=self._name(path))
            try:
                source.prepare()
            except SourceError as error:
                if "documents" in error.problem:
                    raise  # what is missing is on our side
                self.skipped.append(
                    SkippedInput(source=source.name, reason=error.problem.removeprefix(f"{source.name}: "))
                )
                self._taken.add(real)
                continue
            self._taken.add(real)
            self.sources.append(source)
        if others:
            kinds = "a file" if others == 1 else f"{others} files"
            self.skipped.append(SkippedInput(source=_shown(argument), reason=f"{kinds} of other kinds in it"))

    def _take(self, path: Path) -> None:
        real = os.path.realpath(path)
        if real not in self._taken:
            self._taken.add(real)
            self.sources.append(source_of(path, name=self._name(path)))

    def _name(self, path: Path) -> str:
        absolute = Path(os.path.abspath(path))
        inside = absolute.is_relative_to(self._base)
        return _shown(str(absolute.relative_to(self._base) if inside else absolute))


def _shown(name: str) -> str:
    """A name as citations and messages have it, whatever bytes the file's name has."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t").replace(os.sep, "/")


def _is_readable(path: Path) -> bool:
    if not path.suffix:
        return path.name.lower() in _NAMES
    return path.suffix.lower() in SUFFIXES


def _walked(directory: Path, ignored: _Ignored) -> Iterator[Path]:
    """All files below, sorted; neither what is hidden or ignored, nor what a link leads to."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(_shown(str(directory)), f"cannot be read: {error.strerror}") from None
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name in _NEVER or ignored.has(path, is_dir=entry.is_dir()):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(path, ignored.below(path))
        elif entry.is_file():
            yield path


class _Ignored:
    """The ``.gitignore`` files that hold in a directory: its own, and those above it up to the repository's root."""

    def __init__(self, directory: Path, specs: tuple[tuple[Path, Any], ...] | None = None) -> None:
        directory = Path(os.path.abspath(directory))
        if specs is None:
            above = [directory]
            for parent in directory.parents if not (directory / ".git").exists() else ():
                above.append(parent)
                if (parent / ".git").exists():
                    break
            else:
                above = [directory]  # in no repository: what stands above is somebody else's
            specs = ()
            for one in reversed(above[1:]):
                specs += _spec_in(one)
        self._specs = specs + _spec_in(directory)

    def below(self, directory: Path) -> _Ignored:
        return _Ignored(directory, self._specs)

    def has(self, path: Path, *, is_dir: bool = False) -> bool:
        absolute = os.path.abspath(path)
        verdict = False
        for root, spec in self._specs:  # the nearest file has the last word
            relative = os.path.relpath(absolute, root) + ("/" if is_dir else "")
            told = spec.check_file(relative).include
            verdict = verdict if told is None else told
        return verdict


def _spec_in(directory: Path) -> tuple[tuple[Path, Any], ...]:
    path = directory / ".gitignore"
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ()
    try:
        pathspec = import_module("pathspec")
    except ImportError:
        raise SourceError(
            _shown(str(path)), "needs pathspec to be respected: pip install 'ctxbackends[documents]'"
        ) from None
    return ((directory, pathspec.GitIgnoreSpec.from_lines(lines)),)
