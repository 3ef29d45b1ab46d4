"""A scripted model behind OpenAI's chat completions API on loopback. The stand-ins test the protocol itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
from aiohttp import web

from ctxbackends import Backend, open_backend

MODEL = "scripted"

Answer = Mapping[str, Any] | str | web.Response
Script = Callable[[str], Answer]
"""Maps a prompt to the rows of the answer, its text, or another response."""


def nothing(_: str) -> Answer:
    return {}


@attrs.define
class ScriptedModel:
    """A server whose answers come from ``script``.

    ``seconds`` is the time for each answer, ``before_answer`` is awaited first. ``prompts`` and ``bodies`` are the
    requests in order, if it ``records`` them.
    """

    script: Script = nothing
    seconds: float = 0.0
    before_answer: Callable[[str], Awaitable[None]] | None = None
    records: bool = True
    prompts: list[str] = attrs.field(factory=list)
    bodies: list[Mapping[str, Any]] = attrs.field(factory=list)
    context_length: int | None = None
    parameters: int | None = None
    count_requests: int = 0
    max_in_flight: int = 0
    url: str = ""
    _in_flight: int = 0
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses/input_tokens", self._count)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        row: dict[str, Any] = {"id": MODEL, "object": "model", "created": 0}
        if self.context_length is not None:
            row["max_model_len"] = self.context_length
        if self.parameters is not None:
            row["meta"] = {"n_params": self.parameters}
        return web.json_response({"object": "list", "data": [row]})

    async def _count(self, request: web.Request) -> web.Response:
        self.count_requests += 1
        text = json.dumps(await request.json())
        return web.json_response({"object": "response.input_tokens", "input_tokens": len(text) // 4})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            if self.before_answer is not None:
                await self.before_answer(body["messages"][-1]["content"])
            await asyncio.sleep(self.seconds)
            return self._respond(body)
        finally:
            self._in_flight -= 1

    def _respond(self, body: Mapping[str, Any]) -> web.Response:
        prompt = body["messages"][-1]["content"]
        if self.records:
            self.bodies.append(body)
            self.prompts.append(prompt)
        answer = self.script(prompt)
        if isinstance(answer, web.Response):
            return answer
        if not isinstance(answer, str):
            if "response_format" not in body:
                return completion("Hello.")
            schema = body["response_format"]["json_schema"]["schema"]
            answer = json.dumps({name: [] for name in schema["properties"]} | dict(answer))
        return completion(answer)


def completion(text: str, *, finish_reason: str = "stop") -> web.Response:
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
    )


@asynccontextmanager
async def scripted_backend(script: Script = nothing, **settings: Any) -> AsyncIterator[tuple[ScriptedModel, Backend]]:
    """Yield a scripted model and a backend for it."""
    async with (
        ScriptedModel(script, **settings) as model,
        open_backend("openai", endpoint=model.url, api_key="test-key", default_model=MODEL) as backend,
    ):
        yield model, backend


def line_of(prompt: str, words: str) -> int:
    """Return the number of the prompt's segment that contains ``words``."""
    passage = next(part for part in prompt.split("\n\n") if words in part)
    number = re.match(r"\[(\d+)\]", passage)
    assert number is not None
    return int(number[1])


def decision(title: str, quote: str, line: int = 1) -> dict[str, Any]:
    return {
        "line": line,
        "quote": quote,
        "title": title,
        "context": "why it came up",
        "rationale": "why this",
        "consequence": "what follows",
    }
