"""Streaming extraction, and the JSON in answers of servers that do not enforce schemas."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import (
    Backend,
    BackendType,
    Extraction,
    IncompleteOutputError,
    Member,
    StreamInterruptedError,
    StructuredOutputError,
    Tool,
    WireAPI,
    extract,
    extract_result,
    extract_stream,
    open_backend,
)
from ctxbackends._schema.answers import AnswerUnwrapper, unwrap_answer
from ctxbackends.testing import Answer, AnthropicStandIn, FaultServer, LMStudioStandIn, OllamaStandIn, OpenAIStandIn
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.conftest import RawServerFactory, http_response


@attrs.frozen
class Decision:
    title: str
    votes: int
    tags: list[str]


TEXT = '{"title": "YAML, of course", "votes": 5, "tags": ["a", "b"]}'
MEMBERS = [Member("title", "YAML, of course"), Member("votes", 5), Member("tags", ["a", "b"])]
VALUE = Decision("YAML, of course", 5, ["a", "b"])


@asynccontextmanager
async def backend_of(
    text: str | Answer,
    stand_in: type[StandIn] = OpenAIStandIn,
    type_: BackendType = BackendType.OPENAI_COMPATIBLE,
    model: str = "gpt-4.1-mini",
    **config: Any,
) -> AsyncIterator[Backend]:
    answer = Answer(text=text) if isinstance(text, str) else text
    async with (
        stand_in(answer=lambda _: answer) as server,
        open_backend(type_, endpoint=server.url, api_key="any", default_model=model, **config) as backend,
    ):
        yield backend


async def collect(backend: Backend, target: Any = Decision) -> tuple[list[Any], Any]:
    async with extract_stream(backend, target, "We chose YAML.", max_tokens=500) as stream:
        items: list[Any] = [item async for item in stream]
    last = items.pop()
    assert isinstance(last, Extraction)
    return items, last


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stand_in", "type_", "model", "wire"),
    [
        (OpenAIStandIn, BackendType.OPENAI, "gpt-4.1-mini", WireAPI.CHAT_COMPLETIONS),
        (OpenAIStandIn, BackendType.OPENAI_COMPATIBLE, "gpt-4.1-mini", WireAPI.CHAT_COMPLETIONS),
        (AnthropicStandIn, BackendType.ANTHROPIC, "claude-haiku-4-5", WireAPI.MESSAGES),
        (OllamaStandIn, BackendType.OLLAMA, "qwen3:4b", WireAPI.OLLAMA),
        (LMStudioStandIn, BackendType.LMSTUDIO, "qwen/qwen3-4b", WireAPI.CHAT_COMPLETIONS),
    ],
)
async def test_members_and_then_the_value(
    stand_in: type[StandIn], type_: BackendType, model: str, wire: WireAPI
) -> None:
    async with backend_of(TEXT, stand_in, type_, model, wire_api=wire) as backend:
        members, last = await collect(backend)
        whole = await extract_result(backend, Decision, "We chose YAML.", max_tokens=500)
    assert MEMBERS == members
    assert (VALUE, TEXT) == (last.value, last.completion.text)
    assert (whole.enforcement, whole.wrappers, whole.value) == (last.enforcement, last.wrappers, last.value)


@pytest.mark.parametrize(
    ("type_", "stand_in", "model", "text"),
    [
        (BackendType.OPENAI, OpenAIStandIn, "gpt-4.1-mini", '{"value": ["x", "y"]}'),
        (BackendType.OLLAMA, OllamaStandIn, "qwen3:4b", '["x", "y"]'),
    ],
)
async def test_the_elements_of_a_list(type_: BackendType, stand_in: type[StandIn], model: str, text: str) -> None:
    """The same whether the server needs an object around the list or not."""
    async with backend_of(text, stand_in, type_, model) as backend:
        members, last = await collect(backend, list[str])
    assert [Member(0, "x"), Member(1, "y")] == members
    assert ["x", "y"] == last.value


async def test_a_member_comes_before_the_next_is_written(raw_server: RawServerFactory) -> None:
    """Whoever reads a member first sees what the server had sent by then."""

    def event(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        return b"data: " + json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode() + b"\n\n"

    # The answer breaks off after its first member.
    body = event('{"title": "YAML", "vo')
    server = await raw_server([[http_response(200, body)]])
    async with (
        open_backend("vllm", endpoint=server.url, default_model="m") as backend,
        extract_stream(backend, Decision, "x") as stream,
    ):
        assert Member("title", "YAML") == await anext(stream)
        with pytest.raises(StreamInterruptedError) as exc_info:
            await anext(stream)
    assert exc_info.value.partial is not None
    assert '{"title": "YAML", "vo' == exc_info.value.partial.text


async def test_only_the_result() -> None:
    async with backend_of(TEXT) as backend, extract_stream(backend, Decision, "x") as stream:
        assert MEMBERS[0] == await anext(stream)
        result = await stream.get_result()
        assert VALUE == result.value
        assert result is await stream.get_result()
        assert [] == [item async for item in stream]
        assert stream.stream.is_complete


async def test_an_answer_that_does_not_match() -> None:
    async with (
        backend_of('{"title": "YAML", "votes": "many", "tags": []}') as backend,
        extract_stream(backend, Decision, "x") as stream,
    ):
        items = [await anext(stream) for _ in range(3)]
        with pytest.raises(StructuredOutputError, match="response does not match Decision") as exc_info:
            await anext(stream)
        with pytest.raises(StructuredOutputError):
            await stream.get_result()
    assert [Member("title", "YAML"), Member("votes", "many"), Member("tags", [])] == items
    assert "$.votes" == exc_info.value.pointer


async def test_a_truncated_answer() -> None:
    async with (
        backend_of(Answer(text=TEXT[:40], finish_reason="length")) as backend,
        extract_stream(backend, Decision, "x") as stream,
    ):
        assert MEMBERS[0] == await anext(stream)
        with pytest.raises(IncompleteOutputError) as exc_info:
            [item async for item in stream]
    assert ("length", TEXT[:40]) == (exc_info.value.finish_reason, exc_info.value.text)


async def test_a_tool_call_in_place_of_the_object() -> None:
    tool = Tool("look_up", "", {"type": "object", "properties": {}})
    async with (
        backend_of(Answer(tool_calls=[("look_up", {})])) as backend,
        extract_stream(backend, Decision, "x", tools=[tool]) as stream,
    ):
        with pytest.raises(StructuredOutputError, match="called a tool instead"):
            [item async for item in stream]


async def test_options_are_checked_before_the_request() -> None:
    async with backend_of(TEXT) as backend:
        with pytest.raises(TypeError, match="remove response_format"):
            extract_stream(backend, Decision, "x", response_format=None)
        with pytest.raises(TypeError):
            extract_stream(backend, complex, "x")


async def test_leaving_early_closes_the_connection(fault_server: FaultServer) -> None:
    """A generation that nobody reads is cancelled, and nothing is left open."""
    async with open_backend("vllm", endpoint=fault_server.url, default_model="m") as backend:
        async with extract_stream(backend, Decision, "x") as stream:
            pass
        assert not stream.stream.is_complete


# --- wrappers -------------------------------------------------------------------------------------

THINK = "<think>Title {or not}?\n</think>"


@pytest.mark.parametrize(
    ("text", "wrappers"),
    [
        (TEXT, ()),
        (f"\n {TEXT}\n", ()),
        (f"```json\n{TEXT}\n```", ("fence",)),
        (f"```\n{TEXT}\n```\n", ("fence",)),
        (f"```JSON \r\n{TEXT}\r\n```", ("fence",)),
        (f"{THINK}\n{TEXT}", ("think",)),
        (f"\n{THINK}{TEXT}", ("think",)),
        (f"<think></think>\n\n```json\n{TEXT}\n```", ("think", "fence")),
    ],
)
async def test_json_in_a_fence_or_behind_reasoning(text: str, wrappers: tuple[str, ...]) -> None:
    async with backend_of(text) as backend:
        result = await extract_result(backend, Decision, "x")
        members, last = await collect(backend)
    assert (VALUE, wrappers, "unverified", text) == (
        result.value,
        result.wrappers,
        result.enforcement,
        result.completion.text,
    )
    assert (MEMBERS, VALUE, wrappers) == (members, last.value, last.wrappers)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>Title?\n{TEXT}",
        f"Title?</think>{TEXT}",
        f"{THINK}{THINK}{TEXT}",
        f"Here it is:\n```json\n{TEXT}\n```",
        f"```json\n{TEXT}\n```\nAnything else?",
        f"```json\n{TEXT}\n```\n```json\n{TEXT}\n```",
        f"```json\n{TEXT}\n{TEXT}\n```",
        f"```json\n{TEXT}",
        f"```python\n{TEXT}\n```",
        f"```{TEXT}```",
        f"{TEXT} {TEXT}",
        f"{TEXT},",
        "```json\n```",
        "```",
        THINK,
        "{'title': 'YAML', 'votes': 5, 'tags': []}",
    ],
)
async def test_nothing_else_is_repaired(text: str) -> None:
    async with backend_of(text) as backend:
        with pytest.raises(StructuredOutputError, match="response does not match Decision") as exc_info:
            await extract(backend, Decision, "x")
        assert text == exc_info.value.text
        async with extract_stream(backend, Decision, "x") as stream:
            with pytest.raises(StructuredOutputError):
                [item async for item in stream]


async def test_a_list_in_a_fence() -> None:
    """The SDK asks for an object around the list, which is in the fence."""
    async with backend_of('```json\n{"value": ["x"]}\n```') as backend:
        members, last = await collect(backend, list[str])
    assert ([Member(0, "x")], ["x"], ("fence",)) == (members, last.value, last.wrappers)


@pytest.mark.parametrize(
    ("stand_in", "type_", "model"),
    [
        (OpenAIStandIn, BackendType.OPENAI, "gpt-4.1-mini"),
        (AnthropicStandIn, BackendType.ANTHROPIC, "claude-haiku-4-5"),
        (OllamaStandIn, BackendType.OLLAMA, "qwen3:4b"),
    ],
)
async def test_a_server_that_enforces_schemas_has_no_wrappers(
    stand_in: type[StandIn], type_: BackendType, model: str
) -> None:
    async with backend_of(f"```json\n{TEXT}\n```", stand_in, type_, model) as backend:
        with pytest.raises(StructuredOutputError):
            await extract(backend, Decision, "x", max_tokens=500)


async def test_json_mode_has_wrappers_too() -> None:
    async with backend_of(f"```json\n{TEXT}\n```", json_mode=True) as backend:
        assert ("fence",) == (await extract_result(backend, Decision, "x")).wrappers


PIECES = st.sampled_from(["<think>", "</think>", "```", "```json", "\n", " ", "\r\n", "{}", '{"a": 1}', "x", "<", "`"])


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in zip(ends, ends[1:], strict=False)]  # noqa: RUF007


@given(st.lists(PIECES, max_size=12).map("".join), st.lists(st.integers(0, 100), max_size=12))
def test_the_stream_agrees_with_the_whole_answer(text: str, places: list[int]) -> None:
    """Whatever the whole answer gives, the stream gives as well, however it is cut."""
    unwrapper = AnswerUnwrapper()
    pieces = [unwrapper.feed(piece) for piece in [*cut(text, places)]]
    one = AnswerUnwrapper()
    by_character = [one.feed(character) for character in text]
    assert "".join(pieces).lstrip() == "".join(by_character).lstrip()
    rest, wrappers = unwrap_answer(text)
    if rest.startswith("{"):
        assert "".join(pieces).lstrip().startswith(rest if wrappers else rest.strip())
