"""Completion.to_openai_dict(): OpenAI's client accepts it, and it decodes to the same completion."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openai.types.chat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import Completion, Message, TokenLogprob, ToolCall, Usage
from ctxbackends._profiles.option_support import OPENAI_COMPATIBLE_CHAT
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.formats.openai_chat import OpenAIChatCodec

CODEC = OpenAIChatCodec(table=OPENAI_COMPATIBLE_CHAT)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,10}", fullmatch=True)
COUNTS = st.integers(0, 10**9)
LOGPROBS = st.floats(max_value=0, allow_nan=False, allow_infinity=False)
TOKENS = st.builds(TokenLogprob, TEXTS, LOGPROBS, st.none() | st.binary(min_size=1, max_size=3))
USAGES = st.builds(
    lambda cached, written, rest, output, reasoning: Usage(
        (cached or 0) + (written or 0) + rest,
        output + (reasoning or 0),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    ),
    st.none() | COUNTS,
    st.none() | COUNTS,
    COUNTS,
    COUNTS,
    st.none() | COUNTS,
)
CALLS = st.lists(
    st.builds(ToolCall, NAMES, NAMES, st.dictionaries(NAMES, TEXTS, max_size=2).map(json.dumps)),
    max_size=3,
    unique_by=lambda call: call.id,
)
FIELDS = st.fixed_dictionaries(
    {
        "text": TEXTS,
        "reasoning": TEXTS,
        "refusal": TEXTS,
        "usage": st.none() | USAGES,
        "logprobs": st.lists(
            st.builds(
                TokenLogprob,
                TEXTS,
                LOGPROBS,
                st.none() | st.binary(min_size=1),
                st.lists(TOKENS, max_size=2).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        "requested_model": NAMES,
        "served_model": st.none() | NAMES,
        "response_id": st.none() | NAMES,
    }
)


def build(fields: dict[str, Any], calls: list[ToolCall], reason: Any) -> Completion:
    return Completion(**fields, tool_calls=tuple(calls), finish_reason="tool_calls" if calls else reason)


COMPLETIONS = st.builds(build, FIELDS, CALLS, st.sampled_from(["stop", "length", "content_filter"]))


@given(COMPLETIONS)
def test_openais_client_accepts_it(completion: Completion) -> None:
    values = completion.to_openai_dict()
    assert values == json.loads(json.dumps(values))
    parsed = openai.types.chat.ChatCompletion.model_validate(values, strict=True)
    [choice] = parsed.choices
    assert completion.text == (choice.message.content or "")
    assert completion.refusal == (choice.message.refusal or "")
    assert completion.finish_reason == choice.finish_reason
    assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [
        (call.id, call.function.name, call.function.arguments)
        for call in choice.message.tool_calls or []
        if call.type == "function"
    ]
    assert (completion.usage is None) == (parsed.usage is None)


@given(COMPLETIONS)
def test_it_decodes_to_the_same_completion(completion: Completion) -> None:
    body = json.dumps(completion.to_openai_dict()).encode()
    decoded = CODEC.decode_chat(
        HTTPResponse(status=200, headers={}, body=body), requested_model=completion.requested_model
    )
    expected = msgspec.structs.replace(
        completion,
        parts=decoded.parts,
        served_model=completion.served_model or completion.requested_model,
        response_id=completion.response_id or "",
    )
    assert expected == decoded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "Hi"}, {"content": "Hi", "refusal": None}),
        ({"text": ""}, {"content": "", "refusal": None}),
        ({"text": "", "refusal": "No."}, {"content": None, "refusal": "No."}),
        (
            {"text": "", "tool_calls": (ToolCall("c1", "add", '{"a": 1}'),), "finish_reason": "tool_calls"},
            {
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
            },
        ),
        ({"text": "Hi", "reasoning": "Hm."}, {"content": "Hi", "refusal": None, "reasoning_content": "Hm."}),
    ],
)
def test_the_message(fields: dict[str, Any], message: dict[str, Any]) -> None:
    completion = Completion(**{"finish_reason": "stop", "requested_model": "m", **fields})
    values = completion.to_openai_dict()["choices"][0]["message"]
    assert {"role": "assistant", **message} == values
    assert completion.refusal or completion.reasoning or completion.message == Message.from_dict(values)


def test_all_members() -> None:
    completion = Completion(
        text="Hi",
        finish_reason="stop",
        usage=Usage(10, 5, cached_input_tokens=4, reasoning_tokens=2, generation_seconds=0.5),
        requested_model="a",
        served_model="b",
        logprobs=(TokenLogprob("Hi", -0.5, b"Hi", (TokenLogprob("Hi", -0.5), TokenLogprob("Ho", -1.5, b"Ho"))),),
        response_id="r1",
    )
    top = [{"token": "Hi", "logprob": -0.5, "bytes": None}, {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}]
    expected = {
        "id": "r1",
        "object": "chat.completion",
        "created": 0,
        "model": "b",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": {
                    "content": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": top}],
                    "refusal": None,
                },
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
    assert expected == completion.to_openai_dict()
