"""The server of faults itself, spoken to over sockets of its own: what it plays and in which order, what it keeps of
requests and connections, how it reads what is no request, and that nothing of it is left."""

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
from ctxbackends.testing.faults import Answer, Do, Fault, Step
from ctxbackends.testing.faults.catalogue import STREAMS
from ctxbackends.testing.faults.reading import BODY_MOST, HEAD_MOST, NotARequest, RequestReader

CHAT = "/v1/chat/completions"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}
ASKED = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def request(path: str = CHAT, body: bytes = ASKED, method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Line:
    """One connection to the server, on which anything is sent. Blocks, so the server runs in a thread."""

    def __init__(self, server: FaultServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self._received = b""

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            data = self._socket.recv(65536)
            assert data, f"it was closed after {self._received!r}"
            self._received += data
        found, _, self._received = self._received.partition(mark)
        return found

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of an answer that says its length."""
        first, *lines = self.until(b"\r\n\r\n").split(b"\r\n")
        size = next(int(line[16:]) for line in lines if line.startswith(b"content-length: "))
        while len(self._received) < size:
            self._received += self._socket.recv(65536)
        body, self._received = self._received[:size], self._received[size:]
        return int(first.split()[1]), body

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        while data := self._socket.recv(65536):
            self._received += data
        return self._received


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def line(server: FaultServer) -> Iterator[Line]:
    with closing(Line(server)) as opened:
        yield opened


def ask(line: Line, *args: Any, **kwargs: Any) -> int:
    line.send(request(*args, **kwargs))
    return line.answer()[0]


def look(line: Line) -> int:
    return ask(line, "/v1/models", b"", "GET")


def own(name: str) -> Any:
    """A script of a test's own, which says its name."""

    def script(_: Answer) -> Iterator[Step]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name.encode())

    return script


# --- what it plays, and in which order ------------------------------------------------------------


def test_each_fault_is_for_one_request(server: FaultServer, line: Line) -> None:
    server.play(faults.rate_limited(), faults.server_error())
    server.play(faults.load_failed())
    assert [429, 500, 500, 200] == [ask(line) for _ in range(4)]


def test_looks_take_nothing_unless_they_are_told_to(server: FaultServer, line: Line) -> None:
    server.play(faults.rate_limited())
    assert [200, 429, 200] == [look(line), ask(line), look(line)]
    server.play(faults.rate_limited(), looks=True)
    assert [429, 200] == [look(line), ask(line)]


def test_what_is_always_done_comes_after_what_was_queued(server: FaultServer, line: Line) -> None:
    server.always(faults.server_error())
    server.play(faults.rate_limited())
    assert [429, 500, 500, 200] == [ask(line), ask(line), ask(line), look(line)]
    server.always(faults.busy(), looks=True)
    assert [503, 503] == [ask(line), look(line)]
    server.play(faults.rate_limited())
    server.forget()
    assert [200, 200] == [ask(line), look(line)]


def test_a_fault_with_a_time_is_for_all_requests_until_it_has_passed(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("ctxbackends.testing.faults.server.time", Mock(monotonic=lambda: now[0]))
    server.play(faults.swap_proxy(seconds=10.0), faults.rate_limited())
    with closing(Line(server)) as line:
        seen = [ask(line)]
        now[0] = 109.9
        seen.append(ask(line))
        now[0] = 110.0
        seen += [ask(line), ask(line)]
    assert [502, 502, 429, 200] == seen


@pytest.mark.parametrize("name", ["pings_only", "interleaved_tool_calls", "no_stream"])
def test_a_fault_that_cannot_happen_says_so(server: FaultServer, line: Line, name: str) -> None:
    server.play(faults.CATALOGUE[name])
    line.send(request("/api/chat", json.dumps({"stream": False}).encode()))
    status, body = line.answer()
    assert 400 == status
    said = f"FaultServer: {name} can not happen to this request, plain in ollama"
    assert said == json.loads(body)["error"]["message"]


def test_a_script_of_ones_own(server: FaultServer, line: Line) -> None:
    released = asyncio.Event()

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        yield answer.body[:10]
        yield released
        yield 0.0
        yield answer.body[10:]

    server.play(script)
    line.send(request())
    line.until(b"\r\n\r\n")
    server.call(released.set)
    line.send(request())
    line.until(b"HTTP/1.1 200 OK")
    assert 2 == len(server.requests)


def test_a_script_that_fails_is_heard_of(line: Line) -> None:
    def script(_: Answer) -> Iterator[Step]:
        yield b"HTTP/1.1 200 OK\r\n"
        raise ValueError("a mistake of the test")

    def wrong(_: Answer) -> Any:
        yield "text"

    with pytest.raises(ExceptionGroup) as caught, FaultServer() as server:
        server.play(script, wrong)
        for _ in range(2):
            with closing(Line(server)) as line, pytest.raises(ConnectionResetError):
                line.send(request())
                line.rest()
    first, second = caught.value.exceptions
    assert ("a mistake of the test", "a script has no step 'text'") == (str(first), str(second))


# --- that nothing listens -------------------------------------------------------------------------


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_it_listens(port: int) -> None:
    while refused(port):
        pass


def test_refuse_ends_connections_keeps_the_port_and_listens_again(server: FaultServer, line: Line) -> None:
    port = server.port
    assert 200 == ask(line)
    server.play(faults.refuse(0.2))
    assert b"" == line.rest()
    assert refused(port)
    assert "server" == server.connections[0].closed_by
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    wait_until_it_listens(port)
    with closing(Line(server)) as again:
        assert 200 == ask(again)
    assert port == server.port


def test_refuse_comes_in_its_turn_and_lets_the_answer_before_it_arrive(server: FaultServer, line: Line) -> None:
    server.play(faults.rate_limited(), faults.refuse(0.2), faults.server_error())
    assert 429 == ask(line)
    assert b"" == line.rest()
    wait_until_it_listens(server.port)
    with closing(Line(server)) as again:
        assert [500, 200] == [ask(again), ask(again)]


def test_two_refusals_one_after_the_other(server: FaultServer) -> None:
    server.play(faults.refuse(0.1), faults.refuse(0.1), faults.rate_limited())
    assert refused(server.port)
    wait_until_it_listens(server.port)
    with closing(Line(server)) as line:
        assert 429 == ask(line)


def test_a_request_whose_turn_it_is_to_be_refused_is_closed_on(server: FaultServer, line: Line) -> None:
    server.play(faults.silent(), faults.refuse(0.1))
    line.send(request())
    with closing(Line(server)) as other:
        other.send(request())
        assert b"" == other.rest()
    assert b"" == line.rest()
    wait_until_it_listens(server.port)


def test_refuse_is_not_for_always(server: FaultServer) -> None:
    with pytest.raises(ValueError, match="is for play"):
        server.always(faults.refuse())


# --- how requests are read ------------------------------------------------------------------------


def test_a_body_in_chunks(server: FaultServer, line: Line) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n".encode()
    line.send(head + b"5;x=y\r\n" + ASKED[:5] + b"\r\n")
    line.send(b"%x\r\n%s\r\n0\r\nx-trailer: y\r\n\r\n" % (len(ASKED) - 5, ASKED[5:]))
    line.send(request(body=b"{}"))
    assert [200, 200] == [line.answer()[0], line.answer()[0]]
    assert [ASKED, b"{}"] == [received.body for received in server.requests]


def test_requests_that_do_not_wait_for_the_answer(server: FaultServer, line: Line) -> None:
    server.play(own("one"), own("two"), own("three"))
    line.send(request() * 3)
    assert [b"one", b"two", b"three"] == [line.answer()[1] for _ in range(3)]
    assert [3] == [connection.requests for connection in server.connections]


def test_a_head_that_comes_byte_by_byte(server: FaultServer, line: Line) -> None:
    for byte in request():
        line.send(bytes([byte]))
    assert 200 == line.answer()[0]


def test_head_has_no_body(server: FaultServer, line: Line) -> None:
    server.play(faults.rate_limited(), faults.early_headers(), looks=True)
    statuses = []
    for _ in range(2):
        line.send(request("/v1/models", b"", "HEAD"))
        statuses.append(line.until(b"\r\n\r\n").split(b" ")[1])
    line.until(b"\r\n\r\n")  # 103
    statuses.append(line.until(b"\r\n\r\n").split(b" ")[1])
    assert [b"429", b"100", b"200"] == statuses
    assert 200 == ask(line)  # and nothing is left of what was asked before


def test_who_asks_to_close_is_closed_on(server: FaultServer, line: Line) -> None:
    line.send(request(connection="close"))
    assert line.rest().endswith(b"}")
    assert "server" == server.connections[0].closed_by


def test_a_route_that_no_model_server_has(line: Line) -> None:
    assert [404, 404] == [ask(line, "/v1/other"), ask(line, "/v1/models", b"", "DELETE")]


NO_REQUESTS = {
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00", 400),
    "lines without returns": (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    "no version": (b"GET /\r\n", 400),
    "a space too many": (b"GET  / HTTP/1.1\r\n", 400),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no colon": (b"GET / HTTP/1.1\r\nhost\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nhost: x\r\n y\r\n\r\n", 400),
    "a header with NUL": (b"GET / HTTP/1.1\r\nhost: \x00\r\n\r\n", 400),
    "a length that is none": (b"POST / HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n", 400),
    "a negative length": (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
    "a length in other digits": (b"POST / HTTP/1.1\r\ncontent-length: \xb2\r\n\r\n", 400),
    "a body too large": (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (BODY_MOST + 1), 413),
    "length and chunks": (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "another coding": (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 501),
    "a size that is none": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\n", 400),
    "a chunk too large": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffff\r\n", 413),
    "a chunk longer than its size": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
    "a head without an end": (b"GET / HTTP/1.1\r\nx: " + b"x" * (HEAD_MOST - 19), 431),
    "a chunk line without an end": (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * HEAD_MOST,
        400,
    ),
    "trailers without an end": (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x" * (HEAD_MOST - 3),
        400,
    ),
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request(server: FaultServer, line: Line, name: str) -> None:
    sent, status = NO_REQUESTS[name]
    server.play(faults.rate_limited())
    line.send(sent)
    answered = line.rest()
    assert b"%d" % status == answered.split(b" ")[1]
    assert b"FaultServer: " in answered
    assert ([], "server") == (server.requests, server.connections[0].closed_by)
    with closing(Line(server)) as other:
        assert 429 == ask(other)  # the next client finds the server as it was told


def test_noise_ends_nothing(server: FaultServer) -> None:
    chance = random.Random(7)  # noqa: S311  # the same noise each time
    whole = request() + request("/api/tags", b"", "GET")
    for _ in range(200):
        noise = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        with closing(Line(server)) as line:
            line.send(bytes(noise[: chance.randint(1, len(noise))]))
    server.wait_idle()
    with closing(Line(server)) as line:
        assert 200 == ask(line)


def test_requests_are_read_however_they_are_cut() -> None:
    whole = request(body=b"") + request("/a", b"xyz") + b"\r\n" + request("/b", b"", "GET")
    for size in (1, 2, 3, 7, len(whole)):
        reader, taken = RequestReader(), []
        for start in range(0, len(whole), size):
            reader.feed(whole[start : start + size])
            while (one := reader.take()) is not None:
                taken.append((one.method, one.path, one.body))
        assert [("POST", CHAT, b""), ("POST", "/a", b"xyz"), ("GET", "/b", b"")] == taken
        assert 0 == reader.waiting


def test_chunks_have_a_bound_together() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    mebibyte = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range(BODY_MOST >> 20):
        reader.feed(mebibyte)
        assert reader.take() is None
    reader.feed(b"1\r\n")
    with pytest.raises(NotARequest, match="larger than"):
        reader.take()


# --- what it keeps --------------------------------------------------------------------------------


def test_records(server: FaultServer) -> None:
    with closing(Line(server)) as line:
        assert [200, 200] == [look(line), ask(line, X_Name="value")]
        assert 1 == server.open_connections
    server.wait_idle()
    first, second = server.requests
    assert [second] == server.generations
    assert ("GET", "/v1/models", None) == (first.method, first.path, first.json)
    assert ("value", "m") == (second.headers["x_name"], second.json["model"])
    assert first.at <= second.at
    (connection,) = server.connections
    assert connection is first.connection is second.connection
    assert connection.closed_at is not None
    assert connection.opened_at <= first.at <= second.at <= connection.closed_at
    assert (0, 2, "client") == (connection.number, connection.requests, connection.closed_by)
    assert 0 == server.open_connections


def test_the_first_to_close_is_the_one_who_did(server: FaultServer, line: Line) -> None:
    server.play(faults.close_after_answer())
    assert 200 == ask(line)
    assert b"" == line.rest()
    line.close()
    server.wait_idle()
    assert ["server"] == [connection.closed_by for connection in server.connections]


def test_close_on_reuse(server: FaultServer, line: Line) -> None:
    server.play(faults.close_on_reuse())
    assert 200 == ask(line)
    line.send(request())
    with pytest.raises(ConnectionResetError):
        line.rest()
    assert 1 == len(server.requests)


def test_waiting_has_an_end(server: FaultServer, line: Line) -> None:
    assert 200 == ask(line)
    with pytest.raises(TimeoutError, match="1 connections are still open"):
        server.wait_idle(0.01)


# --- where it runs --------------------------------------------------------------------------------


async def spoken(server: FaultServer) -> bytes:
    """One request from the event loop of the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(connection="close"))
    answered = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answered


async def test_on_the_event_loop_of_the_test() -> None:
    async with FaultServer() as server:
        server.play(faults.rate_limited())
        assert (await spoken(server)).startswith(b"HTTP/1.1 429 ")
        await server.idle()
        with pytest.raises(RuntimeError, match="would block"):
            server.wait_idle()
        with pytest.raises(RuntimeError, match="started already"):
            await server.start()
    await server.idle()
    server.wait_idle()


async def test_in_a_thread_with_a_test_that_is_async(fault_server: FaultServer) -> None:
    fault_server.play(faults.rate_limited())
    assert (await spoken(fault_server)).startswith(b"HTTP/1.1 429 ")
    await fault_server.idle()
    assert 0 == fault_server.open_connections


def test_in_a_thread_with_a_client_that_blocks(fault_server: FaultServer) -> None:
    fault_server.play(faults.model_missing())
    asked = urllib.request.Request(fault_server.url + CHAT, ASKED)  # noqa: S310  # its own address
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)  # noqa: S310  # as above
    with caught.value:
        assert 404 == caught.value.code
    with urllib.request.urlopen(asked) as answered:  # noqa: S310  # as above
        assert "Hello, world." == json.loads(answered.read())["choices"][0]["message"]["content"]
    fault_server.wait_idle()


def test_several_event_loops_one_after_another() -> None:
    server = FaultServer(pieces=("a", "b"), model="other")

    async def once() -> bytes:
        async with server:
            return await spoken(server)

    assert [b'"content":"ab"' in asyncio.run(once()) for _ in range(3)] == [True] * 3
    assert 3 == len(server.requests)
    with server:
        assert b'"model":"other"' in asyncio.run(spoken(server))


def test_it_is_told_from_many_threads(server: FaultServer) -> None:
    def tell() -> None:
        for _ in range(50):
            server.play(faults.rate_limited())

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    with closing(Line(server)) as line:
        for thread in threads:
            thread.join()
        assert [429] * 200 + [200] == [ask(line) for _ in range(201)]


STOPPED = ("silent", "stall", "giant_error", "giant_line", "endless_stream", "slow_headers", "close_in_chunk")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", STOPPED)
def test_stopping_while_it_plays_leaves_nothing(name: str) -> None:
    threads = threading.active_count()
    body = json.dumps({"stream": True}).encode()
    with FaultServer() as server:
        server.always(faults.CATALOGUE[name])
        lines = [Line(server) for _ in range(3)]
        for line in lines:
            line.send(request(body=body))  # and nobody reads: what it writes stays where it is
        while len(server.requests) < 3:
            pass
    assert (0, threads) == (server.open_connections, threading.active_count())
    assert refused(server.port)
    for line in lines:
        line.close()
    gc.collect()


async def test_stopping_on_the_event_loop_of_the_test_leaves_no_task() -> None:
    tasks = asyncio.all_tasks()
    waits = asyncio.Event()
    async with FaultServer() as server:
        server.always(lambda _: (waits,))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request())
        while not server.requests:
            await asyncio.sleep(0)
        assert tasks < asyncio.all_tasks()
    assert tasks == asyncio.all_tasks()
    assert b"" == await reader.read()
    writer.close()


def test_stopping_while_nothing_listens() -> None:
    with FaultServer() as server:
        server.play(faults.refuse(60))
    assert refused(server.port)


def test_a_client_that_reads_as_fast_as_the_server_writes_does_not_keep_it(server: FaultServer, line: Line) -> None:
    def script(_: Answer) -> Iterator[Step]:
        while True:
            yield b"x" * 1000

    server.play(script)
    line.send(request())
    ended = threading.Event()

    def read() -> None:
        line.rest()
        ended.set()

    reading = threading.Thread(target=read)
    reading.start()
    with closing(Line(server)) as other:
        assert 200 == ask(other)
    server.play(faults.refuse(0.05))
    reading.join(10)
    assert ended.is_set()


def test_a_fault_of_ones_own_has_a_name_and_kinds(server: FaultServer, line: Line) -> None:
    server.play(Fault("mine", lambda _: (Do.CLOSE,), kinds=STREAMS))
    line.send(request())
    assert b"mine can not happen" in line.answer()[1]


def test_it_needs_no_extra() -> None:
    asked = "import sys; from ctxbackends.testing import FaultServer, faults; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert set() == {"aiohttp", "gguf", "numpy", "pytest"} & set(ast.literal_eval(done.stdout))
