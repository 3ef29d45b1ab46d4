"""Sends the streams of the stand-ins for local servers: lines of JSON or server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def event(value: Mapping[str, Any], name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json.dumps(value).encode() + b"\n\n"


async def send(request: web.Request, content_type: str, pieces: Iterable[bytes]) -> web.StreamResponse:
    """Send each piece in a separate write, then end the body."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
