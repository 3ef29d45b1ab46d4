"""HTML, by the parser of the standard library, which tells the line of each piece of text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean

_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "title"})
_ROWS = frozenset({"li", "tr", "dd", "dt", "option"})
"""One below the other in one segment, if they have lines of their own."""

_BLOCKS = frozenset(
    "address article aside blockquote body caption center details dialog dir div dl fieldset figcaption figure "  # noqa: SIM905  # short
    "footer form head header hgroup hr html legend main menu nav ol p pre section select summary table tbody tfoot "
    "thead textarea ul".split()
)
_CELLS = frozenset({"td", "th"})
_LEFT_OUT = ("script", "style", "template", "svg", "nav")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([-\w]{1,40})""", re.IGNORECASE)
_WHITE_SPACE = re.compile(r"[ \t\r\f\v]+")
_MAX_LINES = 200


class HTMLSource(DocumentSource):
    """A web page: its text without tags, scripts and navigation. Places are lines of the file.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    format_name = "HTML"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        parser = HTMLTextParser(_decode(self.name, data.getvalue()))
        yield from parser.segments()
        if parser.navigation_size:
            yield self._skip(f"{parser.navigation_size:,} characters of navigation were left out")


def _decode(name: str, data: bytes) -> str:
    declared = _CHARSET.search(data, 0, 4096)
    encoding = "utf-8-sig"
    if declared is not None and not data.startswith(b"\xef\xbb\xbf"):
        encoding = declared[1].decode("ascii")
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except LookupError:
        raise SourceError(name, f"declares an unknown encoding: {encoding}; convert it to UTF-8") from None
    except UnicodeDecodeError as error:
        encoding = encoding.removesuffix("-sig").upper()
        reason = f"is not {encoding} (byte {error.start + 1}); convert it, for example with iconv -f LATIN1 -t UTF-8"
        raise SourceError(name, reason, line=data.count(b"\n", 0, error.start) + 1) from None


class HTMLTextParser(HTMLParser):
    """Collects the text of a page in segments whose lines are those of the page.

    Args:
        text: The page.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.navigation_size = 0
        self._text = text
        # An element without an end would take the rest of the page with it.
        lower = text.lower()
        self._left_out = {tag for tag in _LEFT_OUT if lower.count(f"<{tag}") <= lower.count(f"</{tag}")}
        self._skipping: list[str] = []
        self._ready: list[Segment] = []
        self._lines: dict[int, str] = {}
        self._is_heading = self._after_heading = False
        self._cell_break = self._row_break = False
        self._preformatted = 0

    def segments(self) -> Iterator[Segment]:
        """Yield the segments."""
        for start in range(0, len(self._text), 1 << 16):
            self.feed(self._text[start : start + (1 << 16)])
            yield from self._take()
        self.close()
        self._flush()
        yield from self._take()

    def _take(self) -> Iterator[Segment]:
        ready, self._ready = self._ready, []
        yield from ready

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # of the base class
        if self._skipping or tag in self._left_out:
            if tag in self._left_out:
                self._skipping.append(tag)
            return
        self._break(tag)
        self._preformatted += tag == "pre"
        if tag in _HEADINGS:
            self._flush()
            self._is_heading = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # as above
        if not self._skipping and tag not in self._left_out:
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag in self._skipping:
                del self._skipping[self._skipping.index(tag) :]
            return
        self._break(tag)
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag in _HEADINGS:
            self._flush()
            self._is_heading = False

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._flush()
        elif tag == "br":
            self._add_space()
        elif tag in _ROWS:
            self._row_break = True
        elif tag in _CELLS:
            self._cell_break = True

    def handle_data(self, data: str) -> None:
        if self._skipping:
            self.navigation_size += len(data.strip()) if "nav" in self._skipping else 0
            return
        number, _ = self.getpos()
        for offset, line in enumerate(data.split("\n")):
            if line.strip():
                self._add(number + offset, line)
            elif line and number + offset in self._lines:
                self._add_space()

    def _add_space(self) -> None:
        if self._lines:
            self._lines[max(self._lines)] += " "

    def _add(self, number: int, line: str) -> None:
        last = max(self._lines, default=number)
        is_same_line = number in self._lines
        if self._row_break and (is_same_line or len(self._lines) >= _MAX_LINES):
            self._flush()
        elif number - last > 2 or number - min(self._lines, default=number) >= _MAX_LINES:
            self._flush(continues=True)  # tags in between, and no text
        elif self._cell_break and self._lines and not self._row_break:
            self._lines[last] = self._lines[last].rstrip() + " | "
        self._row_break = self._cell_break = False
        before = self._lines.get(number, "")
        text = line if self._preformatted else _WHITE_SPACE.sub(" ", line if before else line.lstrip())
        self._lines[number] = before + text

    def _flush(self, *, continues: bool = False) -> None:
        lines, self._lines = self._lines, {}
        self._row_break = self._cell_break = False
        if not any(line.strip() for line in lines.values()):
            return
        first, last = min(lines), max(lines)
        text = "\n".join(lines.get(number, "").rstrip() for number in range(first, last + 1))
        boundary = 2 if self._is_heading else 0 if self._after_heading else 1
        self._after_heading = self._is_heading or continues
        self._ready.append(Segment(text=clean(text), first=first, last=last, boundary=boundary))
