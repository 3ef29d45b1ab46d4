"""Faults before there is an answer: of connections, of statuses, of headers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from email.utils import formatdate

from ctxbackends.testing.faults.answers import Answer, Fault, dump, plain, whole
from ctxbackends.testing.faults.catalogue import MEBIBYTE, catalogued, error
from ctxbackends.testing.faults.scripts import Do, Step


@catalogued
def refuse(seconds: float = 0.3) -> Fault:
    """Nothing listens for some time: connections are refused, as by a server that is not there yet."""
    return Fault("refuse", whole, refuses=seconds)


@catalogued
def silent() -> Fault:
    """Accepts, reads the request and says nothing: a wedged server."""

    def script(_: Answer) -> Iterator[Step]:
        yield Do.HOLD

    return Fault("silent", script)


@catalogued
def loading(seconds: float = 0.3) -> Fault:
    """503 "Loading model", as llama-server says for as long as it loads."""

    def script(_: Answer) -> Iterator[Step]:
        body = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
        yield plain(503, body, connection="close")
        yield Do.CLOSE

    return Fault("loading", script, seconds=seconds)


@catalogued
def load_failed() -> Fault:
    """500: the model cannot be loaded, and never will be."""

    def script(_: Answer) -> Iterator[Step]:
        yield plain(500, b'{"error":{"message":"model name=m failed to load","type":"server_error","code":500}}')

    return Fault("load_failed", script)


@catalogued
def swap_proxy(seconds: float = 0.3) -> Fault:
    """502 with a page, as a proxy says while it starts the server behind it."""

    def script(_: Answer) -> Iterator[Step]:
        yield plain(502, b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")

    return Fault("swap_proxy", script, seconds=seconds)


@catalogued
def rate_limited(retry_after: str = "0", header: str = "retry-after") -> Fault:
    """429, once. ``retry_after`` is the value of the header as it stands, and empty for none; ``header`` may be
    ``retry-after-ms`` as well."""

    def script(_: Answer) -> Iterator[Step]:
        headers = {header: retry_after}
        yield plain(429, dump(error("slow down", "rate_limit_error")), **headers)

    return Fault("rate_limited", script)


def date_in(seconds: float) -> str:
    """A date for ``retry_after``, so many seconds from now."""
    return formatdate(time.time() + seconds, usegmt=True)


@catalogued
def busy(status: int = 503) -> Fault:
    """503 (or 529) of a server that has no free place."""

    def script(_: Answer) -> Iterator[Step]:
        refusal = error("maximum pending requests exceeded", "overloaded_error", status)
        yield plain(status, dump(refusal), retry_after="0")

    return Fault("busy", script)


@catalogued
def server_error(status: int = 500) -> Fault:
    """500 of a server that failed while it worked."""

    def script(_: Answer) -> Iterator[Step]:
        yield plain(status, dump(error("EngineCore encountered an issue", "InternalServerError", status)))

    return Fault("server_error", script)


@catalogued
def unauthorized() -> Fault:
    """401 that repeats the key that it was given, as some servers do."""

    def script(answer: Answer) -> Iterator[Step]:
        headers = answer.request.headers
        key = headers.get("authorization", headers.get("x-api-key", ""))
        refusal = error(f"Incorrect API key provided: {key}", "authentication_error", "invalid_api_key")
        yield plain(401, dump(refusal), www_authenticate=f"Bearer {key}")

    return Fault("unauthorized", script)


@catalogued
def model_missing() -> Fault:
    """404: the server does not have the model."""

    def script(_: Answer) -> Iterator[Step]:
        refusal = error("The model `m` does not exist.", "NotFoundError", "model_not_found")
        yield plain(404, dump(refusal))

    return Fault("model_missing", script)


@catalogued
def context_overflow() -> Fault:
    """400: the prompt does not fit the context."""

    def script(_: Answer) -> Iterator[Step]:
        said = "request (9000 tokens) exceeds the available context size (2048 tokens)"
        numbers = {"n_prompt_tokens": 9000, "n_ctx": 2048}
        yield plain(400, dump(error(said, "exceed_context_size_error", 400, **numbers)))

    return Fault("context_overflow", script)


@catalogued
def redirect(status: int = 307, to: str = "") -> Fault:
    """A redirect to another host, by default to ``localhost`` in the place of ``127.0.0.1``."""

    def script(answer: Answer) -> Iterator[Step]:
        port = answer.request.headers.get("host", "").rpartition(":")[2]
        yield plain(status, b"", location=to or f"http://localhost:{port}{answer.request.path}")

    return Fault("redirect", script)


@catalogued
def close_before_headers() -> Fault:
    """Reads the request and closes: a process that dies."""
    return Fault("close_before_headers", lambda _: (Do.CLOSE,))


@catalogued
def reset_before_headers() -> Fault:
    """Reads the request and resets the connection."""
    return Fault("reset_before_headers", lambda _: (Do.RESET,))


@catalogued
def close_in_headers() -> Fault:
    """Closes in the middle of the headers."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()[:-9]
        yield Do.CLOSE

    return Fault("close_in_headers", script)


@catalogued
def slow_headers(every: float = 0.05) -> Fault:
    """The headers one byte at a time, without an end: each byte keeps a naive timeout from passing."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()[:-4]
        yield b"\r\nx-slow: "
        for _ in itertools.count():
            yield b"x"
            yield every

    return Fault("slow_headers", script)


@catalogued
def early_headers() -> Fault:
    """``100 Continue`` and ``103 Early Hints`` before a good answer: no fault, and some clients fall over it."""

    def script(answer: Answer) -> Iterator[Step]:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
        yield from whole(answer)

    return Fault("early_headers", script)


@catalogued
def no_http() -> Fault:
    """Something that is no HTTP."""
    return Fault("no_http", lambda _: (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Do.CLOSE))


@catalogued
def giant_header() -> Fault:
    """A header of a mebibyte."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head(x_giant="x" * MEBIBYTE)
        yield answer.part(answer.body)
        yield answer.end

    return Fault("giant_header", script)
