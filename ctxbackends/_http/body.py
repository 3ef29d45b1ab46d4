"""Response bodies: read whole up to a limit, or streamed. Knows no session and sends nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import aiohttp

from ctxbackends._http.errors import AIOHTTP_ERRORS, strip_tracebacks, translate
from ctxbackends._util.event_loops import call_on
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPResponse
from ctxbackends.errors import MalformedResponseError, ResponseTooLargeError

ERROR_BODY_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5.0


class ByteStream:
    """The body of a 2xx response, read in chunks.

    Always close it, which closes the connection unless the body was read whole.

    Attributes:
        sent_at: When the request was sent, on the event loop's clock.
    """

    __slots__ = ("__weakref__", "_loop", "_on_close", "_response", "sent_at")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._loop = asyncio.get_running_loop()
        self.sent_at = 0.0
        self._on_close: Callable[[], None] | None = None

    def __del__(self) -> None:
        # Release the slot and close the connection of a forgotten stream. aiohttp would keep the response alive. The
        # garbage collector may run in any thread.
        if not self._response.closed:
            call_on(self._loop, self._response.close)
        self._notify_closed()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the stream is closed."""
        self._on_close = callback

    def read_buffered(self) -> bytes:
        """Return the bytes that have arrived, or b"" for none or after an error, which :meth:`read_chunk` raises."""
        content = self._response.content
        return content.read_nowait() if content.exception() is None else b""

    async def read_chunk(self) -> bytes:
        """Return the next bytes, or b"" at the end. Raise APIConnectionError if the connection breaks."""
        try:
            return await self._response.content.readany()
        except AIOHTTP_ERRORS as error:
            rest = _read_before_error(self._response.content)
            if rest:
                return rest  # the next read raises the error again
            raise translate(error, reused=False, started=True) from strip_tracebacks(error)

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers. Lookup ignores case."""
        return self._response.headers

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        return self._response.content.at_eof()

    @property
    def is_ended(self) -> bool:
        """Whether this was closed, or the whole body has arrived."""
        return bool(self._response.closed)

    def close(self) -> None:
        """Close at once, without waiting, so that the server notices and frees its slot.

        After the end of the body, the connection is already back in the pool and stays open.
        """
        self._response.close()
        self._notify_closed()

    def _notify_closed(self) -> None:
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()


def _read_before_error(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes that arrived before the connection broke: aiohttp raises the error first and keeps them."""
    error = content.exception()
    if error is None:
        return b""
    content._exception = None
    try:
        return content.read_nowait()
    finally:
        content._exception = error


def is_success(response: aiohttp.ClientResponse) -> bool:
    """Return whether the status is 2xx.

    Raise MalformedResponseError for a compressed body: it was not requested, and could decompress to any size.
    """
    if not 200 <= response.status < 300:
        return False
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("identity", ""):
        response.close()
        raise MalformedResponseError(
            f"the response is compressed ({encoding[:20]!r}), although the request did not allow it"
        )
    return True


async def read_body(response: aiohttp.ClientResponse) -> HTTPResponse:
    """Return the whole response, or the beginning of one with an error status."""
    content = response.content
    if is_success(response):
        body = await content.readany()  # a small response arrives with its headers
        if not content.at_eof():
            body = await _read_more([body], content, MAX_BODY_BYTES + 1)
            if len(body) > MAX_BODY_BYTES:
                raise ResponseTooLargeError("the response", MAX_BODY_BYTES)
        return HTTPResponse(status=response.status, headers=response.headers, body=body)
    parts: list[bytes] = []
    # The status is enough. The body may break off or never arrive.
    with suppress(TimeoutError, *AIOHTTP_ERRORS):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            await _read_more(parts, content, ERROR_BODY_BYTES)
    headers = {name.lower(): value for name, value in response.headers.items()}  # a plain dict, which an error can keep
    return HTTPResponse(
        status=response.status, headers=headers, body=b"".join(parts)[:ERROR_BODY_BYTES], received_at=time.time()
    )


async def _read_more(parts: list[bytes], content: aiohttp.StreamReader, limit: int) -> bytes:
    """Read into ``parts`` to the end, or until there are ``limit`` bytes, and return them joined."""
    size = sum(map(len, parts))
    while size < limit and (chunk := await content.readany()):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)
