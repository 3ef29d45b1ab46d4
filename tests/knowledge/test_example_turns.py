"""Example turns for very small models: when they are sent, where they are, and that no row comes from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends import ServerStatus
from ctxbackends.knowledge import Kind, ingest
from ctxbackends.knowledge._extract.budget import estimate_budget
from ctxbackends.knowledge._extract.citations import NOT_FOUND
from ctxbackends.knowledge._extract.example_turns import EXAMPLES_OF, QUESTIONS
from ctxbackends.knowledge._extract.model_size import read_model_size
from ctxbackends.knowledge._extract.prompt import Prompt, Question, field_name
from ctxbackends.knowledge._extract.wording import RULES
from ctxbackends.knowledge._records import fields_of
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import MODEL, decision, scripted_backend

KINDS = (Kind.DECISION, Kind.TASK)
TEXT = "We chose YAML because people edit it by hand."


def roles_of(question: Question) -> list[str]:
    return [str(message.role) for message in question.build_messages("The text.")]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [(134_515_008, True), (999_999_999, True), (1_000_000_000, False), (8_000_000_000, False), (None, False)],
)
async def test_models_below_a_billion_parameters_get_them(parameters: int | None, expected: bool) -> None:
    status = ServerStatus(state="ready", model=MODEL, parameters=parameters, context_length=4096)
    async with scripted_backend() as (_, backend):
        assert expected is (await read_model_size(backend, status, model=None)).needs_turns


async def test_the_size_of_the_requested_model_decides() -> None:
    status = ServerStatus(state="ready", model="another", parameters=70_000_000_000)
    async with scripted_backend(parameters=135_000_000) as (_, backend):
        assert (await read_model_size(backend, status, model=MODEL)).needs_turns
        assert not (await read_model_size(backend, status, model="unlisted")).needs_turns


@pytest.mark.parametrize("kinds", [KINDS, (Kind.TASK,)])
def test_they_are_between_the_rules_and_the_chunk(kinds: tuple[Kind, ...]) -> None:
    for question in Prompt(kinds, 1, has_turns=True).questions:
        (kind,) = question.kinds
        assert isinstance(kind, Kind)
        assert ["system", *["user", "assistant"] * 3, "user"] == roles_of(question)
        messages = question.build_messages(question.build_text("The text."))
        assert RULES == messages[0].text
        assert messages[-1].text.startswith("The text.\n\n")
        assert [True] * 4 == [QUESTIONS[kind] in message.text for message in messages[1::2]]


def test_all_chunks_of_a_question_begin_with_the_same_messages() -> None:
    (question,) = Prompt([Kind.RISK], 1, has_turns=True).questions
    first, second = (question.build_messages(question.build_text(text))[:-1] for text in ("One.", "Two."))
    assert first == second
    assert [roles_of(question)] * 2 == [roles_of(question.packed), roles_of(question.select(Kind.RISK))]


def test_a_question_about_several_kinds_has_none() -> None:
    (question,) = Prompt(KINDS, None, has_turns=True).questions
    (other,) = Prompt(KINDS).questions
    assert ["system", "user"] == roles_of(question)
    assert other.sha256 == question.sha256


def test_they_change_the_key_of_the_journal_and_count_as_tokens() -> None:
    with_turns, without = Prompt([Kind.TASK], 1, has_turns=True), Prompt([Kind.TASK], 1)
    assert with_turns.questions[0].sha256 != without.questions[0].sha256
    turns = sum(len(message.text) for message in with_turns.questions[0].turns)
    assert estimate_budget(with_turns.frames).overhead > turns // 3


def test_the_instructions_of_a_person_are_after_the_chunk_and_masked() -> None:
    key = f"sk-{'a1B2c3D4' * 6}"
    (question,) = Prompt([Kind.TASK], 1, has_turns=True, instructions=f"Leave out lunch. {key}").questions
    assert key not in question.build_text("The text.")
    texts = [message.text for message in question.build_messages(question.build_text("The text."))]
    assert [False] * 7 + [True] == ["Leave out lunch." in text for text in texts]


@pytest.mark.parametrize("kind", [*Kind])
def test_each_turn_is_a_valid_answer_about_its_text(kind: Kind) -> None:
    (question,) = Prompt([kind], 1, has_turns=True).questions
    for example, answer in zip(EXAMPLES_OF[kind], question.turns[1::2], strict=True):
        (row,) = question.parse_rows(question.decode(answer.text.encode()))
        assert (example.quote, example.line, example.fields) == (row.quote, row.line, fields_of(row.record))
        assert f"[{row.line}] {row.quote}" in example.text


@pytest.mark.parametrize("kind", [*Kind])
async def test_a_row_that_quotes_one_is_quarantined_without_a_second_look(kind: Kind) -> None:
    rows = [{"quote": example.quote, "line": 1, **example.fields} for example in EXAMPLES_OF[kind]]

    def repeat(prompt: str) -> Any:
        return json.dumps({"quote": TEXT}) if prompt.startswith("Passage:") else {field_name(kind): rows}

    async with scripted_backend(repeat, parameters=135_000_000) as (_, backend):
        run = ingest(backend, [LinesSource(TEXT)], kinds=[kind], second_look=True)
        assert [] == [row async for row in run]
    assert [(row["quote"], NOT_FOUND) for row in rows] == [(row.quote, row.reason) for row in run.quarantined]
    assert 0 == run.report.second_looks


@pytest.mark.parametrize(("parameters", "messages"), [(135_000_000, 8), (1_700_000_000, 2), (None, 2)])
async def test_a_run_sends_them_by_the_size_of_the_model(parameters: int | None, messages: int) -> None:
    def answer(prompt: str) -> Any:
        return {"decisions": [decision("Use YAML", TEXT)]}

    async with scripted_backend(answer, parameters=parameters) as (model, backend):
        rows = [row async for row in ingest(backend, [LinesSource(TEXT)], kinds=[Kind.DECISION])]
    assert ["Use YAML"] == [row.title for row in rows]
    assert [messages] == [len(body["messages"]) for body in model.bodies]


@pytest.mark.parametrize(("context_length", "messages"), [(32_768, 8), (2_500, 2), (1_000, 2)])
async def test_they_leave_most_of_the_context_to_the_text(context_length: int, messages: int) -> None:
    """In the smallest context there is no room for a chunk after them."""

    def answer(prompt: str) -> Any:
        return {"decisions": [decision("Use YAML", TEXT)]}

    async with scripted_backend(answer, parameters=135_000_000, context_length=context_length) as (model, backend):
        run = ingest(backend, [LinesSource(TEXT)], kinds=[Kind.DECISION])
        assert ["Use YAML"] == [row.title async for row in run]
    assert (context_length, {messages}) == (run.report.context_length, {len(body["messages"]) for body in model.bodies})
