"""Find the file `.ctxrc` and read its text."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ctxbackends.errors import ConfigError, NoBackendConfiguredError

FILE_NAME = ".ctxrc"
MAX_FILE_SIZE = 128 * 1024
"""In bytes. A larger file is probably not a configuration, and YAML is slow to read: half a minute for a megabyte."""


def find_ctxrc(start: Path | None = None) -> Path | None:
    """Return the nearest ``.ctxrc`` from ``start`` (by default the working directory) upwards; None without one.

    A directory or a pipe of that name is returned too. Reading it is an error: a file further up could have other
    settings, such as no airgap.
    """
    try:
        folder = Path(os.path.abspath(start if start is not None else os.curdir))
    except FileNotFoundError:  # the working directory was deleted
        return None
    for candidate in (folder, *folder.parents):
        if os.path.lexists(candidate / FILE_NAME):
            return candidate / FILE_NAME
    return None


def no_ctxrc() -> str:
    """Return the message for no file: it has the directory where the search began."""
    try:
        return f"no {FILE_NAME} in {os.getcwd()} or a directory above it"
    except FileNotFoundError:
        return f"no {FILE_NAME}: the working directory was deleted"


def no_backend_error(path: Path | None) -> NoBackendConfiguredError:
    """Return the error for no backend in the file ``path``; None if there is no file."""
    where = no_ctxrc() if path is None else f"{path} has no backends"
    return NoBackendConfiguredError(f"no backend configured; run ctx setup --backend <name> ({where})")


def read_text(path: Path) -> str:
    """Return the text of the file, with its line ends and byte order mark.

    Raises:
        ConfigError: The file cannot be read, is too large, or is not UTF-8.
    """
    return decode_text(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return the content of the file.

    Raises:
        ConfigError: It is not a regular file, cannot be read, or is too large.
    """
    try:
        # Checked before opening: opening a pipe waits for its writer.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            problem = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            raise ConfigError(f"{problem}; {FILE_NAME} must be a text file", path=str(path))
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        link = "is a link to a file that does not exist" if os.path.lexists(path) else None
        problem = link if link and isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ConfigError(problem, path=str(path)) from error
    except ValueError:  # a NUL in the path
        raise ConfigError("is not a valid path", path=ascii(str(path))) from None
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"is too large: more than {MAX_FILE_SIZE} bytes; is it the right file?", path=str(path))
    return data


def decode_text(data: bytes, path: Path) -> str:
    """Return ``data``, the content of the file, as text. Raises ConfigError with the line if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
    # Raised here, so that __context__ is not the decoder's error, which contains the whole file.
    raise ConfigError("is not UTF-8 text", path=str(path), line=data.count(b"\n", 0, start) + 1)
