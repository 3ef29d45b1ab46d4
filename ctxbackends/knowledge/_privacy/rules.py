"""The privacy rules: which endpoints are private, and which files ``privacy.redact`` of ``.ctxrc`` keeps from others.

In doubt an endpoint is public, and a file matches.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from ctxbackends._http.addresses import is_localhost, is_private_address


async def is_private(endpoint: str) -> bool:
    """Return whether an endpoint is on this machine or in a private network.

    A host name is private if all its addresses are. One that cannot be resolved is public.
    """
    host = urlsplit(endpoint).hostname or ""
    if not host or is_localhost(host):
        return bool(host)
    is_address_inside = is_private_address(host)
    if is_address_inside is not None:
        return is_address_inside
    try:
        addresses = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(is_private_address(str(one[4][0]).partition("%")[0]) is True for one in addresses)


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
