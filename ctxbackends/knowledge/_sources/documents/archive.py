"""Zip archives of XML parts: the formats of Word, PowerPoint and LibreOffice."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO
from xml.etree import ElementTree  # _Builder refuses the declarations that make XML dangerous

import msgspec

MAX_PART = 512 << 20
"""Bytes of an unpacked part. A small archive can unpack to a huge one."""

_BLOCK = 1 << 16


class InvalidPartError(Exception):
    """A part of an archive is missing or invalid."""


class Relationship(msgspec.Struct, frozen=True):
    """A link from a part to another one.

    Attributes:
        kind: The last component of its type, such as ``footnotes``.
        target: The name of the other part.
    """

    kind: str
    target: str


class Archive:
    """An open archive.

    Args:
        data: The bytes of the archive.
    """

    def __init__(self, data: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(data)
        self._names = {info.filename.lstrip("/"): info for info in self._zip.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(self._names)

    def read(self, name: str, *, max_bytes: int = _BLOCK) -> bytes:
        """Return the beginning of a part; empty if there is none."""
        if name not in self._names:
            return b""
        with self._zip.open(self._names[name]) as part:
            return part.read(max_bytes)

    def iter_elements(self, name: str, *, depth: int) -> Iterator[ElementTree.Element]:
        """Yield the elements at a depth (0 is the root) as they end. Each is empty after the next one is requested."""
        info = self._names.get(name)
        if info is None:
            raise InvalidPartError(f"it has no {name}")
        if info.file_size > MAX_PART:
            raise InvalidPartError(f"{name} unpacks to more than {MAX_PART >> 20} MB")
        builder = _Builder(depth)
        parser = ElementTree.XMLParser(target=builder)  # noqa: S314  # see _Builder
        with self._zip.open(info) as part:
            while block := part.read(_BLOCK):
                parser.feed(block)
                yield from builder.take()
        parser.close()
        yield from builder.take()

    def parse(self, name: str) -> ElementTree.Element:
        """Return the root element of a part."""
        return next(self.iter_elements(name, depth=0))

    def relationships(self, part: str = "") -> dict[str, Relationship]:
        """Return the links of a part, or of the archive, by their ids. Links to the outside are left out."""
        folder, _, name = part.rpartition("/")
        rels = posixpath.join(folder, "_rels", f"{name}.rels")
        if rels not in self:
            return {}
        return {
            link.get("Id", ""): Relationship(
                link.get("Type", "").rpartition("/")[2],
                posixpath.normpath(posixpath.join("/", folder, link.get("Target", ""))).lstrip("/"),
            )
            for link in self.parse(rels)
            if link.get("TargetMode") != "External"
        }

    def main_part(self) -> str:
        """Return the name of the part that the archive is about."""
        for link in self.relationships().values():
            if link.kind == "officeDocument":
                return link.target
        raise InvalidPartError("it names no main part")


class _Builder(ElementTree.TreeBuilder):
    """Builds the elements at one depth, and refuses a document type: only that can declare entities."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth
        self._open = 0
        self._ready: list[ElementTree.Element] = []

    def start(self, tag: str, attributes: dict[str, str], /) -> ElementTree.Element:
        self._open += 1
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> ElementTree.Element:
        element = super().end(tag)
        self._open -= 1
        if self._open == self._depth:
            self._ready.append(element)
        return element

    def doctype(self, name: str, *_: str | None) -> None:
        raise InvalidPartError(f"it declares a document type: {name[:40]}")

    def take(self) -> Iterator[ElementTree.Element]:
        ready, self._ready = self._ready, []
        for element in ready:
            yield element
            element.clear()


def local_name(element: ElementTree.Element) -> str:
    """Return the name of an element without its namespace, of which there are two for each name of Office."""
    return element.tag.rpartition("}")[2]


def attribute(element: ElementTree.Element, name: str) -> str:
    """Return the attribute with this name in any namespace, or an empty string."""
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")


def find_all(element: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    """Yield the elements below with one of these names, outermost only."""
    for child in element:
        if local_name(child) in names:
            yield child
        else:
            yield from find_all(child, *names)


def find(element: ElementTree.Element, *path: str) -> ElementTree.Element | None:
    """Return the first element at a path of names, or None."""
    for name in path:
        found = next((child for child in element if local_name(child) == name), None)
        if found is None:
            return None
        element = found
    return element


def alternative(element: ElementTree.Element) -> Iterable[ElementTree.Element]:
    """Return the content of the first variant of an ``AlternateContent``; the others repeat it for old programs."""
    return next(iter(element), ())
