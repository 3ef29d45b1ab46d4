"""The picture of the README: the same output gives the same SVG. `nox -s picture` records it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.terminal_picture import COLUMNS, COMMANDS, PICTURE, draw, record, styled_lines

SVG = "{http://www.w3.org/2000/svg}"


def shown(svg: str) -> list[str]:
    """The lines of a picture, from top to bottom."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):  # noqa: S314  # our own file
        row = rows.setdefault(float(element.attrib["y"]), [])
        row.append((float(element.attrib["x"]), str(element.text).replace("\N{NO-BREAK SPACE}", " ")))
    letter = 12.2  # the width of Rich's letters
    lines = []
    for _, row in sorted(rows.items()):
        line = ""
        for x, text in sorted(row):
            line = line.ljust(round(x / letter)) + text
        lines.append(line.rstrip())
    return lines


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("\r\n\x1b[1;32m$\x1b[0m ls\r\na  b\r\n\r\n\x1b[1;32m$\x1b[0m ", ["$ ls", "a  b"]),
        ("waiting, 1 s\r\x1b[2Kready\r\n", ["ready"]),
        ("one\r\n  two <&>\r\n", ["one", "  two <&>"]),
        ("abcdef\r\n", ["abcd", "ef"]),
    ],
)
def test_lines(raw: str, expected: list[str]) -> None:
    lines = styled_lines(raw, 4 if raw.startswith("abcdef") else 40)
    assert expected == [line.plain for line in lines]
    assert expected == shown(draw(lines, 40))[: len(lines)]


def test_the_same_lines_give_the_same_picture() -> None:
    raw = "\x1b[1;32m$\x1b[0m ls\r\n\x1b[31ma\x1b[0m\r\n"
    assert draw(styled_lines(raw)) == draw(styled_lines(raw))
    assert draw(styled_lines(raw)) != draw(styled_lines(raw.replace("[31m", "[34m")))


@pytest.mark.posix
def test_record(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words\n")
    lines = styled_lines(record(("cat a.txt", "printf '%s\\n' \\\nb"), tmp_path))
    assert ["$ cat a.txt", "words", "", "$ printf '%s\\n' \\", "> b", "b"] == [line.plain for line in lines]


def test_the_picture_in_the_docs() -> None:
    svg = PICTURE.read_text("utf-8")
    assert len(svg) < 100_000
    assert 1 == svg.count("http")  # the namespace: no font and no picture comes from a server
    lines = shown(svg)
    assert 40 < max(map(len, lines)) <= COLUMNS
    typed = [line.removeprefix("$ ").removeprefix("> ") for line in lines if line.startswith(("$ ", "> "))]
    assert [line for command in COMMANDS for line in command.splitlines()] == typed
