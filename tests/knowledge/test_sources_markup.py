"""Headings and verbatim blocks of reStructuredText, AsciiDoc and Org."""

from __future__ import annotations

from ctxbackends.knowledge._sources.text import ASCIIDOC, MARKDOWN, ORG, RESTRUCTURED_TEXT, Markup, parse_paragraphs


def parse(markup: Markup, text: str) -> list[tuple[str, int, int, int]]:
    lines = enumerate(text.split("\n"), 1)
    return [(one.text, one.first, one.last, one.boundary) for one in parse_paragraphs(lines, markup)]


def test_restructured_text() -> None:
    text = "=====\nTitle\n=====\n\nA paragraph.\nIts end.\nSection\n~~~~~~~\nText.\n\n-----\n\nSub\n^^^\n# no heading\n"
    assert [
        ("=====\nTitle\n=====", 1, 3, 2),
        ("A paragraph.\nIts end.\nSection\n~~~~~~~\nText.", 5, 9, 0),
        ("-----", 11, 11, 1),
        ("Sub\n^^^", 13, 14, 2),
        ("# no heading", 15, 15, 0),
    ] == parse(RESTRUCTURED_TEXT, text)


def test_asciidoc() -> None:
    text = "= Title\n:attr: x\n\n== Section\nText.\n\n----\n= no heading\n\ncode\n----\n"
    text += ".Example\n====\nInside.\n====\n\nOld\n---\nText.\n"
    assert [
        ("= Title", 1, 1, 2),
        (":attr: x", 2, 2, 0),
        ("== Section", 4, 4, 2),
        ("Text.", 5, 5, 0),
        ("----\n= no heading\n\ncode\n----", 7, 11, 1),
        (".Example\n====\nInside.\n====", 12, 15, 1),
        ("Old\n---", 17, 18, 2),
        ("Text.", 19, 19, 0),
    ] == parse(ASCIIDOC, text)


def test_a_listing_below_a_paragraph_of_asciidoc() -> None:
    text = "A longer paragraph.\n----\ncode\n\nmore\n----\n"
    assert [("A longer paragraph.", 1, 1, 1), ("----\ncode\n\nmore\n----", 2, 6, 1)] == parse(ASCIIDOC, text)


def test_org() -> None:
    text = "#+title: Plan\n* Storage :tag:\nText.\n** TODO Deeper\n"
    text += "#+begin_src python\n* no heading\n\n#+end_src\n- item\n*bold* text\n"
    assert [
        ("#+title: Plan", 1, 1, 2),
        ("* Storage :tag:", 2, 2, 2),
        ("Text.", 3, 3, 0),
        ("** TODO Deeper", 4, 4, 2),
        ("#+begin_src python\n* no heading\n\n#+end_src", 5, 8, 0),
        ("- item\n*bold* text", 9, 10, 1),
    ] == parse(ORG, text)


def test_a_fence_of_markdown_ends_with_one_as_long() -> None:
    text = "````\n```\n# no heading\n```\n\nx\n````\n# Heading\n"
    assert [("````\n```\n# no heading\n```\n\nx\n````", 1, 7, 1), ("# Heading", 8, 8, 2)] == parse(MARKDOWN, text)
