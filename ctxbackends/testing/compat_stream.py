"""How the stand-ins for local servers send a stream: lines of JSON or server-sent events. Knows no vendor and no
content."""

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
    """Each piece in a write of its own, then the regular end of the body."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
