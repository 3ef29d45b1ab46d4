"""Shared fixtures: a scripted server on loopback, streams as servers write them, and a fix for aioresponses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, settings

from ctxbackends.testing import FaultServer
from ctxbackends.testing.faults import Do as Do
from ctxbackends.testing.faults import RecordedRequest, Step

# Fixtures: one server for all the directories of tests.
from tests.vllm.fixtures import vllm_embedding_server, vllm_model, vllm_python, vllm_server  # noqa: F401

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are shared
settings.register_profile("long", deadline=None, max_examples=int(os.environ.get("CTXBACKENDS_FUZZ_EXAMPLES", "5000")))
settings.load_profile("house")  # pytest loads the one that --hypothesis-profile names, after this

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So it is in what a script starts with `&`. The programs that tests press Ctrl-C in would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs = {"linux": sys.platform == "linux", "posix": sys.platform != "win32"}
    for item in items:
        for marker, here in needs.items():
            if not here and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: this is {sys.platform}"))


@pytest.fixture(scope="session", autouse=True)
def _no_directories_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the programs that they start, from the log, the history and the models of the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "cache"):
            patch.setenv(f"CTXBACKENDS_{name.upper()}_DIR", str(tmp_path_factory.mktemp(name)))
        yield


class _Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know the argument that aiohttp 3.14 added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": Mock(output_size=0), **kwargs})


aioresponses.core.ClientResponse = _Response  # type: ignore[attr-defined]  # the name that it builds its answers with


# --- a server that does exactly what it is told ---------------------------------------------------


Script: TypeAlias = Sequence[Step]
"""What is done after one request has been read."""


class RawServer(FaultServer):
    """Plays a list of scripts on each connection, one for each request; the last list serves all further connections.

    A connection is kept open after its scripts, whatever the client asks for; one more request on it is recorded, and
    the connection closed.
    """

    closes_on_request = False

    def __init__(self, *connections: Sequence[Script], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._scripts = connections

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    @property
    def connection_numbers(self) -> list[int]:
        """The connection of each request, counted from 0."""
        return [request.connection.number for request in self.requests]

    def select_steps(self, request: RecordedRequest) -> Script:
        scripts = self._scripts[min(request.connection.number, len(self._scripts) - 1)]
        return (*scripts, (Do.CLOSE,))[request.connection.requests - 1]

    async def client_closed(self, connection: int = 0) -> bool:
        """Whether the client closes this connection, soon."""
        try:
            await asyncio.wait_for(self.connections[connection].wait_closed(), 5)
        except TimeoutError:
            return False
        return True


RawServerFactory: TypeAlias = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def raw_server() -> AsyncIterator[RawServerFactory]:
    """Starts scripted servers: ``await raw_server([script, script], [script])``; with ``tls``, behind that."""
    servers: list[RawServer] = []

    async def start(*connections: Sequence[Script], tls: ssl.SSLContext | None = None) -> RawServer:
        server = RawServer(*connections, tls=tls)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
TestServerFactory: TypeAlias = Callable[[Handler], Awaitable[TestServer]]


@pytest.fixture
async def test_server() -> AsyncIterator[TestServerFactory]:
    """Starts aiohttp servers that answer every request with one handler."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> TestServer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """An address that nobody listens on, and that nobody can take while the test runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- answers as servers write them ----------------------------------------------------------------


def http_response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole HTTP answer. ``_`` in the name of a header is a ``-``."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    """One chunk of a body that is sent in chunks."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(
    text: str | None = None, *, finish: str | None = None, model: str = "m", usage: tuple[int, int] | None = None
) -> bytes:
    """One server-sent event of a chat stream."""
    delta = {} if text is None else {"content": text}
    value: dict[str, Any] = {
        "id": "r1",
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def sse(*texts: str, finish: str = "stop", model: str = "m", usage: tuple[int, int] | None = None) -> bytes:
    """The body of a whole chat stream."""
    return b"".join(event(text, model=model) for text in texts) + event(finish=finish, model=model, usage=usage) + DONE


def completion_body(text: str = "Hello", *, finish: str | None = "stop", model: str | None = "m", **more: Any) -> bytes:
    """The body of a chat answer in one piece; ``more`` are further members of the message."""
    value: dict[str, Any] = {
        "id": "r1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    if model is not None:
        value["model"] = model
    return json.dumps(value).encode()


def models_body(*ids: str, **more: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, **more} for name in ids]}).encode()
