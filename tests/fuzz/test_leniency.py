"""Leniency hides no error: a value beside the answer changes nothing, and one in the answer is an error or changes
nothing."""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.responses import Completion
from ctxbackends._wire.accumulator import complete_stream
from ctxbackends._wire.base import HTTPResponse
from ctxbackends.errors import BackendError
from tests.fuzz.material import CODECS, fuzz_settings

pytestmark = pytest.mark.full

CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
CHUNK = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "s"}
COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
USAGE = {**COUNTS, "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}
MESSAGE = {"role": "assistant", "content": "a", "reasoning": "r", "refusal": "n", "tool_calls": [CALL]}
EXTRAS = {"annotations": [{"type": "url_citation"}], "reasoning_details": [], "extra_content": None}
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "r", "signature": "s"},
    {"type": "text", "text": "a", "citations": [{"type": "x", "cited_text": "y"}]},
    {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}},
]
ANTHROPIC_USAGE = {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 1}
OLLAMA = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
OLLAMA_COUNTS = {"load_duration": 5, "prompt_eval_count": 5, "eval_count": 2, "eval_duration": 7}
OLLAMA_MESSAGE = {
    "role": "assistant",
    "content": "a",
    "thinking": "r",
    "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}],
}
CHOICE = {"index": 0, "logprobs": LOGPROBS, "native_finish_reason": "stop"}

PLAIN: dict[str, dict[str, Any]] = {
    "OpenAIStreamDecoder": {
        **CHUNK,
        "choices": [{**CHOICE, "message": {**MESSAGE, **EXTRAS}, "finish_reason": "tool_calls"}],
        "usage": USAGE,
        "timings": {"prompt_ms": 1.5},
        "citations": ["u"],
    },
    "AnthropicStreamDecoder": {
        "id": "r1",
        "type": "message",
        "model": "m",
        "content": BLOCKS,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": ANTHROPIC_USAGE,
    },
    "OllamaStreamDecoder": {
        **OLLAMA,
        "message": OLLAMA_MESSAGE,
        "done": True,
        "done_reason": "stop",
        **OLLAMA_COUNTS,
    },
}
STREAM: dict[str, list[dict[str, Any]]] = {
    "OpenAIStreamDecoder": [
        {**CHUNK, "choices": [{**CHOICE, "delta": {**MESSAGE, **EXTRAS}}], "usage": None},
        {**CHUNK, "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": None}]},
        {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {**CHUNK, "choices": [], "usage": USAGE, "timings": {"prompt_ms": 1.5}},
    ],
    "AnthropicStreamDecoder": [
        {"type": "message_start", "message": {"id": "r1", "model": "m", "usage": ANTHROPIC_USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**BLOCKS[2], "input": {}}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"x":1}'},
        },
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ],
    "OllamaStreamDecoder": [
        {**OLLAMA, "message": OLLAMA_MESSAGE, "done": False, "logprobs": LOGPROBS["content"]},
        {**OLLAMA, "message": {"content": "b"}, "done": False},
        {**OLLAMA, "message": {"content": ""}, "done": True, "done_reason": "stop", **OLLAMA_COUNTS},
    ],
}

BESIDE = frozenset(
    {
        *("id", "object", "created", "model", "system_fingerprint", "usage", "logprobs", "native_finish_reason"),
        *("timings", "citations", "annotations", "reasoning_details", "extra_content", "caller", "created_at", "role"),
        *("load_duration", "prompt_eval_count", "eval_count", "eval_duration", "stop_sequence"),
    }
)
"""Members beside the answer, with all that is in them. A ``type`` or an ``index`` says what another member means."""

DEEP = functools.reduce(lambda value, _: [value], range(200), 1)  # type: ignore[arg-type, return-value]
OTHER_VALUES: tuple[Any, ...] = (
    5,
    1.5,
    True,
    "x",
    "",
    [],
    [1],
    {},
    {"a": 1},
    [{"a": None}],
    None,
    10**30,
    "\ud83d",
    DEEP,
)
WRONG_VALUES = (5, 1.5, True, [1], [{"a": 1}, 2], {"b": {"c": 1}})
"""No member of an answer has one of these, except that arguments may be an object."""
OBJECTS = frozenset({"arguments", "input"})


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


def is_beside(path: tuple[str | int, ...]) -> bool:
    return any(part in BESIDE for part in path)


def replace(value: Any, path: tuple[str | int, ...], other: Any) -> Any:
    result = container = copy.deepcopy(value)
    for key in path[:-1]:
        container = container[key]
    container[path[-1]] = other
    return result


def decode_plain(name: str, body: Any) -> Completion:
    response = HTTPResponse(status=200, headers={}, body=json.dumps(body).encode())
    return CODECS[name].decode_chat(response, requested_model="m")


def decode_events(name: str, events: list[Any]) -> Completion:
    frame = b"%b\n" if name.startswith("Ollama") else b"data: %b\n\n"
    body = b"".join(frame % json.dumps(event).encode() for event in events)
    response = HTTPResponse(status=200, headers={}, body=body)
    return complete_stream(CODECS[name].stream_decoder(), response, requested_model="m")


def answer_of(completion: Completion) -> tuple[Any, ...]:
    calls = [(call.name, json.loads(call.arguments)) for call in completion.tool_calls]
    return completion.text, completion.reasoning, completion.refusal, completion.finish_reason, calls


CASES = [
    pytest.param(name, decode, good, id=f"{name}-{decode.__name__}")
    for decode, goods in ((decode_plain, PLAIN), (decode_events, STREAM))
    for name, good in goods.items()
]


@pytest.mark.parametrize(("name", "decode", "good"), CASES)
def test_a_value_beside_the_answer_changes_nothing(name: str, decode: Any, good: Any) -> None:
    expected = answer_of(decode(name, good))
    for path in paths_of(good):
        if is_beside(path):
            for value in OTHER_VALUES:
                assert expected == answer_of(decode(name, replace(good, path, value))), (path, value)


@pytest.mark.parametrize(("name", "decode", "good"), CASES)
def test_a_wrong_value_in_the_answer_is_an_error_or_changes_nothing(name: str, decode: Any, good: Any) -> None:
    expected = answer_of(decode(name, good))
    for path in paths_of(good):
        if len(path) == 1 and isinstance(good, list):
            continue  # JSON without an answer and an error is passed over
        if is_beside(path) or "input" in path[:-1] or "arguments" in path[:-1]:
            continue
        for value in WRONG_VALUES:
            replaced = functools.reduce(operator.getitem, path, good)
            if type(value) is type(replaced) or (isinstance(value, dict) and path[-1] in OBJECTS):
                continue  # not of a wrong type: another index, or an object with members that nobody knows
            try:
                actual = answer_of(decode(name, replace(good, path, value)))
            except BackendError:
                continue
            assert expected == actual, (path, value)


@pytest.mark.parametrize(("name", "decode", "good"), CASES)
@fuzz_settings
@given(data=st.data())
def test_several_values_beside_the_answer_change_nothing(
    name: str, decode: Any, good: Any, data: st.DataObject
) -> None:
    beside = [path for path in paths_of(good) if is_beside(path)]
    leaves = [path for path in beside if not any(other[: len(path)] == path and other != path for other in beside)]
    changed = good
    for path in data.draw(st.lists(st.sampled_from(leaves), unique=True, max_size=5)):
        numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)  # JSON has neither
        value = data.draw(st.sampled_from(OTHER_VALUES) | st.text(max_size=3) | numbers)
        changed = replace(changed, path, value)
    assert answer_of(decode(name, good)) == answer_of(decode(name, changed))
