"""The rules of ``.gitignore`` files."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxbackends.knowledge._errors import MissingLibraryError

Specs = tuple[tuple[str, Any], ...]


class IgnoreRules:
    """The ``.gitignore`` files of the directories from a root down to each file. Each is read once.

    Args:
        top: The directory that the user named, or the one that a glob is relative to. The rules of the repository's
            root, if it is in one, and of all directories in between apply as well.
    """

    def __init__(self, top: Path) -> None:
        directory = os.path.abspath(top)
        self._root = _repository_root(directory) or directory
        self._specs: dict[str, Specs] = {}
        self._ignored_directories: dict[str, bool] = {self._root: False}

    def matches(self, path: Path, *, is_dir: bool = False) -> bool:
        """Return whether a file or directory is ignored, itself or with a directory that it is in."""
        absolute = os.path.abspath(path)
        parent = os.path.dirname(absolute)
        if self._is_ignored_directory(parent):  # no rule brings back what is in it
            return True
        name = absolute + ("/" if is_dir else "")
        is_ignored = False
        for directory, spec in self._specs_of(parent):  # the nearest file decides
            include = spec.check_file(name[len(directory) + 1 :].replace(os.sep, "/")).include
            is_ignored = is_ignored if include is None else include
        return is_ignored

    def _is_ignored_directory(self, directory: str) -> bool:
        is_ignored = self._ignored_directories.get(directory)
        if is_ignored is None:
            is_ignored = self._is_below_root(directory) and self.matches(Path(directory), is_dir=True)
            self._ignored_directories[directory] = is_ignored
        return is_ignored

    def _specs_of(self, directory: str) -> Specs:
        specs = self._specs.get(directory)
        if specs is None:
            parent = os.path.dirname(directory)
            is_top = parent == directory or not self._is_below_root(directory)
            specs = (() if is_top else self._specs_of(parent)) + _read_spec(directory)
            self._specs[directory] = specs
        return specs

    def _is_below_root(self, directory: str) -> bool:
        return directory != self._root and directory.startswith(os.path.join(self._root, ""))


def _repository_root(directory: str) -> str | None:
    while not os.path.exists(os.path.join(directory, ".git")):
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent
    return directory


def _read_spec(directory: str) -> Specs:
    path = os.path.join(directory, ".gitignore")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            # pathspec matches the directory itself with "docs/**", git only its contents.
            lines = [f"{line}/*" if line.endswith("/**") else line for line in file.read().splitlines()]
    except OSError:
        return ()
    try:
        pathspec = import_module("pathspec")
    except ImportError:
        raise MissingLibraryError(
            path, "cannot be applied without pathspec; run pip install 'ctxbackends[documents]'"
        ) from None
    return ((directory.rstrip(os.sep), pathspec.GitIgnoreSpec.from_lines(lines)),)
