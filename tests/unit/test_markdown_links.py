"""The links of the pages that GitHub shows. Sphinx and tests/built_docs check those among the pages of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "changes"} & {*page.parts}]
PAGES = [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md")]
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:href|src|srcset)="([^"]+)"|^\[[^\]]+\]: (\S+)', re.MULTILINE)
REPOSITORY = re.compile(r"https://github\.com/ctxbackends/ctxbackends/(?:blob|tree)/main/([^)\s\"#]+)")


def without_code(text: str) -> str:
    return re.sub(r"^(```+|~~~+).*?^\1`*$|(?<!`)`[^`\n]+`(?!`)", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(text: str) -> list[str]:
    """Return the targets in this repository, outside of code."""
    targets = [next(filter(None, match.groups())) for match in LINK.finditer(without_code(text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub names them."""
    anchors: list[str] = []
    lines = re.sub(r"^(```+|~~~+).*?^\1`*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} (.+)$", lines, re.MULTILINE):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchors.append(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return {
        anchor if number == 0 else f"{anchor}-{number}"
        for index, anchor in enumerate(anchors)
        for number in [anchors[:index].count(anchor)]
    }


def find_problem(page: Path, target: str) -> str | None:
    name, _, anchor = unquote(target).partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return f"{target}: no such file"
    if anchor and path.suffix == ".md" and anchor not in anchors_of(path.read_text("utf-8")):
        return f"{target}: no such anchor"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    problems = [find_problem(page, target) for target in links_of(page.read_text("utf-8"))]
    assert [] == [problem for problem in problems if problem]


def test_links_of_the_docs_to_the_repository() -> None:
    paths = {unquote(path) for page in [*DOCS, *PAGES] for path in REPOSITORY.findall(page.read_text("utf-8"))}
    assert [] == sorted(path for path in paths if not (ROOT / path).exists())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md) and [c](d.md#e)", ["b.md", "d.md#e"]),
        ("![a\nb](c.svg)", ["c.svg"]),
        ("[![a](b.svg)](c.md)", ["b.svg", "c.md"]),
        ('<img src="a.svg"> <a href="b.md">', ["a.svg", "b.md"]),
        ("[a]: b.md", ["b.md"]),
        ("[a](https://a.example) [b](mailto:a@b.example)", []),
        ("```python\n[a](b.md)\n```\n[c](d.md)\n", ["d.md"]),
        ("`[a](b.md)` [c](d.md)", ["d.md"]),
    ],
)
def test_links_are_found(text: str, expected: list[str]) -> None:
    assert expected == links_of(text)


def test_anchors() -> None:
    text = "# The `.ctxrc`\n\n## A [link](b.md), and more\n\n```sh\n# no heading\n```\n\n## Twice\n\n## Twice\n"
    assert {"the-ctxrc", "a-link-and-more", "twice", "twice-1"} == anchors_of(text)


def test_problems(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Own\n")
    (tmp_path / "b.md").write_text("## Part\n")
    targets = ["b.md", "b.md#part", "#own", ".", "c.md", "b.md#own", "#part"]
    expected = [None, None, None, None, "c.md: no such file", "b.md#own: no such anchor", "#part: no such anchor"]
    assert expected == [find_problem(page, target) for target in targets]
