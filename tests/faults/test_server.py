"""The fault server over raw sockets: the order of scripts, the records, invalid requests, and a clean stop."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import os
import random
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import ctxbackends
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._fault_server.catalogue import STREAMS
from ctxbackends.testing._fault_server.parser import MAX_BODY, MAX_HEAD, InvalidRequest, RequestParser
from ctxbackends.testing.faults import Do, Fault, ResponseBuilder, Step

CHAT = "/v1/chat/completions"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}
CHAT_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def request(path: str = CHAT, body: bytes = CHAT_BODY, method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client:
    """A raw connection to the server. It blocks, so the server runs in a thread."""

    def __init__(self, server: FaultServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            data = self._socket.recv(65536)
            assert data, f"closed after {self._buffer!r}"
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def read_response(self) -> tuple[int, bytes]:
        """The status and the body of a response with a Content-Length."""
        first, *lines = self.read_until(b"\r\n\r\n").split(b"\r\n")
        size = next(int(header[16:]) for header in lines if header.startswith(b"content-length: "))
        while len(self._buffer) < size:
            self._buffer += self._socket.recv(65536)
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return int(first.split()[1]), body

    def read_to_end(self) -> bytes:
        """Everything until the server closes."""
        while data := self._socket.recv(65536):
            self._buffer += data
        return self._buffer


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as fault_server:
        yield fault_server


@pytest.fixture
def client(server: FaultServer) -> Iterator[Client]:
    with closing(Client(server)) as connection:
        yield connection


def ask(client: Client, *args: Any, **kwargs: Any) -> int:
    client.send(request(*args, **kwargs))
    return client.read_response()[0]


def probe(client: Client) -> int:
    return ask(client, "/v1/models", b"", "GET")


def script_with_name(name: str) -> Any:
    """A custom script that sends its name."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name.encode())

    return script


# --- the order of scripts -------------------------------------------------------------------------


def test_each_fault_applies_to_one_request(server: FaultServer, client: Client) -> None:
    server.play(faults.rate_limited(), faults.server_error())
    server.play(faults.load_failed())
    assert [429, 500, 500, 200] == [ask(client) for _ in range(4)]


def test_probes_take_no_fault_by_default(server: FaultServer, client: Client) -> None:
    server.play(faults.rate_limited())
    assert [200, 429, 200] == [probe(client), ask(client), probe(client)]
    server.play(faults.rate_limited(), probes=True)
    assert [429, 200] == [probe(client), ask(client)]


def test_queued_scripts_come_before_the_default(server: FaultServer, client: Client) -> None:
    server.play_always(faults.server_error())
    server.play(faults.rate_limited())
    assert [429, 500, 500, 200] == [ask(client), ask(client), ask(client), probe(client)]
    server.play_always(faults.busy(), probes=True)
    assert [503, 503] == [ask(client), probe(client)]
    server.play(faults.rate_limited())
    server.clear()
    assert [200, 200] == [ask(client), probe(client)]


def test_a_fault_with_a_duration_applies_to_all_requests_until_it_ends(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("ctxbackends.testing._fault_server.server.time", Mock(monotonic=lambda: now[0]))
    server.play(faults.swap_proxy(seconds=10.0), faults.rate_limited())
    with closing(Client(server)) as client:
        statuses = [ask(client)]
        now[0] = 109.9
        statuses.append(ask(client))
        now[0] = 110.0
        statuses += [ask(client), ask(client)]
    assert [502, 502, 429, 200] == statuses


@pytest.mark.parametrize("name", ["pings_only", "interleaved_tool_calls", "plain_response"])
def test_a_fault_that_does_not_apply_returns_400(server: FaultServer, client: Client, name: str) -> None:
    server.play(faults.CATALOGUE[name])
    client.send(request("/api/chat", json.dumps({"stream": False}).encode()))
    status, body = client.read_response()
    assert 400 == status
    message = f"FaultServer: {name} does not apply to this request: plain in ollama"
    assert message == json.loads(body)["error"]["message"]


def test_a_custom_script(server: FaultServer, client: Client) -> None:
    resume = asyncio.Event()

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        yield response.body[:10]
        yield resume
        yield 0.0
        yield response.body[10:]

    server.play(script)
    client.send(request())
    client.read_until(b"\r\n\r\n")
    server.call(resume.set)
    client.send(request())
    client.read_until(b"HTTP/1.1 200 OK")
    assert 2 == len(server.requests)


def test_stop_raises_the_errors_of_scripts(client: Client) -> None:
    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield b"HTTP/1.1 200 OK\r\n"
        raise ValueError("a mistake of the test")

    def wrong(_: ResponseBuilder) -> Any:
        yield "text"

    with pytest.raises(ExceptionGroup) as exc_info, FaultServer() as server:
        server.play(script, wrong)
        for _ in range(2):
            with closing(Client(server)) as other, pytest.raises(ConnectionResetError):
                other.send(request())
                other.read_to_end()
    first, second = exc_info.value.exceptions
    assert "a mistake of the test" == str(first)
    assert str(second).startswith("unknown step in a script: 'text';")


# --- a server that does not listen ----------------------------------------------------------------


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_listening(port: int) -> None:
    while refuses(port):
        pass


def test_refuse_closes_connections_and_keeps_the_port(server: FaultServer, client: Client) -> None:
    port = server.port
    assert 200 == ask(client)
    server.play(faults.refuse(0.2))
    assert b"" == client.read_to_end()
    assert refuses(port)
    assert "server" == server.connections[0].closed_by
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    wait_until_listening(port)
    with closing(Client(server)) as second_client:
        assert 200 == ask(second_client)
    assert port == server.port


def test_refuse_waits_for_the_response_before_it(server: FaultServer, client: Client) -> None:
    server.play(faults.rate_limited(), faults.refuse(0.2), faults.server_error())
    assert 429 == ask(client)
    assert b"" == client.read_to_end()
    wait_until_listening(server.port)
    with closing(Client(server)) as second_client:
        assert [500, 200] == [ask(second_client), ask(second_client)]


def test_two_downtimes_in_a_row(server: FaultServer) -> None:
    server.play(faults.refuse(0.1), faults.refuse(0.1), faults.rate_limited())
    assert refuses(server.port)
    wait_until_listening(server.port)
    with closing(Client(server)) as client:
        assert 429 == ask(client)


def test_a_request_that_starts_a_downtime_is_closed(server: FaultServer, client: Client) -> None:
    server.play(faults.no_response(), faults.refuse(0.1))
    client.send(request())
    with closing(Client(server)) as other:
        other.send(request())
        assert b"" == other.read_to_end()
    assert b"" == client.read_to_end()
    wait_until_listening(server.port)


def test_refuse_cannot_be_played_always(server: FaultServer) -> None:
    with pytest.raises(ValueError, match="cannot be played always"):
        server.play_always(faults.refuse())


# --- parsing requests -----------------------------------------------------------------------------


def test_a_chunked_body(server: FaultServer, client: Client) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n".encode()
    client.send(head + b"5;x=y\r\n" + CHAT_BODY[:5] + b"\r\n")
    client.send(b"%x\r\n%s\r\n0\r\nx-trailer: y\r\n\r\n" % (len(CHAT_BODY) - 5, CHAT_BODY[5:]))
    client.send(request(body=b"{}"))
    assert [200, 200] == [client.read_response()[0], client.read_response()[0]]
    assert [CHAT_BODY, b"{}"] == [response.body for response in server.requests]


def test_pipelined_requests(server: FaultServer, client: Client) -> None:
    server.play(script_with_name("one"), script_with_name("two"), script_with_name("three"))
    client.send(request() * 3)
    assert [b"one", b"two", b"three"] == [client.read_response()[1] for _ in range(3)]
    assert [3] == [connection.requests for connection in server.connections]


def test_a_head_byte_by_byte(server: FaultServer, client: Client) -> None:
    for byte in request():
        client.send(bytes([byte]))
    assert 200 == client.read_response()[0]


def test_head_has_no_body(server: FaultServer, client: Client) -> None:
    server.play(faults.rate_limited(), faults.informational_responses(), probes=True)
    statuses = []
    for _ in range(2):
        client.send(request("/v1/models", b"", "HEAD"))
        statuses.append(client.read_until(b"\r\n\r\n").split(b" ")[1])
    client.read_until(b"\r\n\r\n")  # 103
    statuses.append(client.read_until(b"\r\n\r\n").split(b" ")[1])
    assert [b"429", b"100", b"200"] == statuses
    assert 200 == ask(client)  # no bytes of the earlier responses are left


def test_connection_close(server: FaultServer, client: Client) -> None:
    client.send(request(connection="close"))
    assert client.read_to_end().endswith(b"}")
    assert "server" == server.connections[0].closed_by


def test_an_unknown_route(client: Client) -> None:
    assert [404, 404] == [ask(client, "/v1/other"), ask(client, "/v1/models", b"", "DELETE")]


INVALID_REQUESTS = {
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00", 400),
    "lines without returns": (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    "no version": (b"GET /\r\n", 400),
    "an extra space": (b"GET  / HTTP/1.1\r\n", 400),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a header without a colon": (b"GET / HTTP/1.1\r\nhost\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nhost: x\r\n y\r\n\r\n", 400),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nhost: \x00\r\n\r\n", 400),
    "an invalid length": (b"POST / HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n", 400),
    "a negative length": (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
    "a length in non-ASCII digits": (b"POST / HTTP/1.1\r\ncontent-length: \xb2\r\n\r\n", 400),
    "a body too large": (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
    "length and chunks": (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "an unsupported encoding": (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 501),
    "an invalid chunk size": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\n", 400),
    "a chunk too large": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffff\r\n", 413),
    "a chunk longer than its size": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
    "an endless head": (b"GET / HTTP/1.1\r\nx: " + b"x" * (MAX_HEAD - 19), 431),
    "an endless chunk line": (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * MAX_HEAD,
        400,
    ),
    "endless trailers": (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x" * (MAX_HEAD - 3),
        400,
    ),
}


@pytest.mark.parametrize("name", INVALID_REQUESTS)
def test_an_invalid_request(server: FaultServer, client: Client, name: str) -> None:
    data, status = INVALID_REQUESTS[name]
    server.play(faults.rate_limited())
    client.send(data)
    response = client.read_to_end()
    assert b"%d" % status == response.split(b" ")[1]
    assert b"FaultServer: " in response
    assert ([], "server") == (server.requests, server.connections[0].closed_by)
    with closing(Client(server)) as other:
        assert 429 == ask(other)  # the fault is still queued


def test_random_bytes(server: FaultServer) -> None:
    chance = random.Random(7)  # noqa: S311  # reproducible
    data = request() + request("/api/tags", b"", "GET")
    for _ in range(200):
        noise = bytearray(data)
        for _ in range(chance.randint(1, 5)):
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        with closing(Client(server)) as client:
            client.send(bytes(noise[: chance.randint(1, len(noise))]))
    server.wait_idle_sync()
    with closing(Client(server)) as client:
        assert 200 == ask(client)


def test_requests_split_at_any_byte() -> None:
    data = request(body=b"") + request("/a", b"xyz") + b"\r\n" + request("/b", b"", "GET")
    for size in (1, 2, 3, 7, len(data)):
        parser, requests_ = RequestParser(), []
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size])
            while (request_ := parser.next_request()) is not None:
                requests_.append((request_.method, request_.path, request_.body))
        assert [("POST", CHAT, b""), ("POST", "/a", b"xyz"), ("GET", "/b", b"")] == requests_
        assert 0 == parser.pending


def test_chunks_have_a_total_limit() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    mebibyte = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range(MAX_BODY >> 20):
        parser.feed(mebibyte)
        assert parser.next_request() is None
    parser.feed(b"1\r\n")
    with pytest.raises(InvalidRequest, match="larger than"):
        parser.next_request()


# --- records --------------------------------------------------------------------------------------


def test_records(server: FaultServer) -> None:
    with closing(Client(server)) as client:
        assert [200, 200] == [probe(client), ask(client, X_Name="value")]
        assert 1 == server.open_connections
    server.wait_idle_sync()
    first, second = server.requests
    assert [second] == server.generations
    assert ("GET", "/v1/models", None) == (first.method, first.path, first.json)
    assert ("value", "m") == (second.headers["x_name"], second.json["model"])
    assert first.received_at <= second.received_at
    (connection,) = server.connections
    assert connection is first.connection is second.connection
    assert connection.closed_at is not None
    assert connection.opened_at <= first.received_at <= second.received_at <= connection.closed_at
    assert (0, 2, "client") == (connection.number, connection.requests, connection.closed_by)
    assert 0 == server.open_connections


def test_closed_by_is_the_first_side_to_close(server: FaultServer, client: Client) -> None:
    server.play(faults.close_after_response())
    assert 200 == ask(client)
    assert b"" == client.read_to_end()
    client.close()
    server.wait_idle_sync()
    assert ["server"] == [connection.closed_by for connection in server.connections]


def test_close_on_reuse(server: FaultServer, client: Client) -> None:
    server.play(faults.close_on_reuse())
    assert 200 == ask(client)
    client.send(request())
    with pytest.raises(ConnectionResetError):
        client.read_to_end()
    assert 1 == len(server.requests)


def test_wait_idle_sync_times_out(server: FaultServer, client: Client) -> None:
    assert 200 == ask(client)
    with pytest.raises(TimeoutError, match="1 connections are still open"):
        server.wait_idle_sync(0.01)


# --- event loops and threads ----------------------------------------------------------------------


async def send_request(server: FaultServer) -> bytes:
    """Send a request from the event loop of the test, and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(connection="close"))
    response = await reader.read()
    writer.close()
    await writer.wait_closed()
    return response


async def test_on_the_event_loop_of_the_test() -> None:
    async with FaultServer() as server:
        server.play(faults.rate_limited())
        assert (await send_request(server)).startswith(b"HTTP/1.1 429 ")
        await server.wait_idle()
        with pytest.raises(RuntimeError, match="would block"):
            server.wait_idle_sync()
        with pytest.raises(RuntimeError, match="already running"):
            await server.start()
    await server.wait_idle()
    server.wait_idle_sync()


async def test_in_a_thread_with_an_async_test(fault_server: FaultServer) -> None:
    fault_server.play(faults.rate_limited())
    assert (await send_request(fault_server)).startswith(b"HTTP/1.1 429 ")
    await fault_server.wait_idle()
    assert 0 == fault_server.open_connections


def test_in_a_thread_with_a_blocking_client(fault_server: FaultServer) -> None:
    fault_server.play(faults.model_not_found())
    http_request = urllib.request.Request(fault_server.url + CHAT, CHAT_BODY)  # noqa: S310  # the loopback address of the server
    with pytest.raises(urllib.error.HTTPError) as exc_info:
        urllib.request.urlopen(http_request)  # noqa: S310  # as above
    with exc_info.value:
        assert 404 == exc_info.value.code
    with urllib.request.urlopen(http_request) as response:  # noqa: S310  # as above
        assert "Hello, world." == json.loads(response.read())["choices"][0]["message"]["content"]
    fault_server.wait_idle_sync()


def test_several_event_loops_in_a_row() -> None:
    server = FaultServer(pieces=("a", "b"), model="other")

    async def once() -> bytes:
        async with server:
            return await send_request(server)

    assert [b'"content":"ab"' in asyncio.run(once()) for _ in range(3)] == [True] * 3
    assert 3 == len(server.requests)
    with server:
        assert b'"model":"other"' in asyncio.run(send_request(server))


def test_play_from_many_threads(server: FaultServer) -> None:
    def play() -> None:
        for _ in range(50):
            server.play(faults.rate_limited())

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    with closing(Client(server)) as client:
        for thread in threads:
            thread.join()
        assert [429] * 200 + [200] == [ask(client) for _ in range(201)]


ENDLESS = ("no_response", "stall", "giant_error", "giant_line", "endless_stream", "slow_headers", "close_in_chunk")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ENDLESS)
def test_stop_while_scripts_run_leaves_nothing(name: str) -> None:
    threads = threading.active_count()
    body = json.dumps({"stream": True}).encode()
    with FaultServer() as server:
        server.play_always(faults.CATALOGUE[name])
        lines = [Client(server) for _ in range(3)]
        for client in lines:
            client.send(request(body=body))  # nothing reads, so the buffers fill up
        while len(server.requests) < 3:
            pass
    assert (0, threads) == (server.open_connections, threading.active_count())
    assert refuses(server.port)
    for client in lines:
        client.close()
    gc.collect()


async def test_stop_on_the_event_loop_of_the_test_leaves_no_task() -> None:
    tasks = asyncio.all_tasks()
    event = asyncio.Event()
    async with FaultServer() as server:
        server.play_always(lambda _: (event,))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request())
        while not server.requests:
            await asyncio.sleep(0)
        assert tasks < asyncio.all_tasks()
    assert tasks == asyncio.all_tasks()
    assert b"" == await reader.read()
    writer.close()


def test_stop_during_a_downtime() -> None:
    with FaultServer() as server:
        server.play(faults.refuse(60))
    assert refuses(server.port)


def test_a_fast_reader_does_not_block_the_server(server: FaultServer, client: Client) -> None:
    def script(_: ResponseBuilder) -> Iterator[Step]:
        while True:
            yield b"x" * 1000

    server.play(script)
    client.send(request())
    is_done = threading.Event()

    def read() -> None:
        client.read_to_end()
        is_done.set()

    reading = threading.Thread(target=read)
    reading.start()
    with closing(Client(server)) as other:
        assert 200 == ask(other)
    server.play(faults.refuse(0.05))
    reading.join(10)
    assert is_done.is_set()


def test_a_custom_fault_has_a_name_and_kinds(server: FaultServer, client: Client) -> None:
    server.play(Fault("mine", lambda _: (Do.CLOSE,), kinds=STREAMS))
    client.send(request())
    assert b"mine does not apply" in client.read_response()[1]


def test_it_needs_no_extra() -> None:
    code = "import sys; from ctxbackends.testing import FaultServer, faults; print(sorted(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert set() == {"aiohttp", "gguf", "numpy", "pytest"} & set(ast.literal_eval(process.stdout))
