"""Check that each internal link of the built documentation leads somewhere: ``python -m tests.built_docs.links DIR``.

Sphinx checks only the links that it resolves itself. This reads the HTML, so it also sees the links of raw HTML, of the
theme and of generated tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs

MAY_BE_MISSING = ("genindex.html", "search.html", "py-modindex.html")  # by the theme, whether they are built or not


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = {"", "top"}  # both are the top of a page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value is not None:
                self.targets.append(value)


@attrs.frozen
class Report:
    """The number of internal links that were followed, and a line for each that leads nowhere."""

    followed: int
    problems: list[str]


def read_pages(directory: Path) -> dict[Path, _Page]:
    pages = {}
    for path in sorted(directory.rglob("*.html")):
        if "_static" not in path.relative_to(directory).parts:
            pages[path] = _Page()
            pages[path].feed(path.read_text("utf-8"))
    return pages


def check(directory: Path) -> Report:
    """Follow the internal links of all pages in ``directory``."""
    pages = read_pages(directory.resolve())
    followed, problems = 0, []
    for path, page in pages.items():
        for target in dict.fromkeys(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            reason = find_problem(path, unquote(parts.path), unquote(parts.fragment), pages)
            if reason:
                problems.append(f"{path.relative_to(directory.resolve())}: {target}: {reason}")
    return Report(followed, problems)


def find_problem(path: Path, name: str, anchor: str, pages: dict[Path, _Page]) -> str | None:
    target = (path.parent / name).resolve() if name else path
    if target not in pages:
        return None if target.is_file() or target.name in MAY_BE_MISSING else "no such file"
    return None if anchor in pages[target].anchors else "no such anchor"


def main(arguments: Iterable[str]) -> str | None:
    (directory,) = arguments
    report = check(Path(directory))
    if not report.followed:
        return f"no links found: {directory}; build the documentation first"
    print(f"{report.followed} links followed")
    return "\n".join(report.problems) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
