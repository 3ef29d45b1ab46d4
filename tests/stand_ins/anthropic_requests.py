"""Requests to Anthropic's stand-in, and a plain client."""

from __future__ import annotations

from typing import Any

import aiohttp

from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn

KEY = "sk-ant-stand-in"
MODEL = "claude-haiku-4-5"  # the client warns of older ones, which are about to end
OLD = "2023-06-01"
WEATHER: Any = {
    "name": "weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: Any = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
CALL = '[[call]]{"name": "weather", "arguments": {"city": "Oslo and Bergen"}}[[/call]]'
CALLS = CALL + '[[call]]{"name": "clock", "arguments": {}}[[/call]]'
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


def user(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def message_body(content: Any = "Hello", **more: Any) -> Any:
    """A whole body. A member that is given as None is left out."""
    body = {"model": MODEL, "max_tokens": 2000, "messages": user(content), **more}
    return {name: value for name, value in body.items() if value is not None}


async def post(server: AnthropicStandIn, path: str, body: Any, **headers: str) -> tuple[int, Any, str]:
    """Status, headers and text of the raw answer. A ``_`` in a header's name is a ``-``; an empty one is not sent."""
    all_headers = {"x_api_key": KEY, "anthropic_version": "2026-10-21", **headers}
    request_headers = {name.replace("_", "-"): value for name, value in all_headers.items() if value}
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + path, json=body, headers=request_headers) as answer,
    ):
        return answer.status, answer.headers, await answer.text()
