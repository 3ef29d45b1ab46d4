"""Quotes that a person would accept are found, and no other: our own pairs, and random ones."""

from __future__ import annotations

import functools
import json
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import (
    _PLAIN_WORDS,
    MIN_WORDS,
    NEGATED,
    NOT_FOUND,
    CitedRow,
    QuoteChecker,
    check,
)
from ctxbackends.knowledge._extract.folding import FoldedText, count_words
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, Speaker, Task
from ctxbackends.knowledge._sources.base import Segment

PAIRS: dict[str, list[dict[str, str]]] = json.loads(Path(__file__).with_name("quote_pairs.json").read_text("utf-8"))
KINDS = sorted({pair["kind"] for pair in PAIRS["true"]})


def chunk_of(source: str) -> Chunk:
    """The paragraphs as segments."""
    segments = []
    line = 1
    for text in source.split("\n\n"):
        segments.append(Segment(text=text, first=line, last=line + text.count("\n")))
        line += text.count("\n") + 2
    return Chunk(source="notes.md", unit="line", segments=tuple(segments))


def check_quote(source: str, quote: str) -> CitedRow | QuarantinedRow:
    (row,) = check([ExtractedRow(Task("Do it", "low"), 1, quote)], chunk_of(source))
    return row


def evidence_of(source: str, quote: str) -> Evidence:
    row = check_quote(source, quote)
    assert isinstance(row, CitedRow), (source, quote, row)
    return row.evidence


def is_accepted(pair: dict[str, str]) -> bool:
    return isinstance(check_quote(pair["source"], pair["quote"]), CitedRow)


# --- pairs --------------------------------------------------------------------------------------------


def test_there_are_enough_pairs() -> None:
    assert len(PAIRS["true"]) + len(PAIRS["controls"]) >= 150
    assert min(len(PAIRS["true"]), len(PAIRS["controls"])) >= 70


def test_true_quotes_are_accepted() -> None:
    quarantined = [pair for pair in PAIRS["true"] if not is_accepted(pair)]
    assert len(quarantined) <= 0.03 * len(PAIRS["true"]), quarantined


@pytest.mark.parametrize("kind", KINDS)
def test_most_quotes_of_each_kind_are_accepted(kind: str) -> None:
    accepted = [is_accepted(pair) for pair in PAIRS["true"] if pair["kind"] == kind]
    assert accepted.count(True) > accepted.count(False)


def test_controls_are_quarantined() -> None:
    assert [] == [pair for pair in PAIRS["controls"] if is_accepted(pair)]


def test_the_evidence_is_the_text_of_the_source() -> None:
    for pair in PAIRS["true"]:
        row = check_quote(pair["source"], pair["quote"])
        if isinstance(row, CitedRow):
            assert row.evidence.quote in " ".join(pair["source"].split())


# --- the evidence ---------------------------------------------------------------------------------------

NOTES = (
    "# Storage\n\n- We **keep** blobs on\n  `cold` storage.\n- The index stays\n  in memory?\n\nNothing else was said."
)


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        ("we keep blobs on cold storage", ("We **keep** blobs on `cold` storage.", 3, 4, "folded")),
        ("The index stays in memory", ("The index stays in memory", 5, 6, "exact")),
        ("the index stays in memory?", ("The index stays in memory?", 5, 6, "folded")),
        ("Storage: we keep blobs", ("Storage - We **keep** blobs", 1, 3, "folded")),
        (
            "We keep blobs ... the index stays in memory?",
            (
                "We **keep** blobs on `cold` storage. - The index stays in memory?",
                3,
                6,
                "folded",
            ),
        ),
        ("nothing else was said", ("Nothing else was said.", 8, 8, "folded")),
    ],
)
def test_a_folded_quote_has_the_words_and_lines_of_the_source(quote: str, expected: tuple[str, int, int, str]) -> None:
    one = evidence_of(NOTES, quote)
    assert expected == (one.quote, one.first, one.last, one.match)


def test_an_exact_match_is_preferred() -> None:
    one = evidence_of("we keep it.\n\nWe keep it.", "We keep it.")
    assert ("exact", 3) == (one.match, one.first)


def test_a_page_has_no_lines() -> None:
    segment = Segment(text="The ﬁrst\npage says it.", first=7, last=7)
    (row,) = check(
        [ExtractedRow(Task("x", "low"), 7, "the first page says it")],
        Chunk(source="a.pdf", unit="page", segments=(segment,)),
    )
    assert isinstance(row, CitedRow)
    assert ("a.pdf, page 7", "The ﬁrst page says it.") == (row.evidence.where, row.evidence.quote)


def test_the_nearest_folded_occurrence_is_cited() -> None:
    source = "**Same** words here.\n\nOther words.\n\n**Same** words here."
    rows = check([ExtractedRow(Task("x", "low"), line, "same words here") for line in (1, 5)], chunk_of(source))
    assert [1, 5] == [row.evidence.first for row in rows if isinstance(row, CitedRow)]


def test_the_reason_names_a_negation() -> None:
    row = check_quote("We will not use Redis.", "use Redis")
    assert isinstance(row, QuarantinedRow)
    assert NEGATED == row.reason


@pytest.mark.parametrize(
    ("source", "quote"),
    [
        ("No, we keep the queue.", "we keep the queue"),
        ("We do not know.\n\nWe keep the queue.", "We keep the queue."),
        ("I think not!\nWe keep the queue.", "We keep the queue."),
        ("We keep the queue, not the topic.", "We keep the queue"),
        ("l'équipe garde la file", "équipe garde la file"),
    ],
)
def test_a_negation_of_something_else_does_not_matter(source: str, quote: str) -> None:
    assert "exact" == evidence_of(source, quote).match


@pytest.mark.parametrize(("first", "second", "accepted"), [("user", "user", True), ("user", "assistant", False)])
def test_a_quote_has_one_speaker(first: Speaker, second: Speaker, accepted: bool) -> None:
    chunk = Chunk(
        source="s.jsonl",
        unit="line",
        segments=(
            Segment(text="Should we use Redis", first=1, last=1, speaker=first),
            Segment(text="for all sessions", first=2, last=2, speaker=second),
        ),
    )
    for quote in ("Should we use Redis for all sessions", "should we use Redis for all sessions"):
        (row,) = check([ExtractedRow(Task("x", "low"), 1, quote)], chunk)
        assert accepted == isinstance(row, CitedRow)


# --- random pairs ---------------------------------------------------------------------------------------

VOCABULARY = tuple(
    word
    for line in (
        "adapter archive balance broker bucket budget cache channel cluster column commit cursor daemon driver",
        "engine event fabric field gateway graph handler header index journal kernel ledger leader limit loader",
        "mapper matrix merge metric module mutex node offset packet parser patch policy portal queue quorum record",
        "region relay replica route runner schema segment server session shard signal socket stage store stream",
        "table tenant thread token topic tunnel vault vector version volume worker zone 3 -7 1.5 v2 50% 1,000 it's",
        "café naïve Größe 決定 採用",
    )
    for word in line.split()
)
OTHER = ("banana", "umbrella", "8", "-1", "9.75", "v9", "won't", "übermorgen", "否")
JOINTS = (" ", " ", " ", "\n", "  ", ", ", "; ", " — ", ": ", "\u00a0")
DECORATIONS: tuple[Callable[[str], str], ...] = (
    lambda word: word,
    lambda word: word,
    lambda word: word,
    lambda word: f"**{word}**",
    lambda word: f"_{word}_",
    lambda word: f"`{word}`",
    lambda word: f"“{word}”",
    lambda word: f"[{word}](https://example.org/{len(word)})",
    lambda word: f"<em>{word}</em>",
    lambda word: unicodedata.normalize("NFD", word),
    lambda word: word.replace("'", "\u2019").replace("fi", "ﬁ").replace("-", "\u2212"),
    lambda word: word[:2] + ("\u00ad" if word[:2].isalpha() and word[2:].isalpha() else "") + word[2:],
    lambda word: word.upper() if word.isascii() and word.isalpha() else word,
)


def draw_words(random: Random) -> list[str]:
    return random.sample(VOCABULARY, random.randint(8, 30))


def write(random: Random, words: list[str], *, is_quote: bool = False) -> str:
    """A text of these words. A quote has no line ends, and no links, since their targets would be words of its own."""
    text = ""
    for word in words:
        joint = random.choice(JOINTS) if text else ""
        if "—" in joint and word[-1].isdigit():
            joint = " "  # between numbers, a dash is no punctuation
        decorated = random.choice(DECORATIONS)(word)
        text += joint + (word if is_quote and "](" in decorated else decorated)
    return text.replace("\n", " ") if is_quote else text


def draw_run(random: Random, words: list[str]) -> list[str]:
    start = random.randint(0, len(words) - 4)
    return words[start : start + random.randint(4, 12)]


def write_quote(random: Random, words: list[str]) -> str:
    text = write(random, words, is_quote=True)
    return random.choice(("{}", "{}.", '"{}"', "“{}”", "- {}", "[1] {}", "...{}", "{} ...")).format(text)


SEEDS = st.integers(0, 2**64).map(Random)


@settings(max_examples=300)
@given(SEEDS)
def test_perturbed_quotes_are_accepted(random: Random) -> None:
    words = draw_words(random)
    source, quote = write(random, words), write_quote(random, draw_run(random, words))
    assert isinstance(check_quote(source, quote), CitedRow), (source, quote)


def insert(random: Random, words: list[str]) -> list[str]:
    at = random.randint(1, len(words) - 1)
    return [*words[:at], random.choice(OTHER), *words[at:]]


def delete(random: Random, words: list[str]) -> list[str]:
    at = random.randint(1, len(words) - 2)
    return [*words[:at], *words[at + 1 :]]


def replace(random: Random, words: list[str]) -> list[str]:
    at = random.randint(0, len(words) - 1)
    return [*words[:at], random.choice(OTHER), *words[at + 1 :]]


def negate(random: Random, words: list[str]) -> list[str]:
    at = random.randint(0, len(words) - 1)
    negated = random.choice(("not {}", "never {}", "non{}", "{} not", "no {}", "不{}", "un{}", "not-{}"))
    return [*words[:at], negated.format(words[at]), *words[at + 1 :]]


def swap(random: Random, words: list[str]) -> list[str]:
    at = random.randint(1, len(words) - 1)
    return [*words[at:], *words[:at]]


def change_character(random: Random, words: list[str]) -> list[str]:
    at = random.randint(0, len(words) - 1)
    word = words[at]
    digit = next((index for index, char in enumerate(word) if char.isdigit()), 0)
    changed = str((int(word[digit]) + 1) % 10) if word[digit].isdigit() else "x"
    return [*words[:at], word[:digit] + changed + word[digit + 1 :], *words[at + 1 :]]


@settings(max_examples=600)
@given(SEEDS, st.sampled_from((insert, delete, replace, negate, swap, change_character)))
def test_changed_quotes_are_quarantined(random: Random, change: Callable[..., list[str]]) -> None:
    words = draw_words(random)
    source, quote = write(random, words), write_quote(random, change(random, draw_run(random, words)))
    assert isinstance(check_quote(source, quote), QuarantinedRow), (source, quote)


@settings(max_examples=300)
@given(SEEDS, st.booleans())
def test_an_ellipsis_keeps_the_order_and_the_passage(random: Random, in_order: bool) -> None:
    words = [word for word in VOCABULARY if word.isascii() and word.isalpha()]
    words = random.sample(words, random.randint(6, 40))
    parts = [" ".join(words[:2]), " ".join(words[-2:])]
    quote = f" {random.choice(('...', '…', '[...]', '(…)'))} ".join(parts if in_order else reversed(parts))
    assert in_order == isinstance(check_quote(" ".join(words), quote), CitedRow)
    middle = len(words) // 2
    passages = f"{' '.join(words[:middle])}\n\n{' '.join(words[middle:])}"
    assert isinstance(check_quote(passages, quote), QuarantinedRow)


@given(st.text(max_size=200), st.text(max_size=60))
def test_any_text_can_be_checked(source: str, quote: str) -> None:
    if source.strip():
        row = check_quote(source, quote)
        if isinstance(row, CitedRow):
            assert 1 <= row.evidence.first <= row.evidence.last


# --- time -------------------------------------------------------------------------------------------------

PROSE = "The meeting of part {} went on for a while, and “nothing” that matters was said there. "


def prose(words: int) -> str:
    return "".join(PROSE.format(number) for number in range(words // 16))


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()  # not the time of other processes
        work()
        best = min(best, time.process_time() - start)
    return best


def test_a_folded_match_costs_less_than_the_fold() -> None:
    """The fold is computed once, so that each further quote is a search in a string."""
    text = prose(4_000)
    checker = QuoteChecker(chunk_of(text))
    quotes = [f"part {number} went on for a while and 'nothing' that matters" for number in range(0, 240, 8)]
    assert not isinstance(checker.find(quotes[0], 1), str)
    match = seconds(lambda: [checker.find(quote, 1) for quote in quotes]) / len(quotes)
    assert match < seconds(lambda: QuoteChecker(chunk_of(text)).find(quotes[0], 1)) / 4


WORST: dict[str, Callable[[int], tuple[str, str]]] = {
    "a repeated word": lambda n: ("word " * n, "word " * (n // 2) + "other"),
    "a repeated letter": lambda n: ("a" * n, "a " * (n // 2)),
    "half of the text": lambda n: (prose(n), prose(n // 2).upper() + "END"),
    "half of the text, in it": lambda n: (prose(n), prose(n // 2).upper()),
    "ellipses": lambda n: ("a b " * n, "a b ... " * 7 + "c d"),
    "ellipses that are in it": lambda n: ("We keep it not " * n, "we keep ... it not ... we keep"),
    "many ellipses": lambda n: ("a b " * n, "a b ... " * n),
    "brackets": lambda n: ("[" * n + "](" * n + "word", "other words"),
    "open links": lambda n: ("[a](" * n, "other words"),
    "images": lambda n: ("![a](b" * n, "other words"),
    "tags": lambda n: ("<a " * n, "other words"),
    "references": lambda n: ("[a][" * n, "other words"),
    "backslashes": lambda n: ("\\" * n + "` " * n, "other words"),
    "line prefixes": lambda n: ("> # // 1. \n" * n, "other words"),
    "numbered lines": lambda n: ("1. a\n" * n, "a a a b"),
    "hyphens": lambda n: ("a-\n" * n, "a a a b"),
    "dashes": lambda n: ("-" * n + " - 1 " * n, "1 - 1 - 2"),
    "marks": lambda n: ("e" + "\u0301" * n, "other words"),
    "invisible characters": lambda n: ("a" + "\u200b" * n + "b", "other words"),
    "digits and dots": lambda n: ("1." * n, "1.2 1.3"),
    "entities": lambda n: ("&am" * n + "&#1" * n, "other words"),
    "roles": lambda n: (":a" * n + ":`", "other words"),
    "Chinese": lambda n: ("采用" * n, "采用" * (n // 2) + "不"),
    "spaces": lambda n: (" \n" * n + "a", "other words"),
    "adornments": lambda n: ("=" * n + "x\n" + "| - " * n + "x", "other words"),
}


@pytest.mark.full
@pytest.mark.parametrize("case", WORST)
def test_the_time_is_linear(case: str) -> None:
    """What is quadratic takes 64 times as long for eight times the text."""

    def work(size: int) -> None:
        source, quote = WORST[case](size)
        check_quote(source, quote)

    short = max(seconds(functools.partial(work, 4_000)), 2e-3)
    assert seconds(functools.partial(work, 32_000), 2) < 24 * short


def test_an_unknown_quote_has_the_reason() -> None:
    row = check_quote(NOTES, "Somebody said something else.")
    assert isinstance(row, QuarantinedRow)
    assert NOT_FOUND == row.reason


@given(st.from_regex(_PLAIN_WORDS, fullmatch=True))
def test_plain_words_are_words_after_folding(quote: str) -> None:
    assert MIN_WORDS == count_words(FoldedText(quote).key, MIN_WORDS)
