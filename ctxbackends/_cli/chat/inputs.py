"""The inputs of chat: standard input, files and images, before anything is sent."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.live_line import LINE
from ctxbackends._cli.text_inputs import decode_utf8

if TYPE_CHECKING:
    from ctxbackends._chat.media import FilePart, ImagePart
    from ctxbackends._chat.messages import Message, TextPart

SILENT_SECONDS = 1.0
"""Seconds without standard input after which a line says that it is read."""


def read_prompt(argument: str | None, *, skip_stdin: bool, is_quiet: bool) -> str | None:
    """Return standard input, if it is not a terminal, and the prompt after it.

    Args:
        argument: The prompt; ``-`` for standard input, also if that is a terminal.
        skip_stdin: Do not read standard input.
        is_quiet: Do not say that standard input is read.

    Returns:
        The text, None if there is neither.

    Raises:
        UsageError: The prompt or standard input is empty.
        ClickException: One of them is not UTF-8, or standard input cannot be read.
    """
    if argument == "-" and skip_stdin:
        raise click.UsageError("- names standard input; remove it or --no-stdin")
    if argument == "-" and sys.stdin is None:
        raise click.UsageError("no prompt; pass it as an argument or on standard input")
    prompt = None
    if argument is not None and argument != "-":
        prompt = decode_utf8(argument.encode("utf-8", "surrogateescape"), "the prompt")
    if prompt is not None and not prompt.strip():
        raise click.UsageError("the prompt is empty")
    if argument != "-" and (skip_stdin or sys.stdin is None or sys.stdin.isatty()):
        return prompt
    text = decode_utf8(_read_stdin(None if is_quiet else _describe_reading(prompt)), "the prompt on standard input")
    if not text.strip():
        if prompt is None:
            raise click.UsageError("the prompt on standard input is empty")
        return prompt
    return text if prompt is None else f"{text} {prompt}"  # as llm joins them


def _describe_reading(prompt: str | None) -> str:
    if prompt is None:
        return "reading the prompt from standard input"
    return "reading standard input, which comes before the prompt; --no-stdin skips it"


def _read_stdin(notice: str | None) -> bytes:
    chunks: list[bytes] = []
    is_over = threading.Event()

    def watch() -> None:
        count = 0
        while not is_over.wait(SILENT_SECONDS):
            if len(chunks) == count:
                LINE.erase()
                sys.stderr.write(f"{notice}\n")
                sys.stderr.flush()
                return
            count = len(chunks)

    if notice is not None and sys.stderr is not None:
        threading.Thread(target=watch, daemon=True).start()
    stdin: Any = sys.stdin.buffer  # read1() returns what is there
    try:
        while chunk := stdin.read1(1 << 16):
            chunks.append(chunk)
    except OSError as error:
        if error.errno != errno.EBADF:  # it is open for writing only, as nohup opens it
            raise click.ClickException(f"standard input: {error.strerror}") from None
    finally:
        is_over.set()
    return b"".join(chunks)


# --- files ---------------------------------------------------------------------------------------------


def load_file(name: str) -> TextPart | FilePart:
    """Return a text file under its name, or a PDF document.

    Raises:
        ClickException: The file cannot be read, or is neither.
    """
    from ctxbackends._chat.media import FilePart  # not loaded before the first line on the terminal
    from ctxbackends._chat.messages import TextPart

    data = _read(name)
    if data.startswith(b"%PDF-"):
        return FilePart.from_bytes(data, name=Path(name).name)
    if _is_image(data):
        raise click.ClickException(f"{name}: an image; pass it with --image")
    if b"\0" in data:
        raise click.ClickException(f"{name}: not a text file")
    text = decode_utf8(data.removeprefix(b"\xef\xbb\xbf"), f"{name}:")
    end = "" if text.endswith("\n") else "\n"
    return TextPart(f'<file name="{name}">\n{text}{end}</file>\n')


def load_image(name: str) -> ImagePart:
    """Return an image from a file or a URL, which the server fetches.

    Raises:
        ClickException: The file cannot be read, or is not an image.
    """
    from ctxbackends._chat.media import ImagePart

    if name.lower().startswith(("http://", "https://", "data:")):
        try:
            return ImagePart.from_url(name)
        except ValueError as error:
            raise click.ClickException(f"--image: {error}") from None
    try:
        return ImagePart.from_bytes(_read(name))
    except ValueError:
        raise click.ClickException(f"{name}: not a PNG, JPEG, GIF or WebP image") from None


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        hint = "; standard input is read without an option" if name == "-" else ""
        raise click.ClickException(f"{name}: no such file{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise click.ClickException(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _is_image(data: bytes) -> bool:
    from ctxbackends._chat.media import ImagePart

    try:
        ImagePart.from_bytes(data)
    except ValueError:
        return False
    return True


def build_message(prompt: str, files: Sequence[TextPart | FilePart] = (), images: Sequence[ImagePart] = ()) -> Message:
    """Return the user's message: images, documents, text files, and the prompt."""
    from ctxbackends._chat.media import FilePart
    from ctxbackends._chat.messages import Message, TextPart

    text = "".join(part.text for part in files if isinstance(part, TextPart)) + prompt
    documents = [part for part in files if isinstance(part, FilePart)]
    if not images and not documents:
        return Message.user(text)
    return Message.user([*images, *documents, *([text] if text else [])])
