"""Parses requests from the bytes that a connection received. Does no I/O.

Strict, so that a test notices an invalid request; with size limits, since a fuzzer may send anything.
"""

from __future__ import annotations

import re

import attrs

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)\r" % _TOKEN)
_HEADER = re.compile(rb"(%s):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_SIZE = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class InvalidRequest(Exception):
    """The bytes are not a request that the server supports. ``status`` is the status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Request:
    """A complete request. ``headers`` have names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class RequestParser:
    """Parses complete requests from chunks of any size."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()

    @property
    def pending(self) -> int:
        """The number of bytes that belong to no returned request."""
        return len(self._received)

    def feed(self, data: bytes) -> None:
        self._received += data

    def next_request(self) -> Request | None:
        """Return the next request, or None until it is complete. Raises InvalidRequest."""
        if self._head is None:
            self._head = self._parse_head()
        if self._head is None:
            return None
        body = self._parse_body(self._head.headers)
        if body is None:
            return None
        head, self._head = self._head, None
        return attrs.evolve(head, body=body)

    def _parse_head(self) -> Request | None:
        received = self._received
        while received.startswith(b"\r\n"):
            del received[:2]  # RFC 9112, 2.2: ignore empty lines before a request
        first, separator, _ = received[:MAX_HEAD].partition(b"\n")
        line = _REQUEST_LINE.fullmatch(first)
        # Respond to invalid bytes at once: their end may never come, with TLS for example.
        if (separator and line is None) or (received and not re.match(_TOKEN + rb"|\r", received)):
            raise InvalidRequest(400, "not an HTTP/1.1 request")
        if line is not None and (line[3], line[4]) != (b"1", b"1"):
            raise InvalidRequest(505, "unsupported HTTP version; use HTTP/1.1")
        end = received.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(received) >= MAX_HEAD:
                raise InvalidRequest(431, f"request head is larger than {MAX_HEAD} bytes")
            return None
        assert line is not None, "the head has a first line"
        headers = {}
        for text in received[len(first) + 1 : end + 2].split(b"\r\n")[:-1]:
            header = _HEADER.fullmatch(text)
            if header is None:
                raise InvalidRequest(400, f"invalid header: {bytes(text[:80])!r}")
            headers[header[1].decode().lower()] = header[2].decode("latin-1").strip()
        del received[: end + 4]
        return Request(line[1].decode(), line[2].decode("latin-1"), headers, b"")

    def _parse_body(self, headers: dict[str, str]) -> bytes | None:
        encoding = headers.get("transfer-encoding", "").lower()
        if encoding == "chunked":
            if "content-length" in headers:
                raise InvalidRequest(400, "Content-Length and Transfer-Encoding are mutually exclusive")
            return self._parse_chunks()
        if encoding:
            raise InvalidRequest(501, f"unsupported Transfer-Encoding: {encoding}")
        length = headers.get("content-length", "0")
        if not _SIZE.fullmatch(length):
            raise InvalidRequest(400, f"invalid Content-Length: {length[:80]}")
        size = _check_size(int(length))
        if len(self._received) < size:
            return None
        body = bytes(self._received[:size])
        del self._received[:size]
        return body

    def _parse_chunks(self) -> bytes | None:
        received = self._received
        while (end := received.find(b"\r\n", 0, MAX_HEAD)) >= 0:
            line = _CHUNK_LINE.fullmatch(received[:end])
            if line is None:
                raise InvalidRequest(400, f"invalid chunk size: {bytes(received[: min(end, 80)])!r}")
            size = int(line[1], 16)
            if not size:
                # The empty line after the last chunk or after the trailers, which are ignored.
                trailer_end = received.find(b"\r\n\r\n", end, MAX_HEAD)
                if trailer_end < 0:
                    break
                del received[: trailer_end + 4]
                body, self._chunks = bytes(self._chunks), bytearray()
                return body
            _check_size(len(self._chunks) + size)
            start = end + 2
            if len(received) < start + size + 2:
                return None
            if received[start + size : start + size + 2] != b"\r\n":
                raise InvalidRequest(400, "chunk is longer than its size")
            self._chunks += received[start : start + size]
            del received[: start + size + 2]
        if len(received) >= MAX_HEAD:
            raise InvalidRequest(400, "chunk size line or trailers are too long")
        return None


def _check_size(size: int) -> int:
    if size > MAX_BODY:
        raise InvalidRequest(413, f"request body is larger than {MAX_BODY} bytes")
    return size
