"""The function for instructor in docs/frameworks/instructor.md."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ctxbackends import JSONSchemaFormat
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OPENAI, Server, every_server, needs, run_page, serve_backend

pytestmark = needs("instructor", "instructor")

OSLO = {"name": "Oslo", "country": "Norway"}
PROMPT = {"role": "user", "content": "The town?"}


def answer(question: Question) -> Answer:
    if question.tools:
        return Answer(tool_calls=[(question.tools[0].name, OSLO)])
    assert isinstance(question.response_format, JSONSchemaFormat)
    assert {"name", "country"} == set(question.response_format.schema["properties"])
    return Answer(text=json.dumps(OSLO))


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_backend(server, answer, monkeypatch, tmp_path):
        names = run_page("instructor")
        town = asyncio.run(names["async_client"].create(response_model=names["Town"], messages=[PROMPT], max_tokens=99))
        names["registry"].close()
    assert "name='Oslo' country='Norway'\n" == capsys.readouterr().out
    assert OSLO == town.model_dump()


def test_tools_and_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("instructor")
        instructor, mode = names["instructor"], names["instructor"].Mode.TOOLS
        create = instructor.patch(create=names["create"], mode=mode)
        client = instructor.Instructor(client=None, create=create, mode=mode)
        town, response = client.create_with_completion(response_model=names["Town"], messages=[PROMPT], max_tokens=99)
        names["registry"].close()
    assert OSLO == town.model_dump()
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens > 0


def test_an_answer_that_does_not_fit_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    questions: list[Question] = []

    def fail_once(question: Question) -> Answer:
        questions.append(question)
        return Answer(text='{"name": "Oslo"}') if len(questions) == 2 else answer(question)

    with serve_backend(OPENAI, fail_once, monkeypatch, tmp_path):
        names = run_page("instructor")
        town = names["client"].create(response_model=names["Town"], messages=[PROMPT], stop=["END"], max_retries=2)
        names["registry"].close()
    assert OSLO == town.model_dump()
    assert [1, 1, 3] == [len(question.messages) for question in questions]


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("instructor")
    with pytest.raises(names["instructor"].core.InstructorRetryException, match='backend "local" unreachable'):
        names["client"].create(response_model=names["Town"], messages=[PROMPT], max_retries=1)
    names["registry"].close()
