"""What the stand-ins for servers have in common: a listening aiohttp application that keeps what it was sent. Knows no
vendor."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.frozen(kw_only=True)
class Received:
    """One request. ``path`` holds the query as well; ``headers`` have lower-case names; ``json`` is None where the body
    is empty or no JSON."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any


class StandIn:
    """A server on loopback that behaves as a vendor documents it. Use it with ``async with``; ``url`` is its base.

    ``requests`` holds what came, in its order. ``api_key``: what a request must bring, None for nothing.
    """

    def __init__(self, *, api_key: str | None = None) -> None:
        self.api_key = api_key
        self.requests: list[Received] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each route."""
        raise NotImplementedError

    async def not_found(self, _: web.Request, /) -> web.StreamResponse:
        """The vendor's answer to a path that it does not have."""
        return web.Response(status=404)

    async def unauthorized(self, _: web.Request, /) -> web.StreamResponse:
        """The vendor's answer to a missing or wrong key."""
        return web.Response(status=401)

    def authorized(self, request: web.Request) -> bool:
        return self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}"

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
            self.requests.append(Received(method=request.method, path=request.path_qs, headers=headers, json=decoded))
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

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
