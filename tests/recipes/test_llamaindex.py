"""The model for LlamaIndex in docs/frameworks/llamaindex.md."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import APIConnectionError, NotFoundError
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OLLAMA, OPENAI, Server, answer_with_tool, every_server, needs, run_page, serve_backend

pytestmark = needs("llama_index.llms.openai", "llamaindex")


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_backend(server, answer_with_tool, monkeypatch, tmp_path):
        run_page("llamaindex")["registry"].close()
    assert "Deep blue.\nYes: It rains in Oslo.\n" == capsys.readouterr().out


@every_server
def test_every_method(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def texts(llm: Any, message: Any) -> list[str]:
        chunks = [chunk async for chunk in await llm.astream_chat([message])]
        pieces = [piece async for piece in await llm.astream_complete("Hi")]
        plain = [(await llm.achat([message])).message.content, (await llm.acomplete("Hi")).text]
        return [*plain, "".join(chunk.delta for chunk in chunks), chunks[-1].message.content, pieces[-1].text]

    with serve_backend(server, answer_with_tool, monkeypatch, tmp_path):
        names = run_page("llamaindex")
        llm, message = names["llm"], names["ChatMessage"](role="user", content="Hi")
        chunks = list(llm.stream_chat([message]))
        pieces = list(llm.stream_complete("Hi"))
        plain = [llm.chat([message]).message.content, llm.complete("Hi").text]
        assert ["Deep blue."] * 5 == asyncio.run(texts(llm, message))
        names["registry"].close()
    assert ["Deep blue."] * 2 == plain
    assert ["Deep blue."] * 3 == ["".join(chunk.delta for chunk in chunks), chunks[-1].message.content, pieces[-1].text]
    assert chunks[-1].raw.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(streamed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    questions: list[Question] = []

    def call_twice(question: Question) -> Answer:
        questions.append(question)
        if question.tool_choice == "required":
            return Answer(tool_calls=[("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])
        return answer_with_tool(question)

    with serve_backend(OPENAI, call_twice, monkeypatch, tmp_path):
        names = run_page("llamaindex")
        llm, tool = names["llm"], sys.modules["llama_index.core.tools"].FunctionTool.from_defaults(names["get_weather"])
        ask = llm.stream_chat_with_tools if streamed else llm.chat_with_tools
        responses = ask([tool], "Weather?", tool_required=True, allow_parallel_tool_calls=True)
        response = list(responses)[-1] if streamed else responses
        calls = llm.get_tool_calls_from_response(response)
        assert ["It rains in Oslo."] == [out.content for out in llm.predict_and_call([tool], "Weather?").sources]
        text = llm.chat([names["ChatMessage"](role="user", content="Hi")])
        with pytest.raises(ValueError, match="the model called no tool"):
            llm.get_tool_calls_from_response(text)
        names["registry"].close()
    assert [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})] == [
        (call.tool_name, call.tool_kwargs) for call in calls
    ]
    assert 2 == len({call.tool_id for call in calls})
    assert [None, False] == [question.options.get("parallel_tool_calls") for question in questions[-3:-1]]


def test_reasoning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def think(question: Question) -> Answer:
        return Answer(reasoning="Sky, sea.", text="Blue.")

    with serve_backend(OLLAMA, think, monkeypatch, tmp_path):
        names = run_page("llamaindex")
        response = names["llm"].chat([names["ChatMessage"](role="user", content="Hi")])
        names["registry"].close()
    assert [("thinking", "Sky, sea."), ("text", "Blue.")] == [
        (block.block_type, getattr(block, "content", None) or getattr(block, "text", None))
        for block in response.message.blocks
    ]


def test_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer_with_tool, monkeypatch, tmp_path):
        names = run_page("llamaindex")
        with pytest.raises(NotFoundError):
            names["llm"].complete("Hi", model="other")
        with pytest.raises(TypeError, match="did you mean stop_sequences"):
            names["llm"].complete("Hi", stop=["x"])
    with pytest.raises(APIConnectionError, match='backend "local" unreachable'):
        names["llm"].complete("Hi")
    names["registry"].close()
