"""The requests in the bytes that a connection received. Pure: knows no socket and no script.

Strict, since a client that is tested is to hear what it did wrong; bounded, since one that is fuzzed sends anything.
"""

from __future__ import annotations

import re

import attrs

HEAD_MOST = 64 * 1024
BODY_MOST = 64 * 1024 * 1024
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)\r" % _TOKEN)
_HEADER = re.compile(rb"(%s):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_SIZE = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class NotARequest(Exception):
    """What came is no request that the server reads. ``status`` is what it is answered with."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@attrs.frozen
class Request:
    """One request that came whole. ``headers`` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class RequestReader:
    """Takes whole requests out of what is fed to it, however it was cut."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()

    @property
    def waiting(self) -> int:
        """How many bytes came that are no part of a request that was taken."""
        return len(self._received)

    def feed(self, data: bytes) -> None:
        self._received += data

    def take(self) -> Request | None:
        """The next request; None while it is not whole. Raises NotARequest."""
        if self._head is None:
            self._head = self._take_head()
        if self._head is None:
            return None
        body = self._take_body(self._head.headers)
        if body is None:
            return None
        head, self._head = self._head, None
        return attrs.evolve(head, body=body)

    def _take_head(self) -> Request | None:
        received = self._received
        while received.startswith(b"\r\n"):
            del received[:2]  # RFC 9112, 2.2: empty lines before a request are passed over
        first, ended, _ = received[:HEAD_MOST].partition(b"\n")
        line = _REQUEST_LINE.fullmatch(first)
        # What cannot become a request is answered before its end, which may never come: TLS, for one.
        if (ended and line is None) or (received and not re.match(_TOKEN + rb"|\r", received)):
            raise NotARequest(400, "this is no HTTP/1.1 request")
        if line is not None and (line[3], line[4]) != (b"1", b"1"):
            raise NotARequest(505, "only HTTP/1.1 is spoken here")
        end = received.find(b"\r\n\r\n", 0, HEAD_MOST)
        if end < 0:
            if len(received) >= HEAD_MOST:
                raise NotARequest(431, f"the head of the request is larger than {HEAD_MOST} bytes")
            return None
        assert line is not None, "a head has a first line"
        headers = {}
        for text in received[len(first) + 1 : end + 2].split(b"\r\n")[:-1]:
            header = _HEADER.fullmatch(text)
            if header is None:
                raise NotARequest(400, f"this is no header: {bytes(text[:80])!r}")
            headers[header[1].decode().lower()] = header[2].decode("latin-1").strip()
        del received[: end + 4]
        return Request(line[1].decode(), line[2].decode("latin-1"), headers, b"")

    def _take_body(self, headers: dict[str, str]) -> bytes | None:
        coding = headers.get("transfer-encoding", "").lower()
        if coding == "chunked":
            if "content-length" in headers:
                raise NotARequest(400, "a request has a length or chunks, not both")
            return self._take_chunks()
        if coding:
            raise NotARequest(501, f"no such transfer-encoding: {coding}")
        length = headers.get("content-length", "0")
        if not _SIZE.fullmatch(length):
            raise NotARequest(400, f"this is no content-length: {length[:80]}")
        size = _bounded(int(length))
        if len(self._received) < size:
            return None
        body = bytes(self._received[:size])
        del self._received[:size]
        return body

    def _take_chunks(self) -> bytes | None:
        received = self._received
        while (end := received.find(b"\r\n", 0, HEAD_MOST)) >= 0:
            line = _CHUNK_LINE.fullmatch(received[:end])
            if line is None:
                raise NotARequest(400, f"this is no size of a chunk: {bytes(received[: min(end, 80)])!r}")
            size = int(line[1], 16)
            if not size:
                # The blank line after the last chunk, or after the trailers, which nobody here reads.
                last = received.find(b"\r\n\r\n", end, HEAD_MOST)
                if last < 0:
                    break
                del received[: last + 4]
                body, self._chunks = bytes(self._chunks), bytearray()
                return body
            _bounded(len(self._chunks) + size)
            start = end + 2
            if len(received) < start + size + 2:
                return None
            if received[start + size : start + size + 2] != b"\r\n":
                raise NotARequest(400, "a chunk is longer than its size")
            self._chunks += received[start : start + size]
            del received[: start + size + 2]
        if len(received) >= HEAD_MOST:
            raise NotARequest(400, "a line between the chunks does not end")
        return None


def _bounded(size: int) -> int:
    if size > BODY_MOST:
        raise NotARequest(413, f"the body of the request is larger than {BODY_MOST} bytes")
    return size
