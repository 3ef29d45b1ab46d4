"""The engine for DSPy in docs/frameworks/dspy.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import APIConnectionError
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OLLAMA, OPENAI, Recorder, Server, every_server, needs, run_page, serve_backend

pytestmark = needs("dspy", "dspy")


@pytest.fixture(autouse=True)
def cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path / "cache"))


def answer(question: Question) -> Answer:
    assert "Which colour" in question.prompt
    return Answer(text="[[ ## colour ## ]]\nDeep blue.\n\n[[ ## completed ## ]]")


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Recorder(answer)
    questions = record.questions

    with serve_backend(server, record, monkeypatch, tmp_path):
        names = run_page("dspy")
        assert "Deep blue.\n" == capsys.readouterr().out
        prediction = asyncio.run(names["predict"].acall(question="Which colour?"))
        usage = names["lm"].history[-1]["usage"]
        names["registry"].close()
    assert "Deep blue." == prediction.colour
    assert [server.model] * 2 == [question.model for question in questions]
    assert ["system", "user"] == [message.role for message in questions[0].messages]
    assert 0 < usage["completion_tokens"]


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in stream]


def test_a_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("dspy")
        values = asyncio.run(collect(names["dspy"].streamify(names["predict"])(question="Which colour?")))
        names["registry"].close()
    assert "Deep blue." == values[-1].colour


def test_a_call_with_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    questions: list[Question] = []

    def think(question: Question) -> Answer:
        questions.append(question)
        return Answer(reasoning="Sky.", text="Blue.") if question.prompt == "Hi" else answer(question)

    with serve_backend(OLLAMA, think, monkeypatch, tmp_path):
        names = run_page("dspy")
        [reply] = names["lm"]("Hi", temperature=0.5, stop=["END"])
        names["registry"].close()
    text: Any = reply["text"] if isinstance(reply, dict) else reply
    assert "Blue." == text
    options = questions[-1].options["options"]
    assert (0.5, ["END"], 500) == (options["temperature"], options["stop"], options["num_predict"])


def test_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("dspy")
        other = names["lm"].copy(model="other")
        with pytest.raises(names["dspy"].LMUnsupportedModelError):
            other("Which colour?")
    with pytest.raises(names["dspy"].LMTransportError, match='backend "local" unreachable') as raised:
        names["lm"].copy(num_retries=0)("Which colour?")
    assert raised.value.__cause__ is not None
    assert isinstance(raised.value.__cause__.__cause__, APIConnectionError)
    names["registry"].close()
