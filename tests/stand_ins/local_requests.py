"""Requests to the stand-ins for Ollama and LM Studio, and a plain client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp

from ctxbackends.testing._stand_ins.stand_in import StandIn

CALL = '[[call]]{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}[[/call]]'
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def ask(server: StandIn, path: str, body: Any = None, **headers: str) -> tuple[int, str, str]:
    """Status, type of the content and text of a POST, or of a GET where there is no body."""
    async with aiohttp.ClientSession() as session:
        send: Callable[..., Any] = session.get if body is None else session.post
        more = {} if body is None else {"json": body}
        async with send(server.url + path, headers=headers, **more) as response:
            return response.status, response.content_type, await response.text()
