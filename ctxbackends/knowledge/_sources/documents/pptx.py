"""PowerPoint presentations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from xml.etree.ElementTree import Element  # only a type here

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.archive import Archive, alternative, attribute, find, find_all, local_name
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean, summarize

_TITLES = ("title", "ctrTitle")
_REPEATED = ("sldNum", "dt", "ftr", "hdr", "sldImg")
_LABELS = {"notesSlide": "speaker notes", "comments": "comment", "diagramData": "diagram"}


class PPTXSource(DocumentSource):
    """A PowerPoint presentation. Places are slides; a slide that cannot be read is reported and skipped.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "slide"
    format_name = "PPTX"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        archive = Archive(data)
        main = archive.main_part()
        links = archive.relationships(main)
        slides = [
            links[key].target
            for slide in find_all(archive.parse(main), "sldId")
            for name, key in slide.items()
            if name.endswith("}id") and key in links
        ]
        charts = 0
        for number, part in enumerate(slides, 1):
            try:
                texts = list(_read_slide(archive, part))
                charts += sum(link.kind in ("chart", "chartEx") for link in archive.relationships(part).values())
            except Exception as error:  # noqa: BLE001  # as in _convert_all, for one slide
                yield self._skip(f"slide {number} cannot be read: {summarize(error)}")
                continue
            boundary = 2
            for text, label in texts:
                yield Segment(text=clean(text), first=number, last=number, boundary=boundary, label=label)
                boundary = 1 if boundary != 2 else 0
        if charts:
            yield self._skip(f"{pluralize(charts, 'chart')} left out")


def _read_slide(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a slide, its title first, and the labels of those that are not on the slide itself."""
    shapes = sorted(_shapes(archive.parse(part)), key=lambda shape: shape[0] not in _TITLES)
    yield from ((text, "") for kind, text in shapes if kind not in _REPEATED and text.strip())
    for link in archive.relationships(part).values():
        label = _LABELS.get(link.kind)
        if label is None or link.target not in archive:
            continue
        for kind, text in _shapes(archive.parse(link.target)):
            if kind not in _REPEATED and text.strip():
                yield text, label


def _shapes(element: Element) -> Iterator[tuple[str, str]]:
    """Yield the text of each shape, table row and comment, with the kind of the shape's placeholder."""
    name = local_name(element)
    if name == "tr":
        cells = ("\n".join(_paragraphs(cell)).strip() for cell in find_all(element, "tc"))
        yield "", " | ".join(cell for cell in cells if cell)
    elif name == "sp":
        placeholder = find(element, "nvSpPr", "nvPr", "ph")
        body = find(element, "txBody")
        if body is not None:
            kind = attribute(placeholder, "type") if placeholder is not None else ""
            yield kind, "\n".join(_paragraphs(body))
    elif name in ("txBody", "t"):
        yield "", "\n".join(_paragraphs(element))
    elif name == "text":  # of a comment
        yield "", element.text or ""
    elif name == "AlternateContent":
        for child in alternative(element):
            yield from _shapes(child)
    else:
        for child in element:
            yield from _shapes(child)


def _paragraphs(element: Element) -> Iterator[str]:
    for paragraph in find_all(element, "p"):
        text = "".join(_runs(paragraph)).strip()
        if text:
            yield text


def _runs(paragraph: Element) -> Iterator[str]:
    for element in find_all(paragraph, "t", "br"):
        yield (element.text or "") if local_name(element) == "t" else "\n"
