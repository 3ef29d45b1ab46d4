"""The model for Google's ADK in docs/frameworks/google-adk.md."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from ctxbackends import APIConnectionError, JSONSchemaFormat
from ctxbackends.testing import Answer, Question
from tests.recipes.pages import OLLAMA, OPENAI, Recorder, Server, every_server, needs, run_page, serve_backend

pytestmark = needs("google.adk", "google-adk")


class Town(pydantic.BaseModel):
    name: str


def answer(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=f"Yes: {json.loads(question.tool_results[0].text)['result']}")
    if question.tools:
        return Answer(reasoning="Look.", tool_calls=[("get_weather", {"city": "Oslo"})])
    if question.response_format is not None:
        return Answer(text='{"name": "Oslo"}')
    return Answer(reasoning="Sky.", text="Deep blue.")


def collect(names: dict[str, Any], request: Any, stream: bool) -> list[Any]:
    async def run() -> list[Any]:
        async with names["Registry"].from_ctxrc() as registry:
            model = names["CtxLlm"](registry.default())
            return [response async for response in model.generate_content_async(request, stream=stream)]

    return asyncio.run(run())


def build_request(names: dict[str, Any], **config: Any) -> Any:
    types = names["types"]
    prompt = types.Content(role="user", parts=[types.Part(text="Hi")])
    return names["LlmRequest"](contents=[prompt], config=types.GenerateContentConfig(**config))


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Recorder(answer)
    questions = record.questions

    with serve_backend(server, record, monkeypatch, tmp_path):
        run_page("google-adk")
    assert "Yes: It rains in Oslo.\n" == capsys.readouterr().out
    assert ["get_weather"] == [tool.name for tool in questions[0].tools]
    assert ["system", "user", "assistant", "tool"] == [message.role for message in questions[1].messages]
    assert questions[0].messages[0].text.startswith("Be brief.")


@every_server
def test_a_stream(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(server, answer, monkeypatch, tmp_path):
        names = run_page("google-adk")
        *chunks, last = collect(names, build_request(names, max_output_tokens=500), stream=True)
        [plain] = collect(names, build_request(names, max_output_tokens=500), stream=False)
    texts = [part.text for chunk in chunks for part in chunk.content.parts if not part.thought]
    assert "Deep blue." == "".join(texts) == last.content.parts[-1].text == plain.content.parts[-1].text
    assert [True] * len(chunks) == [chunk.partial for chunk in chunks]
    assert (False, "STOP") == (last.partial, last.finish_reason.value)
    assert 0 < last.usage_metadata.candidates_token_count


def test_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = Recorder(answer)
    questions = record.questions

    with serve_backend(OLLAMA, record, monkeypatch, tmp_path):
        names = run_page("google-adk")
        request = build_request(
            names, temperature=0.5, top_k=4, stop_sequences=["END"], response_schema=Town, max_output_tokens=9
        )
        [response] = collect(names, request, stream=False)
        thought = collect(names, build_request(names), stream=False)[0].content.parts[0]
    assert '{"name": "Oslo"}' == response.content.parts[0].text
    assert (True, "Sky.") == (thought.thought, thought.text)
    options = questions[2].options["options"]
    assert (0.5, 4, ["END"], 9) == tuple(options[name] for name in ("temperature", "top_k", "stop", "num_predict"))
    assert isinstance(questions[2].response_format, JSONSchemaFormat)


def test_unsupported_parts_and_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("google-adk")
        types = names["types"]
        search = build_request(names, tools=[types.Tool(google_search=types.GoogleSearch())])
        video = build_request(names)
        video.contents[0].parts = [types.Part(file_data=types.FileData(file_uri="gs://a", mime_type="video/mp4"))]
        for request, message in ((search, "tool not supported"), (video, "part not supported")):
            with pytest.raises(ValueError, match=message):
                collect(names, request, stream=False)
    with pytest.raises(APIConnectionError, match='backend "local" unreachable'):
        collect(names, build_request(names), stream=True)
