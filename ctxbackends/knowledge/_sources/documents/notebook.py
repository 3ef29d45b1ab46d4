"""Jupyter notebooks. The format is JSON; nbformat would add ten packages for what one decoder does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgspec

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean
from ctxbackends.knowledge._sources.text import MARKDOWN, leave_out_images, parse_paragraphs


class NotebookSource(DocumentSource):
    """A Jupyter notebook: the text of its cells, without outputs and images. Places are cells.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "cell"
    format_name = "a notebook"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        outputs = images = 0
        for number, cell in enumerate(_cells(self.name, data.getvalue()), 1):
            if not isinstance(cell, dict):
                yield self._skip(f"cell {number} cannot be read: it is not a JSON object")
                continue
            outputs += len(cell.get("outputs") or ())
            images += len(cell.get("attachments") or ())
            text, count = leave_out_images(_text_of(cell))
            images += count
            kind = cell.get("cell_type")
            if kind == "code":
                if text.strip():
                    yield Segment(text=clean(text).strip("\n"), first=number, last=number, label="code")
                continue
            for part in parse_paragraphs(enumerate(clean(text).split("\n"), 1), MARKDOWN):
                yield msgspec.structs.replace(part, first=number, last=number)
        if outputs:
            yield self._skip(f"{pluralize(outputs, 'output')} of cells left out")
        if images:
            yield self._skip(f"{pluralize(images, 'embedded image')} left out")


def _cells(name: str, data: bytes) -> list[Any]:
    try:
        notebook = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(name, f"cannot be read as a notebook: it is not valid JSON: {error}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if cells is None and isinstance(notebook, dict):  # before version 4
        sheets = notebook.get("worksheets") or ()
        cells = [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or ()] or None
    if not isinstance(cells, list):
        raise SourceError(name, "cannot be read as a notebook: it has no cells")
    return cells


def _text_of(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input"))
    parts = source if isinstance(source, list) else [source]
    return "".join(part for part in parts if isinstance(part, str))
