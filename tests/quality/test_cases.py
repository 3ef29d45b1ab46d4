"""The labelled set itself: its sources can be read, and its labels are true by the project's own check."""

from __future__ import annotations

import typing
from collections import Counter

import pytest

from ctxbackends.knowledge import TranscriptSource, source_of
from ctxbackends.knowledge._sources.base import SkippedInput
from tests.quality.cases import DIRECTORY, GROUPS, Case, TrapKind, load_cases
from tests.quality.scoring import count_words

CASES = load_cases()
of_each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def text_of(case: Case) -> str:
    return "\n".join(segment.text for segment in case.chunk.segments)


def test_thirty_cases_in_three_groups() -> None:
    assert {"records": 10, "sessions": 10, "minutes": 10} == Counter(case.group for case in CASES)
    assert 60 == sum(1 for path in DIRECTORY.glob("*/*") if path.is_file()), "a source and its labels for each case"


def test_half_of_the_cases_have_traps_of_every_sort() -> None:
    assert {"records": 5, "sessions": 5, "minutes": 5} == Counter(case.group for case in CASES if case.traps)
    assert {*typing.get_args(TrapKind)} == {trap.trap for case in CASES for trap in case.traps}


def test_languages_and_kinds() -> None:
    assert {"en", "de", "fr", "ja", "zh"} == {case.language for case in CASES}
    for group, kinds in GROUPS.items():
        assert {*kinds} == {label.kind for case in CASES if case.group == group for label in case.labels}


def test_sessions_are_transcripts_of_several_agents() -> None:
    sessions = [case for case in CASES if case.group == "sessions"]
    assert all(isinstance(source_of(case.path), TranscriptSource) for case in sessions)
    agents = Counter(case.path.name.split(".")[1] for case in sessions)
    assert {"claude": 4, "codex": 2, "codex-old": 1, "aider": 1, "txt": 2} == agents
    assert all(segment.speaker is not None for case in sessions for segment in case.chunk.segments)


@of_each_case
def test_every_part_of_a_source_is_read(case: Case) -> None:
    source = source_of(case.path, name=case.name)
    source.prepare()
    assert [] == [piece for piece in source.pieces() if isinstance(piece, SkippedInput)]


@of_each_case
def test_the_length_is_that_of_a_short_document(case: Case) -> None:
    assert 80 <= count_words(text_of(case)).total() <= 600


@of_each_case
def test_the_citation_check_accepts_every_label(case: Case) -> None:
    assert case.labels
    places = [case.locate(label.quote) for label in case.labels]
    assert [] == [place for place in places if isinstance(place, str)]


@of_each_case
def test_labels_have_words_of_the_source_and_the_kinds_of_the_group(case: Case) -> None:
    text = text_of(case).casefold()
    for label in case.labels:
        assert label.words
        assert [] == [word for word in label.words if word.casefold() not in text]
        assert label.kind in GROUPS[case.group]
        assert label.priority is None or label.kind == "task"
    assert len(case.labels) == len({(label.kind, label.quote) for label in case.labels})


@of_each_case
def test_traps_are_passages_of_the_source_that_no_label_of_the_kind_quotes(case: Case) -> None:
    for trap in case.traps:
        place = case.locate(trap.passage)
        assert not isinstance(place, str), place
        assert trap.kind in GROUPS[case.group]
        quotes = [label.quote for label in case.labels if label.kind == trap.kind]
        assert not any(quote in trap.passage or trap.passage in quote for quote in quotes)
