"""The accumulator of stream events, and the values that it builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.events import (
    Finish,
    Loading,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends._chat.messages import Message, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.responses import Completion, Embeddings, PartialCompletion, Usage
from ctxbackends._wire.accumulator import Accumulator

STOP = Finish("stop", Usage(5, 2, 1))


def accumulate(events: Sequence[StreamEvent]) -> Accumulator:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator


def completion(*events: StreamEvent) -> Completion:
    return accumulate([*events, STOP]).completion(requested_model="asked", served_model=None, response_id=None)


@pytest.mark.parametrize(
    ("events", "fields", "parts"),
    [
        pytest.param([], {"text": ""}, (), id="nothing"),
        pytest.param([TextDelta("a"), TextDelta(""), TextDelta("b")], {"text": "ab"}, (TextPart("ab"),), id="text"),
        pytest.param(
            [ReasoningDelta("r"), TextDelta("a"), ReasoningDelta("s"), TextDelta("b")],
            {"text": "ab", "reasoning": "rs"},
            (ReasoningPart("r"), TextPart("a"), ReasoningPart("s"), TextPart("b")),
            id="reasoning between text",
        ),
        pytest.param([RefusalDelta("n"), RefusalDelta("o")], {"text": "", "refusal": "no"}, (), id="refusal"),
        pytest.param(
            [ToolCallDelta(0, "c1", "f", ""), ToolCallDelta(0, "", "", '{"a"'), ToolCallDelta(0, "", "", ":1}")],
            {"text": "", "tool_calls": (ToolCall("c1", "f", '{"a":1}'),)},
            (ToolCall("c1", "f", '{"a":1}'),),
            id="a call in pieces",
        ),
        pytest.param(
            [ToolCallDelta(1, "c2", "g", "2"), ToolCallDelta(0, "c1", "f", "1"), ToolCallDelta(1, "", "", "3")],
            {"text": "", "tool_calls": (ToolCall("c1", "f", "1"), ToolCall("c2", "g", "23"))},
            (ToolCall("c2", "g", "23"), ToolCall("c1", "f", "1")),
            id="interleaved calls, in the order of their indexes; as parts, in that of their beginnings",
        ),
        pytest.param(
            [ToolCallDelta(0, "", "", "1"), ToolCallDelta(0, "c1", "", ""), ToolCallDelta(0, "", "f", "2")],
            {"text": "", "tool_calls": (ToolCall("c1", "f", "12"),)},
            (ToolCall("c1", "f", "12"),),
            id="id and name that come late",
        ),
        pytest.param(
            [ToolCallDelta(0, "c1", "f", "1"), ToolCallDelta(0, "c2", "g", "2")],
            {"text": "", "tool_calls": (ToolCall("c1", "f", "12"),)},
            (ToolCall("c1", "f", "12"),),
            id="the first id and name hold",
        ),
    ],
)
def test_events_are_accumulated(events: list[StreamEvent], fields: dict[str, Any], parts: tuple[Part, ...]) -> None:
    common = {"finish_reason": "stop", "usage": Usage(5, 2, 1), "requested_model": "asked"}
    assert Completion(**{**common, **fields, "parts": parts}) == completion(*events)


def test_a_completion_has_the_fields_of_the_response() -> None:
    accumulator = accumulate([TextDelta("a"), Finish("length")])
    actual = accumulator.completion(requested_model="asked", served_model="served", response_id="r1", raw=b"bytes")
    expected = Completion(
        text="a",
        finish_reason="length",
        requested_model="asked",
        served_model="served",
        response_id="r1",
        parts=(TextPart("a"),),
    )
    assert expected == actual
    assert b"bytes" == actual.raw


def test_no_completion_before_the_finish() -> None:
    accumulator = accumulate([TextDelta("a")])
    assert accumulator.finish is None
    with pytest.raises(AssertionError, match="only after Finish"):
        accumulator.completion(requested_model="m", served_model=None, response_id=None)
    accumulator.add(STOP)
    assert STOP == accumulator.finish


def test_the_partial_completion_is_always_available() -> None:
    accumulator = Accumulator()
    assert PartialCompletion() == accumulator.partial()
    for event in (TextDelta("a"), ReasoningDelta("r"), ToolCallDelta(0, "c1", "f", '{"a')):
        accumulator.add(event)
    before = accumulator.partial(served_model="m")
    assert (
        PartialCompletion(text="a", reasoning="r", tool_calls=(ToolCall("c1", "f", '{"a'),), served_model="m") == before
    )
    accumulator.add(TextDelta("b"))
    accumulator.add(STOP)
    assert "a" == before.text
    after = accumulator.partial()
    assert ("ab", Usage(5, 2, 1), None) == (after.text, after.usage, after.served_model)


pieces = st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)))


@given(st.lists(st.text(max_size=5)), pieces)
def test_nothing_is_lost_or_changed(texts: list[str], arguments: list[tuple[int, str]]) -> None:
    actual = completion(
        *(TextDelta(text) for text in texts),
        *(ToolCallDelta(index, f"c{index}", "f", piece) for index, piece in arguments),
    )
    assert "".join(texts) == actual.text
    assert [
        ToolCall(f"c{index}", "f", "".join(piece for call_index, piece in arguments if call_index == index))
        for index in sorted({index for index, _ in arguments})
    ] == list(actual.tool_calls)


# --- what users print ---------------------------------------------------------------------------------


def test_messages_are_built_by_their_role() -> None:
    assert Message("system", "a") == Message.system("a")
    assert Message("user", "a") == Message.user("a")
    assert Message("assistant", "a") == Message.assistant("a")
    call = ToolCall("c", "f", "{}")
    assert Message("assistant", (call,)) == Message.assistant("", tool_calls=[call])
    assert Message("assistant", (TextPart("a"), call)) == Message.assistant("a", tool_calls=[call])
    assert ("", (call,)) == (Message.assistant("", tool_calls=[call]).text, Message("assistant", (call,)).tool_calls)
    assert Message("tool", (ToolResult("c", "a"),)) == Message.tool("a", tool_call_id="c")


def test_loading_describes_the_wait() -> None:
    loading = Loading(endpoint="http://127.0.0.1:8000", state="refused", elapsed=12.4, budget=90.0)
    assert "waiting for http://127.0.0.1:8000 (refused, 12 s of 90 s)" == str(loading)


def test_vectors_are_not_printed() -> None:
    assert "<2 vectors of 3>" in repr(Embeddings(vectors=((1.0, 2.0, 3.0),) * 2, requested_model="m"))
    assert "<0 vectors of 0>" in repr(Embeddings(vectors=(), requested_model="m"))


def test_the_bytes_of_an_answer_are_neither_printed_nor_compared() -> None:
    one, other = (Completion(text="", finish_reason="stop", requested_model="m", raw=raw) for raw in (b"one", b"other"))
    assert one == other
    assert "raw" not in repr(one)
    assert not one != other  # noqa: SIM202  # the operator itself is under test
    assert one != msgspec.structs.replace(other, text="a")
    assert one != "a completion"
