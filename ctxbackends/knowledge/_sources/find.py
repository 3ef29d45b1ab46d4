"""Find sources from file names, directories, globs and ``-`` for standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ctxbackends._util.text import escape_controls, pluralize
from ctxbackends.knowledge._errors import MissingLibraryError, SourceError
from ctxbackends.knowledge._sources.base import SkippedInput, Source
from ctxbackends.knowledge._sources.formats import SUFFIXES, source_of, source_of_stdin
from ctxbackends.knowledge._sources.ignore import IgnoreRules
from ctxbackends.knowledge._sources.text import StdinSource

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
_TOOL_DIRECTORIES = (".git", ".hg", ".svn", "node_modules", "__pycache__")
_MAX_SUFFIXES = 12

_HIDDEN = "hidden"
_IGNORED = "ignored by .gitignore"
_EXCLUDED = "excluded"
_NOT_INCLUDED = "not included"
_UNSUPPORTED = "of unsupported types"


class DiscoveryResult(msgspec.Struct, frozen=True):
    """The result of :func:`find_sources`.

    Attributes:
        sources: The sources in order, without duplicates.
        skipped: The files that were not read: each one that failed, and the others by their reason, with the number of
            files of each suffix.
    """

    sources: tuple[Source, ...]
    skipped: tuple[SkippedInput, ...] = ()


def find_sources(
    arguments: Sequence[str | Source],
    *,
    base: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> DiscoveryResult:
    """Find the sources that the arguments name.

    In directories and globs, files that are hidden, ignored by ``.gitignore`` or cannot be read are skipped.

    A glob of ``include`` or ``exclude`` without ``/`` matches a name at any depth, with ``/`` a path relative to
    ``base``. Matching a directory matches its contents.

    Args:
        arguments: Files, directories, globs (``docs/**/*.md``), ``-`` for standard input, or Sources.
        base: The directory that names are relative to; the working directory by default.
        include: Read only matching files in directories and globs. A glob that ends with a suffix, such as ``*.py``,
            adds that type to those that are read.
        exclude: Do not read matching files, even if an argument names them.

    Raises:
        SourceError: An argument matches no file, or there is nothing to read.
    """
    search = _Search(base if base is not None else Path.cwd(), include=include, exclude=exclude)
    for argument in arguments:
        search.add(argument)
    if not search.sources:
        first = next((one for one in arguments if isinstance(one, str)), "no input")
        reasons = "; ".join(skipped.reason for skipped in search.skipped[:3])
        raise SourceError(_display_name(first), f"has no file that can be read{f': {reasons}' if reasons else ''}")
    return DiscoveryResult(tuple(search.sources), tuple(search.skipped))


class _Search:
    def __init__(self, base: Path, *, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._base = Path(os.path.abspath(base))
        self._include = [_Pattern(one) for one in include]
        self._exclude = [_Pattern(one) for one in exclude]
        self._real_paths: set[str] = set()
        self._counts: dict[str, Counter[str]] = {}
        self.sources: list[Source] = []
        self.skipped: list[SkippedInput] = []

    def add(self, argument: str | Source) -> None:
        if not isinstance(argument, str):
            self.sources.append(source_of_stdin(argument) if isinstance(argument, StdinSource) else argument)
            return
        if argument == "-":
            if "-" not in self._real_paths:
                self._real_paths.add("-")
                if sys.stdin is None:
                    raise SourceError("standard input", "is closed")
                self.sources.append(source_of_stdin(StdinSource(sys.stdin.buffer)))
            return
        path = self._base / argument
        try:
            if path.is_dir():
                self._add_all(self._walk(path, IgnoreRules(self._rules_top(path)), is_top=True))
            elif os.path.lexists(path) or not glob.has_magic(argument):
                self._add_file(path)  # prepare() reports a missing file
            else:
                self._add_all(self._glob(argument))
        except ValueError:  # a NUL in the path
            raise SourceError(_display_name(argument), "is not a valid path") from None
        self._report_counts(argument)

    # --- one argument -----------------------------------------------------------------------------

    def _add_file(self, path: Path) -> None:
        real = os.path.realpath(path)
        if real in self._real_paths:
            return
        if self._matches(self._exclude, path):
            self._count(_EXCLUDED, path)
            return
        self._real_paths.add(real)
        self.sources.append(source_of(path, name=self._name(path)))

    def _add_all(self, paths: Iterator[Path]) -> None:
        """Add the files that can be read, and report the others."""
        for path in paths:
            real = os.path.realpath(path)
            if real in self._real_paths:
                continue
            self._real_paths.add(real)
            source = source_of(path, name=self._name(path))
            try:
                source.prepare()
            except MissingLibraryError as error:
                self._count(f"that {error.reason}", path)
            except SourceError as error:
                self.skipped.append(SkippedInput(source=source.name, reason=error.reason, line=error.line))
            else:
                self.sources.append(source)

    def _walk(self, directory: Path, rules: IgnoreRules, *, is_top: bool = False) -> Iterator[Path]:
        """Yield the files to read in the tree, sorted, and count the others. Links to directories are not followed."""
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            problem = SourceError(self._name(directory), f"cannot be read: {error.strerror}")
            if is_top:
                raise problem from None
            self.skipped.append(SkippedInput(source=problem.source, reason=problem.reason))
            return
        for entry in entries:
            path = Path(entry.path)
            is_dir = entry.is_dir(follow_symlinks=False)
            if not is_dir and entry.is_dir():
                name = self._name(path)
                self.skipped.append(SkippedInput(source=name, reason="is a link to a directory, which is not followed"))
                continue
            if is_dir and entry.name in _TOOL_DIRECTORIES:
                continue
            reason = self._reason_to_skip(path, rules, is_dir=is_dir)
            if reason is not None:
                self._count_all(reason, path) if is_dir else self._count_readable(reason, path)
            elif is_dir:
                yield from self._walk(path, rules)
            elif self._is_wanted(path, is_supported=_is_supported(path)):
                yield path

    def _reason_to_skip(self, path: Path, rules: IgnoreRules, *, is_dir: bool) -> str | None:
        if path.name.startswith("."):
            return _HIDDEN
        if self._matches(self._exclude, path):
            return _EXCLUDED
        return _IGNORED if rules.matches(path, is_dir=is_dir) else None

    def _glob(self, argument: str) -> Iterator[Path]:
        """Yield the files to read that match, and count the others."""
        matches = sorted(glob.glob(argument, root_dir=self._base, recursive=True, include_hidden=True))
        if not matches:
            raise SourceError(_display_name(argument), "matches no file")
        literal = set(Path(argument).parts)
        rules = IgnoreRules(self._rules_top(self._base / _literal_start(argument)))
        # A pattern that ends with a suffix names a type, as a file that is named.
        names_type = _suffix_of_pattern(argument) != ""
        for match in matches:
            path = self._base / match
            if path.is_dir():
                continue
            parts = [part for part in Path(match).parts if part not in literal]
            if any(part in _TOOL_DIRECTORIES for part in parts):
                continue
            if any(part.startswith(".") and part != ".." for part in parts) and not _asks_for_hidden(argument):
                self._count(_HIDDEN, path)
            elif self._matches(self._exclude, path):
                self._count(_EXCLUDED, path)
            elif rules.matches(path):
                self._count(_IGNORED, path)
            elif self._is_wanted(path, is_supported=names_type or _is_supported(path)):
                yield path

    def _rules_top(self, directory: Path) -> Path:
        """Return the directory from which ``.gitignore`` files apply outside a repository."""
        return self._base if Path(os.path.abspath(directory)).is_relative_to(self._base) else directory

    def _is_wanted(self, path: Path, *, is_supported: bool) -> bool:
        """Return whether a file is included and supported, and count it if it is not."""
        included = [pattern for pattern in self._include if pattern.matches(self._parts(path))]
        if self._include and not included:
            self._count(_NOT_INCLUDED, path)
            return False
        if not is_supported and not any(pattern.suffix for pattern in included):
            self._count(_UNSUPPORTED, path)
            return False
        return True

    # --- the files that are skipped ---------------------------------------------------------------

    def _count(self, reason: str, path: Path) -> None:
        self._counts.setdefault(reason, Counter())[path.suffix.lower()] += 1

    def _count_readable(self, reason: str, path: Path) -> None:
        """Count a file, unless its type would not have been read anyway."""
        if _is_supported(path) or any(pattern.suffix == path.suffix for pattern in self._include):
            self._count(reason, path)

    def _count_all(self, reason: str, directory: Path) -> None:
        for _, directories, names in os.walk(directory):
            directories[:] = [name for name in directories if name not in _TOOL_DIRECTORIES]
            for name in names:
                self._count_readable(reason, Path(name))

    def _report_counts(self, argument: str) -> None:
        counts, self._counts = self._counts, {}
        for reason, suffixes in counts.items():
            total = pluralize(suffixes.total(), "file")
            self.skipped.append(
                SkippedInput(source=_display_name(argument), reason=f"{total} {reason} ({_format_suffixes(suffixes)})")
            )

    # --- names ------------------------------------------------------------------------------------

    def _matches(self, patterns: Sequence[_Pattern], path: Path) -> bool:
        return bool(patterns) and any(pattern.matches(self._parts(path)) for pattern in patterns)

    def _parts(self, path: Path) -> tuple[str, ...]:
        absolute = Path(os.path.abspath(path))
        return (absolute.relative_to(self._base) if absolute.is_relative_to(self._base) else absolute).parts

    def _name(self, path: Path) -> str:
        return _display_name(os.path.join(*self._parts(path)) if self._parts(path) else ".")


class _Pattern:
    """A glob of ``--include`` or ``--exclude``."""

    def __init__(self, text: str) -> None:
        self.suffix = _suffix_of_pattern(text)
        pattern = text.replace(os.sep, "/").removeprefix("./").rstrip("/")
        self._is_name = "/" not in pattern
        expression = glob_to_regex(pattern.lstrip("/") if not os.path.isabs(text) else pattern)
        self._regex = re.compile(expression)

    def matches(self, parts: tuple[str, ...]) -> bool:
        """Return whether the path, or a directory that it is in, matches."""
        if self._is_name:
            return any(self._regex.fullmatch(part) for part in parts)
        return any(self._regex.fullmatch("/".join(parts[: count + 1])) for count in range(len(parts)))


def glob_to_regex(pattern: str) -> str:
    """Return a regular expression for a glob: ``**/`` is any number of directories, ``*`` does not match ``/``."""
    result, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            result, at = result + "(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            result, at = result + ".*", at + 2
        elif pattern[at] == "*":
            result, at = result + "[^/]*", at + 1
        elif pattern[at] == "?":
            result, at = result + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) != -1:
            content = pattern[at + 1 : end].replace("\\", "\\\\")
            content = f"^{content[1:]}" if content.startswith("!") else content.replace("^", "\\^", 1)
            result, at = f"{result}[{content}]", end + 1
        else:
            result, at = result + re.escape(pattern[at]), at + 1
    return result


def _suffix_of_pattern(pattern: str) -> str:
    """Return the suffix with which a pattern ends, such as ``.py``, if that has no wildcard."""
    suffix = Path(pattern).suffix
    return "" if glob.has_magic(suffix) else suffix


def _literal_start(pattern: str) -> str:
    """Return the directories before the first wildcard."""
    parts = Path(pattern).parts
    count = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.path.join("", *parts[:count])


def _asks_for_hidden(pattern: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in Path(pattern).parts)


def _format_suffixes(suffixes: Counter[str]) -> str:
    """Return the numbers by suffix, the most first: ``12 .py, 1 without suffix``."""
    items = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    parts = [
        f"{count} {_display_name(suffix) if suffix else 'without suffix'}" for suffix, count in items[:_MAX_SUFFIXES]
    ]
    rest = items[_MAX_SUFFIXES:]
    if rest:
        parts.append(f"{sum(count for _, count in rest)} of {pluralize(len(rest), 'other type')}")
    return ", ".join(parts)


def _display_name(name: str) -> str:
    """Return a file name for citations and messages, without control characters and invalid Unicode."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t").replace(os.sep, "/")


def _is_supported(path: Path) -> bool:
    if not path.suffix:
        return path.name.lower() in _NAMES_WITHOUT_SUFFIX
    return path.suffix.lower() in SUFFIXES
