"""Several questions about each chunk: groups of kinds, their requests, journal and failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ctxbackends import ServerStatus, UnsupportedOperationError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.budget import estimate_budget
from ctxbackends.knowledge._extract.citations import NOT_FOUND
from ctxbackends.knowledge._extract.estimate import estimate_plan
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.model_size import read_model_size
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.prompt import Prompt, field_name
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._extract.wording import EXAMPLES
from ctxbackends.knowledge._records import Kind, Row, fields_of
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import MODEL, completion, decision, line_of, scripted_backend

YAML = "We chose YAML because people edit it by hand."
TASK = "Somebody has to write the parser."
RISK = "The parser may be too slow for large files."
KINDS = (Kind.DECISION, Kind.TASK, Kind.RISK)
ROWS: Mapping[str, Any] = {
    "decisions": [decision("Use YAML", YAML)],
    "tasks": [{"quote": TASK, "line": 2, "summary": "Write the parser", "priority": "high"}],
    "risks": [{"quote": RISK, "line": 3, "title": "A slow parser", "impact": "", "mitigation": ""}],
}


def answer(prompt: str) -> dict[str, Any]:
    """Return the rows of the kinds that the prompt asks for."""
    return {name: rows for name, rows in ROWS.items() if f"- {name}:" in prompt}


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


@pytest.mark.parametrize(
    ("size", "groups"),
    [
        (None, [["decisions", "tasks", "risks"]]),
        (1, [["decisions"], ["tasks"], ["risks"]]),
        (2, [["decisions", "tasks"], ["risks"]]),
        (3, [["decisions", "tasks", "risks"]]),
        (9, [["decisions", "tasks", "risks"]]),
    ],
)
def test_groups_of_kinds(size: int | None, groups: list[list[str]]) -> None:
    prompt = Prompt(KINDS, size)
    assert groups == [list(question.response_type.__struct_fields__) for question in prompt.questions]
    assert len(groups) == len({question.sha256 for question in prompt.questions})


def test_the_only_question_has_its_task_before_the_chunk() -> None:
    (question,) = Prompt(KINDS).questions
    assert "The text." == question.build_text("The text.")
    assert "- risks:" in question.instructions


def test_several_questions_begin_with_the_same_bytes_up_to_their_task() -> None:
    questions = Prompt(KINDS, 1).questions
    assert 1 == len({question.instructions for question in questions})
    texts = [question.build_text("The text.") for question in questions]
    assert [True] * 3 == [text.startswith("The text.\n\n") for text in texts]
    assert [1, 1, 1] == [sum(f"- {name}:" in text for text in texts) for name in ROWS]


def test_the_quote_is_the_first_property_of_each_row() -> None:
    for question in Prompt(tuple(Kind)).questions:
        for kind in question.response_type.__struct_fields__:
            (row,) = question.response_type.__annotations__[kind].__args__[0].__args__
            assert ("quote", "line") == row.__struct_fields__[:2]


# --- requests -------------------------------------------------------------------------------------------


async def test_a_request_for_each_group() -> None:
    async with scripted_backend(answer) as (model, backend):
        run = ingest(backend, [LinesSource(YAML, TASK, RISK)], kinds=KINDS, kinds_per_question=1)
        rows = await rows_of(run)
    assert ["Use YAML", "Write the parser", "A slow parser"] == [row.title for row in rows]
    schemas = [list(body["response_format"]["json_schema"]["schema"]["properties"]) for body in model.bodies]
    assert [["decisions"], ["tasks"], ["risks"]] == schemas
    assert 1 == len({body["messages"][0]["content"] for body in model.bodies})
    assert (1, 3, 3) == (run.report.chunks, run.report.requests, run.report.rows)


async def test_the_rows_of_a_chunk_come_before_those_of_the_next() -> None:
    def script(prompt: str) -> dict[str, Any]:
        part = "first" if "The first part." in prompt else "second"
        quote = f"The {part} part."
        rows = {
            "decisions": [decision(f"{part} decision", quote, line_of(prompt, quote))],
            "tasks": [{"quote": quote, "line": 1, "summary": f"{part} task", "priority": "low"}],
        }
        return {name: rows[name] for name in rows if f"- {name}:" in prompt}

    filler = " And so on." * 30
    lines = LinesSource("The first part." + filler, "# Next", "The second part." + filler)
    async with scripted_backend(script) as (model, backend):
        run = ingest(
            backend,
            [lines],
            kinds=[Kind.DECISION, Kind.TASK],
            kinds_per_question=1,
            chunk_tokens=140,
            max_concurrency=1,
        )
        rows = await rows_of(run)
    assert ["first decision", "first task", "second decision", "second task"] == [row.title for row in rows]
    # The questions of a chunk follow each other, so that the server has its text in the cache.
    assert [True, True, False, False] == ["The first part." in prompt for prompt in model.prompts]
    assert (2, 4) == (run.report.chunks, run.report.requests)


async def test_chunks_are_counted_with_the_longest_question() -> None:
    lines = LinesSource(*[YAML] * 60)
    options: Any = {"kinds": KINDS, "kinds_per_question": 2, "chunk_tokens": 400}
    async with scripted_backend(answer) as (model, backend):
        plan = await ingest(backend, [lines], **options).plan()
        run = ingest(backend, [lines], **options)
        await rows_of(run)
    assert plan.chunks > 1
    assert (plan.chunks, plan.requests) == (run.report.chunks, len(model.bodies))
    budget = estimate_budget(Prompt(KINDS, 2).frames)
    assert (0, max(budget.overheads)) == (budget.longest, budget.overhead)
    assert sum(budget.overheads) + 2 * 100 == budget.sum_tokens(100)


# --- the journal ----------------------------------------------------------------------------------------


async def test_each_group_has_its_answer_in_the_journal(tmp_path: Path) -> None:
    def failing(prompt: str) -> Any:
        return completion("{", finish_reason="stop") if "- risks:" in prompt else answer(prompt)

    source = LinesSource(YAML, TASK, RISK)
    with closing(Journal(tmp_path / "journal" / "run.jsonl")) as journal:
        async with scripted_backend(failing) as (model, backend):
            with pytest.raises(ChunkError, match=r"no usable answer from the model for risks: "):
                await rows_of(ingest(backend, [source], kinds=KINDS, kinds_per_question=1, journal=journal))
        assert 2 == len(journal)
        async with scripted_backend(answer) as (model, backend):
            run = ingest(backend, [source], kinds=KINDS, kinds_per_question=1, journal=journal)
            rows = await rows_of(run)
    assert ["Use YAML", "Write the parser", "A slow parser"] == [row.title for row in rows]
    assert [["risks"]] == [
        list(body["response_format"]["json_schema"]["schema"]["properties"]) for body in model.bodies
    ]
    assert (2, 1) == (run.report.reused, run.report.requests)


async def test_another_grouping_does_not_take_answers_from_the_journal(tmp_path: Path) -> None:
    source = LinesSource(YAML, TASK, RISK)
    with closing(Journal(tmp_path / "journal" / "run.jsonl")) as journal:
        async with scripted_backend(answer) as (_, backend):
            await rows_of(ingest(backend, [source], kinds=KINDS, kinds_per_question=1, journal=journal))
            run = ingest(backend, [source], kinds=KINDS, journal=journal)
            await rows_of(run)
    assert (0, 1) == (run.report.reused, run.report.requests)


# --- failures -------------------------------------------------------------------------------------------


async def test_the_failure_of_a_group_names_its_kinds_and_keeps_the_others() -> None:
    def script(prompt: str) -> Any:
        return completion("[]") if "- tasks:" in prompt else answer(prompt)

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [LinesSource(YAML, TASK, RISK)], kinds=KINDS, kinds_per_question=1, skip_failed=True)
        rows = await rows_of(run)
    assert ["Use YAML", "A slow parser"] == [row.title for row in rows]
    (skipped,) = run.report.skipped
    assert skipped.reason.startswith("lines 1-3: no usable answer from the model for tasks: ")
    assert (1, 3) == (run.report.chunks, run.report.requests)


# --- the plan -------------------------------------------------------------------------------------------


async def test_the_plan_counts_requests_and_their_tokens() -> None:
    source = LinesSource(YAML, TASK, RISK)
    async with scripted_backend() as (_, backend):
        plans = [await ingest(backend, [source], kinds=KINDS, kinds_per_question=size).plan() for size in (3, 1)]
    estimates = [
        estimate_plan([source], RunOptions(kinds=KINDS, kinds_per_question=size), on_event=lambda _: None)
        for size in (3, 1)
    ]
    for one, several in (plans, estimates):
        assert (1, 1) == (one.chunks, one.requests)
        assert (1, 3) == (several.chunks, several.requests)
        assert one.tokens < several.tokens < 3 * one.tokens


# --- the default ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "context_length", "expected"),
    [
        (134_515_008, 8192, 1),
        (3_999_999_999, 131_072, 1),
        (4_000_000_000, 131_072, None),
        (8_000_000_000, 4096, None),  # the size decides if it is known
        (None, 4096, 1),
        (None, 4097, None),
        (None, None, None),
    ],
)
async def test_small_models_get_one_kind_a_question(
    parameters: int | None, context_length: int | None, expected: int | None
) -> None:
    status = ServerStatus(state="ready", model=MODEL, parameters=parameters, context_length=context_length)
    async with scripted_backend() as (_, backend):
        assert expected == (await read_model_size(backend, status, model=None)).kinds_per_question
        assert expected == (await read_model_size(backend, status, model=MODEL)).kinds_per_question


async def test_the_size_of_the_requested_model_decides() -> None:
    status = ServerStatus(state="ready", model="another", parameters=70_000_000_000)
    async with scripted_backend(parameters=1_000_000_000) as (_, backend):
        assert 1 == (await read_model_size(backend, status, model=MODEL)).kinds_per_question
        assert None is (await read_model_size(backend, status, model="unlisted")).kinds_per_question


async def test_a_server_without_a_model_list() -> None:
    async with scripted_backend() as (_, backend):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(backend), "models", _no_models)
            status = ServerStatus(state="ready", context_length=2048)
            assert 1 == (await read_model_size(backend, status, model=MODEL)).kinds_per_question


async def _no_models(_: object) -> NoReturn:
    raise UnsupportedOperationError("models", "there is no list")


@pytest.mark.parametrize(("more", "requests"), [({}, 3), ({"kinds_per_question": 3}, 1)])
async def test_a_run_with_a_small_model(more: dict[str, Any], requests: int) -> None:
    async with scripted_backend(answer, parameters=1_700_000_000) as (model, backend):
        await rows_of(ingest(backend, [LinesSource(YAML, TASK, RISK)], kinds=KINDS, **more))
    assert requests == len(model.bodies)


async def test_a_run_with_a_large_model() -> None:
    async with scripted_backend(answer, parameters=8_000_000_000) as (model, backend):
        await rows_of(ingest(backend, [LinesSource(YAML, TASK, RISK)], kinds=KINDS))
    assert 1 == len(model.bodies)


# --- the examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_an_example_that_is_a_valid_answer(kind: Kind) -> None:
    (question,) = Prompt([kind]).questions
    quote, fields = EXAMPLES[kind]
    row = {"quote": quote, "line": 7, **fields}
    assert json.dumps(row) in question.instructions
    (extracted,) = question.parse_rows(question.decode(json.dumps({field_name(kind): [row]}).encode()))
    assert (quote, fields) == (extracted.quote, fields_of(extracted.record))


async def test_a_row_that_quotes_an_example_is_quarantined() -> None:
    rows = {field_name(kind): [{"quote": quote, "line": 7, **row}] for kind, (quote, row) in EXAMPLES.items()}
    async with scripted_backend(lambda _: rows) as (_, backend):
        run = ingest(backend, [LinesSource(*[YAML] * 10)], kinds=tuple(Kind), kinds_per_question=6)
        assert [] == await rows_of(run)
    assert {NOT_FOUND} == {row.reason for row in run.quarantined}
    assert [quote for quote, _ in EXAMPLES.values()] == [row.quote for row in run.quarantined]
