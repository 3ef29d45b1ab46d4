"""Web pages: the text without tags, with the lines of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.html import HTMLSource, HTMLTextParser

PAGE = """<!DOCTYPE html>
<html><head><title>Plan &amp; notes</title>
<style>p { color: red }</style>
<script>if (a < b) { document.write("<p>never</p>"); }</script></head>
<body><nav><ul><li>Home</li></ul></nav>
<h1>Storage</h1>
<p>We keep <b>SQLite</b>,
   because it&nbsp;is <i>enough</i>
for us.</p><p>Second.</p>
<!-- <p>Not this.</p> -->
<ul>
  <li>one</li>
  <li>two <em>words</em></li>
</ul>
<table><tr><th>who</th><th>what</th></tr>
<tr><td>Ada</td>
    <td>the parser</td></tr></table>
<pre>a
  b</pre>
last
</body></html>
"""


def segments(text: str) -> list[tuple[str, int, int, int]]:
    return [(one.text, one.first, one.last, one.boundary) for one in HTMLTextParser(text).segments()]


def test_a_page() -> None:
    assert [
        ("Plan & notes", 2, 2, 2),
        ("Storage", 6, 6, 2),
        ("We keep SQLite,\nbecause it\xa0is enough\nfor us.", 7, 9, 0),
        ("Second.", 9, 9, 1),
        ("one\ntwo words", 12, 13, 1),
        ("who | what\nAda |\nthe parser", 15, 17, 1),
        ("a\n  b", 18, 19, 1),
        ("last", 20, 20, 1),
    ] == segments(PAGE)


def test_navigation_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    source = HTMLSource(tmp_path / "a.html", name="a.html")
    source.prepare()
    assert ["a.html: 4 characters of navigation were left out"] == [
        str(piece) for piece in source.pieces() if not isinstance(piece, Segment)
    ]
    assert "line" == source.unit


def test_a_page_on_one_line() -> None:
    table = "<table><tr><td>x</td><td>y</td></tr><tr><td>z</td></tr></table>"
    page = f"<h2>A</h2><ul><li>one</li><li>two</li></ul>{table}a<br>b"
    assert [("A", 2), ("one", 0), ("two", 1), ("x | y", 1), ("z", 1), ("a b", 1)] == [
        (text, boundary) for text, _, _, boundary in segments(page)
    ]


def test_an_element_without_an_end_takes_nothing_with_it() -> None:
    assert ["menu", "text"] == [text for text, *_ in segments("<nav>menu<p>text</p>")]
    assert ["text"] == [text for text, *_ in segments("<nav><svg></nav><p>text</p><svg></svg>")]


def test_a_heading_with_blocks_in_it() -> None:
    assert [("Title", 2), ("text", 0)] == [
        (text, boundary) for text, _, _, boundary in segments("<h1><div>Title</div></h1><p>text</p>")
    ]


def test_tags_between_two_passages_leave_no_empty_lines() -> None:
    image = "<img\n\n\n\nsrc='x'>"
    assert [("a", 1, 1, 1), ("b", 5, 5, 0)] == segments(f"<p>a {image}b</p>")


def test_encodings(tmp_path: Path) -> None:
    def read(data: bytes) -> list[str]:
        (tmp_path / "a.html").write_bytes(data)
        source = HTMLSource(tmp_path / "a.html", name="a")
        source.prepare()
        return [piece.text for piece in source.pieces() if isinstance(piece, Segment)]

    assert ["Größe"] == read("<p>Größe".encode())
    assert ["Größe"] == read(b"\xef\xbb\xbf<meta charset=latin-1>" + "<p>Größe".encode())
    assert ["Größe"] == read(
        b'<meta http-equiv=x content="text/html; charset=iso-8859-1">' + "<p>Größe".encode("latin-1")
    )
    with pytest.raises(SourceError, match=r"a:3: is not UTF-8 \(byte 7\); convert it"):
        read("<p>\n\nGröße".encode("latin-1")[1:])
    with pytest.raises(SourceError, match="a: declares an unknown encoding: x-none"):
        read(b"<meta charset='x-none'><p>a")


PARTS = (
    *(
        "<p>",
        "</p>",
        "<h1>",
        "</h1>",
        "<li>",
        "<td>",
        "<tr>",
        "<pre>",
        "</pre>",
        "<br/>",
        "<nav>",
        "</nav>",
        "<script>",
    ),
    *(
        "</script>",
        "\n",
        "\n\n\n\n",
        " word ",
        " other words ",
        " ",
        "&amp;",
        "<!-- x -->",
        "<b>",
        "<a\nhref=x>",
        " < ",
    ),
)


@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_each_line_of_text_is_on_its_line_of_the_page(parts: list[str]) -> None:
    page = "".join(parts)
    lines = page.split("\n")
    for segment in HTMLTextParser(page).segments():
        texts = segment.text.split("\n")
        assert segment.last - segment.first + 1 == len(texts)
        for number, text in enumerate(texts, segment.first):
            for word in text.replace("|", " ").replace("&", " ").split():
                assert word in lines[number - 1]
