"""Which files ``privacy.redact`` of ``.ctxrc`` keeps from others. In doubt a file matches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path


def is_redacted(path: Path, globs: Sequence[str], *, root: Path) -> bool:
    """Return whether a glob matches the path, before or after its links are resolved.

    A glob without ``/`` matches a name anywhere; with ``/`` it is relative to ``root``. Matching a directory matches
    its contents. ``*`` also matches ``/``, so that a glob rather matches too much.

    Args:
        path: The file.
        globs: The globs.
        root: The directory that globs are relative to.
    """
    if not globs:
        return False
    paths = {Path(os.path.abspath(path)), path.resolve()}
    roots = {Path(os.path.abspath(root)), root.resolve()}
    return any(_matches(glob, path, root) for path in paths for root in roots for glob in globs)


def _matches(glob: str, path: Path, root: Path) -> bool:
    is_inside_root = path.is_relative_to(root)
    names = [part.casefold() for part in (path.relative_to(root).parts if is_inside_root else path.parts[1:])]
    pattern = glob.strip("/").casefold()
    if "/" not in glob.rstrip("/"):
        return any(fnmatchcase(name, pattern) for name in names)
    # "**/" matches any number of directories, or none; the "*" of fnmatch matches "/" too.
    forms = {pattern, pattern.replace("**/", ""), pattern.removesuffix("/**")}
    prefixes = ["/".join(names[: count + 1]) for count in range(len(names))]
    return any(fnmatchcase(one, form) for one in prefixes for form in forms)
