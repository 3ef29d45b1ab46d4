"""Write the files that a command creates, and replace none by accident."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from ctxbackends._util.files import create_file, replace_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.store import check_not_context, find_context


def write_file(path: Path, text: str, *, force: bool) -> None:
    """Write a file, which must not be in the context directory itself, and print its path if it is new."""
    check_not_context(Path(os.path.realpath(path)).parent, context=find_context())
    write_files({path: text}, force=force)


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
