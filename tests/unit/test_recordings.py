"""Self-made responses in the shapes of real servers: decoded as a whole, cut anywhere, and sent back.

A file of tests/recordings is named ``<shape>.<wire format>.<sse, ndjson or json>``. Next to it is the expected
completion, or a part of the error's text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctxbackends._chat.events import ToolCallDelta
from ctxbackends._chat.messages import Message, OpaquePart
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.responses import Completion
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._wire.accumulator import Accumulator, complete_stream
from ctxbackends._wire.base import Codec, HTTPResponse, WireSettings
from ctxbackends.errors import BackendError
from tests.splitting import split_bytes

DIRECTORY = Path(__file__).parents[1] / "recordings"
NAMES = sorted(path.name for path in DIRECTORY.iterdir() if not path.name.endswith(".expected.json"))
WIRES = {
    "chat": ("openai-compatible", "chat_completions"),
    "messages": ("anthropic", "messages"),
    "ollama": ("ollama", "ollama"),
}
every_recording = pytest.mark.parametrize("name", NAMES)
every_stream = pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(".json")])


def codec_of(name: str, *, allow_missing_finish_reason: bool = False) -> Codec:
    type_, wire = WIRES[name.split(".")[1]]
    return PROFILES[type_].codec(wire, WireSettings(allow_missing_finish_reason=allow_missing_finish_reason))


def decode(name: str, *, allow_missing_finish_reason: bool = False) -> Completion:
    codec = codec_of(name, allow_missing_finish_reason=allow_missing_finish_reason)
    response = HTTPResponse(status=200, headers={}, body=(DIRECTORY / name).read_bytes())
    if name.endswith(".json"):
        return codec.decode_chat(response, requested_model="m")
    return complete_stream(codec.stream_decoder(), response, requested_model="m")


def expected_of(name: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((DIRECTORY / f"{name}.expected.json").read_bytes())
    return expected


def summarize(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "reasoning": completion.reasoning,
        "raw_finish_reason": completion.raw_finish_reason,
        "tool_calls": [[call.id, call.name, call.arguments] for call in completion.tool_calls],
        "logprobs": [[one.token, one.logprob] for one in completion.logprobs],
        "citations": [
            [one.url, one.title, None if one.span is None else list(one.span), one.text] for one in completion.citations
        ],
        "usage": usage
        and [
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        ],
        "opaque": [json.loads(part.json) for part in completion.parts if isinstance(part, OpaquePart)],
    }


def hide_generated_ids(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    ids = [call[0] for call in actual["tool_calls"]]
    assert len(set(ids)) == len(ids)
    for wanted, call in zip(expected.get("tool_calls", ()), actual["tool_calls"], strict=False):
        if wanted[0] == "*":
            assert len(call[0]) == 9
            assert call[0].isalnum()
            call[0] = "*"


def check(expected: dict[str, Any], completion: Completion) -> None:
    actual = summarize(completion)
    hide_generated_ids(expected, actual)
    empty: dict[str, Any] = {"reasoning": "", "tool_calls": [], "logprobs": [], "citations": [], "usage": None}
    optional = {name: actual[name] for name in ("raw_finish_reason", "opaque") if name not in expected}
    assert {**empty, **expected, **optional} == actual


@every_recording
def test_recordings_are_decoded(name: str) -> None:
    expected = expected_of(name)
    expected.pop("sent_back", None)
    if "error" not in expected:
        check(expected, decode(name))
        return
    with pytest.raises(BackendError) as exc_info:
        decode(name)
    assert expected["error"] in str(exc_info.value)
    if "allowed" in expected:
        check(expected["allowed"], decode(name, allow_missing_finish_reason=True))


@every_stream
def test_streams_are_the_same_at_every_split(name: str) -> None:
    data = (DIRECTORY / name).read_bytes()

    def run(*chunks: bytes) -> tuple[Any, ...]:
        decoder = codec_of(name).stream_decoder()
        events = [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.close()
        return events, decoder.finished, str(decoder.failure), decoder.raw_finish_reason

    expected = run(data)
    assert expected == run(*split_bytes(data))
    for position in range(0, len(data), 1 + len(data) // 100):
        assert expected == run(data[:position], data[position:])


@every_stream
def test_a_stream_that_is_cut_is_no_other_completion(name: str) -> None:
    data = (DIRECTORY / name).read_bytes()
    whole = codec_of(name).stream_decoder()
    accumulator = Accumulator()
    accumulator.add(*whole.feed(data), *whole.close())
    text = accumulator.partial().text
    for position in range(0, len(data), 1 + len(data) // 100):
        decoder, part = codec_of(name).stream_decoder(), Accumulator()
        part.add(*decoder.feed(data[:position]), *decoder.close())
        if decoder.finished:
            assert (text, accumulator.partial().tool_calls) == (part.partial().text, part.partial().tool_calls)


@every_stream
def test_id_and_name_are_in_the_first_delta_only(name: str) -> None:
    decoder = codec_of(name).stream_decoder()
    begun: set[int] = set()
    for event in decoder.feed((DIRECTORY / name).read_bytes()) + decoder.close():
        if isinstance(event, ToolCallDelta):
            assert (bool(event.id), bool(event.name)) == ((event.index not in begun),) * 2
            begun.add(event.index)


@pytest.mark.parametrize("name", [name for name in NAMES if "sent_back" in expected_of(name)])
def test_the_message_goes_back_as_the_vendor_asks(name: str) -> None:
    message = decode(name).message
    expected = expected_of(name)["sent_back"]
    for type_, wire in WIRES.values():
        request = ChatRequest(messages=(Message.user("Hi"), message, Message.user("Go on")), model="m")
        try:
            body = PROFILES[type_].codec(wire).encode_chat(request, stream=False).body or b""
        except BackendError:
            assert (type_, wire) != WIRES[name.split(".")[1]]
            continue
        if (type_, wire) == WIRES[name.split(".")[1]]:
            sent = json.loads(body)["messages"][1]
            assert expected == {member: sent[member] for member in expected}
        else:
            assert b"c2VhbA==" not in body
            assert b"c2FsdA==" not in body
