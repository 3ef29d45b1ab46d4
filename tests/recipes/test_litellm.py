"""The custom provider for LiteLLM in docs/frameworks/litellm.md, and the examples of docs/migrate/litellm.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import PROFILES
from ctxbackends.testing import Answer, OpenAIStandIn, Question
from tests import migration
from tests.recipes.pages import OLLAMA, OPENAI, Server, answer_with_tool, every_server, needs, run_page, serve_backend

pytestmark = needs("litellm", "litellm")

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PROMPT = [{"role": "user", "content": "How is the weather?"}]
HELLO = [{"role": "user", "content": "Hello"}]
JSON_PROMPT = [{"role": "user", "content": "Reply in JSON."}]


def answer(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=f"It is {question.tool_results[0].text}.")
    if question.tools:
        return Answer(tool_calls=[("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])
    return Answer(text="Deep blue.")


@every_server
def test_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_backend(server, answer, monkeypatch, tmp_path):
        run_page("litellm")["registry"].close()
    assert "Deep blue.\nDeep blue." == capsys.readouterr().out


@pytest.mark.parametrize("stream", [False, True])
@every_server
async def test_a_tool_loop(server: Server, stream: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def ask(litellm: Any, messages: list[Any]) -> Any:
        response = await litellm.acompletion("ctx/local", messages, tools=[TOOL], max_tokens=50, stream=stream)
        chunks = [chunk async for chunk in response] if stream else []
        return litellm.stream_chunk_builder(chunks) if stream else response

    with serve_backend(server, answer, monkeypatch, tmp_path):
        names = run_page("litellm")
        response = await ask(names["litellm"], PROMPT)
        choice = response.choices[0]
        calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in choice.message.tool_calls]
        last = await ask(names["litellm"], [*PROMPT, choice.message.model_dump(), *results])
        await names["registry"].async_registry.aclose()
    assert ("tool_calls", ["get_weather"] * 2) == (choice.finish_reason, [name for name, _ in calls])
    assert ["Oslo", "Rome"] == [arguments.split('"')[3] for _, arguments in calls]
    assert ("It is sunny.", "stop") == (last.choices[0].message.content, last.choices[0].finish_reason)
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens > 0


def test_the_options_reach_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path) as stand_in:
        names = run_page("litellm")
        names["litellm"].completion(
            "ctx/local/gpt-5-mini", JSON_PROMPT, stop="END", max_completion_tokens=7, seed=1,
            response_format={"type": "json_object"}, extra_headers={"X-Tenant": "blue"}, reasoning_effort="low",
            allowed_openai_params=["reasoning_effort"],
        )  # fmt: skip
        names["registry"].close()
    request = stand_in.requests[-1]
    expected = {"stop": ["END"], "max_completion_tokens": 7, "seed": 1, "reasoning_effort": "low"}
    assert expected == {name: request.json[name] for name in expected}
    assert ({"type": "json_object"}, "blue") == (request.json["response_format"], request.headers["x-tenant"])


def test_an_answer_without_an_id_has_litellms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OLLAMA, answer_with_tool, monkeypatch, tmp_path):
        names = run_page("litellm")
        response = names["litellm"].completion("ctx/local", PROMPT)
        names["registry"].close()
    assert response.id.startswith("chatcmpl-")
    assert 0 < response.created


def test_reasoning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def think(_: Question) -> Answer:
        return Answer(reasoning="Sky, sea.", text="Blue.")

    with serve_backend(OLLAMA, think, monkeypatch, tmp_path):
        names = run_page("litellm")
        litellm = names["litellm"]
        plain = litellm.completion("ctx/local", PROMPT)
        streamed = litellm.stream_chunk_builder(list(litellm.completion("ctx/local", PROMPT, stream=True)))
        names["registry"].close()
    for response in (plain, streamed):
        message = response.choices[0].message
        assert ("Sky, sea.", "Blue.") == (message.reasoning_content, message.content)


@pytest.mark.parametrize(
    ("model", "options", "category"),
    [
        ("ctx/local", {"reasoning_effort": "low"}, "UnsupportedParamsError"),
        ("ctx/local", {"logit_bias": {"1": 2}}, "BadRequestError"),
        ("ctx/local", {"top_k": 0.5}, "BadRequestError"),
        ("ctx/local", {"n": 2}, "BadRequestError"),
        ("ctx/local/other", {}, "NotFoundError"),
    ],
    ids=["litellm", "option", "value", "choices", "model"],
)
def test_errors(
    model: str, options: dict[str, Any], category: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("litellm")
        litellm = names["litellm"]
        for stream in (False, True):
            with pytest.raises(getattr(litellm, category)):
                list(litellm.completion(model, PROMPT, stream=stream, **options))
        names["registry"].close()


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_backend(OPENAI, answer, monkeypatch, tmp_path):
        names = run_page("litellm")
    litellm = names["litellm"]
    with pytest.raises(litellm.BadGatewayError, match='backend "local" unreachable'):
        litellm.completion("ctx/local", PROMPT)
    names["registry"].close()


# --- docs/migrate/litellm.md --------------------------------------------------------------------------


async def test_both_sides_of_the_migration_print_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any-key")
    async with OpenAIStandIn(answer=migration.answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        printed = await migration.run_page("litellm", "openai", server)
    assert {2} == {len(outputs) for outputs in printed.values()}
    assert {title: vendor for title, (vendor, _) in printed.items()} == {
        title: ours for title, (_, ours) in printed.items()
    }
    assert {"Create a client", "Close"} == {title for title, (vendor, _) in printed.items() if not vendor}


async def ask_litellm(url: str, is_streamed: bool) -> object:
    import litellm  # noqa: PLC0415  # takes seconds, and is not installed for all tests

    response = await litellm.acompletion(
        "openai/m", HELLO, api_base=f"{url}/v1", api_key="any-key", timeout=0.5, max_retries=0, stream=is_streamed
    )
    return [_ async for _ in response] if is_streamed else response


@pytest.mark.parametrize("row", migration.rows_of("litellm"), ids=str)
async def test_a_row_of_the_migration(row: migration.Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    assert migration.name_in(row.vendor) == await migration.outcome_of(ask_litellm, row.failure)


def test_the_types_of_the_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm  # noqa: PLC0415

    rows = re.findall(r"^\| (`\w+/`.*?) \| (.+?) \|$", migration.read("litellm"), re.MULTILINE)
    prefixes = {prefix for left, _ in rows for prefix in re.findall(r"`(\w+)/`", left)}
    providers = {str(getattr(provider, "value", provider)) for provider in litellm.provider_list}
    assert prefixes <= providers
    assert 100 < len(providers)
    assert len(prefixes) >= len(rows) > 10
    assert {kind for _, right in rows for kind in re.findall(r"`([\w-]+)`", right)} - {"endpoint"} <= PROFILES.keys()
