"""Text documents of LibreOffice and OpenOffice."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element  # only a type here

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.documents.archive import Archive, attribute, find, find_all, local_name
from ctxbackends.knowledge._sources.documents.base import DocumentSource
from ctxbackends.knowledge._sources.documents.blocks import Block, build_segments

_LEFT_OUT = frozenset(
    {"tracked-changes", "covered-table-cell", "note-citation", "ruby-text", "sequence-decls", "forms"}
)
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")


class ODTSource(DocumentSource):
    """An OpenDocument text, with insertions and without deletions. Places are paragraphs; a table row counts as one.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "paragraph"
    format_name = "ODT"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        if not zipfile.is_zipfile(data):
            raise SourceError(self.name, "cannot be read as ODT: it is not a zip archive")
        archive = Archive(data)
        if b"encryption-data" in archive.read("META-INF/manifest.xml", max_bytes=1 << 20):
            raise SourceError(self.name, "is encrypted; save it without a password first")
        yield from build_segments(_blocks(archive.iter_elements("content.xml", depth=3)))
        objects = sum(name.count("/") == 1 and name.endswith("/content.xml") for name in archive.names)
        if objects:
            yield self._skip(f"{pluralize(objects, 'embedded object')} left out")


def _blocks(elements: Iterable[Element]) -> Iterator[Block]:
    for element in elements:
        name = local_name(element)
        if name in ("p", "h"):
            block = Block(is_heading=name == "h")
            block.text = _collect(element, block).strip()
            yield block
        elif name == "table":
            yield from _rows(element)
        elif name not in _LEFT_OUT:
            yield from _blocks(element)


def _rows(table: Element) -> Iterator[Block]:
    for row in find_all(table, "table-row"):
        whole = Block()
        for cell in find_all(row, "table-cell"):
            content = Block()
            for block in _blocks(cell):
                content.add(block, separator="\n")
            whole.add(content, separator=" | ")
        yield whole


def _collect(element: Element, block: Block) -> str:
    """Return the text in an element; add the notes in it to the block."""
    parts = [_WHITE_SPACE.sub(" ", element.text or "")]
    for child in element:
        name = local_name(child)
        if name == "s":
            parts.append(" " * min(int(attribute(child, "c") or 1), 1000))
        elif name == "tab":
            parts.append("\t")
        elif name == "line-break":
            parts.append("\n")
        elif name == "note":
            body = find(child, "note-body")
            block.notes.append((attribute(child, "note-class") or "footnote", _join(body if body is not None else ())))
        elif name == "annotation":
            author = find(child, "creator")
            label = f"comment by {author.text}" if author is not None and author.text else "comment"
            block.notes.append((label, _join(child)))
        elif name == "text-box":
            for inner in _blocks(child):
                block.notes += [("text box", inner.text), *inner.notes]
        elif name not in _LEFT_OUT and name not in ("title", "desc"):
            parts.append(_collect(child, block))
        parts.append(_WHITE_SPACE.sub(" ", child.tail or ""))
    return "".join(parts)


def _join(elements: Iterable[Element]) -> str:
    return "\n".join(block.text for block in _blocks(elements) if block.text)
