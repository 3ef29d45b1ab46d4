"""The body of an answer: read whole within a limit, or handed out as it comes. Knows no session and sends nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import aiohttp

from ctxbackends._http.errors import AIOHTTP_ERRORS, strip_tracebacks, translate
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPResponse
from ctxbackends.errors import MalformedResponseError, ResponseTooLargeError

ERROR_BODY_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5.0


class ByteStream:
    """The body of a 2xx response, as it comes. ``read_chunk`` returns b"" at the end. ``sent_at``: when the request
    went out, on the event loop's clock. Always close it, which ends the connection unless the body was read whole."""

    __slots__ = ("__weakref__", "_on_close", "_response", "sent_at")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.sent_at = 0.0
        self._on_close: Callable[[], None] | None = None

    def __del__(self) -> None:
        self._notify_closed()  # a stream that somebody forgot must not keep its place for ever

    def on_close(self, callback: Callable[[], None]) -> None:
        """``told`` is called once, when the stream is closed."""
        self._on_close = callback

    def read_buffered(self) -> bytes:
        """Return the bytes that have come already; b"" where none have, or :meth:`read_chunk` has more to say."""
        content = self._response.content
        return content.read_nowait() if content.exception() is None else b""

    async def read_chunk(self) -> bytes:
        """The next bytes. Raises APIConnectionError when the connection breaks."""
        try:
            return await self._response.content.readany()
        except AIOHTTP_ERRORS as error:
            rest = _read_before_error(self._response.content)
            if rest:
                return rest  # the error comes again with the next read
            raise translate(error, reused=False, started=True) from strip_tracebacks(error)

    @property
    def headers(self) -> Mapping[str, str]:
        """Whose names are found in any case."""
        return self._response.headers

    @property
    def at_end(self) -> bool:
        return self._response.content.at_eof()

    def close(self) -> None:
        """Close at once, without waiting, so that the server sees it and frees its slot. Where the body was read to its
        end, the connection is pooled already and stays."""
        self._response.close()
        self._notify_closed()

    def _notify_closed(self) -> None:
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()


def _read_before_error(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the connection broke: aiohttp raises the error first and keeps the bytes."""
    error = content.exception()
    if error is None:
        return b""
    content._exception = None
    try:
        return content.read_nowait()
    finally:
        content._exception = error


def is_success(response: aiohttp.ClientResponse) -> bool:
    """Whether the status is a 2xx. Raises MalformedResponseError for a body that is compressed: nobody asked for that,
    and a small body can become any size."""
    if not 200 <= response.status < 300:
        return False
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("identity", ""):
        response.close()
        raise MalformedResponseError(f"the answer is compressed ({encoding[:20]!r}), which was not asked for")
    return True


async def read_body(response: aiohttp.ClientResponse) -> HTTPResponse:
    """The answer whole; of one with an error status, the beginning is enough."""
    content = response.content
    if is_success(response):
        body = await content.readany()  # a small answer comes with its headers, and ends there
        if not content.at_eof():
            body = await _read_more([body], content, MAX_BODY_BYTES + 1)
            if len(body) > MAX_BODY_BYTES:
                raise ResponseTooLargeError("the answer", MAX_BODY_BYTES)
        return HTTPResponse(status=response.status, headers=response.headers, body=body)
    parts: list[bytes] = []
    # The status is the answer. A body that breaks off, or that does not come, takes nothing from it.
    with suppress(TimeoutError, *AIOHTTP_ERRORS):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            await _read_more(parts, content, ERROR_BODY_BYTES)
    headers = {name.lower(): value for name, value in response.headers.items()}  # a plain value, for an error to keep
    return HTTPResponse(
        status=response.status, headers=headers, body=b"".join(parts)[:ERROR_BODY_BYTES], received_at=time.time()
    )


async def _read_more(parts: list[bytes], content: aiohttp.StreamReader, limit: int) -> bytes:
    """Read to the end, or until ``enough`` bytes are there, into ``parts``; they are joined at the end alone."""
    size = sum(map(len, parts))
    while size < limit and (chunk := await content.readany()):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)
