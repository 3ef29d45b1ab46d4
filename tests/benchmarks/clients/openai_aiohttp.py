"""The client of OpenAI on its aiohttp transport."""

from __future__ import annotations

import openai

from tests.benchmarks.clients.openai_client import WIRES, OpenAI

DISTRIBUTIONS = ("openai", "aiohttp", "httpx2", "httpx", "pydantic")
__all__ = ["DISTRIBUTIONS", "WIRES", "open_client"]


async def open_client(wire: str, url: str) -> OpenAI:
    return OpenAI(url, http_client=openai.DefaultAioHttpClient())
