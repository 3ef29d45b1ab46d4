"""Chunks with only text take a short way through the decoder. Whatever else a chunk has is never lost on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec
import pytest

from ctxbackends._chat.messages import TextPart
from ctxbackends._chat.responses import Completion, PartialCompletion
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROB = {"token": "b", "logprob": -0.5, "bytes": [98], "top_logprobs": []}


def build_chunk(delta: Mapping[str, Any], choice: Mapping[str, Any], members: Mapping[str, Any]) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None, **choice}]
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **members}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def text(value: str) -> bytes:
    return build_chunk({"content": value}, {}, {})


ROLE = build_chunk({"role": "assistant", "content": ""}, {}, {})
END = build_chunk({}, {"finish_reason": "stop"}, {}) + b"data: [DONE]\n\n"


def decode(*chunks: bytes) -> tuple[Completion | PartialCompletion, str | None]:
    """Return the answer, or the part of it before a failure, and the failure."""
    decoder, accumulator = OpenAIStreamDecoder(), Accumulator()
    for chunk in chunks:
        accumulator.add(*decoder.feed(chunk))
    accumulator.add(*decoder.close())
    if decoder.failure is not None:
        return accumulator.partial(), str(decoder.failure)
    return accumulator.completion(requested_model="m", served_model=decoder.served_model, response_id="c1"), None


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(
    ("delta", "choice", "members"),
    [
        ({"reasoning": "r"}, {}, {}),
        ({"reasoning_content": "r"}, {}, {}),
        ({"refusal": "no"}, {}, {}),
        ({"tool_calls": [CALL]}, {}, {}),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, {}, {}),
        ({"reasoning_encrypted": "x"}, {}, {}),
        ({"extra_content": {"google": {"thought_signature": "x"}}}, {}, {}),
        ({"annotations": [{"type": "url_citation", "url_citation": {"url": "http://a/", "title": "A"}}]}, {}, {}),
        ({"executed_tools": [{"type": "search"}]}, {}, {}),
        ({"content": None}, {}, {}),
        ({"content": 7}, {}, {}),
        ({"content": [{"type": "text", "text": "b"}]}, {}, {}),
        ({}, {"finish_reason": "length"}, {}),
        ({}, {"finish_reason": "unknown"}, {}),
        ({}, {"index": 1}, {}),
        ({}, {"logprobs": {"content": [LOGPROB]}}, {}),
        ({}, {"stop_reason": "###"}, {}),
        ({}, {"error": {"message": "broken"}}, {}),
        ({}, {}, {"choices": []}),
        ({}, {}, {"error": {"message": "broken"}}),
        ({}, {}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        ({}, {}, {"timings": {"cache_n": 1, "prompt_ms": 2.0, "predicted_ms": 3.0}}),
        ({}, {}, {"prompt_progress": {"total": 3, "cache": 1, "processed": 2, "time_ms": 4}}),
        ({}, {}, {"citations": ["http://a/"]}),
        ({}, {}, {"search_results": [{"url": "http://a/", "title": "A"}]}),
    ],
    ids=str,
)
def test_a_member_beside_the_text_is_never_lost(
    repeats: int, delta: Mapping[str, Any], choice: Mapping[str, Any], members: Mapping[str, Any]
) -> None:
    odd = build_chunk({"content": "b", **delta}, choice, members)
    after_role = decode(ROLE, odd, text("c"), END)  # the short way begins only after a text
    after_text = decode(ROLE, *[text("a")] * repeats, odd, text("c"), END)
    at_once = decode(ROLE + text("a") * repeats + odd + text("c") + END)
    assert after_text == at_once
    assert after_role[1] == after_text[1]
    assert _without_text(after_role[0]) == _without_text(after_text[0])
    assert "a" * repeats + after_role[0].text == after_text[0].text


def _without_text(answer: Completion | PartialCompletion) -> dict[str, Any]:
    if isinstance(answer, PartialCompletion):
        return attrs.asdict(attrs.evolve(answer, text=""), recurse=False)
    members = msgspec.structs.asdict(answer) | {"text": ""}
    return members | {"parts": [part for part in answer.parts if not isinstance(part, TextPart)]}


@pytest.mark.parametrize(
    "blank", [{}, {"refusal": None, "tool_calls": []}, {"reasoning_content": "", "annotations": []}], ids=str
)
def test_blank_members_change_nothing(blank: Mapping[str, Any]) -> None:
    chunks = [build_chunk({"content": word, **blank}, {"logprobs": None}, {"usage": None}) for word in "abc"]
    assert decode(ROLE, text("abc"), END) == decode(ROLE, *chunks, END)
