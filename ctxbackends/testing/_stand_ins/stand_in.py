"""The base class of stand-ins: an aiohttp application on loopback that records and answers requests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import attrs
from aiohttp import web

from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins.answers import AnswerFunction, arguments_object, call_answer_function
from ctxbackends.testing._stand_ins.questions import read_question
from ctxbackends.testing._stand_ins.scripted import ModelInput

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.frozen(kw_only=True)
class ReceivedRequest:
    """A request that a stand-in received.

    Attributes:
        method: The HTTP method.
        path: The path with the query.
        headers: The headers, with names in lower case.
        json: The body as JSON; None if it is empty or not JSON.
    """

    method: str
    path: str
    headers: dict[str, str]
    json: Any


class StandIn:
    """A server on loopback that behaves as a vendor documents. Use it with ``async with``.

    Attributes:
        api_key: The key that requests must have; None for none.
        answer: Returns the :class:`Answer` to a :class:`Question`; None for the scripted model.
        requests: The received requests in the order of their arrival.
    """

    def __init__(self, *, api_key: str | None = None, answer: AnswerFunction | None = None) -> None:
        self.api_key = api_key
        self.answer = answer
        self.requests: list[ReceivedRequest] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL, without a path or a trailing slash."""
        return f"http://127.0.0.1:{self._port}"

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return the method, path and handler of each route."""
        raise NotImplementedError

    async def not_found(self, _: web.Request, /) -> web.StreamResponse:
        """Return the vendor's response to an unknown path."""
        return web.Response(status=404)

    async def unauthorized(self, _: web.Request, /) -> web.StreamResponse:
        """Return the vendor's response to a missing or wrong key."""
        return web.Response(status=401)

    def authorized(self, request: web.Request) -> bool:
        """Return whether the request has the right key."""
        return self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}"

    def ask(self, wire: WireAPI, body: Mapping[str, Any], read: ModelInput, *, objects: bool = False) -> ModelInput:
        """Return what the model reads, with the answer of ``answer`` instead of the marks in the prompt.

        Args:
            wire: The wire format of the request.
            body: The body of the request.
            read: What the scripted model reads.
            objects: Whether the server sends the arguments of tool calls as objects.

        Raises:
            AnswerError: There is no answer to send.
        """
        if self.answer is None:
            return read
        answer = call_answer_function(self.answer, read_question(wire, body))
        if objects or wire is not WireAPI.CHAT_COMPLETIONS:
            for call in answer.tool_calls:
                arguments_object(call)
        return attrs.evolve(read, prompt="", answer=answer)

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        routes = {(method, path): handler for method, path, handler in self.routes()}

        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            try:
                decoded = json.loads(body) if body else None
            except ValueError:
                decoded = None
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.requests.append(
                ReceivedRequest(method=request.method, path=request.path_qs, headers=headers, json=decoded)
            )
            if not self.authorized(request):
                return await self.unauthorized(request)
            return await routes.get((request.method, request.path), self.not_found)(request)

        application.router.add_route("*", "/{path:.*}", serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
