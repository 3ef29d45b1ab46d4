"""A model server for batches: it answers with the prompt, counts, and can hold back or refuse rows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from ctxbackends.batch import BatchReport
from tests.conftest import completion_body, models_body

MODEL = "tiny"


class BatchServer:
    """The server.

    Attributes:
        url: Its address.
        prompts: The last message of each request, or the text to embed, in order of arrival.
        bodies: The bodies of the requests.
        in_flight: Requests that are not answered.
        max_in_flight: The most there were at once.
        hold: Requests for which it returns True wait until they are cancelled, or until ``release`` is set.
        gate: Awaited with each prompt before its answer, None for nothing.
        statuses: HTTP status and headers by prompt, for as many requests as there are.
        answer: Returns the text of the answer to a prompt.
    """

    def __init__(self, *, model: str = MODEL) -> None:
        self.model = model
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.in_flight = self.max_in_flight = 0
        self.hold: Callable[[str], bool] = lambda _: False
        self.release = asyncio.Event()
        self.gate: Callable[[str], Awaitable[object]] | None = None
        self.statuses: Mapping[str, list[tuple[int, dict[str, str]]]] = {}
        self.answer: Callable[[str], str] = lambda prompt: f"answer to {prompt}"
        self.finish = "stop"
        self.delay = 0.0
        self._arrival = asyncio.Condition()
        self.url = ""

    @property
    def counts(self) -> Counter[str]:
        """How often each prompt arrived."""
        return Counter(self.prompts)

    async def wait_for(self, condition: Callable[[Self], bool]) -> None:
        """Wait until the condition is true after a request."""
        async with asyncio.timeout(60), self._arrival:
            await self._arrival.wait_for(lambda: condition(self))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(body=models_body(self.model), content_type="application/json")
        body = await request.json()
        prompt = body["messages"][-1]["content"] if "messages" in body else body["input"]
        prompt = prompt if isinstance(prompt, str) else prompt[0]
        async with self._arrival:
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self._arrival.notify_all()
        try:
            if self.hold(prompt):
                await self.release.wait()
            if self.gate is not None:
                await self.gate(prompt)
            if self.delay:
                await asyncio.sleep(self.delay)
            return self._answer(prompt, body)
        finally:
            self.in_flight -= 1

    def _answer(self, prompt: str, body: Mapping[str, Any]) -> web.Response:
        if self.statuses.get(prompt):
            status, headers = self.statuses[prompt].pop(0)
            error = json.dumps({"error": {"message": f"no answer to {prompt}", "type": "test"}})
            return web.Response(status=status, text=error, headers=headers, content_type="application/json")
        if "input" in body:
            data = [{"object": "embedding", "index": 0, "embedding": [1.0, float(len(prompt))]}]
            usage = {"prompt_tokens": 3, "total_tokens": 3}
            return web.json_response({"object": "list", "data": data, "model": self.model, "usage": usage})
        return web.Response(
            body=completion_body(self.answer(prompt), model=self.model, finish=self.finish),
            content_type="application/json",
        )


@asynccontextmanager
async def serve_batches(*, model: str = MODEL) -> AsyncIterator[BatchServer]:
    """Start a server. Requests in flight are cancelled when the client leaves."""
    server = BatchServer(model=model)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server._handle)
    runner = TestServer(app)
    await runner.start_server()
    server.url = str(runner.make_url("")).rstrip("/")
    try:
        yield server
    finally:
        server.release.set()
        await runner.close()


class RetryAfter:
    """Answers the first request with a Retry-After, and those in flight in the middle of the pause.

    Args:
        server: The server.
        workers: The number of workers, with one request at once each.

    Attributes:
        seconds: The Retry-After.
        states: The paused servers of the report, as they change.
        waits: The seconds from the Retry-After to each request after those in flight.
    """

    seconds = 2

    def __init__(self, server: BatchServer, workers: int) -> None:
        self._server = server
        self._workers = workers
        self._arrivals = 0
        self._limited_at = 0.0
        self._is_noted = asyncio.Event()
        self.states: list[tuple[str, ...]] = []
        self.waits: list[float] = []
        server.gate = self._wait

    async def _wait(self, prompt: str) -> None:
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        if self._arrivals == 1:
            self._server.statuses = {prompt: [(429, {"retry-after": str(self.seconds)})]}
            await self._server.wait_for(lambda server: server.in_flight == self._workers)
            self._limited_at = loop.time()
        elif self._arrivals <= self._workers:
            await self._is_noted.wait()
            await asyncio.sleep(self.seconds / 2)  # meanwhile the other workers are told
        else:
            self.waits.append(loop.time() - self._limited_at)

    def note(self, report: BatchReport) -> None:
        """Take the state of the batch, after each change."""
        if self.states[-1:] != [report.paused]:
            self.states.append(report.paused)
        if report.paused:
            self._is_noted.set()
