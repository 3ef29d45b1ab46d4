"""Texts from arguments, standard input and files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

STDIN = Path("-")


def decode_utf8(data: bytes, name: str, *, encoding: str = "utf-8") -> str:
    """Return the text of ``data``. Raises ClickException, which begins with ``name``, if it is not UTF-8."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise click.ClickException(
            f"{name} is not UTF-8 (byte {error.start + 1}); convert it, for example with iconv -t UTF-8"
        ) from None


def read_prompt(argument: str | None) -> str:
    """Return the prompt from the argument or standard input. Raises UsageError if it is empty or not UTF-8."""
    if argument is None or argument == "-":
        if sys.stdin is None or (argument is None and sys.stdin.isatty()):  # None: it was closed
            raise click.UsageError("no prompt; pass it as an argument or on standard input")
        raw = sys.stdin.buffer.read()
        where = "the prompt on standard input"
    else:
        raw = argument.encode("utf-8", "surrogateescape")
        where = "the prompt"
    text = decode_utf8(raw, where)
    if not text.strip():
        raise click.UsageError(f"{where} is empty")
    return text


def read_text(path: Path) -> str:
    """Return the text of a file, ``-`` for standard input.

    Raises:
        UsageError: Standard input is a terminal or closed.
        ClickException: The file cannot be read, or is not UTF-8.
    """
    if path == STDIN:
        if sys.stdin is None or sys.stdin.isatty():  # None: it was closed
            raise click.UsageError("no text; pass it as an argument or on standard input")
        raw, name = sys.stdin.buffer.read(), "standard input"
    else:
        try:
            raw, name = path.read_bytes(), str(path)
        except OSError as error:
            raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    return decode_utf8(raw, name, encoding="utf-8-sig")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, ``-`` for standard input. Raises ClickException if one is empty, or all are."""
    lines = read_text(path).split("\n")
    if not lines[-1]:
        del lines[-1]
    lines = [line.removesuffix("\r") for line in lines]
    name = "standard input" if path == STDIN else str(path)
    if not lines:
        raise click.ClickException(f"{name} is empty")
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if empty:
        raise click.ClickException(f"{name}: line {empty[0]} is empty, and an empty text has no vector; remove it")
    return lines
