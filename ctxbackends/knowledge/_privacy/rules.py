"""What may leave this machine: where an endpoint is, and which files `.ctxrc` keeps from going further. Knows no run.

What cannot be told counts as outside, and a file that might be meant counts as meant.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from ctxbackends._http.addresses import is_inside, is_localhost


async def is_private(endpoint: str) -> bool:
    """Whether ``endpoint`` is on this machine or in a private network; a name is where all its addresses are. One that
    does not resolve is nowhere."""
    host = urlsplit(endpoint).hostname or ""
    if not host or is_localhost(host):
        return bool(host)
    told = is_inside(host)
    if told is not None:
        return told
    try:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(is_inside(str(one[4][0]).partition("%")[0]) is True for one in found)


def is_redacted(path: Path, globs: Sequence[str], *, root: Path) -> bool:
    """Whether one of ``globs`` means ``path``: as it is given, or where its links lead.

    A pattern without ``/`` means a file or directory of that name anywhere, with it one relative to ``root``; what
    means a directory means all below it. ``*`` also goes over ``/``: a pattern rather means too much.
    """
    if not globs:
        return False
    written = Path(os.path.abspath(path))
    return any(_means(glob, one, base) for one in {written, path.resolve()} for base in _bases(root) for glob in globs)


def _bases(root: Path) -> set[Path]:
    return {Path(os.path.abspath(root)), root.resolve()}


def _means(glob: str, path: Path, root: Path) -> bool:
    inside = path.is_relative_to(root)
    names = [part.casefold() for part in (path.relative_to(root).parts if inside else path.parts[1:])]
    pattern = glob.strip("/").casefold()
    if "/" not in glob.rstrip("/"):
        return any(fnmatchcase(name, pattern) for name in names)
    # "**/" is any number of directories, none included; fnmatch's "*" goes over "/" by itself.
    forms = {pattern, pattern.replace("**/", ""), pattern.removesuffix("/**")}
    below = ["/".join(names[: count + 1]) for count in range(len(names))]
    return any(fnmatchcase(one, form) for one in below for form in forms)
