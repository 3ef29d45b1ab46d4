r"""Split bytes into lines, and lines into server-sent events, without knowing what an event means.

A line ends in ``\n``, ``\r\n`` or ``\r`` only: ``bytes.splitlines`` also splits at \x0b, \x0c and others, and
``str.splitlines`` at U+2028, which model output contains. Buffers are bounded. Format:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import itertools
import re

import msgspec

from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPResponse
from ctxbackends.errors import ResponseTooLargeError

_BOM = b"\xef\xbb\xbf"
_MAX_STRAY_LINE = 512


_ERROR_WORDS = re.compile(
    rb"error|exception|traceback|fail|denied|forbidden|unauthori|unavailable|invalid|not found|time[d ]*out|limit|"
    rb"abort",
    re.IGNORECASE,
)


def is_passed_over(name: bytes, data: bytes) -> bool:
    """Return whether the data of an event that is not JSON says nothing, such as ``: keepalive`` or ``ping``.

    It has no bracket or quotation mark, which a part of a chunk would have, and does not speak of an error.
    """
    return name != b"error" and not _JSON_SIGNS.search(data) and (data[:1] == b":" or not _ERROR_WORDS.search(data))


def is_event_stream(response: HTTPResponse) -> bool:
    """Return whether a server sent a stream for a plain request: the first byte decides, JSON begins with a bracket."""
    start = response.body[:64].lstrip(_BOM + b" \t\r\n")
    if start[:1] in (b"{", b"["):
        return False
    is_stream = response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
    return is_stream or start.startswith((b"data:", b"event:", b":"))


def without_done(response: HTTPResponse) -> HTTPResponse:
    """Return the response without the end mark of a stream after its JSON, which some gateways append."""
    body = response.body.rstrip()
    if not body.endswith(b"[DONE]"):
        return response
    before, mark, rest = body.rpartition(b"\ndata:")
    return msgspec.structs.replace(response, body=before) if mark and rest.strip() == b"[DONE]" else response


_JSON_SIGNS = re.compile(rb'[{}\[\]"\x80-\xff]')


class LineSplitter:
    """Splits a stream of bytes into lines, however the bytes arrive."""

    __slots__ = ("_limit", "_rest", "_skip_lf")

    def __init__(self, *, limit: int = MAX_BODY_BYTES) -> None:
        self._limit = limit
        # One buffer instead of a list of pieces: a line that arrives byte by byte then needs neither quadratic time nor
        # an object per byte.
        self._rest = bytearray()
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their line ends.

        Raises:
            ResponseTooLargeError: A line exceeds the limit.
        """
        if self._skip_lf and data:
            # The CR of a CRLF already ended the line: a CR-only server never sends an LF to wait for.
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            self._rest += lines[0]
            lines[0] = bytes(self._rest)
            self._rest.clear()
        if rest:
            self._rest += rest
        # Only the first line can be longer than data, so the others are checked only if data exceeds the limit.
        if len(self._rest) > self._limit or any(
            len(line) > self._limit for line in (lines if len(data) > self._limit else lines[:1])
        ):
            raise ResponseTooLargeError("a line of the stream", self._limit)
        return lines

    def join_rest(self, data: bytes) -> bytes:
        """Return ``data`` after the incomplete line, which is removed here."""
        if not self._rest:
            return data
        self._rest += data
        return self.close()

    @property
    def is_between_lines(self) -> bool:
        """Whether the next byte counts: False after a CR, whose LF is skipped."""
        return not self._skip_lf

    def close(self) -> bytes:
        """Return the incomplete last line."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class SSEDecoder:
    """Decodes bytes to server-sent events, as pairs of event name (empty if none) and data.

    ``stray_line`` is the start of the last line outside the format: proxies send plain text instead of an event.
    ``body`` is a JSON text that came instead of events: some servers ignore that a stream was requested. Only JSON
    begins with a bracket; an event does not.
    """

    __slots__ = (
        "_data",
        "_data_size",
        "_event",
        "_first",
        "_limit",
        "_lines",
        "_may_be_body",
        "_stray_lines",
        "body",
        "stray_line",
    )

    def __init__(self, *, limit: int = MAX_BODY_BYTES) -> None:
        self._lines = LineSplitter(limit=limit)
        self._limit = limit
        self._data: list[bytes] = []
        self._data_size = 0
        self._event = b""
        self._first = True
        self._stray_lines: list[tuple[int, bytes]] = []
        self.stray_line = b""
        self._may_be_body = True
        self.body = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return the events that ``data`` completes.

        Raises:
            ResponseTooLargeError: A line or an event exceeds the limit.
        """
        if self._data or self._event or b"\n\n" not in data or b"\r" in data or not self._lines.is_between_lines:
            return self._parse_lines(self._lines.feed(data))
        # A complete event is there, and no event is incomplete beyond its first line.
        data = self._lines.join_rest(data)
        end = data.rfind(b"\n\n") + 2
        events = self._split_simple_events(data if end == len(data) else data[:end])
        if events is None:
            return self._parse_lines(self._lines.feed(data))
        self._first = self._may_be_body = False
        before = self.stray_line
        if end < len(data):
            self._parse_lines(self._lines.feed(data[end:]))  # without a blank line or a CR: no event ends
        self._stray_lines = [(0, before), (len(events), self.stray_line)]
        return events

    def _split_simple_events(self, data: bytes) -> list[tuple[bytes, bytes]] | None:
        """Return the events of ``data``, which ends with a blank line, or None if they need the general parser.

        Servers write this form: one data line, optionally after one event name, with LF only. One pass over the buffer
        takes a third of the time of the line parser (tests/benchmarks/parts.py).
        """
        if len(data) > self._limit or b"\r" in data:
            return None
        ends = data.count(b"\n")
        if data.startswith(b"data: "):
            pieces = data[6:-2].split(b"\n\ndata: ")
            if ends == 2 * len(pieces):
                return list(zip(itertools.repeat(b""), pieces))
        events: list[tuple[bytes, bytes]] = []
        for piece in data[:-2].split(b"\n\n"):
            if piece.startswith(b"event: "):
                name, between, value = piece[7:].partition(b"\ndata: ")
                if not between:
                    return None
                ends -= 3
                events.append((name, value))
            elif piece.startswith(b"data: "):
                ends -= 2
                events.append((b"", piece[6:]))
            else:
                return None
        return events if ends == 0 else None  # a remaining line end is inside an event

    def close(self) -> list[tuple[bytes, bytes]]:
        """Return the last event if the server left out the blank line after it."""
        return self._parse_lines([self._lines.close(), b""])

    def stray_line_before(self, index: int) -> bytes:
        """Return ``stray_line`` as of the end of the event at ``index`` of the last call.

        Bytes after that event may be from the same read.
        """
        return next(line for after, line in reversed(self._stray_lines) if after <= index)

    def _parse_lines(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events: list[tuple[bytes, bytes]] = []
        self._stray_lines = [(0, self.stray_line)]
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)
            if line == b"data":
                line = b"data:"  # a field name alone has an empty value
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._may_be_body = False
                # Count the line ends too, or empty lines would be unbounded.
                self._data_size += len(value) + bool(self._data)
                self._data.append(value)
                if self._data_size > self._limit:
                    raise ResponseTooLargeError("an event of the stream", self._limit)
            elif not line:
                if self._data:
                    events.append((self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                    self._data.clear()
                    self._data_size = 0
                self._event = b""
            elif line.startswith(b":"):
                continue
            else:
                self._parse_field(line, len(events))
        return events

    def _parse_field(self, line: bytes, index: int) -> None:
        name, _, value = line.partition(b":")
        if self._may_be_body:
            self._may_be_body = bool(self.body) or line.lstrip()[:1] in (b"{", b"[")
        if self._may_be_body:
            self.body += line + b"\n"
            if len(self.body) > self._limit:
                raise ResponseTooLargeError("the response", self._limit)
        if name == b"event":
            self._event = value.removeprefix(b" ")
        elif name not in (b"id", b"retry"):
            self.stray_line = line[:_MAX_STRAY_LINE]
            if self._stray_lines[-1][0] == index:
                self._stray_lines.pop()
            self._stray_lines.append((index, self.stray_line))
