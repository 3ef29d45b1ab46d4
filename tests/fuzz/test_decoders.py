"""Every decoder with arbitrary bytes: it raises nothing, invents nothing, and does not depend on the splits."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.events import Finish, ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.responses import TokenLogprob, Usage
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import HTTPResponse, StreamDecoder
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends._wire.sse import LineSplitter, SSEDecoder
from ctxbackends.errors import BackendError, ResponseTooLargeError
from tests.fuzz.material import (
    CODECS,
    STREAMS,
    TERMINAL,
    bodies,
    corruptions,
    cuts,
    end_of_terminal,
    fuzz_settings,
    has_terminal,
    own_streams,
    own_values,
    read,
    replace_members,
    streams,
)
from tests.splitting import split_at, split_bytes

pytestmark = pytest.mark.full

every_decoder = pytest.mark.parametrize("name", sorted(CODECS))


def outcome(name: str, chunks: list[bytes]) -> tuple[Any, ...]:
    """All that a decoder tells of a stream."""
    decoder = CODECS[name].stream_decoder()
    events = read(decoder, chunks)
    failure = decoder.failure
    error = None if failure is None else (type(failure), str(failure), getattr(failure, "body", None))
    return events, decoder.finished, error, decoder.served_model, decoder.response_id


def test_every_wire_format_has_an_end_marker() -> None:
    assert set(CODECS) == set(TERMINAL)


@every_decoder
@fuzz_settings
@given(source=st.data(), positions=cuts)
def test_a_stream_ends_once_and_is_the_same_at_every_split(
    name: str, source: st.DataObject, positions: list[int]
) -> None:
    data = source.draw(streams(name))
    decoder = CODECS[name].stream_decoder()
    events = read(decoder, [data])
    assert decoder.finished is (decoder.failure is None)
    assert decoder.failure is None or isinstance(decoder.failure, BackendError)
    ends = [event for event in events if isinstance(event, Finish)]
    assert decoder.finished is (len(ends) == 1 and events[-1] is ends[0])
    assert [] == decoder.feed(b"data: {}\n\n{}\n") + decoder.close()
    expected = outcome(name, [data])
    assert expected[0] == events
    assert expected == outcome(name, split_at(data, positions))
    if len(data) < 3000:
        assert expected == outcome(name, split_bytes(data))


@every_decoder
def test_every_kind_of_value_in_every_member_of_every_event(name: str) -> None:
    """Not drawn: each once. Deep nesting and numbers that nothing can hold are among them."""
    for text in replace_members(own_values(name)):
        for data in (b"data: " + text + b"\n\n", text + b"\n"):
            _, finished, failure, _, _ = outcome(name, [data])
            assert finished is (failure is None)
            assert not finished or has_terminal(name, data)
        with suppress(BackendError):
            CODECS[name].decode_chat(HTTPResponse(status=200, headers={}, body=text), requested_model="m")


@every_decoder
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=ascii)
def test_recordings_are_the_same_for_every_line_end_and_split(name: str, end: bytes) -> None:
    for recording in own_streams(name):
        expected = outcome(name, [recording])
        data = recording.replace(b"\n", end)
        assert expected[1]
        assert expected == outcome(name, [data]) == outcome(name, split_bytes(data))
        for position in range(0, len(data), 1 + len(data) // 60):
            assert expected == outcome(name, [data[:position], data[position:]])


@every_decoder
@fuzz_settings
@given(source=st.data())
def test_no_stream_finishes_without_its_end_marker(name: str, source: st.DataObject) -> None:
    data = source.draw(streams(name))
    if not has_terminal(name, data):
        assert not outcome(name, [data])[1]


@every_decoder
@fuzz_settings
@given(data=st.data())
def test_a_truncated_recording_does_not_finish(name: str, data: st.DataObject) -> None:
    """Whatever else was done to what came before the cut, as long as no other end came in."""
    ends = {key: end for key, stream in STREAMS.items() if (end := end_of_terminal(name, stream)) is not None}
    key = data.draw(st.sampled_from(sorted(ends)))
    prefix = STREAMS[key][: data.draw(st.integers(0, ends[key] - 1))]
    assert not outcome(name, [prefix])[1]
    worse = data.draw(corruptions((prefix,))) if prefix else prefix
    if not has_terminal(name, worse):
        assert not outcome(name, [worse])[1]


@every_decoder
@fuzz_settings
@given(source=st.data())
def test_the_events_of_a_stream_can_be_accumulated(name: str, source: st.DataObject) -> None:
    data = source.draw(streams(name))
    decoder = CODECS[name].stream_decoder()
    accumulator = Accumulator()
    events = read(decoder, [data])
    for event in events:
        accumulator.add(event)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == accumulator.partial().text
    assert decoder.finished is (accumulator.finish is not None)
    if decoder.finished:
        completion = accumulator.completion(requested_model="m", served_model=decoder.served_model, response_id=None)
        assert text == completion.text
        assert accumulator.finish == Finish(completion.finish_reason, completion.usage, completion.stop_sequence)


@pytest.mark.parametrize("name", sorted(CODECS))
@fuzz_settings
@given(bodies)
def test_a_plain_response_is_a_completion_or_our_error(name: str, body: bytes) -> None:
    response = HTTPResponse(status=200, headers={}, body=body)
    try:
        completion = CODECS[name].decode_chat(response, requested_model="m")
    except BackendError:
        return
    assert (body, "m") == (completion.raw, completion.requested_model)
    assert completion.finish_reason in ("stop", "length", "tool_calls", "content_filter")


# --- the fold -----------------------------------------------------------------------------------------

texts = st.text(max_size=3)
event_lists = st.lists(
    st.one_of(
        st.builds(TextDelta, texts),
        st.builds(ReasoningDelta, texts, signature=st.none() | texts, redacted=st.none() | texts),
        st.builds(RefusalDelta, texts),
        st.builds(ToolCallDelta, st.integers(-2, 3), texts, texts, texts),
    ),
    max_size=12,
)


@fuzz_settings
@given(event_lists)
def test_accumulation_loses_and_adds_nothing(events: list[StreamEvent]) -> None:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    accumulator.add(Finish("stop", Usage(1, 2), None))
    completion = accumulator.completion(requested_model="m", served_model=None, response_id=None)

    def join_text(kind: type[TextDelta | ReasoningDelta | RefusalDelta]) -> str:
        return "".join(event.text for event in events if isinstance(event, kind))

    assert (join_text(TextDelta), join_text(ReasoningDelta), join_text(RefusalDelta)) == (
        completion.text,
        completion.reasoning,
        completion.refusal,
    )
    arguments = {event.index: "" for event in events if isinstance(event, ToolCallDelta)}
    for event in events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] += event.arguments
    assert [arguments[index] for index in sorted(arguments)] == [call.arguments for call in completion.tool_calls]


# --- bounds -------------------------------------------------------------------------------------------

LIMIT = 64
lines_soup = st.lists(
    st.sampled_from((b"data: ", b"data:", b"data", b"event: e", b"\n", b"\r", b"\n\n", b"x" * 20, b":", b"y")),
    max_size=40,
).map(b"".join)


def texts_in(value: object) -> Iterator[bytes | bytearray | str]:
    """All text that a value keeps in memory."""
    if isinstance(value, bytes | bytearray | str):
        yield value
    elif not isinstance(value, type):
        for referent in gc.get_referents(value):
            yield from texts_in(referent)


@fuzz_settings
@given(lines_soup, cuts)
def test_the_buffers_of_the_framing_are_bounded(data: bytes, positions: list[int]) -> None:
    for chunks in (split_at(data, positions), split_bytes(data)):
        framing = SSEDecoder(limit=LIMIT)
        try:
            for chunk in chunks:
                framing.feed(chunk)
                buffers = list(texts_in(framing))
                assert sum(map(len, buffers)) <= 3 * LIMIT
                assert len(buffers) <= LIMIT + 3
        except ResponseTooLargeError as error:
            assert LIMIT == error.limit


@fuzz_settings
@given(lines_soup, cuts)
def test_the_events_before_a_too_large_one_are_the_same_at_every_split(data: bytes, positions: list[int]) -> None:
    """A read that is larger than the limit loses its own whole lines with the one that is too long, so what one cut
    gives is the beginning of what single bytes give; who refuses does so for every cut."""

    def read_events(chunks: list[bytes]) -> tuple[list[tuple[bytes, bytes]], bool]:
        framing, events = SSEDecoder(limit=LIMIT), list[tuple[bytes, bytes]]()
        try:
            for chunk in chunks:
                events += framing.feed(chunk)
            return events + framing.close(), False
        except ResponseTooLargeError:
            return events, True

    events_of_bytes, bytes_fail = read_events(split_bytes(data))
    events_of_chunks, chunks_fail = read_events(split_at(data, positions))
    assert bytes_fail is chunks_fail
    assert events_of_chunks == events_of_bytes[: len(events_of_chunks)]
    assert bytes_fail or events_of_chunks == events_of_bytes


def _too_long(decoder: StreamDecoder, chunk: bytes) -> StreamDecoder:
    for _ in range(9):
        decoder.feed(chunk)
    return decoder


@every_decoder
def test_an_endless_line_is_an_error(name: str) -> None:
    decoder = _too_long(CODECS[name].stream_decoder(), b"x" * (1024 * 1024))
    assert isinstance(decoder.failure, ResponseTooLargeError)
    assert [] == decoder.feed(b"y" * 1024)


# --- work ---------------------------------------------------------------------------------------------


def calls_of(work: Callable[[], object]) -> int:
    """How many calls of functions, those in C included, ``work`` makes: a measure that does not depend on the
    machine."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # a finaliser of something else would be counted
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@every_decoder
@pytest.mark.parametrize("kind", ["one line", "many lines", "recording"])
def test_bytes_one_by_one_cost_linear_work(name: str, kind: str) -> None:
    def count_calls(size: int) -> int:
        if kind == "one line":
            data = b'data: {"x":"' + b"y" * size
        elif kind == "many lines":
            data = b": c\n" * (size // 4)
        else:
            long = max(STREAMS.values(), key=len)
            data = (b": " + long.replace(b"\n", b" "))[:size]
        decoder = CODECS[name].stream_decoder()
        return calls_of(lambda: read(decoder, split_bytes(data)))

    assert count_calls(8000) < 4.5 * count_calls(2000)


def test_many_tool_calls_cost_linear_work() -> None:
    """A search in all earlier ids would be one call for each: the CPU time of a run shows it, far above this bound."""

    def seconds(count: int) -> float:
        chunks = [
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d,"id":"call_%d","function":{"name":"f"}}]}}]}\n\n'
            % (number, number)
            for number in range(count)
        ]
        decoder = OpenAIStreamDecoder()
        start = time.process_time()
        events = read(decoder, chunks)
        duration = time.process_time() - start
        assert count == len(events)
        return duration

    fewer, more = (min(seconds(count) for _ in range(3)) for count in (1000, 8000))
    assert more < 24 * fewer


def test_deeply_nested_logprobs_raise_nothing() -> None:
    """msgspec and Python have one limit on this Python, and another one each on others."""
    for depth in range(1, 600, 2):
        decoder = CODECS["OllamaStreamDecoder"].stream_decoder()
        nested = b'{"token":"a","logprob":0,"top_logprobs":[' * depth + b"]}" * depth
        events = decoder.feed(b'{"message":{"content":"x"},"logprobs":[%s]}\n' % nested)
        top = (TokenLogprob("a", 0, None, ()),) if depth > 1 else ()
        assert ([TextDelta("x", (TokenLogprob("a", 0, None, top),))] if decoder.failure is None else []) == events


def test_a_line_in_small_pieces_is_buffered_once() -> None:
    splitter = LineSplitter()
    for _ in range(100_000):
        splitter.feed(b"xy")
    assert 200_000 < sum(map(sys.getsizeof, texts_in(splitter))) < 1.3 * 200_000
    assert [b"xy" * 100_000] == splitter.feed(b"\n")
    assert sum(map(sys.getsizeof, texts_in(splitter))) < 100
