"""The model for smolagents in docs/frameworks/smolagents.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctxbackends import APIConnectionError
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OLLAMA, OPENAI, Recorder, Server, every_server, needs, run_page, serve_backend

pytestmark = needs("smolagents", "smolagents")


def answer(question: Question) -> Answer:
    """Call the tool, and give its result as the final answer."""
    text = question.messages[-1].text
    if "It rains" in text:
        return Answer(tool_calls=[("final_answer", {"answer": "Yes: It rains in Oslo."})])
    if question.tools:
        return Answer(tool_calls=[("get_weather", {"city": "Oslo"})])
    return Answer(text="Thought: easy.\n<code>\nfinal_answer(6 * 7)\n</code>")


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Recorder(answer)
    questions = record.questions

    with serve_backend(server, record, monkeypatch, tmp_path):
        names = run_page("smolagents")
        assert "Yes: It rains in Oslo." == capsys.readouterr().out.splitlines()[-1]
        agent = names["agent"]
        streamed = agent.run("Again?", return_full_result=True)
        agent.stream_outputs = False
        plain = agent.run("Again?", return_full_result=True)
        names["registry"].close()
    for run in (streamed, plain):
        assert ("success", "Yes: It rains in Oslo.") == (run.state, run.output)
        assert 0 < run.token_usage.input_tokens
        assert 0 < run.token_usage.output_tokens
    assert [["get_weather", "final_answer"]] * 6 == [[tool.name for tool in question.tools] for question in questions]
    expected = "auto" if server is OLLAMA else "required"
    assert {expected} == {question.tool_choice or "auto" for question in questions}


def test_a_code_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = Recorder(answer)
    questions = record.questions

    with serve_backend(OPENAI, record, monkeypatch, tmp_path):
        names = run_page("smolagents")
        del questions[:]
        smolagents = sys.modules["smolagents"]
        model = names["CtxModel"](names["registry"].default(), temperature=0.5)
        agent = smolagents.CodeAgent([], model, use_structured_outputs_internally=False)
        assert 42 == agent.run("How much is 6 times 7?")
        names["registry"].close()
    [question] = questions
    assert 0.5 == question.options["temperature"]
    assert "Observation:" in question.options["stop"]


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("smolagents")
    with pytest.raises(sys.modules["smolagents"].AgentGenerationError, match='backend "local" unreachable') as raised:
        names["agent"].run("Again?")
    assert isinstance(raised.value.__cause__, APIConnectionError)
    names["registry"].close()
