"""Lines and server-sent events: the same at every split of the bytes, with bounded buffers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxbackends._wire.base import MAX_BODY_BYTES
from ctxbackends._wire.sse import LineSplitter, SSEDecoder
from ctxbackends.errors import ResponseTooLargeError
from tests.splitting import split_at, split_bytes

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.sse"))

Events = list[tuple[bytes, bytes]]


def lines_of(*chunks: bytes, limit: int = MAX_BODY_BYTES) -> list[bytes]:
    """All lines; the last is what came after the last line end."""
    splitter = LineSplitter(limit=limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, splitter.close()]


def events_of(*chunks: bytes, limit: int = MAX_BODY_BYTES) -> Events:
    decoder = SSEDecoder(limit=limit)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


# Few different bytes, so that line ends, field names and their neighbours meet often.
soup = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"data", b"data:", b"data: ", b"event: e", b":", b" ", b"x", b"\xef\xbb\xbf"]
    )
).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=8)


# --- lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        pytest.param(b"", [b""], id="nothing"),
        pytest.param(b"a\nb\n", [b"a", b"b", b""], id="LF"),
        pytest.param(b"a\r\nb\r\n", [b"a", b"b", b""], id="CRLF"),
        pytest.param(b"a\rb\r", [b"a", b"b", b""], id="CR"),
        pytest.param(b"a\nb\r\nc\rd", [b"a", b"b", b"c", b"d"], id="mixed"),
        pytest.param(b"\r\r\n\n\r", [b"", b"", b"", b"", b""], id="empty lines: CR, CRLF, LF, CR"),
        pytest.param(b"\n\r", [b"", b"", b""], id="LF CR are two ends"),
        pytest.param(b"no end", [b"no end"], id="no end"),
        pytest.param(
            b"a\x0bb\x0cc\x1cd\x1ee\x85f\n", [b"a\x0bb\x0cc\x1cd\x1ee\x85f", b""], id="ends of str.splitlines"
        ),
        pytest.param("a\u2028b\u2029c\x85d\n".encode(), ["a\u2028b\u2029c\x85d".encode(), b""], id="U+2028 and NEL"),
    ],
)
def test_lines_end_in_lf_crlf_or_cr_only(data: bytes, lines: list[bytes]) -> None:
    assert lines == lines_of(data)
    assert lines == lines_of(*split_bytes(data))
    for position in range(len(data) + 1):
        assert lines == lines_of(data[:position], data[position:])


def test_a_cr_ends_the_line_at_once() -> None:
    splitter = LineSplitter()
    assert [b"a"] == splitter.feed(b"a\r")
    assert [] == splitter.feed(b"")
    assert [] == splitter.feed(b"\n")
    assert [b""] == splitter.feed(b"\n")


def test_close_returns_the_rest_once() -> None:
    splitter = LineSplitter()
    splitter.feed(b"rest")
    assert b"rest" == splitter.close()
    assert b"" == splitter.close()


@given(soup | st.binary(), cuts)
@example(b"a\r\nb", [2])
def test_lines_are_the_same_at_every_split(data: bytes, positions: list[int]) -> None:
    expected = lines_of(data)
    assert expected == lines_of(*split_at(data, positions))
    assert expected == lines_of(*split_bytes(data))
    assert data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") == b"\n".join(expected)


# --- events -----------------------------------------------------------------------------------------

ONE_EVENT = [(b"", b"x")]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"\n\n\n", [], id="blank lines"),
        pytest.param(b"data: x\n\n", ONE_EVENT, id="LF"),
        pytest.param(b"data: x\r\n\r\n", ONE_EVENT, id="CRLF"),
        pytest.param(b"data: x\r\r", ONE_EVENT, id="CR"),
        pytest.param(b"data: x\r\n\n", ONE_EVENT, id="mixed"),
        pytest.param(b"data: x\n", ONE_EVENT, id="no blank line at the end"),
        pytest.param(b"data: x", ONE_EVENT, id="no line end at the end"),
        pytest.param(b"data:x\n\n", ONE_EVENT, id="no space after the colon"),
        pytest.param(b"data:  x\n\n", [(b"", b" x")], id="only one space is taken off"),
        pytest.param(b"data: x \n\n", [(b"", b"x ")], id="space at the end is kept"),
        pytest.param(b"data: a\ndata: b\ndata:\n\n", [(b"", b"a\nb\n")], id="several lines of data"),
        pytest.param(b"data\n\n", [(b"", b"")], id="a field name alone is an empty value"),
        pytest.param(b"data\ndata\n\n", [(b"", b"\n")], id="two empty lines of data"),
        pytest.param(b"data: x\n\ndata: y\n\n", [(b"", b"x"), (b"", b"y")], id="two events"),
        pytest.param(b"event: error\ndata: x\n\n", [(b"error", b"x")], id="event name"),
        pytest.param(b"event:error\ndata: x\n\n", [(b"error", b"x")], id="event name without a space"),
        pytest.param(b"data: x\nevent: error\n\n", [(b"error", b"x")], id="event name after the data"),
        pytest.param(b"event: a\nevent: b\ndata: x\n\n", [(b"b", b"x")], id="the last event name holds"),
        pytest.param(b"event: a\n\ndata: x\n\n", ONE_EVENT, id="an event name without data is forgotten"),
        pytest.param(b"event: a\ndata: x\n\ndata: y\n\n", [(b"a", b"x"), (b"", b"y")], id="a name is for one event"),
        pytest.param(b": ping\n\n:\n\ndata: x\n\n", ONE_EVENT, id="comments before"),
        pytest.param(b"data: x\n:\ndata: y\n\n", [(b"", b"x\ny")], id="a comment between"),
        pytest.param(b"id: 7\nretry: 10\ndata: x\n\n", ONE_EVENT, id="id and retry"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", ONE_EVENT, id="BOM"),
        pytest.param(b"\xef\xbb\xbf\n\ndata: x\n\n", ONE_EVENT, id="BOM on a blank line"),
        pytest.param(b"data: x\n\n\xef\xbb\xbfdata: y\n\n", ONE_EVENT, id="BOM later is no BOM"),
        pytest.param(b"data: \xef\xbb\xbfx\n\n", [(b"", b"\xef\xbb\xbfx")], id="BOM in data is kept"),
        pytest.param(b"database: x\nData: y\n data: z\n\n", [], id="names that are no data"),
        pytest.param(
            'data: {"t":"a\u2028b\u2029c\x85d\x0be\x0cf"}\n\n'.encode(),
            [(b"", '{"t":"a\u2028b\u2029c\x85d\x0be\x0cf"}'.encode())],
            id="U+2028, U+2029, NEL, VT and FF in data",
        ),
        pytest.param(b"data: \x85\xff\n\n", [(b"", b"\x85\xff")], id="bytes that are no UTF-8"),
    ],
)
def test_events(data: bytes, events: Events) -> None:
    assert events == events_of(data)
    assert events == events_of(*split_bytes(data))
    for position in range(len(data) + 1):
        assert events == events_of(data[:position], data[position:])


def test_an_event_is_returned_with_its_blank_line() -> None:
    decoder = SSEDecoder()
    assert [] == decoder.feed(b"data: x\n")
    assert ONE_EVENT == decoder.feed(b"\n")
    assert [(b"", b"y"), (b"", b"z")] == decoder.feed(b"data: y\n\ndata: z\n\ndata: w")
    assert [(b"", b"w")] == decoder.close()
    assert [] == decoder.close()


@pytest.mark.parametrize(
    ("data", "stray"),
    [
        pytest.param(b"data: x\n\n", b"", id="none"),
        pytest.param(b"id: 1\nretry: 2\nevent: e\ndata\n: c\n\n", b"", id="all that the format knows"),
        pytest.param(b"proxy error: gone\n\n", b"proxy error: gone", id="a line with a colon"),
        pytest.param(b"Bad Gateway", b"Bad Gateway", id="a line without one, not ended"),
        pytest.param(b"first\nsecond\ndata: x\n\n", b"second", id="the last one"),
        pytest.param(b"y" * 600 + b"\n", b"y" * 512, id="its beginning"),
    ],
)
def test_the_last_stray_line_is_kept(data: bytes, stray: bytes) -> None:
    for chunks in ([data], split_bytes(data)):
        decoder = SSEDecoder()
        for chunk in chunks:
            decoder.feed(chunk)
        decoder.close()
        assert stray == decoder.stray_line


def test_the_stray_line_before_an_event() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"first\n\n")
    decoder.feed(b"data: 0\n\nsecond\nthird\n\ndata: 1\n\ndata: 2\n\nfourth\n")
    assert [b"first", b"third", b"third"] == [decoder.stray_line_before(position) for position in range(3)]
    assert b"fourth" == decoder.stray_line


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_recordings_are_the_same_at_every_split(path: Path) -> None:
    data = path.read_bytes()
    expected = events_of(data)
    assert data.count(b"\n\n") == len(expected)
    assert data == b"".join(b"data: " + value + b"\n\n" for _, value in expected)
    assert expected == events_of(*split_bytes(data))
    assert expected == events_of(data.replace(b"\n", b"\r\n"))
    assert expected == events_of(*split_bytes(data.replace(b"\n", b"\r\n")))
    assert expected == events_of(*split_bytes(data.replace(b"\n", b"\r")))
    for position in range(0, len(data), 1 + len(data) // 300):
        assert expected == events_of(data[:position], data[position:])


@given(soup | st.binary(), cuts)
@example(b"data: x\r\n\r\ndata: y", [8, 10])
@example(b"data: x\n\ndata: y\r\n\r\n", [])
@example(b"data: x\n\ndata: y\r\r", [])
def test_events_are_the_same_at_every_split(data: bytes, positions: list[int]) -> None:
    expected = events_of(data)
    assert expected == events_of(*split_at(data, positions))
    assert expected == events_of(*split_bytes(data))


@pytest.mark.parametrize("ends", list(itertools.product([b"\n", b"\r\n", b"\r"], repeat=3)), ids=str)
def test_events_may_have_different_line_ends(ends: tuple[bytes, bytes, bytes]) -> None:
    """A proxy that adds an event of its own writes it in its own way: none is lost."""
    data = b"".join(b"data: %d%b%b" % (position, end, end) for position, end in enumerate(ends))
    assert [(b"", b"%d" % position) for position in range(3)] == events_of(data) == events_of(*split_bytes(data))


@given(st.lists(st.text().map(lambda text: text.replace("\r", "").replace("\n", "").encode())), cuts)
def test_events_round_trip(texts: list[bytes], positions: list[int]) -> None:
    data = b"".join(b"data: %s\n\n" % text for text in texts)
    assert [(b"", text) for text in texts] == events_of(*split_at(data, positions))


# --- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"x" * 21, "a line", id="a line that is not ended"),
        pytest.param(b"x" * 21 + b"\n", "a line", id="a line"),
        pytest.param(b"data: ok\n\n" + b"x" * 21 + b"\n", "a line", id="a later line"),
        pytest.param(b": " + b"x" * 30 + b"\n", "a line", id="a comment"),
        pytest.param(b"data: 1234567\ndata: 1234567\ndata: 12345\n", "an event", id="an event of short lines"),
        pytest.param(b"data\n" * 22, "an event", id="an event of field names alone"),
        pytest.param(b"data:\n" * 22, "an event", id="an event of empty lines"),
    ],
)
def test_a_line_or_an_event_over_the_limit_is_an_error(data: bytes, what: str) -> None:
    for chunks in ([data], split_bytes(data), split_at(data, [7, 21])):
        with pytest.raises(ResponseTooLargeError, match=f"^{what} of the stream is larger than 20 bytes$") as exc_info:
            events_of(*chunks, limit=20)
        assert 20 == exc_info.value.limit


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(b"data: " + b"x" * 14 + b"\n\n", [(b"", b"x" * 14)], id="a line"),
        pytest.param(b"data: " + b"x" * 14 + b"\r\n\r\n", [(b"", b"x" * 14)], id="a line with CRLF"),
        pytest.param((b"data: " + b"x" * 14 + b"\n\n") * 3, [(b"", b"x" * 14)] * 3, id="three lines"),
        pytest.param(b"data: 123456789\ndata: 1234567890\n\n", [(b"", b"123456789\n1234567890")], id="an event"),
        pytest.param(
            b"data: 123456789\ndata: 1234567890\n\n" * 2, [(b"", b"123456789\n1234567890")] * 2, id="two events"
        ),
        pytest.param(b"data: 1234567\n\n" * 50, [(b"", b"1234567")] * 50, id="many events"),
        pytest.param(b"data\n" * 21 + b"\n", [(b"", b"\n" * 20)], id="empty lines"),
    ],
)
def test_lines_and_events_up_to_the_limit_are_read(data: bytes, events: Events) -> None:
    assert events == events_of(data, limit=20)
    assert events == events_of(*split_bytes(data), limit=20)


@given(soup | st.binary(), cuts)
@example(b"a\n" + b"x" * 9 + b"\n", [3])
def test_the_limit_is_the_same_at_every_split(data: bytes, positions: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> Events | str:
        try:
            return events_of(*chunks, limit=8)
        except ResponseTooLargeError as error:
            return str(error)

    expected = outcome([data])
    assert (
        isinstance(expected, str)
        == isinstance(outcome(split_bytes(data)), str)
        == isinstance(outcome(split_at(data, positions)), str)
    )
    if not isinstance(expected, str):
        assert expected == outcome(split_bytes(data)) == outcome(split_at(data, positions))


def test_the_default_limit_is_that_of_a_body() -> None:
    with pytest.raises(ResponseTooLargeError) as exc_info:
        SSEDecoder().feed(b"x" * (MAX_BODY_BYTES + 1))
    assert 8 * 1024 * 1024 == exc_info.value.limit
