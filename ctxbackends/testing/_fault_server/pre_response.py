"""Faults before the response: connections, statuses and headers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from email.utils import formatdate

from ctxbackends.testing._fault_server.answers import Fault, ResponseBuilder, dump, plain, respond
from ctxbackends.testing._fault_server.catalogue import MEBIBYTE, error_body, register
from ctxbackends.testing._fault_server.steps import Do, Step


@register
def refuse(seconds: float = 0.3) -> Fault:
    """Refuse connections for some time, like a server that has not started yet.

    Args:
        seconds: How long nothing listens.
    """
    return Fault("refuse", respond, downtime=seconds)


@register
def no_response() -> Fault:
    """Read the request and never respond, like a server that hangs."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield Do.HANG

    return Fault("no_response", script)


@register
def loading(seconds: float = 0.3) -> Fault:
    """Return 503 "Loading model" for some time, as llama-server does while it loads.

    Args:
        seconds: How long, from the first request on.
    """

    def script(_: ResponseBuilder) -> Iterator[Step]:
        body = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
        yield plain(503, body, connection="close")
        yield Do.CLOSE

    return Fault("loading", script, duration=seconds)


@register
def load_failed() -> Fault:
    """Return 500 because the model cannot be loaded."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield plain(500, b'{"error":{"message":"model name=m failed to load","type":"server_error","code":500}}')

    return Fault("load_failed", script)


@register
def swap_proxy(seconds: float = 0.3) -> Fault:
    """Return 502 with an HTML page for some time, like a proxy that is starting the server behind it.

    Args:
        seconds: How long, from the first request on.
    """

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield plain(502, b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")

    return Fault("swap_proxy", script, duration=seconds)


@register
def rate_limited(retry_after: str = "0", header: str = "retry-after") -> Fault:
    """Return 429 once.

    Args:
        retry_after: The value of the header; an empty string leaves it out. ``date_in`` builds a date.
        header: The name of the header: ``retry-after`` or ``retry-after-ms``.
    """

    def script(_: ResponseBuilder) -> Iterator[Step]:
        headers = {header: retry_after}
        yield plain(429, dump(error_body("slow down", "rate_limit_error")), **headers)

    return Fault("rate_limited", script)


def date_in(seconds: float) -> str:
    """Return an HTTP date for the ``retry_after`` of ``rate_limited``.

    Args:
        seconds: Seconds from now.
    """
    return formatdate(time.time() + seconds, usegmt=True)


@register
def busy(status: int = 503) -> Fault:
    """Return 503 because all slots are in use.

    Args:
        status: The status code: 503, or Anthropic's 529.
    """

    def script(_: ResponseBuilder) -> Iterator[Step]:
        body = error_body("maximum pending requests exceeded", "overloaded_error", status)
        yield plain(status, dump(body), retry_after="0")

    return Fault("busy", script)


@register
def server_error(status: int = 500) -> Fault:
    """Return 500 because the server failed while it processed the request.

    Args:
        status: The status code.
    """

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield plain(status, dump(error_body("EngineCore encountered an issue", "InternalServerError", status)))

    return Fault("server_error", script)


@register
def unauthorized() -> Fault:
    """Return 401 and echo the API key, as some servers do."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        headers = response.request.headers
        key = headers.get("authorization", headers.get("x-api-key", ""))
        body = error_body(f"Incorrect API key provided: {key}", "authentication_error", "invalid_api_key")
        yield plain(401, dump(body), www_authenticate=f"Bearer {key}")

    return Fault("unauthorized", script)


@register
def model_not_found() -> Fault:
    """Return 404 because the server does not have the model."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        body = error_body("The model `m` does not exist.", "NotFoundError", "model_not_found")
        yield plain(404, dump(body))

    return Fault("model_not_found", script)


@register
def context_overflow() -> Fault:
    """Return 400 because the prompt exceeds the context length."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        message = "request (9000 tokens) exceeds the available context size (2048 tokens)"
        token_counts = {"n_prompt_tokens": 9000, "n_ctx": 2048}
        yield plain(400, dump(error_body(message, "exceed_context_size_error", 400, **token_counts)))

    return Fault("context_overflow", script)


@register
def redirect(status: int = 307, location: str = "") -> Fault:
    """Redirect to another host.

    Args:
        status: The status code.
        location: The target; by default the same path on ``localhost`` instead of ``127.0.0.1``.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        port = response.request.headers.get("host", "").rpartition(":")[2]
        yield plain(status, b"", location=location or f"http://localhost:{port}{response.request.path}")

    return Fault("redirect", script)


@register
def close_before_headers() -> Fault:
    """Read the request and close the connection, like a process that dies."""
    return Fault("close_before_headers", lambda _: (Do.CLOSE,))


@register
def reset_before_headers() -> Fault:
    """Read the request and reset the connection."""
    return Fault("reset_before_headers", lambda _: (Do.RESET,))


@register
def close_in_headers() -> Fault:
    """Close the connection in the middle of the headers."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()[:-9]
        yield Do.CLOSE

    return Fault("close_in_headers", script)


@register
def slow_headers(interval: float = 0.05) -> Fault:
    """Send headers one byte at a time without end, so that a timeout per read never expires.

    Args:
        interval: Seconds between two writes.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()[:-4]
        yield b"\r\nx-slow: "
        for _ in itertools.count():
            yield b"x"
            yield interval

    return Fault("slow_headers", script)


@register
def informational_responses() -> Fault:
    """Send ``100 Continue`` and ``103 Early Hints`` before a correct response.

    This is valid HTTP, but some clients fail on it.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
        yield from respond(response)

    return Fault("informational_responses", script)


@register
def not_http() -> Fault:
    """Send bytes that are not HTTP."""
    return Fault("not_http", lambda _: (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Do.CLOSE))


@register
def giant_header() -> Fault:
    """Send a header of 1 MiB."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(x_giant="x" * MEBIBYTE)
        yield response.frame(response.body)
        yield response.last_chunk

    return Fault("giant_header", script)
