"""Ways in which a server or a caller could be misread in silence, each with what is said instead."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import attrs
import msgspec
import pytest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BackendConfig,
    BackendError,
    ContextOverflowError,
    Finish,
    Message,
    ModelLoadFailedError,
    ModelNotFoundError,
    Registry,
    ServerSleepingError,
    ServiceUnavailableError,
    StreamInterruptedError,
    TextDelta,
    UnsupportedOptionError,
    extract,
    open_backend,
    probe_schema,
    tool_of,
)
from ctxbackends._chat.messages import ReasoningPart
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.model_names import same_model
from ctxbackends._schema.generate import schema_for
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import error_from_response, raise_for_failed_command
from ctxbackends._wire.formats.anthropic_stream import AnthropicStreamDecoder
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends.errors import BadRequestError
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.conftest import EVENT_STREAM, Do, RawServerFactory, answer, chunked, models_body

CLAUDE: dict[str, Any] = {"api_key": "k" * 12, "default_model": "claude-haiku-4-5"}
GPT: dict[str, Any] = {"api_key": "k" * 12, "default_model": "gpt-4.1-mini"}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


# --- servers that answer and cannot ---------------------------------------------------------------------


async def test_a_vllm_that_sleeps_is_not_ready(raw_server: RawServerFactory) -> None:
    """It would take a chat, and say nothing for ever."""
    scripts = [[answer(200, models_body("m"))], [answer(200, b'{"is_sleeping":true}')]]
    server = await raw_server(*[[script] for script in scripts * 2])
    async with open_backend("vllm", endpoint=server.url) as backend:
        for call in (backend.wait_ready, backend.ping):
            with pytest.raises(ServerSleepingError, match=r"wake it with load\(\)"):
                await call()


async def test_a_load_that_was_refused_under_a_good_status(raw_server: RawServerFactory) -> None:
    server = await raw_server([[answer(200, b'{"error":"no memory"}')]])
    async with open_backend("ollama", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(BackendError, match="no memory"):
            await backend.load()


@pytest.mark.parametrize("body", [b'{"success":false}', b'{"error":{"message":"no"}}'])
def test_an_order_that_was_not_carried_out(body: bytes) -> None:
    with pytest.raises(BackendError):
        raise_for_failed_command(HTTPResponse(status=200, headers={}, body=body))


@pytest.mark.parametrize("body", [b"", b"OK", b'{"success":true}', b'{"error":null}', b"[]"])
def test_an_order_that_was_carried_out(body: bytes) -> None:
    raise_for_failed_command(HTTPResponse(status=200, headers={}, body=body))


def routed(state: str, **more: Any) -> bytes:
    return json.dumps({"data": [{"id": "m", "status": {"value": state, **more}}]}).encode()


async def test_a_router_is_waited_for_until_the_model_is_there(raw_server: RawServerFactory) -> None:
    done = [[answer(200, b'{"success":true}')]]
    server = await raw_server(done, *([[answer(200, routed(state))]] for state in ("loading", "loading", "loaded")))
    seen: list[Any] = []
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        await backend.load(on_progress=seen.append)
    assert ["/models/load", "/v1/models", "/v1/models", "/v1/models"] == server.paths
    assert ["loading", "loading"] == [look.state for look in seen]
    server = await raw_server(done, [[answer(200, routed("unloaded", failed=True, exit_code=1))]])
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(ModelLoadFailedError):
            await backend.load()


async def test_a_look_is_short_however_many_requests_it_takes(
    raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._client.sender.PROBE_TIMEOUT", 0.3)
    server = await raw_server([[0.2, answer(200, b'{"status":"ok"}')], [0.2, answer(200, models_body("m"))], [Do.HANG]])
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        seen = await backend.status()
    assert ("unreachable", "no complete response within 0.3 s") == (seen.state, seen.problem)


async def test_one_that_fails_does_not_take_the_table_away() -> None:
    class Broken:
        name, type, default_model, endpoint = "b", "broken", None, "x"

        async def status(self) -> Any:
            raise BackendError("it fell over")

        async def aclose(self) -> None: ...

    async with Registry() as registry:
        registry.register("broken", lambda _config, _transport: Broken())  # type: ignore[arg-type, return-value]
        registry.configure(BackendConfig(name="b", type="broken"))
        (seen,) = await registry.statuses()
    assert ("error", "it fell over") == (seen.state, seen.problem)
    with pytest.raises(BackendError, match="closed"):
        await registry.statuses()


# --- what is asked ----------------------------------------------------------------------------------------


def set_level(level: Annotated[int, msgspec.Meta(ge=0, le=10)]) -> None:
    """Set the level."""


async def test_bounds_of_a_typed_tool_are_put_into_words_for_anthropic() -> None:
    async with AnthropicStandIn() as server, open_backend("anthropic", endpoint=server.url, **CLAUDE) as one:
        reply = await one.complete("Hi", tools=[set_level], tool_choice="required", max_tokens=64)
    assert "set_level" == reply.tool_calls[0].name
    sent = server.requests[-1].json["tools"][0]["input_schema"]["properties"]["level"]
    assert {"type": "integer", "description": "(minimum: 0, maximum: 10)"} == sent
    kept = tool_of(set_level).parameters["properties"]["level"]
    assert (0, 10) == (kept["minimum"], kept["maximum"])


@attrs.frozen
class Inner:
    a: int


@attrs.frozen
class Outer:
    inner: Annotated[Inner, msgspec.Meta(description="What is inside.")]
    others: list[Inner]


def test_a_reference_stands_alone_in_a_schema() -> None:
    schema = schema_for(Outer)
    assert {"$ref": "#/$defs/Inner"} == schema["properties"]["others"]["items"]
    inner = schema["properties"]["inner"]
    assert ("What is inside.", ["a"], False) == (inner["description"], inner["required"], inner["additionalProperties"])


async def test_what_is_no_object_is_put_into_one_where_the_vendor_wants_that() -> None:
    async with OpenAIStandIn(api_key="k" * 12) as server, open_backend("openai", endpoint=server.url, **GPT) as one:
        assert ["a", "b"] == await extract(one, list[str], '[[say]]{"value": ["a", "b"]}[[/say]]')
        with pytest.raises(BackendError) as caught:
            await extract(one, list[int], '[[say]]{"value": ["a"]}[[/say]]')
    assert "$[0]" == getattr(caught.value, "pointer", None)
    wanted = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert {"type": "array", "items": {"type": "string"}} == wanted["properties"]["value"]
    assert ["value"] == wanted["required"]


@pytest.mark.parametrize("type_", ["vllm", "llamacpp", "ollama", "lmstudio", "openai"])
def test_encrypted_reasoning_goes_to_nobody_else(type_: str) -> None:
    history = (Message.user("Hi"), Message.assistant([ReasoningPart("", redacted="ENC"), "A"]), Message.user("So?"))
    with pytest.raises(UnsupportedOptionError, match="only the server that encrypted"):
        PROFILES[type_].codec().encode_chat(ChatRequest(messages=history, model="m"), stream=False)


# --- what comes -------------------------------------------------------------------------------------------

END = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "odd",
    [
        {"object": "novel", "usage": "lots"},
        {"object": "novel", "message": "for your information"},
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": 2}},
    ],
)
def test_an_odd_event_ends_no_openai_stream(odd: object) -> None:
    decoder = OpenAIStreamDecoder()
    decoder.feed(event(odd) + event(END) + b"data: [DONE]\n\n")
    assert (True, None) == (decoder.finished, decoder.failure)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "novel", "delta": "text"},
        {"type": "novel", "index": None},
        {"type": "novel", "message": "note"},
        {"type": "novel_delta", "delta": {"text": {}}},
    ],
)
def test_an_odd_event_ends_no_anthropic_stream(odd: object) -> None:
    decoder = AnthropicStreamDecoder()
    decoder.feed(event(odd) + event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
    decoder.feed(event({"type": "message_stop"}))
    assert (True, None) == (decoder.finished, decoder.failure)


def test_an_id_that_comes_late_belongs_to_the_call_of_its_index() -> None:
    def piece(**call: Any) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]})

    decoder = OpenAIStreamDecoder()
    events = decoder.feed(piece(function={"name": "f"}) + piece(id="a", function={"arguments": "{}"}))
    assert [0, 0] == [one.index for one in events]  # type: ignore[union-attr]  # they are ToolCallDelta
    assert "a" == events[1].id  # type: ignore[union-attr]


OVER_BOTH = "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"
OVER_BATCH = "input (24002 tokens) is too large to process. increase it (current batch size: 512)"


@pytest.mark.parametrize(
    ("status", "said", "kind", "numbers"),
    [
        (400, OVER_BOTH, ContextOverflowError, (188240, 200000)),
        (500, OVER_BATCH, ContextOverflowError, (24002, 512)),
        (400, "Tool call id not found in the model history", BadRequestError, None),
        (400, "tool `read_model` not found in tools", BadRequestError, None),
        (400, "`prompt is too long` is not a valid tool name", BadRequestError, None),
        (400, "model 'x' not found", ModelNotFoundError, None),
        (404, "The model `x` does not exist", ModelNotFoundError, None),
        (500, "engine failed to load image", None, None),
        (500, "model name=bad failed to load", ModelLoadFailedError, None),
    ],
)
def test_a_sentence_is_read_as(status: int, said: str, kind: Any, numbers: Any) -> None:
    error = error_from_response(
        HTTPResponse(status=status, headers={}, body=json.dumps({"error": {"message": said}}).encode())
    )
    assert kind is None or kind is type(error)
    assert kind is not None or not isinstance(error, ModelLoadFailedError)
    if isinstance(error, ContextOverflowError):
        assert numbers == (error.input_tokens, error.context_length)


def test_the_name_of_a_request_is_read_from_the_body_as_well() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"x"},"request_id":"req_1"}'
    assert "req_1" == error_from_response(HTTPResponse(status=529, headers={}, body=body)).request_id


def test_the_latest_of_a_family_is_no_other_model() -> None:
    assert same_model("claude-3-7-sonnet-latest", "claude-3-7-sonnet-20250219")
    assert not same_model("claude-3-7-sonnet-latest", "claude-3-5-sonnet-20241022")


async def test_a_refusal_proves_nothing_about_schemas() -> None:
    async with AnthropicStandIn() as server, open_backend("anthropic", endpoint=server.url, **CLAUDE) as one:
        complete = one.complete

        async def refused(prompt: Any, **options: Any) -> Any:
            return msgspec.structs.replace(await complete(prompt, **options), finish_reason="content_filter", text="no")

        one.complete = refused  # type: ignore[method-assign]  # what a refusal looks like
        assert "inconclusive" == (await probe_schema(one)).outcome


async def test_an_overloaded_server_is_that_also_inside_a_stream(raw_server: RawServerFactory) -> None:
    begun = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    ends = (chunked(event(busy)), b"0\r\n\r\n")
    server = await raw_server([[EVENT_STREAM, *ends]], [[EVENT_STREAM, chunked(event(begun)), *ends]])
    async with open_backend("anthropic", endpoint=server.url, **CLAUDE) as one:
        with pytest.raises(ServiceUnavailableError) as refused:
            async with one.stream("Hi") as stream:
                await stream.completed()
        assert (529, "req_1") == (refused.value.status_code, refused.value.request_id)
        with pytest.raises(StreamInterruptedError) as broken:
            async with one.stream("Hi") as stream:
                await stream.completed()
        assert "a" == broken.value.partial.text
        assert isinstance(broken.value.__cause__, ServiceUnavailableError)


async def test_calls_of_different_turns_have_different_ids() -> None:
    """Also where Ollama gives none: their results would be mixed up."""
    call = '[[call]]{"name":"set_level","arguments":{"level":1}}[[/call]]'
    async with (
        OllamaStandIn() as server,
        open_backend("ollama", endpoint=server.url, default_model="qwen3:4b") as backend,
    ):
        ids = []
        for _ in range(2):
            reply = await backend.complete(call, tools=[set_level], max_tokens=64)
            ids.append(reply.tool_calls[0].id)
            await asyncio.sleep(0.002)
    assert 2 == len(set(ids))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_has_the_servers_own_name_of_the_request(stream: bool) -> None:
    async with OpenAIStandIn(api_key="k" * 12) as server, open_backend("openai", endpoint=server.url, **GPT) as one:
        if stream:
            async with one.stream("Hi", max_tokens=16) as answering:
                reply = await answering.completed()
        else:
            reply = await one.complete("Hi", max_tokens=16)
        assert reply.request_id
        assert reply.request_id.startswith("req_")
        with pytest.raises(StreamInterruptedError) as caught:
            async with one.stream("[[fail]] [[say]]one two[[/say]]", max_tokens=16) as answering:
                await answering.completed()
        assert caught.value.request_id


async def test_a_wrong_key_is_no_ready_llama_server(raw_server: RawServerFactory) -> None:
    refusal = answer(401, b'{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}')
    server = await raw_server([[answer(200, b'{"status":"ok"}')]], [[refusal]])
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        seen = await backend.status()
    assert ("error", True) == (seen.state, "Invalid API Key" in (seen.problem or ""))
    assert issubclass(AuthenticationError, BackendError)


@pytest.mark.parametrize(
    "chunks",
    [
        [{"error": {"message": "it broke"}, "index": 0, "finish_reason": "stop"}],
        [{"index": 0, "delta": {"content": "a"}}, {"error": "it broke", "index": 0, "finish_reason": "error"}],
    ],
)
def test_an_error_within_a_choice_is_one(chunks: list[Any]) -> None:
    decoder = OpenAIStreamDecoder()
    for chunk in chunks:
        decoder.feed(event({"id": "r", "object": "chat.completion.chunk", "choices": [chunk]}))
    assert "the server sent an error in the stream: it broke" == str(decoder.failure)


def test_a_message_in_the_place_of_a_delta_is_the_answer() -> None:
    decoder = OpenAIStreamDecoder()
    choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    events = decoder.feed(event({"id": "r", "object": "chat.completion.chunk", "choices": [choice]}))
    assert [TextDelta("whole")] == events
    assert [Finish("stop")] == decoder.close()


def test_two_answers_in_one_stream_are_none() -> None:
    decoder = OpenAIStreamDecoder()
    for answer_id in ("one", "two"):
        for choice in ({"delta": {"content": "Hel"}}, {"delta": {}, "finish_reason": "stop"}):
            decoder.feed(event({"id": answer_id, "choices": [{"index": 0, **choice}]}))
    assert "a second response began in the stream" == str(decoder.failure)
    anthropic = AnthropicStreamDecoder()
    for answer_id in ("one", "two"):
        anthropic.feed(event({"type": "message_start", "message": {"id": answer_id, "model": "m"}}))
    assert "a second response began in the stream" == str(anthropic.failure)


def test_an_error_on_a_piece_of_a_block_is_one() -> None:
    decoder = AnthropicStreamDecoder()
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    decoder.feed(event({**piece, "error": {"message": "it broke"}}))
    assert "the server sent an error in the stream: it broke" == str(decoder.failure)


async def test_one_task_reads_a_stream() -> None:
    """A second one is refused, and takes nothing from the first, its limits included."""
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", idle_timeout=0.3) as backend,
    ):
        server.play(faults.stall())
        async with backend.stream("Hello") as stream:
            await anext(stream)
            first = asyncio.create_task(stream.completed())
            await asyncio.sleep(0.05)
            with pytest.raises(BackendError, match="read it from one task"):
                await stream.completed()
            with pytest.raises(APITimeoutError):
                await first


async def test_no_host_name() -> None:
    async with open_backend("openai-compatible", endpoint="http://a..b", default_model="m") as backend:
        with pytest.raises(APIConnectionError, match="the name does not resolve") as caught:
            await backend.complete("Hello")
    assert caught.value.permanent
