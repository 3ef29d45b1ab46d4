"""Bytes to lines, and lines to server-sent events; nothing of what an event means.

Lines end in ``\\n``, ``\\r\\n`` or ``\\r`` and in nothing else: ``bytes.splitlines`` would also cut at \\x0b, \\x0c and
more, and ``str.splitlines`` at U+2028, which model output contains. Buffers are bounded. Format:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import itertools

from ctxbackends.errors import ResponseTooLargeError
from ctxbackends.wire.http import MAX_BODY_BYTES

_BOM = b"\xef\xbb\xbf"
_STRAY_SHOWN = 512


class LineSplitter:
    """Cuts a stream of bytes into lines, however the bytes arrive."""

    __slots__ = ("_limit", "_rest", "_skip_lf")

    def __init__(self, *, limit: int = MAX_BODY_BYTES) -> None:
        self._limit = limit
        # One buffer, and not a list of the pieces: a line that comes byte by byte costs neither quadratic time nor an
        # object for each byte.
        self._rest = bytearray()
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends. Raises ResponseTooLargeError where a line passes the
        limit."""
        if self._skip_lf and data:
            # The CR of a CRLF ended the line already, so that nobody waits for a byte that a CR-only server never
            # sends.
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
        # Only the first line can be longer than what was fed, so the others are looked at only where that was itself
        # too much.
        if len(self._rest) > self._limit or any(
            len(line) > self._limit for line in (lines if len(data) > self._limit else lines[:1])
        ):
            raise ResponseTooLargeError("a line of the stream", self._limit)
        return lines

    def take_rest(self, data: bytes) -> bytes:
        """``data`` behind what came after the last line end, which is forgotten here."""
        if not self._rest:
            return data
        self._rest += data
        return self.close()

    @property
    def is_between_lines(self) -> bool:
        """Whether the next byte is looked at as it is: no LF is left out after a CR."""
        return not self._skip_lf

    def close(self) -> bytes:
        """What came after the last line end."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class SSEDecoder:
    """Bytes to server-sent events, as pairs of event name (empty where none was given) and data.

    ``stray`` keeps the beginning of the last line that is no part of the format: proxies put plain text in the place of
    an event.
    """

    __slots__ = ("_data", "_event", "_first", "_limit", "_lines", "_size", "_strays", "stray")

    def __init__(self, *, limit: int = MAX_BODY_BYTES) -> None:
        self._lines = LineSplitter(limit=limit)
        self._limit = limit
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._first = True
        self._strays: list[tuple[int, bytes]] = []
        self.stray = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The events that ``data`` completes. Raises ResponseTooLargeError where a line or an event passes the
        limit."""
        if self._data or self._event or b"\n\n" not in data or b"\r" in data or not self._lines.is_between_lines:
            return self._take(self._lines.feed(data))
        # A whole event is there, and none was begun but within its first line.
        data = self._lines.take_rest(data)
        end = data.rfind(b"\n\n") + 2
        events = self._whole(data if end == len(data) else data[:end])
        if events is None:
            return self._take(self._lines.feed(data))
        self._first = False
        before = self.stray
        if end < len(data):
            self._take(self._lines.feed(data[end:]))  # no blank line is in it, and no CR: no event ends
        self._strays = [(0, before), (len(events), self.stray)]
        return events

    def _whole(self, data: bytes) -> list[tuple[bytes, bytes]] | None:
        """The events of ``data``, which ends with a blank line, where each is written as servers write them: one line
        of data, after one with a name or after none, and LF alone. None for every other form.

        In one pass over the buffer: a third of the time that line by line takes (tests/benchmarks/parts.py).
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
        return events if ends == 0 else None  # a line end that is left over is within an event

    def close(self) -> list[tuple[bytes, bytes]]:
        """The last event, where the server left out the blank line after it."""
        return self._take([self._lines.close(), b""])

    def stray_before(self, place: int) -> bytes:
        """``stray`` as it was when the event at ``place`` of the last call ended: what came after it may have come with
        the same read, or not."""
        return next(line for after, line in reversed(self._strays) if after <= place)

    def _take(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events: list[tuple[bytes, bytes]] = []
        self._strays = [(0, self.stray)]
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)
            if line == b"data":
                line = b"data:"  # a field name alone is the field with an empty value
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                # The line ends between them count, or empty lines would have no bound.
                self._size += len(value) + bool(self._data)
                self._data.append(value)
                if self._size > self._limit:
                    raise ResponseTooLargeError("an event of the stream", self._limit)
            elif not line:
                if self._data:
                    events.append((self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                    self._data.clear()
                    self._size = 0
                self._event = b""
            elif line.startswith(b":"):
                continue
            else:
                self._field(line, len(events))
        return events

    def _field(self, line: bytes, place: int) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._event = value.removeprefix(b" ")
        elif name not in (b"id", b"retry"):
            self.stray = line[:_STRAY_SHOWN]
            if self._strays[-1][0] == place:
                self._strays.pop()
            self._strays.append((place, self.stray))
