"""The transport on real sockets: the error for each failure, and which connections stay open."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey

from ctxbackends._http import body as aiohttp_body
from ctxbackends._http import connector as aiohttp_connections
from ctxbackends._http import sessions as sessions_module
from ctxbackends._http.body import ByteStream
from ctxbackends._http.errors import translate
from ctxbackends._http.transport import RequestTimeouts, Transport
from ctxbackends._wire.base import HTTPRequest, HTTPResponse
from ctxbackends.errors import (
    APIConnectionError,
    APITimeoutError,
    ClosedError,
    EventLoopError,
    MalformedResponseError,
    ResponseTooLargeError,
)
from tests.conftest import (
    EVENT_STREAM,
    LAST_CHUNK,
    Do,
    RawServerFactory,
    Script,
    TestServerFactory,
    http_chunk,
    http_response,
)

GET = HTTPRequest("GET", "/")
POST = HTTPRequest("POST", "/", b"{}")
OK = http_response(200, b"ok")


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport_ = Transport()
    yield transport_
    await transport_.aclose()


async def send(
    transport: Transport,
    url: str,
    request: HTTPRequest = POST,
    *,
    connect: float | None = 5.0,
    total: float | None = 5.0,
    total_key: str = "timeout",
    **headers: str,
) -> HTTPResponse:
    timeouts = RequestTimeouts(connect=connect, total=total, total_key=total_key)
    return await transport.send(url + request.path, request, headers=headers, timeouts=timeouts)


async def open_stream(transport: Transport, url: str, request: HTTPRequest = POST) -> ByteStream | HTTPResponse:
    return await transport.open(url + request.path, request, headers={}, timeouts=RequestTimeouts(connect=5.0))


def flags(error: APIConnectionError) -> set[str]:
    return {name for name in ("refused", "sent", "permanent") if getattr(error, name)}


# --- one request ----------------------------------------------------------------------------------


async def test_send(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(418, b"tea", X_Request_Id="7")]])
    request = HTTPRequest("POST", "/v1/things", b'{"a":1}', {"X-Own": "2"})
    response = await send(transport, server.url, request, Authorization="Bearer k")
    assert (418, b"tea", "7") == (response.status, response.body, response.headers["x-request-id"])
    assert response.received_at > 1_700_000_000
    (recorded,) = server.requests
    assert ("POST", "/v1/things", b'{"a":1}') == (recorded.method, recorded.path, recorded.body)
    assert "Bearer k" == recorded.headers["authorization"]
    assert "2" == recorded.headers["x-own"]
    assert "identity" == recorded.headers["accept-encoding"]
    assert "ctxbackends" == recorded.headers["user-agent"]


async def test_a_body_in_many_pieces(transport: Transport, raw_server: RawServerFactory) -> None:
    script = [EVENT_STREAM, http_chunk(b"one "), 0.01, http_chunk(b"two"), 0.01, LAST_CHUNK]
    server = await raw_server([script])
    assert b"one two" == (await send(transport, server.url)).body


async def test_open_returns_the_body_as_it_arrives(transport: Transport, raw_server: RawServerFactory) -> None:
    more = asyncio.Event()
    server = await raw_server([[EVENT_STREAM, http_chunk(b"one"), more, http_chunk(b"two"), LAST_CHUNK]])
    stream = await open_stream(transport, server.url)
    assert isinstance(stream, ByteStream)
    assert b"one" == await stream.read_chunk()
    assert not stream.at_end
    more.set()
    assert b"two" == await stream.read_chunk()
    assert b"" == await stream.read_chunk()
    assert stream.at_end
    stream.close()


async def test_open_reads_an_error_up_to_a_limit(
    transport: Transport, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_body, "ERROR_BODY_BYTES", 10)
    server = await raw_server([[http_response(404, b"short")], [http_response(500, b"0123456789abcdef")]])
    second, first = await open_stream(transport, server.url), await open_stream(transport, server.url)
    assert isinstance(first, HTTPResponse)
    assert (500, b"0123456789") == (first.status, first.body)
    assert isinstance(second, HTTPResponse)
    assert (404, b"short", "5") == (second.status, second.body, second.headers["content-length"])


async def test_a_body_over_the_limit(
    transport: Transport, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_body, "MAX_BODY_BYTES", 10)
    server = await raw_server(
        [[http_response(200, b"0123456789")], [http_response(200, b"0123456789a" * 2)[:-1], Do.HANG]]
    )
    assert b"0123456789" == (await send(transport, server.url)).body
    with pytest.raises(ResponseTooLargeError) as exc_info:
        await send(transport, server.url)
    assert 10 == exc_info.value.limit
    assert await server.client_closed()


# --- failures -------------------------------------------------------------------------------------


async def test_refused(transport: Transport, refusing_url: str) -> None:
    for request in (send, open_stream):
        with pytest.raises(APIConnectionError, match=r"^connection refused$") as exc_info:
            await request(transport, refusing_url)
        assert {"refused"} == flags(exc_info.value)
        assert isinstance(exc_info.value.__cause__, aiohttp.ClientConnectorError)


async def test_refused_on_every_address_of_a_name(transport: Transport, refusing_url: str) -> None:
    with pytest.raises(APIConnectionError) as exc_info:
        await send(transport, refusing_url.replace("127.0.0.1", "localhost"))
    assert {"refused"} == flags(exc_info.value)


async def test_another_failure_to_connect_is_not_refused(
    transport: Transport, refusing_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(**_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", unreachable)
    with pytest.raises(APIConnectionError, match="Network is unreachable") as exc_info:
        await send(transport, refusing_url)
    assert set() == flags(exc_info.value)


async def test_a_name_that_does_not_resolve(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(APIConnectionError, match=r"cannot find the host [a-z.-]+ \(.*not known\)") as exc_info:
        await send(transport, "http://nothing.invalid:8000")
    assert {"permanent"} == flags(exc_info.value)


async def test_an_invalid_url(transport: Transport) -> None:
    with pytest.raises(APIConnectionError, match="the URL is invalid") as exc_info:
        await send(transport, "http://[::")
    assert {"permanent"} == flags(exc_info.value)


async def test_plain_http_instead_of_tls(transport: Transport) -> None:
    listening = await asyncio.start_server(_answer_in_plain_text, "127.0.0.1", 0)
    with pytest.raises(APIConnectionError, match="failed: the server does not use TLS; begin the") as exc_info:
        await send(transport, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert {"permanent"} == flags(exc_info.value)
    listening.close()


async def _answer_in_plain_text(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 This is no TLS\r\n\r\n")
    writer.close()


def test_a_certificate_that_does_not_verify() -> None:
    key = ConnectionKey("gpu", 443, True, True, None, None, None)
    error = aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError(1, "self-signed certificate"))
    result = translate(error, reused=False, started=False)
    assert isinstance(result, APIConnectionError)
    assert "certificate verification failed" in str(result)
    assert "self-signed certificate" in str(result)
    assert {"permanent"} == flags(result)


@pytest.mark.parametrize(
    ("number", "problem", "is_refused"),
    [
        (errno.ECONNREFUSED, "connection refused", True),
        (errno.ECONNRESET, "Connection reset by peer", False),  # it stopped listening just then
        (errno.EHOSTUNREACH, "No route to host", False),
    ],
)
def test_why_there_is_no_connection(number: int, problem: str, is_refused: bool) -> None:
    inner = OSError(number, "Connect call failed ('10.0.0.1', 80)")  # as asyncio words it, whatever the reason
    key = ConnectionKey("10.0.0.1", 80, False, True, None, None, None)
    result = translate(aiohttp.ClientConnectorError(key, inner), reused=False, started=False)
    assert isinstance(result, APIConnectionError)
    assert (problem, is_refused, False) == (result.problem, result.refused, result.sent)


def test_an_unknown_failure_is_a_malformed_response() -> None:
    result = translate(aiohttp.ClientError("odd"), reused=False, started=False)
    assert isinstance(result, MalformedResponseError)
    assert "odd" in str(result)


def test_other_connection_errors_may_have_been_processed() -> None:
    result = translate(aiohttp.ClientConnectionError("Closed"), reused=True, started=False)
    assert isinstance(result, APIConnectionError)
    assert ("the connection ended: Closed", {"sent"}) == (str(result), flags(result))


async def test_no_connection_in_time(transport: Transport, refusing_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", _never)
    for unlimited in (5.0, None):
        with pytest.raises(APITimeoutError) as exc_info:
            await send(transport, refusing_url, connect=0.02, total=unlimited)
        assert ("connect", 0.02, "connect_timeout") == (exc_info.value.phase, exc_info.value.limit, exc_info.value.key)
        assert isinstance(exc_info.value, TimeoutError)
    with pytest.raises(APITimeoutError) as exc_info:
        await transport.open(refusing_url, POST, headers={}, timeouts=RequestTimeouts(connect=0.02))
    assert "connect" == exc_info.value.phase


async def _never(**_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "script", [[Do.HANG], [http_response(200, b"12345")[:-1], Do.HANG]], ids=["silent", "in the body"]
)
async def test_no_complete_response_in_time(transport: Transport, raw_server: RawServerFactory, script: Script) -> None:
    server = await raw_server([script])
    with pytest.raises(APITimeoutError) as exc_info:
        await send(transport, server.url, total=0.05, total_key="first_token_timeout")
    assert ("total", 0.05, "first_token_timeout") == (exc_info.value.phase, exc_info.value.limit, exc_info.value.key)
    assert await server.client_closed()
    assert 1 == len(server.requests)


BEFORE = "the server closed the connection before a response"
WITHIN = "the server closed the connection during the response"
INCOMPLETE = "the connection broke before the response was complete"


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ([Do.CLOSE], BEFORE),
        ([Do.RESET], BEFORE),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", Do.CLOSE], WITHIN),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Do.CLOSE], INCOMPLETE),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234", Do.CLOSE], INCOMPLETE),
        ([EVENT_STREAM, http_chunk(b"1234"), Do.CLOSE], INCOMPLETE),
    ],
)
async def test_the_server_closes(
    transport: Transport, raw_server: RawServerFactory, script: Script, problem: str, request_: HTTPRequest
) -> None:
    server = await raw_server([script])
    with pytest.raises(APIConnectionError) as exc_info:
        await send(transport, server.url, request_)
    assert (problem, {"sent"}) == (str(exc_info.value), flags(exc_info.value))
    if request_ is POST:  # aiohttp itself asks a second time with a GET, which changes nothing
        assert 1 == len(server.requests)


@pytest.mark.parametrize("use", [send, open_stream])
async def test_compressed_responses_are_rejected(use: Any, transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, b"1234", Content_Encoding="gzip")]])
    with pytest.raises(MalformedResponseError) as exc_info:
        await use(transport, server.url, POST)
    assert "the response is compressed ('gzip'), although the request did not allow it" == str(exc_info.value)


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET, Do.HANG])
@pytest.mark.parametrize("use", [send, open_stream])
async def test_a_truncated_error_body_keeps_its_status(
    transport: Transport, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch, end: Do, use: Any
) -> None:
    monkeypatch.setattr(aiohttp_body, "ERROR_BODY_SECONDS", 0.1)
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nslow"
    server = await raw_server([[head, 0.02, end]])
    response = await use(transport, server.url)
    assert (429, b"slow", "7") == (response.status, response.body, response.headers["retry-after"])


async def test_a_reset_in_the_body(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[EVENT_STREAM, http_chunk(b"1234"), 0.02, Do.RESET]])
    stream = await open_stream(transport, server.url)
    assert isinstance(stream, ByteStream)
    assert b"1234" == await stream.read_chunk()
    with pytest.raises(APIConnectionError) as exc_info:
        await stream.read_chunk()
    assert {"sent"} == flags(exc_info.value)
    stream.close()


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"]
)
async def test_invalid_http(transport: Transport, raw_server: RawServerFactory, reply: bytes) -> None:
    server = await raw_server([[reply, Do.CLOSE]])
    for request in (send, open_stream):
        with pytest.raises(MalformedResponseError, match="not valid HTTP"):
            await request(transport, server.url)


async def test_a_failed_parse_keeps_no_key(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Do.CLOSE]])
    with pytest.raises(MalformedResponseError) as exc_info:
        await send(transport, server.url, Authorization="Bearer sk-very-secret")
    cause = exc_info.value.__cause__
    assert isinstance(cause, aiohttp.ClientResponseError)
    assert "sk-very-secret" not in repr(cause)
    assert "sk-very-secret" not in str(vars(cause))
    assert "Bad status line" in str(cause)


async def test_cancelled(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.HANG]])
    task = asyncio.create_task(send(transport, server.url))
    while not server.requests:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.client_closed()


# --- whom it talks to, and what it keeps ----------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(transport: Transport, raw_server: RawServerFactory, status: int) -> None:
    other = await raw_server([[OK]])
    server = await raw_server([[http_response(status, Location=other.url)]] * 2)
    assert status == (await send(transport, server.url, Authorization="Bearer k")).status
    stream = await open_stream(transport, server.url)
    assert isinstance(stream, HTTPResponse)
    assert status == stream.status
    assert [] == other.connections  # not even a connection


async def test_a_proxy_of_the_environment_is_not_used(
    transport: Transport, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = await raw_server([[OK]]), await raw_server([[OK]])
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert 200 == (await send(transport, server.url)).status
    assert (1, []) == (len(server.requests), proxy.connections)


async def test_no_cookies_are_kept(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, Set_Cookie="a=1; Path=/")]] * 2)
    url = f"http://localhost:{server.port}"  # no cookies are ever kept for an IP address
    await send(transport, url)
    await send(transport, url)
    assert [None, None] == [request.headers.get("cookie") for request in server.requests]


async def test_keep_alive(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[OK], [OK], [OK]])
    for _ in range(3):
        assert b"ok" == (await send(transport, server.url)).body
    assert [0, 0, 0] == server.connection_numbers


async def test_keep_alive_after_an_error(transport: Transport, test_server: TestServerFactory) -> None:
    ports = set()

    async def refuse(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(status=404, text="no")

    url = str((await test_server(refuse)).make_url(""))
    for _ in range(2):
        assert 404 == (await send(transport, url)).status
        stream = await open_stream(transport, url)
        assert isinstance(stream, HTTPResponse)
        assert b"no" == stream.body
    assert 1 == len(ports)


def test_idle_connections_are_closed_before_the_servers_close_them() -> None:
    assert sessions_module.KEEPALIVE_SECONDS < 5.0


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET])
@pytest.mark.parametrize("use", [send, open_stream])
async def test_a_stale_connection_is_replaced(
    transport: Transport, raw_server: RawServerFactory, end: Do, use: Any
) -> None:
    server = await raw_server([[OK], [end]], [[OK]])
    await send(transport, server.url)
    assert await use(transport, server.url)
    assert [0, 0, 1] == server.connection_numbers


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET])
@pytest.mark.parametrize("use", [send, open_stream])
async def test_a_closed_new_connection_is_an_error(
    transport: Transport, raw_server: RawServerFactory, end: Do, use: Any
) -> None:
    server = await raw_server([[OK], [end]], [[end]])
    await send(transport, server.url)
    with pytest.raises(APIConnectionError) as exc_info:
        await use(transport, server.url)
    assert (BEFORE, {"sent"}) == (str(exc_info.value), flags(exc_info.value))
    assert isinstance(exc_info.value.__context__, aiohttp.ClientError)
    assert not isinstance(exc_info.value.__context__.__context__, APIConnectionError)
    assert [0, 0, 1] == server.connection_numbers


async def test_the_retry_uses_a_new_connection(transport: Transport, raw_server: RawServerFactory) -> None:
    """What is sent again goes over no connection of the pool, however many there are."""
    server = await raw_server(*[[[OK], [Do.CLOSE]]] * 8, [[OK]])
    await asyncio.gather(*(send(transport, server.url) for _ in range(8)))
    answers = await asyncio.gather(*(send(transport, server.url) for _ in range(8)))
    assert [200] * 8 == [response_.status for response_ in answers]
    assert 8 + 8 + 8 == len(server.requests)


async def test_a_request_that_the_server_worked_on_is_not_retried(
    transport: Transport, raw_server: RawServerFactory
) -> None:
    server = await raw_server([[OK], [2 * aiohttp_connections.STALE_SECONDS, Do.CLOSE]])
    await send(transport, server.url)
    with pytest.raises(APIConnectionError):
        await send(transport, server.url)
    assert 2 == len(server.requests)


async def test_a_response_that_breaks_is_not_retried(transport: Transport, raw_server: RawServerFactory) -> None:
    for response in (b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234"):
        server = await raw_server([[OK], [response, Do.CLOSE]])
        await send(transport, server.url)
        with pytest.raises(APIConnectionError) as exc_info:
            await send(transport, server.url)
        assert {"sent"} == flags(exc_info.value)


async def test_a_stream_closed_early_ends_its_connection(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[EVENT_STREAM, http_chunk(b"one"), Do.HANG]])
    stream = await open_stream(transport, server.url)
    assert isinstance(stream, ByteStream)
    assert b"one" == await stream.read_chunk()
    stream.close()
    assert await server.client_closed()


# --- sessions and loops ---------------------------------------------------------------------------


async def test_closed(transport: Transport, raw_server: RawServerFactory) -> None:
    server = await raw_server([[OK]])
    await send(transport, server.url)
    await transport.aclose()
    assert await server.client_closed()
    await transport.aclose()
    with pytest.raises(ClosedError):
        await send(transport, server.url)
    with pytest.raises(ClosedError):
        await open_stream(transport, server.url)
    assert 1 == len(server.requests)


async def test_closed_before_use() -> None:
    transport = Transport()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ClosedError):
        await send(transport, "http://127.0.0.1:1")


async def test_one_session_for_a_loop(
    transport: Transport, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await raw_server([[OK, OK]])
    make, sessions = aiohttp.ClientSession, Mock()
    monkeypatch.setattr(aiohttp, "ClientSession", lambda *args, **options: sessions() and make(*args, **options))
    await asyncio.gather(*[send(transport, server.url) for _ in range(2)])
    assert 200 == (await send(transport, server.url)).status
    assert 1 == sessions.call_count


async def test_a_borrowed_session_stays_open(raw_server: RawServerFactory) -> None:
    server = await raw_server([[OK], [OK]])
    async with aiohttp.ClientSession(headers={"X-Service": "1"}) as session:
        transport = Transport(session=session)
        assert 200 == (await send(transport, server.url)).status
        await transport.aclose()
        assert not session.closed
        with pytest.raises(ClosedError):
            await send(transport, server.url)
    assert ["1"] == [request.headers["x-service"] for request in server.requests]


async def test_a_second_loop_while_the_first_runs(transport: Transport, raw_server: RawServerFactory) -> None:
    """It has a connection of its own, which closes with it; the first loop keeps its connection."""
    server = await raw_server([[OK], [OK]], [[OK]])
    await send(transport, server.url)
    await asyncio.to_thread(lambda: asyncio.run(_use(transport, server.url)))
    assert await server.client_closed(1)
    assert b"ok" == (await send(transport, server.url)).body
    assert [0, 1, 0] == server.connection_numbers


async def test_a_borrowed_session_belongs_to_its_loop(raw_server: RawServerFactory) -> None:
    server = await raw_server([[OK]])
    async with aiohttp.ClientSession() as session:
        transport = Transport(session=session)
        with pytest.raises(EventLoopError, match="belongs to another event loop; use the registry on that loop"):
            await asyncio.to_thread(lambda: asyncio.run(_use(transport, server.url)))
        assert b"ok" == (await send(transport, server.url)).body
        await transport.aclose()


async def _use(transport: Transport, url: str) -> None:
    await send(transport, url)


async def test_close_from_another_loop_closes_the_sessions_of_all(raw_server: RawServerFactory) -> None:
    server = await raw_server([[OK]])
    transport = Transport()
    await send(transport, server.url)
    await asyncio.to_thread(lambda: asyncio.run(transport.aclose()))
    assert await server.client_closed()
    with pytest.raises(ClosedError):
        await send(transport, server.url)


PRELUDE = """
import asyncio, sys
from ctxbackends._http.transport import RequestTimeouts, Transport
from ctxbackends._wire.base import HTTPRequest

async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    try:
        await reader.read()
    except asyncio.CancelledError:  # or asyncio of Python 3.11 prints about its own task
        pass
    writer.close()

async def use(transport):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    response = await transport.send(url, HTTPRequest("GET", "/"), headers={}, timeouts=RequestTimeouts(total=10))
    print(response.body.decode())
    server.close()
"""


def run_in_development_mode(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=Path(__file__).parent,
        check=False,
    )


def test_one_client_over_three_loops_that_nobody_closes() -> None:
    done = run_in_development_mode(
        """
        transport = Transport()
        for _ in range(3):
            asyncio.run(use(transport))
        """
    )
    assert ("ok\nok\nok\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_one_client_closed_in_a_later_loop() -> None:
    done = run_in_development_mode(
        """
        transport = Transport()
        asyncio.run(use(transport))
        asyncio.run(transport.aclose())
        """
    )
    assert ("ok\n", "", 0) == (done.stdout, done.stderr, done.returncode)


# --- names that resolve to what the machine does not have -----------------------------------------


def _addresses(*hosts: str) -> list[dict[str, Any]]:
    return [{"host": host, "port": 80} for host in hosts]


class _NoIPv6(socket.socket):
    def bind(self, address: object) -> None:  # noqa: ARG002  # the address that there is not
        raise OSError(99, "Cannot assign requested address")


class _AnyIPv6(socket.socket):
    def __init__(self, *_: object) -> None:
        super().__init__(socket.AF_INET)

    def bind(self, address: object) -> None:
        assert ("::1", 0) == address


@pytest.mark.parametrize(
    ("ipv6", "results", "usable"),
    [
        (False, ["::1", "127.0.0.1"], ["127.0.0.1"]),
        (True, ["::1", "127.0.0.1"], ["::1", "127.0.0.1"]),
        (False, ["::1"], ["::1"]),
        (False, ["fe80::2", "127.0.0.1"], ["fe80::2", "127.0.0.1"]),
    ],
)
async def test_ipv6_loopback_is_skipped_if_unavailable(
    ipv6: bool, results: list[str], usable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object) -> list[dict[str, Any]]:
        return _addresses(*results)

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(socket, "socket", _AnyIPv6 if ipv6 else _NoIPv6)
    assert _addresses(*usable) == await aiohttp_connections.LoopbackResolver().resolve("localhost", 80)


async def test_only_usable_addresses_are_connected_to(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object) -> list[dict[str, Any]]:
        flags = {"hostname": "localhost", "port": 80, "proto": 0, "flags": 0}
        return [
            {"host": "::1", "family": socket.AF_INET6, **flags},
            {"host": "127.0.0.1", "family": socket.AF_INET, **flags},
        ]

    addresses: list[str] = []

    async def connect(*, addr_infos: list[Any], **_: object) -> None:
        addresses.extend(info[4][0] for info in addr_infos)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(socket, "socket", _NoIPv6)
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connect)
    with pytest.raises(APIConnectionError):
        await send(transport, "http://localhost")
    assert ["127.0.0.1"] == addresses
