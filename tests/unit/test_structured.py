"""Structured output: the request, and the answers that become a value."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any, Generic, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from ctxbackends import _structured as structured
from ctxbackends._chat.messages import Message, ToolCall
from ctxbackends._chat.requests import ChatOptions, JSONObjectFormat, JSONSchemaFormat
from ctxbackends._chat.responses import Completion, FinishReason
from ctxbackends._chat.servers import Enforcement
from ctxbackends._client.backend import Backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._registry import open_backend
from ctxbackends._structured import extract
from ctxbackends.errors import (
    BackendError,
    IncompleteOutputError,
    StreamInterruptedError,
    StructuredOutputError,
    UnsupportedOptionError,
)
from tests.conftest import RawServerFactory, completion_body, http_response, sse


@attrs.frozen
class Decision:
    title: str
    priority: int = 3


@dataclasses.dataclass(frozen=True)
class Task:
    title: str
    priority: int = 3


class Term(TypedDict):
    title: str
    priority: int


class Learning(msgspec.Struct, frozen=True):
    title: str
    priority: int = 3


@attrs.frozen
class Decisions:
    rows: list[Decision]


T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    value: T


class FakeBackend:
    """Gives one completion, and remembers what it was asked."""

    schema_enforcement: Enforcement = "grammar"

    def __init__(self, text: str = "{}", finish_reason: FinishReason = "stop", **fields: Any) -> None:
        self.messages: list[Message] = []
        self.options: ChatOptions = {}
        self._completion = Completion(text=text, finish_reason=finish_reason, requested_model="m", **fields)

    async def complete(self, prompt: list[Message], **options: Any) -> Completion:
        self.messages = prompt
        self.options = options  # type: ignore[assignment]  # as complete() takes them
        return self._completion


def backend_of(fake: FakeBackend) -> Backend:
    backend: Any = fake
    return backend  # type: ignore[no-any-return]  # it has what extract() uses


async def extract_from(target: type[T], text: str = "{}", finish_reason: FinishReason = "stop", **fields: Any) -> T:
    return await extract(backend_of(FakeBackend(text, finish_reason, **fields)), target, "We chose YAML.")


ANSWER = '{"title": "YAML", "priority": 1}'


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (Decision, Decision("YAML", 1)),
        (Task, Task("YAML", 1)),
        (Term, {"title": "YAML", "priority": 1}),
        (Learning, Learning("YAML", 1)),
        (dict, {"title": "YAML", "priority": 1}),
    ],
)
async def test_a_value_of_the_type(target: type[Any], value: Any) -> None:
    result = await extract_from(target, ANSWER)
    assert value == result
    assert type(value) is type(result)


async def test_nested_and_built_in_types() -> None:
    assert Decisions([Decision("YAML", 1)]) == await extract_from(Decisions, f'{{"rows": [{ANSWER}]}}')
    assert ["a", "b"] == await extract_from(list[str], ' ["a", "b"]\n')
    assert "\U0001f600 \u2028" == (await extract_from(Decision, '{"title": "\U0001f600 \u2028"}')).title


async def test_request_of_an_extraction() -> None:
    fake = FakeBackend(ANSWER)
    await extract(backend_of(fake), Decision, "We chose YAML.", max_tokens=9, seed=1)
    assert [Message.system(structured.INSTRUCTIONS), Message.user("We chose YAML.")] == fake.messages
    expected = fake.options.pop("response_format")
    assert {"max_tokens": 9, "seed": 1, "request_options": None} == fake.options
    assert isinstance(expected, JSONSchemaFormat)
    assert ("Decision", ["title", "priority"]) == (expected.name, expected.schema["required"])
    assert False is expected.schema["additionalProperties"]
    await extract(backend_of(fake), Decision, "x", instructions="Be strict.")
    assert Message.system("Be strict.") == fake.messages[0]


async def test_response_format_is_rejected() -> None:
    fake = FakeBackend(ANSWER)
    with pytest.raises(TypeError, match="remove response_format"):
        await extract(backend_of(fake), Decision, "x", response_format=JSONObjectFormat())


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (list[str], "list"),
        (Box[int], "Box"),
        (str | None, "output"),
        (dataclasses.make_dataclass("Ü b" + "x" * 99, []), "__b"),
    ],
)
async def test_schema_name_is_accepted_by_servers(target: Any, name: str) -> None:
    fake = FakeBackend("null" if target == str | None else "[]" if name == "list" else '{"value": 1}')
    await extract(backend_of(fake), target, "x")
    expected = fake.options.get("response_format")
    assert isinstance(expected, JSONSchemaFormat)
    assert expected.name.startswith(name)
    assert len(expected.name) <= 64
    assert expected.name.replace("_", "").isascii()


async def test_a_type_without_a_json_form_sends_nothing() -> None:
    fake = FakeBackend()
    with pytest.raises(TypeError):
        await extract(backend_of(fake), asyncio.Event, "x")
    assert [] == fake.messages


# --- answers that become nothing ------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_truncated_answer_is_an_error_even_if_it_is_json(reason: FinishReason) -> None:
    with pytest.raises(IncompleteOutputError) as exc_info:
        await extract_from(Decision, ANSWER, reason)
    assert (reason, ANSWER) == (exc_info.value.finish_reason, exc_info.value.text)
    assert isinstance(exc_info.value, StructuredOutputError)
    assert isinstance(exc_info.value, BackendError)


async def test_a_refusal() -> None:
    with pytest.raises(StructuredOutputError, match="the model refused: I cannot") as exc_info:
        await extract_from(Decision, ANSWER, refusal="I cannot")
    assert "I cannot" == exc_info.value.text


async def test_a_tool_call() -> None:
    with pytest.raises(StructuredOutputError, match="called a tool") as exc_info:
        await extract_from(Decision, ANSWER, "tool_calls", tool_calls=(ToolCall("1", "f", "{}"),))
    assert ANSWER == exc_info.value.text


@pytest.mark.parametrize(
    ("target", "text", "pointer"),
    [
        (Decision, '{"title": 1}', "$.title"),
        (Decisions, '{"rows": [{"title": "a"}, {"title": null}]}', "$.rows[1].title"),
        (Decisions, '{"rows": {}}', "$.rows"),
        (Decision, "{}", None),
        (Decision, "[]", None),
        (Decision, "", None),
        (Decision, '{"title": "a"', None),
        (Decision, 'Sure! {"title": "a"}', None),
        (Decision, '{"title": "a"} and more', None),
        (Decision, '```json\n{"title": "a"}\n```', None),
        (Decision, '{"title": "\ud800"}', None),
        (dict[str, int], '{"a": 1, "b": "x"}', "$[...]"),
        (list[Any], "[" * 100_000, None),
    ],
)
async def test_answer_does_not_match_the_type(target: type[Any], text: str, pointer: str | None) -> None:
    with pytest.raises(StructuredOutputError, match="response does not match") as exc_info:
        await extract_from(target, text)
    assert (pointer, text) == (exc_info.value.pointer, exc_info.value.text)
    assert not isinstance(exc_info.value, IncompleteOutputError)


# --- over a real backend --------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["vllm", "openai-compatible"])
async def test_over_http(type_: str, raw_server: RawServerFactory) -> None:
    body = sse(*ANSWER) if type_ == "vllm" else completion_body(ANSWER)
    server = await raw_server([[http_response(200, body)]])
    async with open_backend(type_, endpoint=server.url, default_model="m") as backend:
        assert Decision("YAML", 1) == await extract(backend, Decision, "We chose YAML.")
    (request,) = server.requests
    format_ = request.json["response_format"]
    assert ("json_schema", True) == (format_["type"], format_["json_schema"]["strict"])
    assert {"title", "priority"} == set(format_["json_schema"]["schema"]["properties"])


async def test_a_server_that_would_ignore_the_schema(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, completion_body(ANSWER))]])
    async with open_backend(
        "anthropic", endpoint=server.url, default_model="m", api_key_env="", wire_api="chat_completions"
    ) as backend:
        assert isinstance(backend, HTTPBackend)
        with pytest.raises(UnsupportedOptionError):
            await extract(backend, Decision, "We chose YAML.")
    assert [] == server.requests


async def test_a_refusal_on_the_wire(raw_server: RawServerFactory) -> None:
    exc_info = json.dumps({"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]})
    server = await raw_server([[http_response(200, f"data: {exc_info}\n\n".encode())]])
    async with open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(StructuredOutputError, match=r"refused: No\."):
            await extract(backend, Decision, "We chose YAML.")


async def test_an_interrupted_answer(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, sse(*ANSWER).split(b'"finish_reason": "stop"')[0])]])
    async with open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(StreamInterruptedError):
            await extract(backend, Decision, "We chose YAML.")
