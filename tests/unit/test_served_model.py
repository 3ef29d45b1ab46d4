"""The model that answers: names of one model, accepted names, the server's list, and the answer on the error."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import (
    PROFILES,
    APITimeoutError,
    Backend,
    Completion,
    ModelMismatchError,
    ModelMismatchWarning,
    StreamInterruptedError,
    open_backend,
)
from ctxbackends._profiles.model_names import same_model
from tests.conftest import TestServerFactory

WHOLE = "Hello there"


class Server:
    """A chat server that names ``served`` in its answers, and lists ``rows``."""

    def __init__(self) -> None:
        self.served = "other"
        self.rows: Any = [{"id": "m"}, {"id": "other"}]
        self.list_status = 200
        self.requests: Counter[str] = Counter()
        self.cut = False
        self.stalls = False

    def chunk(self, text: str | None, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
        return b"data: " + json.dumps({"id": "r", "model": self.served, "choices": [choice]}).encode() + b"\n\n"

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        if request.path == "/v1/models":
            await asyncio.sleep(0)
            return web.json_response({"data": self.rows}, status=self.list_status)
        if request.path == "/v1/embeddings":
            return web.json_response({"model": self.served, "data": [{"index": 0, "embedding": [1.0]}]})
        if request.path != "/v1/chat/completions":
            return web.json_response({"error": {"message": "no such route"}}, status=404)
        if not (await request.json()).get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": WHOLE}, "finish_reason": "stop"}
            return web.json_response({"id": "r", "model": self.served, "choices": [choice]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self.chunk("Hello"))
        if self.stalls:
            await asyncio.sleep(5)
        if not self.cut:
            await response.write(self.chunk(" there") + self.chunk(None, "stop") + b"data: [DONE]\n\n")
        return response


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server, test_server: TestServerFactory) -> str:
    return str((await test_server(server.respond)).make_url("")).rstrip("/")


async def complete(backend: Backend) -> Completion:
    return await backend.complete("Hi")


async def stream(backend: Backend) -> Completion:
    async with backend.stream("Hi") as answer:
        return await answer.get_final_completion()


STRICT = ("vllm", "llamacpp", "lmstudio")
LENIENT = ("openai", "openai-compatible")
ASK = pytest.mark.parametrize("ask", [complete, stream])


def test_the_default_of_each_type() -> None:
    strict = {"vllm", "llamacpp", "lmstudio", "ollama"}
    assert strict == {name for name, row in PROFILES.items() if row.model_mismatch == "error"}
    assert {"openai", "anthropic", "openai-compatible"} <= {
        name for name, row in PROFILES.items() if row.model_mismatch == "warn"
    }


@ASK
@pytest.mark.parametrize("type_", STRICT)
async def test_the_answer_is_on_the_error(type_: str, ask: Any, server: Server, url: str) -> None:
    async with open_backend(type_, endpoint=url, default_model="m") as backend:
        with pytest.raises(ModelMismatchError) as caught:
            await ask(backend)
    error = caught.value
    assert error.completion is not None
    assert (WHOLE, "stop", "m", "other") == (
        error.completion.text,
        error.completion.finish_reason,
        error.completion.requested_model,
        error.completion.served_model,
    )
    assert "list it in served_as" in str(error)
    assert type_ == error.backend


async def test_no_event_of_another_model_is_handed_out(server: Server, url: str) -> None:
    events = []
    async with open_backend("vllm", endpoint=url, default_model="m") as backend, backend.stream("Hi") as answer:
        for _ in range(2):
            with pytest.raises(ModelMismatchError):
                async for event in answer:
                    events.append(event)
        assert not answer.is_complete
    assert [] == events


async def test_a_stream_that_breaks_has_no_whole_answer(server: Server, url: str) -> None:
    server.cut = True
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        with pytest.raises(StreamInterruptedError) as caught:
            await stream(backend)
    assert ("Hello", "other") == (caught.value.partial.text, caught.value.partial.served_model)


async def test_a_stream_that_stalls_ends_with_its_timeout(server: Server, url: str) -> None:
    server.stalls = True
    async with open_backend("vllm", endpoint=url, default_model="m", idle_timeout=0.2) as backend:
        with pytest.raises(APITimeoutError) as caught:
            await stream(backend)
    assert "idle" == caught.value.phase


@ASK
@pytest.mark.parametrize("type_", LENIENT)
async def test_a_warning_once_for_each_pair_of_names(type_: str, ask: Any, server: Server, url: str) -> None:
    async with open_backend(type_, endpoint=url, default_model="m", api_key_env="") as backend:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for served in ("other", "other", "third", "other"):
                server.served = served
                assert (WHOLE, served) == ((await ask(backend)).text, served)
    assert [ModelMismatchWarning] * 2 == [one.category for one in caught]
    assert ['"other"', '"third"'] == [str(one.message).split("served ")[1].split(";")[0] for one in caught]
    assert 2 == server.requests["/v1/models"]


async def test_a_warning_may_be_raised_each_time(server: Server, url: str) -> None:
    async with open_backend("openai-compatible", endpoint=url, default_model="m") as backend:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                with pytest.raises(ModelMismatchWarning):
                    await backend.complete("Hi")
        assert 1 == server.requests["/v1/models"]


# --- the server's list ----------------------------------------------------------------------------


def row(name: str, **members: Any) -> dict[str, Any]:
    return {"id": name, **members}


@ASK
@pytest.mark.parametrize(
    "rows",
    [
        [row("other", root="/models/q"), row("m", root="/models/q")],
        [row("other", aliases=["m"])],
        [row("m", aliases=["x", "other"])],
        [row("file", aliases=["m", "other"])],
        [{"id": None}, "odd", row("other", aliases=["m"])],
    ],
)
async def test_the_list_knows_both_names(rows: Any, ask: Any, server: Server, url: str) -> None:
    server.rows = rows
    async with open_backend("llamacpp", endpoint=url, default_model="m") as backend:
        for _ in range(3):
            assert WHOLE == (await ask(backend)).text
    assert 1 == server.requests["/v1/models"]


@pytest.mark.parametrize(
    "rows",
    [
        [row("other"), row("m")],
        [row("other", root="/models/q"), row("m", root="/models/r")],
        [row("other", root=""), row("m", root="")],
        [row("other", root=None), row("m", root=None)],
        [row(f"n{index}", root="r") for index in range(100)] + [row("other", root="r"), row("m", root="r")],
        [],
    ],
)
async def test_the_list_does_not_know_both_names(rows: Any, server: Server, url: str) -> None:
    server.rows = rows
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        with pytest.raises(ModelMismatchError):
            await backend.complete("Hi")


async def test_the_list_is_asked_once_for_many_tasks(server: Server, url: str) -> None:
    server.rows = [row("other", root="r"), row("m", root="r")]
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        answers = await asyncio.gather(*(backend.complete("Hi") for _ in range(10)))
    assert [WHOLE] * 10 == [answer.text for answer in answers]
    assert 1 == server.requests["/v1/models"]


async def test_a_list_that_fails_is_asked_again(server: Server, url: str) -> None:
    server.rows, server.list_status = [row("other", aliases=["m"])], 500
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        with pytest.raises(ModelMismatchError):
            await backend.complete("Hi")
        server.list_status = 200
        assert WHOLE == (await backend.complete("Hi")).text


async def test_the_requested_name_needs_no_list(server: Server, url: str) -> None:
    server.served = "m"
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        assert WHOLE == (await backend.complete("Hi")).text
    assert 0 == server.requests["/v1/models"]


# --- served_as ------------------------------------------------------------------------------------


@ASK
@pytest.mark.parametrize(
    "served_as",
    [["x", "other"], ("other",), {"m": "other"}, {"m": ["x", "other"]}, {"*": "other"}, {"y": "z", "m": ("other",)}],
)
async def test_accepted_names(served_as: Any, ask: Any, server: Server, url: str) -> None:
    async with open_backend("vllm", endpoint=url, default_model="m", served_as=served_as) as backend:
        assert WHOLE == (await ask(backend)).text
    assert 0 == server.requests["/v1/models"]


@pytest.mark.parametrize("served_as", [["x"], {"y": "other"}, {"other": "m"}])
async def test_other_names_are_not_accepted(served_as: Any, server: Server, url: str) -> None:
    async with open_backend("vllm", endpoint=url, default_model="m", served_as=served_as) as backend:
        with pytest.raises(ModelMismatchError):
            await backend.complete("Hi")


async def test_embeddings_of_another_model(server: Server, url: str) -> None:
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        with pytest.raises(ModelMismatchError) as caught:
            await backend.embed("a")
    assert None is caught.value.completion
    async with open_backend("vllm", endpoint=url, default_model="m", served_as=["other"]) as backend:
        assert ((1.0,),) == (await backend.embed("a")).vectors


@pytest.mark.parametrize(
    ("requested", "served", "same"),
    [
        ("Org/Model-1B", "org/model-1b", True),
        ("gemini-x", "models/gemini-x", True),
        ("models/gemini-x", "gemini-x", True),
        ("GPT-X", "gpt-x-2024-08-06", True),
        ("org/model-1b", "org/model-2b", False),
        ("org/model", "model", False),
    ],
)
def test_names_of_one_model(requested: str, served: str, same: bool) -> None:
    assert same is same_model(requested, served)
