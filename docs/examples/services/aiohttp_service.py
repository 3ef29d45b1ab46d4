"""An aiohttp.web service over the default backend of .ctxrc. Run it with `python aiohttp_service.py PORT`.

With `handler_cancellation`, aiohttp cancels a handler whose client has left, which cancels the generation. After
SIGTERM, it takes no new connections, and waits up to `shutdown_timeout` for the handlers.
"""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from aiohttp import web

from ctxbackends import BackendError, Registry, http_status_of
from ctxbackends.integrations.asgi import sse_events

logger = logging.getLogger("service")
REGISTRY = web.AppKey("registry", Registry)


async def registry_context(app: web.Application) -> AsyncIterator[None]:
    app[REGISTRY] = Registry.from_ctxrc()
    yield
    await app[REGISTRY].drain(timeout=20)  # of what is not a response: background tasks


async def complete(request: web.Request) -> web.Response:
    question = await request.json()
    try:
        completion = await request.app[REGISTRY].default().complete(question["prompt"])
    except BackendError as error:
        logger.warning("%s", type(error).__name__)  # its text may contain the prompt
        return web.json_response({"error": type(error).__name__}, status=http_status_of(error))
    return web.json_response({"text": completion.text})


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    async with aclosing(sse_events(request.app[REGISTRY].default().stream(request.query["prompt"]))) as events:
        with suppress(ConnectionResetError):  # the client left, and aiohttp has not cancelled this handler yet
            await response.prepare(request)
            async for event in events:
                await response.write(event)
    return response


async def health(request: web.Request) -> web.Response:
    status = await request.app[REGISTRY].default().status()
    content = {"state": status.state, "model": status.model}
    return web.json_response(content, status=200 if status.state == "ready" else 503)


def create_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(registry_context)
    app.add_routes([web.post("/complete", complete), web.get("/stream", stream), web.get("/health", health)])
    return app


if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1", port=int(sys.argv[1]), handler_cancellation=True, shutdown_timeout=30)
