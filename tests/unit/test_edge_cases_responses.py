"""Edge cases of responses: unusual events, errors and IDs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from ctxbackends import (
    APITimeoutError,
    BackendError,
    ContextOverflowError,
    Finish,
    ModelLoadFailedError,
    ModelNotFoundError,
    ServiceUnavailableError,
    StreamInterruptedError,
    TextDelta,
    open_backend,
    probe_schema,
)
from ctxbackends._chat.events import ToolCallDelta
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import error_from_response
from ctxbackends._wire.formats.anthropic_stream import AnthropicStreamDecoder
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends.errors import BadRequestError
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.conftest import EVENT_STREAM, RawServerFactory, http_chunk

CLAUDE: dict[str, Any] = {"api_key": "k" * 12, "default_model": "claude-haiku-4-5"}


GPT: dict[str, Any] = {"api_key": "k" * 12, "default_model": "gpt-4.1-mini"}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


END = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "odd",
    [
        {"object": "novel", "usage": "lots"},
        {"object": "novel", "message": "for your information"},
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": 2}},
    ],
)
def test_unknown_openai_event_is_ignored(odd: object) -> None:
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
def test_unknown_anthropic_event_is_ignored(odd: object) -> None:
    decoder = AnthropicStreamDecoder()
    decoder.feed(event(odd) + event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
    decoder.feed(event({"type": "message_stop"}))
    assert (True, None) == (decoder.finished, decoder.failure)


def test_late_id_of_a_tool_call() -> None:
    def piece(**call: Any) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]})

    decoder = OpenAIStreamDecoder()
    events = decoder.feed(piece(function={"name": "f"}) + piece(id="a", function={"arguments": "{}"}))
    assert [ToolCallDelta(0, "a", "f", "{}")] == events  # held back until its ID or its arguments come


OVER_BOTH = "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"


OVER_BATCH = "input (24002 tokens) is too large to process. increase it (current batch size: 512)"


@pytest.mark.parametrize(
    ("status", "message", "kind", "numbers"),
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
def test_error_type_from_message(status: int, message: str, kind: Any, numbers: Any) -> None:
    error = error_from_response(
        HTTPResponse(status=status, headers={}, body=json.dumps({"error": {"message": message}}).encode())
    )
    assert kind is None or kind is type(error)
    assert kind is not None or not isinstance(error, ModelLoadFailedError)
    if isinstance(error, ContextOverflowError):
        assert numbers == (error.input_tokens, error.context_length)


def test_request_id_from_the_body() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"x"},"request_id":"req_1"}'
    assert "req_1" == error_from_response(HTTPResponse(status=529, headers={}, body=body)).request_id


async def test_refusal_makes_the_schema_probe_inconclusive() -> None:
    async with AnthropicStandIn() as server, open_backend("anthropic", endpoint=server.url, **CLAUDE) as first:
        complete = first.complete

        async def rejection(prompt: Any, **options: Any) -> Any:
            return msgspec.structs.replace(await complete(prompt, **options), finish_reason="content_filter", text="no")

        first.complete = rejection  # type: ignore[method-assign]  # what a refusal looks like
        assert "inconclusive" == (await probe_schema(first)).outcome


async def test_overload_error_inside_a_stream(raw_server: RawServerFactory) -> None:
    begun = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    ends = (http_chunk(event(busy)), b"0\r\n\r\n")
    server = await raw_server([[EVENT_STREAM, *ends]], [[EVENT_STREAM, http_chunk(event(begun)), *ends]])
    async with open_backend("anthropic", endpoint=server.url, **CLAUDE) as first:
        with pytest.raises(ServiceUnavailableError) as exc_info:
            async with first.stream("Hi") as stream:
                await stream.get_final_completion()
        assert (529, "req_1") == (exc_info.value.status_code, exc_info.value.request_id)
        with pytest.raises(StreamInterruptedError) as interruption:
            async with first.stream("Hi") as stream:
                await stream.get_final_completion()
        assert "a" == interruption.value.partial.text
        assert isinstance(interruption.value.__cause__, ServiceUnavailableError)


@pytest.mark.parametrize("stream", [False, True])
async def test_request_id_of_a_completion(stream: bool) -> None:
    async with OpenAIStandIn(api_key="k" * 12) as server, open_backend("openai", endpoint=server.url, **GPT) as first:
        if stream:
            async with first.stream("Hi", max_tokens=16) as answering:
                reply = await answering.get_final_completion()
        else:
            reply = await first.complete("Hi", max_tokens=16)
        assert reply.request_id
        assert reply.request_id.startswith("req_")
        with pytest.raises(StreamInterruptedError) as exc_info:
            async with first.stream("[[fail]] [[say]]one two[[/say]]", max_tokens=16) as answering:
                await answering.get_final_completion()
        assert exc_info.value.request_id


@pytest.mark.parametrize(
    "chunks",
    [
        [{"error": {"message": "it broke"}, "index": 0, "finish_reason": "stop"}],
        [{"index": 0, "delta": {"content": "a"}}, {"error": "it broke", "index": 0, "finish_reason": "error"}],
    ],
)
def test_error_inside_a_choice(chunks: list[Any]) -> None:
    decoder = OpenAIStreamDecoder()
    for chunk in chunks:
        decoder.feed(event({"id": "r", "object": "chat.completion.chunk", "choices": [chunk]}))
    assert "the server sent an error in the stream: it broke" == str(decoder.failure)


def test_message_instead_of_a_delta() -> None:
    decoder = OpenAIStreamDecoder()
    choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    events = decoder.feed(event({"id": "r", "object": "chat.completion.chunk", "choices": [choice]}))
    assert [TextDelta("whole")] == events
    assert [Finish("stop")] == decoder.close()


def test_second_response_in_a_stream() -> None:
    decoder = OpenAIStreamDecoder()
    for answer_id in ("one", "two"):
        for choice in ({"delta": {"content": "Hel"}}, {"delta": {}, "finish_reason": "stop"}):
            decoder.feed(event({"id": answer_id, "choices": [{"index": 0, **choice}]}))
    assert "a second response began in the stream" == str(decoder.failure)
    anthropic = AnthropicStreamDecoder()
    for answer_id in ("one", "two"):
        anthropic.feed(event({"type": "message_start", "message": {"id": answer_id, "model": "m"}}))
    assert "a second response began in the stream" == str(anthropic.failure)


def test_error_inside_a_block_delta() -> None:
    decoder = AnthropicStreamDecoder()
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    decoder.feed(event({**piece, "error": {"message": "it broke"}}))
    assert "the server sent an error in the stream: it broke" == str(decoder.failure)


async def test_stream_is_read_by_one_task() -> None:
    """A second one is refused, and takes nothing from the first, its limits included."""
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", idle_timeout=0.3) as backend,
    ):
        server.play(faults.stall())
        async with backend.stream("Hello") as stream:
            await anext(stream)
            first = asyncio.create_task(stream.get_final_completion())
            await asyncio.sleep(0.05)
            with pytest.raises(BackendError, match="read it from one task"):
                await stream.get_final_completion()
            with pytest.raises(APITimeoutError):
                await first
