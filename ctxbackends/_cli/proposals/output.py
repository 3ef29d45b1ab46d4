"""Write the files that a command creates, and replace none by accident."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ctxbackends._util.files import create_file, replace_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors


def write_files(files: Mapping[Path, str], *, force: bool) -> None:
    """Write the files, none if one exists with another text, and print those that are new."""
    changes = {path: text.encode() for path, text in files.items() if not _has_content(path, text)}
    existing = [str(path) for path in changes if path.exists()]
    if existing and not force:
        raise ProposalError(f"file exists with other content: {', '.join(existing)}; use --force to replace it")
    for path, data in changes.items():
        with wrap_write_errors(path):
            if force:
                replace_file(path, data)
            elif not create_file(path, data):
                raise ProposalError(f"file exists with other content: {path}; use --force to replace it")
        click.echo(str(path))


def _has_content(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ProposalError(f"cannot write {path}: {error.strerror}") from error
