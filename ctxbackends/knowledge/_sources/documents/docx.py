"""Word documents. A library for them would lose text: see docs/knowledge."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element  # only a type here

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.archive import Archive, alternative, attribute, find, find_all, local_name
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean
from ctxbackends.knowledge._sources.documents.blocks import Block, build_segments

_DELETED = frozenset({"del", "moveFrom", "delText", "delInstrText"})
_PROPERTIES = frozenset({"pPr", "rPr", "tblPr", "tcPr", "sdtPr", "sdtEndPr", "instrText", "rt", "sectPr"})
_CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
_REFERENCES = {"footnoteReference": "footnote", "endnoteReference": "endnote", "commentReference": "comment"}


class DOCXSource(DocumentSource):
    """A Word document, with insertions and without deletions. Places are paragraphs; a table row counts as one.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "paragraph"
    format_name = "DOCX"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        if not zipfile.is_zipfile(data):
            raise SourceError(
                self.name, "cannot be read as DOCX: it is not a zip archive; save a .doc file as .docx first"
            )
        data.seek(0)
        reader = _Reader(Archive(data))
        yield from reader.segments()
        if reader.margin_size:
            yield self._skip(f"{reader.margin_size:,} characters of headers and footers were left out")
        if reader.charts:
            yield self._skip(f"{pluralize(reader.charts, 'chart')} left out")
        if reader.embedded:
            yield self._skip(f"{pluralize(reader.embedded, 'embedded document')} left out")


class _Reader:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.charts = self.embedded = 0
        self._main = archive.main_part()
        self._links = archive.relationships(self._main)
        self._parts = {link.kind: link.target for link in self._links.values()}
        self._headings = self._read_headings()
        self._comments: dict[str, tuple[str, str]] = {}
        self._notes: dict[str, dict[str, tuple[str, str]]] = {"comment": self._comments}
        for comment in self._read_part("comments", "comment"):
            author = attribute(comment, "author")
            self._comments[attribute(comment, "id")] = (
                f"comment by {author}" if author else "comment",
                self._join(comment),
            )
        for kind in ("footnote", "endnote"):
            notes = self._read_part(f"{kind}s", kind)
            self._notes[kind] = {attribute(note, "id"): (kind, self._join(note)) for note in notes}
        self.margin_size = sum(
            len(self._join(archive.parse(link.target)))
            for link in self._links.values()
            if link.kind in ("header", "footer") and link.target in archive
        )

    def segments(self) -> Iterator[Segment]:
        """Yield the paragraphs and rows in their order, each followed by its notes."""
        number = yield from build_segments(self._blocks(self._archive.iter_elements(self._main, depth=2)))
        for label, text in self._comments.values():  # comments on text that is not in the body
            if text.strip():
                yield Segment(text=clean(text), first=max(1, number), last=max(1, number), label=label)

    def _blocks(self, elements: Iterable[Element]) -> Iterator[Block]:
        for element in elements:
            name = local_name(element)
            if name == "p":
                yield self._paragraph(element)
            elif name == "tbl":
                yield from self._rows(element)
            elif name == "altChunk":
                self.embedded += 1
            elif name == "sdt" and _is_placeholder(element):
                continue
            elif name == "AlternateContent":
                yield from self._blocks(alternative(element))
            elif name not in _DELETED and name not in _PROPERTIES:
                yield from self._blocks(element)

    def _rows(self, table: Element) -> Iterator[Block]:
        for row in find_all(table, "tr"):
            properties = find(row, "trPr")
            if properties is not None and find(properties, "del") is not None:
                continue
            whole = Block()
            for cell in find_all(row, "tc"):
                content = Block()
                for block in self._blocks(cell):
                    content.add(block, separator="\n")
                content.text = content.text.strip()
                whole.add(content, separator=" | ")
            yield whole

    def _paragraph(self, paragraph: Element) -> Block:
        parts: list[str] = []
        block = Block(is_heading=self._is_heading(paragraph))
        self._collect(paragraph, parts, block)
        block.text = "".join(parts)
        return block

    def _collect(self, element: Iterable[Element], parts: list[str], block: Block) -> None:
        """Add the text below an element to ``parts``, and what it refers to, to the block."""
        for child in element:
            name = local_name(child)
            if name == "t":
                parts.append(child.text or "")
            elif name in _CHARACTERS:
                parts.append(_CHARACTERS[name])
            elif name in _REFERENCES:
                kind = _REFERENCES[name]
                notes = self._notes[kind]
                note = (
                    notes.pop(attribute(child, "id"), None) if kind == "comment" else notes.get(attribute(child, "id"))
                )
                if note is not None:
                    block.notes.append(note)
            elif name == "txbxContent":
                for inner in self._blocks(child):
                    block.notes += [("text box", inner.text), *inner.notes]
            elif name == "relIds":
                block.notes.append(("diagram", self._read_diagram(attribute(child, "dm"))))
            elif name == "AlternateContent":
                self._collect(alternative(child), parts, block)
            elif name == "sdt" and _is_placeholder(child):
                continue
            elif name not in _DELETED and name not in _PROPERTIES:
                self.charts += name == "chart"
                self.embedded += name == "OLEObject"
                self._collect(child, parts, block)

    def _is_heading(self, paragraph: Element) -> bool:
        properties = find(paragraph, "pPr")
        if properties is None:
            return False
        style, level = find(properties, "pStyle"), find(properties, "outlineLvl")
        if level is not None:
            return attribute(level, "val") != "9"  # 9 is body text
        return style is not None and attribute(style, "val") in self._headings

    def _read_headings(self) -> set[str]:
        """Return the ids of the styles of headings. Ids are translated, names are not; a style may be based on one."""
        part = self._parts.get("styles")
        if part is None or part not in self._archive:
            return set()
        bases, headings = {}, set()
        for style in self._archive.parse(part):
            if local_name(style) != "style":
                continue
            key = attribute(style, "styleId")
            name, base, level = find(style, "name"), find(style, "basedOn"), find(style, "pPr", "outlineLvl")
            if base is not None:
                bases[key] = attribute(base, "val")
            is_named = name is not None and attribute(name, "val").lower().startswith(("heading", "title"))
            if is_named or (level is not None and attribute(level, "val") != "9"):
                headings.add(key)
        for key in bases:
            base_key, seen = key, {key}
            while base_key not in headings and (base_key := bases.get(base_key, "")) and base_key not in seen:
                seen.add(base_key)
            if base_key in headings:
                headings.add(key)
        return headings

    def _read_part(self, kind: str, name: str) -> Iterator[Element]:
        part = self._parts.get(kind)
        if part is not None and part in self._archive:
            yield from (element for element in self._archive.parse(part) if local_name(element) == name)

    def _read_diagram(self, key: str) -> str:
        link = self._links.get(key)
        if link is None or link.target not in self._archive:
            return ""
        return "\n".join("".join(text.itertext()) for text in find_all(self._archive.parse(link.target), "t"))

    def _join(self, element: Element) -> str:
        return "\n".join(block.text for block in self._blocks(element) if block.text.strip())


def _is_placeholder(control: Element) -> bool:
    """Whether a content control shows only its hint, such as "Click here to enter text"."""
    return find(control, "sdtPr", "showingPlcHdr") is not None
