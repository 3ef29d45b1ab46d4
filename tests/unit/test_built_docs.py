"""The checks of the built documentation, on pages with one mistake each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.built_docs import find_browser
from tests.built_docs.browser import check_layout, check_search
from tests.built_docs.chromium import open_tab
from tests.built_docs.links import check

BROWSER = find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser found; install Chromium or Chrome")


def site(directory: Path, **pages: str) -> Path:
    for name, body in pages.items():
        (directory / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8><article>{body}</article>")
    return directory


# --- links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<a href="b.html">b</a>', []),
        ('<a href="b.html#part">b</a>', []),
        ('<a href="#own">a</a><p id="own">', []),
        ('<a href="#">a</a><a href="#top">a</a>', []),
        ('<a href="data.txt">data</a><img src="data.txt">', []),
        ('<a href="https://a.example/c.html#d">c</a><a href="mailto:a@b.example">d</a>', []),
        ('<a href="genindex.html">the theme has it</a>', []),
        ('<a href="c.html">c</a>', ["a.html: c.html: no such file"]),
        ('<a href="b.html#other">b</a>', ["a.html: b.html#other: no such anchor"]),
        ('<a href="#other">a</a>', ["a.html: #other: no such anchor"]),
        ('<img src="c.svg">', ["a.html: c.svg: no such file"]),
        ('<script src="_static/c.js"></script>', ["a.html: _static/c.js: no such file"]),
        ('<a href="c.html">c</a><a href="c.html">c again</a>', ["a.html: c.html: no such file"]),
    ],
)
def test_links(body: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.txt").touch()
    assert expected == check(site(tmp_path, a=body, b='<h1 id="part">B</h1>')).problems


def test_links_are_counted(tmp_path: Path) -> None:
    assert (
        2
        == check(
            site(tmp_path, a='<a href="b.html">b</a> <a href="https://a.example">c</a>', b='<a href="#">')
        ).followed
    )


# --- the browser --------------------------------------------------------------------------------------

WORD = "antidisestablishmentarianism" * 3


@needs_browser
@pytest.mark.slow
async def test_layout(tmp_path: Path) -> None:
    fixed = "table-layout: fixed; width: 200px"
    site(
        tmp_path,
        good=f'<p>Some words.</p><div style="overflow-x: auto"><table><td>{WORD}</td></table></div>',
        code_block=f'<pre style="overflow: auto">{WORD}</pre>',
        hyphens="<table style='width: 40px'><td>one-two three/four five–six</td></table>",
        wide=f"<p>{WORD * 5}</p>",
        hidden=f'<div style="overflow: hidden"><p>{WORD * 5}</p></div>',
        broken=f'<table style="{fixed}"><td style="overflow-wrap: anywhere">{WORD}</td></table>',
        code=f'<table style="{fixed}"><td style="word-break: break-all"><code>{WORD}</code></td></table>',
        cut=f'<p style="width: 100px; overflow: hidden">{WORD}</p>',
        narrow='<p style="width: 800px">Fits a laptop.</p>',
    )
    assert BROWSER is not None
    async with open_tab(BROWSER) as tab:
        problems = await check_layout(tab, tmp_path)
    by_page: dict[str, list[str]] = {}
    for problem in problems:
        place, _, text = problem.partition(" px: ")
        by_page.setdefault(place, []).append(text)
    places = ["broken.html at 1440", "broken.html at 390", "code.html at 1440", "code.html at 390"]
    places += ["cut.html at 1440", "cut.html at 390"]
    places += [
        "hidden.html at 1440",
        "hidden.html at 390",
        "narrow.html at 390",
        "wide.html at 1440",
        "wide.html at 390",
    ]
    assert places == sorted(by_page)
    assert [f"a table breaks inside the word {WORD}"] == by_page["broken.html at 390"] == by_page["code.html at 1440"]
    assert [f"cut off: <div> {WORD[:50]}"] == by_page["hidden.html at 390"] == by_page["hidden.html at 1440"]
    assert [f"cut off: <p> {WORD[:50]}"] == by_page["cut.html at 390"]
    assert "beyond the edge: <p> Fits a laptop." in by_page["narrow.html at 390"]
    assert any(text.startswith("the page is ") for text in by_page["narrow.html at 390"])


@needs_browser
@pytest.mark.slow
async def test_search_that_finds_nothing(tmp_path: Path) -> None:
    site(
        tmp_path,
        index='<form action="search.html"><input name="q"></form>',
        search='<div id="search-results"><p class="search-summary">Search finished, found no page</p></div>',
    )
    assert BROWSER is not None
    async with open_tab(BROWSER) as tab:
        problems = await check_search(tab, tmp_path)
    assert 'search for "cold start": guides/cold-start.html is not among the first five results: []' == problems[0]
    assert 3 == len(problems)
