"""Session transcripts of coding agents and chats: one reader a format, and a table of the formats."""

from __future__ import annotations

from collections.abc import Iterator

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Segment
from ctxbackends.knowledge._sources.files import FileSource, scan
from ctxbackends.knowledge._sources.transcripts.feed import MAX_LINE as MAX_LINE
from ctxbackends.knowledge._sources.transcripts.feed import Feed
from ctxbackends.knowledge._sources.transcripts.formats import NAMES, Format, UnknownFormatError, recognize


class TranscriptSource(FileSource):
    """A transcript of Claude Code, Codex, Copilot CLI, Cursor, Gemini CLI, ChatGPT or aider, or text with speakers.

    The format is recognized by the content. Places are lines; what cannot be read is reported and skipped.

    Args:
        path: The file.
        name: The name in citations; the path by default.
        opener: Opens the file at its beginning; by default it is opened by its path.
    """

    _format: Format | None = None

    @property
    def format(self) -> str | None:
        """The name of the format; None before ``prepare``."""
        return self._format.name if self._format is not None else None

    def prepare(self) -> Input:
        """Read the file once; see :meth:`Source.prepare`."""
        with self._open() as file:
            self._input = scan(self.name, file, strict=False)  # invalid bytes are reported with their line
        try:
            self._format = recognize(self._feed())
        except UnknownFormatError as error:
            raise SourceError(self.name, f"is {error}, not a transcript that can be read ({_LIST})") from None
        if self._format is None:
            raise SourceError(self.name, f"is not a transcript ({_LIST})")
        if not any(isinstance(piece, Segment) for piece in self.pieces()):
            raise SourceError(self.name, f"is a transcript of {self._format.name} without a message")
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments and the skipped lines; see :meth:`Source.pieces`."""
        assert self._format is not None, "call prepare() first"
        yield from self._format.read(self._feed())

    def _feed(self) -> Feed:
        return Feed(self._require_input(), self._open)


_LIST = f"known: {', '.join(NAMES)}"
