"""Requests to OpenAI's stand-in, and a plain client."""

from __future__ import annotations

from typing import Any

import aiohttp

from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn

KEY = "sk-stand-in-0123456789"
MODEL = "gpt-5-mini"
PLAIN = "gpt-4.1-mini"  # does not reason
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = '[[call]]{"name": "weather", "arguments": {"city": "Oslo and Bergen"}}[[/call]]'
CALLS = CALL + '[[call]]{"name": "clock", "arguments": {}}[[/call]]'


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def post(server: OpenAIStandIn, path: str, body: Any, **headers: str) -> tuple[int, Any, str]:
    """Status, headers and text of the raw answer."""
    request_headers = {"Authorization": f"Bearer {KEY}", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + path, json=body, headers=request_headers) as answer,
    ):
        return answer.status, answer.headers, await answer.text()
