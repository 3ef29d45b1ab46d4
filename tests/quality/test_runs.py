"""Runs of the labelled set against a stand-in model, and the program that prints their figures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Backend, open_backend
from ctxbackends.knowledge import Kind, RunOptions
from tests.knowledge.scripted_model import MODEL, ScriptedModel, completion
from tests.quality.__main__ import build_parser, main, measure, run_options, select_cases
from tests.quality.cases import load_cases
from tests.quality.label_model import answer_with, choose_labels, choose_traps
from tests.quality.report import format_table, scores_of
from tests.quality.runs import Meter, run_cases

CASES = load_cases()
TWO = [case for case in CASES if case.name in ("records/water-meters.md", "minutes/pharmacy.md")]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
async def backend(model: ScriptedModel, meter: Meter) -> AsyncIterator[Backend]:
    settings: Any = {"endpoint": model.url, "api_key": "test-key", "default_model": MODEL}
    async with open_backend("openai", observers=[meter], **settings) as backend:
        yield backend


async def test_a_model_that_answers_with_the_labels(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    answer_with(model, choose_labels)
    results = await run_cases(backend, CASES, meter=meter, options={})
    total = scores_of(results)["total"]
    labels = sum(len(case.labels) for case in CASES)
    assert [] == [label for result in results for label in result.marks.missed]
    assert (30, 0, labels, labels, labels) == (
        total.cases,
        total.failed,
        total.labels,
        total.right,
        total.right_fields,
    )
    assert (1.0, 1.0, 0, 0) == (total.precision, total.recall, total.traps, total.quarantined)
    requests = len(model.prompts)
    assert (requests, 100 * requests, 10 * requests) == (
        total.cost.requests,
        total.cost.input_tokens,
        total.cost.output_tokens,
    )


async def test_a_model_that_falls_into_all_traps(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    answer_with(model, choose_traps)
    results = await run_cases(backend, CASES, meter=meter, options={})
    total = scores_of(results)["total"]
    assert sum(len(case.traps) for case in CASES) == total.traps == total.possible_traps == total.rows
    assert (0.0, 0.0) == (total.precision, total.recall)


async def test_a_quote_that_is_not_in_the_source_is_quarantined(
    model: ScriptedModel, backend: Backend, meter: Meter
) -> None:
    answer_with(model, lambda _: [(Kind.DECISION, "Nobody wrote this sentence.", None)])
    results = await run_cases(backend, TWO, meter=meter, options={})
    total = scores_of(results)["total"]
    assert (0, 2, None) == (total.rows, total.quarantined, total.precision)


async def test_a_case_that_fails_is_counted_and_the_others_go_on(
    model: ScriptedModel, backend: Backend, meter: Meter
) -> None:
    answer_with(model, choose_labels)
    answer = model.script
    model.script = lambda prompt: completion("no JSON") if "pharmacy" in prompt else answer(prompt)
    results = await run_cases(backend, TWO, meter=meter, options={})
    assert [False, True] == [result.failure is not None for result in results]
    total = scores_of(results)["total"]
    assert (2, 1, 4, 8) == (total.cases, total.failed, total.right, total.labels)


async def test_a_server_that_answers_with_errors(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    from aiohttp import web  # noqa: PLC0415  # only here

    model.script = lambda _: web.json_response({"error": {"message": "out of memory"}}, status=500)
    results = await run_cases(backend, TWO, meter=meter, options={})
    assert all("out of memory" in (result.failure or "") for result in results)
    assert 2 == scores_of(results)["total"].failed


async def test_the_cases_of_a_group_together(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    answer_with(model, choose_labels)
    minutes = [case for case in CASES if case.group == "minutes"]
    results = await run_cases(backend, minutes, meter=meter, options={}, together=True)
    total = scores_of(results)["minutes"]
    assert (1.0, 1.0, len(model.prompts)) == (total.precision, total.recall, total.cost.requests)


async def test_other_kinds_than_those_of_the_group(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    answer_with(model, choose_labels)
    results = await run_cases(backend, TWO, meter=meter, options={}, kinds=[Kind.TASK])
    total = scores_of(results)["total"]
    assert (2, 2, 1.0, 0) == (total.labels, total.rows, total.recall, total.possible_traps)


# --- the program ----------------------------------------------------------------------------------------


def test_every_option_of_a_run_is_an_option_of_the_program() -> None:
    words = ["--chunk-tokens", "500", "--second-look", "--no-allow-unenforced", "--speakers", "user,assistant"]
    options = run_options(build_parser().parse_args([*words, "--model", "m"]))
    expected: dict[str, Any] = {
        "chunk_tokens": 500,
        "second_look": True,
        "allow_unenforced": False,
        "speakers": ("user", "assistant"),
        "model": "m",
    }
    assert expected == options
    assert RunOptions(**expected) == RunOptions(**options)
    assert {"model": None} == run_options(build_parser().parse_args([]))


def test_the_selection_of_cases_and_kinds() -> None:
    parse = build_parser().parse_args
    assert (Kind.DECISION, Kind.TASK) == parse([]).kinds
    assert (Kind.RISK, Kind.TERM) == parse(["--kinds", "terms,risk"]).kinds
    assert parse(["--kinds", "all"]).kinds is None
    assert 30 == len(select_cases(parse([])))
    assert 20 == len(select_cases(parse(["--groups", "records,minutes"])))
    assert ["records/radio-archive.md"] == [case.name for case in select_cases(parse(["--cases", "radio"]))]


async def test_the_program_prints_a_table_and_writes_json(
    model: ScriptedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_with(model, choose_labels)
    file = tmp_path / "figures.json"
    words = ["--endpoint", model.url, "--model", MODEL, "--allow-unenforced", "--cases", "water", "--json", str(file)]
    words += ["--kinds", "all"]
    assert 0 == await measure(build_parser().parse_args(words))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("records/water-meters.md: 4 of 4 labels, 4 of 4 rows right, 0 of 1 traps taken")
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert ["total", "1", "0", "4", "4", "4", "100 %", "100 %", "4/4", "0/1", "0"] == cells[:11]
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert (MODEL, "openai-compatible") == (figures["run"]["model"], figures["run"]["backend_type"])
    assert (1.0, 1.0, 4) == tuple(figures["scores"]["total"][name] for name in ("precision", "recall", "labels"))
    (case,) = figures["cases"]
    assert ["right"] * 4 == [row["verdict"] for row in case["found"]]
    assert ("en", [], []) == (case["language"], case["missed"], case["not_in_source"])


async def test_a_run_that_is_interrupted_leaves_the_cases_before(model: ScriptedModel, tmp_path: Path) -> None:
    answer_with(model, choose_labels)
    answer, file, counts = model.script, tmp_path / "figures.json", []

    def count_cases(prompt: str) -> Any:
        counts.append(len(json.loads(file.read_text(encoding="utf-8"))["cases"]))
        return answer(prompt)

    model.script = count_cases
    words = ["--endpoint", model.url, "--model", MODEL, "--allow-unenforced", "--cases", "o", "--groups", "minutes"]
    assert 0 == await measure(build_parser().parse_args([*words, "--json", str(file), "--kinds", "risks"]))
    assert [*range(len(counts))] == counts
    assert len(counts) > 1


async def test_the_table_has_a_row_for_each_group(model: ScriptedModel, backend: Backend, meter: Meter) -> None:
    results = await run_cases(backend, TWO, meter=meter, options={})
    lines = format_table(results).splitlines()
    assert ["records", "minutes", "total"] == [line.split("|")[1].strip() for line in lines[2:]]
    assert 1 == len({len(line) for line in lines})
    assert ["-", "0 %"] == [cell.strip() for cell in lines[-1].split("|")[7:9]]


async def test_a_run_in_which_everything_fails_has_exit_code_1(
    model: ScriptedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    model.script = lambda _: "no JSON"
    words = ["--endpoint", model.url, "--model", MODEL, "--allow-unenforced", "--cases", "water"]
    assert 1 == await measure(build_parser().parse_args(words))
    assert "; failed: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--cases", "no-such-case"], ["--backend", "no-such-backend"], ["--model-path", "no-such-model"]]
)
def test_what_cannot_be_run_has_exit_code_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert 2 == main(words)
    output = capsys.readouterr()
    assert "" == output.out
    assert 1 == len(output.err.splitlines())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--kinds", "decisions,ideas"], "unknown kind: 'ideas'; the kinds are decisions"),
        (["--groups", "minutes,mails"], "unknown group: 'mails'; the groups are records, sessions, minutes"),
    ],
)
def test_unknown_kinds_and_groups(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert problem in capsys.readouterr().err


def test_a_model_file_excludes_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model-path", "smollm2", "--endpoint", "http://127.0.0.1:1"])
    assert "mutually exclusive" in capsys.readouterr().err
