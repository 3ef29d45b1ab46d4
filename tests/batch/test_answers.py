"""The answers of a batch: OpenAI's bodies, errors, and the way through the journal and back."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from ctxbackends import (
    APITimeoutError,
    BadRequestError,
    Completion,
    Embeddings,
    ModelMismatchError,
    StructuredOutputError,
    TokenLogprob,
    ToolCall,
    Usage,
)
from ctxbackends.batch import BatchAnswer, BatchRow, RowError
from ctxbackends.batch._answers import build_answer, build_error, build_failure, count_tokens, from_entry, to_entry
from ctxbackends.errors import IncompleteOutputError

KEY = bytes(range(16))
ROW = BatchRow(id="r1", prompt="Why?")


def completion(**fields: Any) -> Completion:
    defaults: dict[str, Any] = {
        "text": "Because.",
        "finish_reason": "stop",
        "requested_model": "m",
        "served_model": "m-1",
    }
    return Completion(**defaults | fields)


COMPLETIONS = {
    "text": completion(usage=Usage(7, 2), request_id="req-1", response_id="chatcmpl-1"),
    "non-ascii": completion(text="Füße 🦶\u2028\n\0"),
    "tools": completion(
        text="",
        finish_reason="tool_calls",
        reasoning="I look it up.",
        tool_calls=(ToolCall("call_1", "find", '{"q": "Füße"}'), ToolCall("call_2", "find", "{}")),
        usage=Usage(7, 2, cached_input_tokens=3, cache_write_tokens=1, reasoning_tokens=2),
    ),
    "refusal": completion(text="", refusal="I cannot."),
    "logprobs": completion(logprobs=(TokenLogprob("B", -0.5, b"B", (TokenLogprob("A", -1.5),)),)),
    "truncated": completion(finish_reason="length", served_model=None),
}
VECTORS = Embeddings(
    vectors=((0.1, -2.0, 3e-07), (1.0, 0.0, 0.5)), requested_model="e", served_model="e-1", usage=Usage(9, 0)
)


def through_journal(answer: BatchAnswer, row: BatchRow = ROW) -> BatchAnswer:
    return from_entry(row, to_entry(KEY, answer))


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_chat_answer_has_openais_body(name: str) -> None:
    answer = build_answer(ROW, COMPLETIONS[name], backend="local", attempts=2, seconds=0.5)
    assert COMPLETIONS[name].to_openai_dict() == answer.body
    assert COMPLETIONS[name].text == answer.text
    assert (None, "local", 2, 0.5, False) == (
        answer.error,
        answer.backend,
        answer.attempts,
        answer.seconds,
        answer.is_resumed,
    )
    assert COMPLETIONS[name].text == (ChatCompletion.model_validate(answer.body).choices[0].message.content or "")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"request_id": "req-1", "response_id": "chatcmpl-1"}, "req-1"),
        ({"response_id": "chatcmpl-1"}, "chatcmpl-1"),
        ({}, ""),
    ],
)
def test_the_request_id_is_that_of_the_header_or_of_the_body(ids: dict[str, str], expected: str) -> None:
    assert expected == build_answer(ROW, completion(**ids), backend="local").request_id


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (completion(usage=Usage(7, 2)), (7, 2)),
        (completion(), (0, 0)),
        (VECTORS, (9, 0)),
        (Embeddings(vectors=((1.0,),), requested_model="e"), (0, 0)),
    ],
)
def test_tokens(result: Completion | Embeddings, expected: tuple[int, int]) -> None:
    assert expected == count_tokens(result)
    assert expected == build_answer(ROW, result, backend="local").tokens


def test_vectors_are_numbers_unless_the_row_wants_base64() -> None:
    row = BatchRow(id="r1", prompt=["a", "b"], operation="embed")
    answer = build_answer(row, VECTORS, backend="local")
    assert answer.body is not None
    assert [[0.1, -2.0, 3e-07], [1.0, 0.0, 0.5]] == [one["embedding"] for one in answer.body["data"]]
    assert [[0.1, -2.0, 3e-07], [1.0, 0.0, 0.5]] == answer.vectors
    assert "" == answer.text
    parsed = CreateEmbeddingResponse.model_validate(answer.body)
    assert ("e-1", 9, [0, 1]) == (parsed.model, parsed.usage.prompt_tokens, [one.index for one in parsed.data])


def test_vectors_as_base64() -> None:
    row = BatchRow(id="r1", prompt="a", operation="embed", options={"encoding": "base64"})
    answer = build_answer(row, VECTORS, backend="local")
    assert answer.body is not None
    packed = base64.b64decode(answer.body["data"][1]["embedding"])
    assert struct.pack("<3f", 1.0, 0.0, 0.5) == packed
    assert [1.0, 0.0, 0.5] == answer.vectors[1]
    assert answer.vectors == through_journal(answer, row).vectors


def test_without_a_schema_the_value_is_none() -> None:
    answer = build_answer(ROW, completion(), backend="local")
    assert answer.value is None
    assert build_answer(ROW, completion(), backend="local", checked_value=None).value is None
    assert {"a": 1} == build_answer(ROW, completion(), backend="local", checked_value={"a": 1}).value


# --- through the journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_resumed_chat_answer_is_the_first_one(name: str) -> None:
    first = build_answer(ROW, COMPLETIONS[name], backend="local", attempts=3, seconds=1.25)
    assert msgspec.structs.replace(first, is_resumed=True) == through_journal(first)


def test_resumed_vectors_are_the_first_ones() -> None:
    row = BatchRow(id="r1", prompt="a", operation="embed")
    first = build_answer(row, VECTORS, backend="local")
    assert msgspec.structs.replace(first, is_resumed=True) == through_journal(first, row)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 1.5, "", "Füße", 10**30, [], {"a": [1, {"b": None}]}, {"\u2028": "🦶"}],
    ids=ascii,
)
def test_a_resumed_value_is_the_first_one(value: object) -> None:
    first = build_answer(ROW, completion(), backend="local", checked_value=value)
    resumed = through_journal(first)
    assert (value, value) == (resumed.value, resumed.checked_value)
    assert type(value) is type(resumed.value)


def test_a_resumed_error_is_the_first_one() -> None:
    error = BadRequestError(400, body=b'{"error": 1}', error_type="bad", request_id="req-1")
    first = build_failure(ROW, error, backend="local", attempts=4, seconds=2.0)
    assert first.body is None
    assert msgspec.structs.replace(first, is_resumed=True) == through_journal(first)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            BadRequestError(400, body=b'{"error": "no"}', message="no", error_type="bad", request_id="req-1"),
            RowError(
                type="BadRequestError",
                message='HTTP 400: {"error": "no"}',
                status_code=400,
                code="bad",
                request_id="req-1",
            ),
        ),
        (
            StructuredOutputError("not JSON", text="Hm"),
            RowError(type="StructuredOutputError", message="not JSON", text="Hm"),
        ),
        (
            IncompleteOutputError("length", text=""),
            RowError(
                type="IncompleteOutputError",
                message="structured output is incomplete: finish_reason length; raise max_tokens",
            ),
        ),
        (TypeError("no text"), RowError(type="TypeError", message="no text")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_keeps_its_facts(error: Exception, expected: RowError) -> None:
    assert expected == build_error(error)


def test_the_message_of_an_error_does_not_name_the_backend() -> None:
    error = APITimeoutError("first_token", 5.0, key="first_token_timeout")
    error.backend = "local"
    assert RowError(type="APITimeoutError", message=error.problem) == build_error(error)


def test_the_answer_of_another_model_is_kept() -> None:
    error = ModelMismatchError("m", "other", completion=completion(text="Late."))
    assert "Late." == build_error(error).text
    assert build_error(ModelMismatchError("m", "other")).text is None
