"""The chat generator for Haystack in docs/frameworks/haystack.md."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import APIConnectionError, errors
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OLLAMA, OPENAI, Server, answer_with_tool, every_server, needs, run_page, serve_backend

pytestmark = needs("haystack", "haystack")


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_backend(server, answer_with_tool, monkeypatch, tmp_path):
        run_page("haystack")["registry"].close()
    assert "Deep blue.\nYes: It rains in Oslo.\n" == capsys.readouterr().out


@pytest.mark.parametrize("is_async", [False, True])
@every_server
def test_a_streamed_agent(server: Server, is_async: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chunks: list[Any] = []

    async def append(chunk: Any) -> None:
        chunks.append(chunk)

    with serve_backend(server, answer_with_tool, monkeypatch, tmp_path):
        names = run_page("haystack")
        agent, prompt = names["agent"], [names["ChatMessage"].from_user("Umbrella?")]
        if is_async:
            result = asyncio.run(agent.run_async(prompt, streaming_callback=append))
        else:
            result = agent.run(prompt, streaming_callback=chunks.append)
        names["registry"].close()
    reply = result["messages"][-1]
    assert "Yes: It rains in Oslo." == reply.text == "".join(chunk.content for chunk in chunks)
    assert ["get_weather"] == [call.tool_name for chunk in chunks for call in chunk.tool_calls or () if call.tool_name]
    assert reply.meta["model"].startswith(server.model)
    assert "stop" == reply.meta["finish_reason"]
    assert 0 < reply.meta["usage"]["completion_tokens"]


def test_options_and_reasoning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    questions: list[Question] = []

    def think(question: Question) -> Answer:
        questions.append(question)
        return Answer(text="Blue.") if question.tools else Answer(reasoning="Sky.", text="Blue.")

    with serve_backend(OLLAMA, think, monkeypatch, tmp_path):
        names = run_page("haystack")
        generator = names["CtxChatGenerator"]("local", {"temperature": 0.5, "max_tokens": 7})
        same = names["CtxChatGenerator"].from_dict(generator.to_dict())
        [reply] = same.run([names["ChatMessage"].from_user("Hi")], generation_kwargs={"max_tokens": 9})["replies"]
        names["registry"].close()
    assert ("Blue.", "Sky.") == (reply.text, reply.reasoning.reasoning_text)
    assert (0.5, 9) == tuple(questions[-1].options["options"][name] for name in ("temperature", "num_predict"))


def test_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer_with_tool, monkeypatch, tmp_path):
        names = run_page("haystack")
        prompt = [names["ChatMessage"].from_user("Hi")]
        with pytest.raises(errors.NotFoundError):
            names["CtxChatGenerator"](options={"model": "other"}).run(prompt)
    with pytest.raises(Exception, match='backend "local" unreachable') as raised:
        names["pipeline"].run({"prompt": {"thing": "the sky"}})
    assert "PipelineRuntimeError" == type(raised.value).__name__
    assert isinstance(raised.value.__cause__, APIConnectionError)
    names["registry"].close()
