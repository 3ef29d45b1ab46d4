"""What this machine tells of a server that starts: real sockets and real processes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from ctxbackends import APIConnectionError, Loading, open_backend, retry, signs
from ctxbackends.signs import Signs, Watch
from tests.conftest import answer

linux = pytest.mark.skipif(sys.platform != "linux", reason="the signs are Linux's")
LONG = 30.0
"""Seconds that no wait for a sign takes, however busy the machine is; and nothing but a sign ends it."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks every 5 ms, so that what is not to happen has had many chances soon."""
    monkeypatch.setattr(signs, "EVERY", 0.005)


def bound(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    return made


def watching(port: int, host: str = "127.0.0.1", **started: Any) -> Watch:
    watch = Signs(f"http://{host}:{port}", SimpleNamespace(**started) if started else None).watch()
    assert watch is not None
    return watch


# --- who listens ----------------------------------------------------------------------------------


@linux
def test_the_kernel_names_the_socket_that_listens() -> None:
    with bound() as server:
        port = server.getsockname()[1]
        assert signs._listener("127.0.0.1", port) is None  # bound, as vLLM is while it loads
        server.listen()
        expected = signs._Listener(os.getuid(), os.fstat(server.fileno()).st_ino)
        assert expected == signs._listener("127.0.0.1", port)
        assert signs._listener("127.0.0.2", port) is None
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            server.close()
            assert signs._listener("127.0.0.1", port) is None, "a connection is no listener"
            assert signs._listener("127.0.0.1", client.getsockname()[1]) is None


@linux
def test_a_socket_of_all_addresses_listens_on_each() -> None:
    with bound("0.0.0.0") as server:  # noqa: S104  # for a moment, and nothing answers
        server.listen()
        assert signs._listener("127.0.0.1", server.getsockname()[1]) is not None


@linux
@pytest.mark.parametrize("only", [0, 1])
def test_a_socket_of_ipv6_may_listen_on_ipv4_too(only: int) -> None:
    try:
        server = socket.socket(socket.AF_INET6)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        server.bind(("::", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    with server:
        server.listen()
        port = server.getsockname()[1]
        assert signs._listener("::1", port) is not None
        assert (not only) is (signs._listener("127.0.0.1", port) is not None)


def test_where_the_kernel_may_not_be_asked_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seccomp profile, gVisor, another system."""

    def refuse(*_: object) -> None:
        raise PermissionError

    with bound() as server:
        server.listen()
        monkeypatch.setattr("ctxbackends.signs.socket.socket", refuse)
        monkeypatch.setattr("ctxbackends.signs.socket.AF_NETLINK", 16, raising=False)
        assert signs._listener("127.0.0.1", server.getsockname()[1]) is None


@pytest.mark.parametrize("said", [b"", b"\0" * 20, b"\0" * 200])
def test_an_answer_that_is_none_is_nobody(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Kernel:
            return self

        def __exit__(self, *_: object) -> None: ...

        def setblocking(self, _: bool) -> None: ...

        def send(self, _: bytes) -> None: ...

        def recv(self, _: int) -> bytes:
            return said

    monkeypatch.setattr("ctxbackends.signs.socket.socket", Kernel)
    monkeypatch.setattr("ctxbackends.signs.socket.AF_NETLINK", 16, raising=False)
    assert signs._listener("127.0.0.1", 1) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", ("127.0.0.1", "::1")),
        ("a.localhost", ("127.0.0.1", "::1")),
        ("127.0.0.1", ("127.0.0.1",)),
        ("127.9.9.9", ("127.9.9.9",)),
        ("0.0.0.0", ("127.0.0.1",)),  # noqa: S104  # nothing is bound
        ("::", ("::1",)),
        ("::1", ("::1",)),
        ("::ffff:127.0.0.1", ("127.0.0.1",)),
        ("192.0.2.1", ()),  # RFC 5737: nobody's
        ("2001:db8::1", ()),  # RFC 3849: nobody's
        ("gpu", ()),
        ("", ()),
    ],
)
def test_which_addresses_are_of_this_machine(host: str, expected: tuple[str, ...]) -> None:
    assert expected == signs._own_addresses(host)


def test_an_own_address_that_is_not_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        own = probe.getsockname()[0]
    assert (own,) == signs._own_addresses(own)


# --- waiting for it -------------------------------------------------------------------------------


@linux
async def test_that_something_begins_to_listen_is_a_sign(quick: None) -> None:
    with bound() as server:
        watch = watching(server.getsockname()[1])
        assert not await watch("refused", 0.05)
        asyncio.get_running_loop().call_later(0.02, server.listen)
        assert await watch("refused", LONG)
        assert not await watch("refused", 0.05), "it is news once"


@linux
async def test_where_processes_cannot_be_listed_there_is_no_sign_and_no_error(
    quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hidden(path: str) -> list[str]:
        raise FileNotFoundError(path)

    with bound() as server:
        server.listen()
        monkeypatch.setattr(os, "listdir", hidden)
        assert not await watching(server.getsockname()[1])("loading", 0.2)
    assert [] == caplog.records


async def test_that_something_listens_is_no_sign_where_it_was_not_refused(quick: None) -> None:
    with bound() as server:
        server.listen()
        assert not await watching(server.getsockname()[1])("silent", 0.05)


@linux
async def test_all_who_wait_are_told(quick: None) -> None:
    """By one timer; and who comes later is told too."""
    with bound() as server:
        shared = Signs(f"http://127.0.0.1:{server.getsockname()[1]}")
        watches = [shared.watch() for _ in range(1000)]
        before = asyncio.all_tasks()
        waits = [asyncio.ensure_future(watch("refused", LONG)) for watch in watches if watch is not None]
        await asyncio.sleep(0)
        timer = shared._timer
        assert timer is not None
        server.listen()
        assert [True] * 1000 == await asyncio.gather(*waits)
        late = shared.watch()
        assert late is not None
        assert await late("refused", LONG)
        assert shared._timer is None
        assert before == asyncio.all_tasks()


async def test_a_wait_that_is_cancelled_ends_at_once_and_leaves_nothing(quick: None) -> None:
    shared = Signs("http://127.0.0.1:9", SimpleNamespace(running=True, loaded=False))
    watch = shared.watch()
    assert watch is not None
    waiting = asyncio.ensure_future(watch("refused", LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (set(), None) == (shared._waiting, shared._timer)


def test_one_event_loop_after_another(quick: None) -> None:
    shared = Signs("http://127.0.0.1:9", SimpleNamespace(running=True, loaded=True))

    async def told() -> bool:
        watch = shared.watch()
        assert watch is not None
        return await watch("loading", LONG)

    assert [True, True] == [asyncio.run(told()) for _ in range(2)]


def test_a_wait_on_a_loop_that_was_left_is_no_harm(quick: None) -> None:
    shared = Signs("http://127.0.0.1:9", started := SimpleNamespace(running=True, loaded=False))
    left = asyncio.new_event_loop()

    async def wait() -> bool:
        watch = shared.watch()
        assert watch is not None
        return await watch("loading", LONG)

    task = left.create_task(wait())
    left.run_until_complete(asyncio.sleep(0.01))
    started.loaded = True
    assert asyncio.run(wait())
    task.cancel()
    with suppress(asyncio.CancelledError):
        left.run_until_complete(task)
    left.close()


async def test_a_machine_that_answers_slowly_is_asked_rarely(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def slow(_: str, __: int) -> None:
        asked.append(None)
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass

    monkeypatch.setattr(signs, "_listener", slow)
    monkeypatch.setattr(signs, "_own_addresses", lambda _: ("127.0.0.1",))
    await watching(9)("refused", 0.5)
    assert len(asked) <= 3  # and not 100


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "https://gpu.example/v1"])
async def test_another_machine_gives_no_signs(url: str) -> None:
    assert Signs(url).watch() is None


async def test_another_system_gives_no_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.signs.sys.platform", "darwin")
    assert Signs("http://127.0.0.1:8000").watch() is None


@pytest.mark.parametrize(
    ("state", "before", "after"),
    [
        ("loading", {"running": True, "loaded": False}, {"loaded": True}),
        ("refused", {"running": True, "loaded": False}, {"running": False}),
        ("loading", {"running": True, "loaded": None}, {"running": False}),
    ],
)
async def test_what_a_process_of_ours_says_is_a_sign(
    state: Any, before: dict[str, Any], after: dict[str, Any], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends.signs.sys.platform", "darwin")  # everywhere
    started = SimpleNamespace(**before)
    watch = Signs("http://127.0.0.1:9", started).watch()
    assert watch is not None
    assert not await watch(state, 0.03)
    vars(started).update(after)
    assert await watch(state, LONG)
    assert not await watch(state, 0.03)


# --- a process of somebody else -------------------------------------------------------------------

PROGRAM = """
import os, socket, sys, threading, time
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen(); print(server.getsockname()[1], flush=True)
def wait():
    sys.stdin.readline(); os._exit(0) if sys.argv[1] == "end" else done.set()
done = threading.Event()
threading.Thread(target=wait, daemon=True).start()
while not done.is_set() and sys.argv[1] != "idle":
    sum(range(10_000))
time.sleep(600)
"""


@contextmanager
def program(does: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that listens, and runs until it gets a line; ``idle``: it sleeps all the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, does], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@linux
@pytest.mark.parametrize("does", ["load", "end"])
async def test_that_a_process_has_nothing_to_do_any_more_is_a_sign(does: str) -> None:
    with program(does) as (process, port):
        watch = watching(port)
        found = asyncio.ensure_future(watch("loading", LONG))
        while (seen := watch._signs._process) is None or seen._pid is None:
            await asyncio.sleep(0.01)
        assert process.pid == seen._pid
        tell(process)
        assert await found
        assert not await watch("loading", 0.3), "it is news once"


@linux
async def test_a_process_that_never_worked_is_one_sign() -> None:
    with program("idle") as (_, port):
        watch = watching(port)
        assert await watch("loading", LONG)
        assert not await watch("loading", 0.3)


@linux
@pytest.mark.parametrize("why", ["ours", "another user's", "nobody"])
async def test_a_process_that_cannot_be_watched_gives_no_sign(
    why: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bound() as server:  # of this very process, which is not watched
        if why != "nobody":
            server.listen()
        if why == "another user's":
            monkeypatch.setattr(signs, "_listener", lambda *_: signs._Listener(os.getuid() + 1, 1))
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1000)
        watch = watching(server.getsockname()[1])
        assert not await watch("loading", 0.1)


@linux
def test_a_process_that_waits_for_a_disk_or_has_too_many_threads_is_not_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    with program("idle") as (process, _):
        while not signs._asleep(process.pid):
            time.sleep(0.01)
        monkeypatch.setattr(signs, "_status", lambda _: ["D", "1"])
        assert not signs._asleep(process.pid)
        monkeypatch.undo()
        monkeypatch.setattr(signs, "_MOST_THREADS", 0)
        assert not signs._asleep(process.pid)
    assert [] == signs._status(f"/proc/{process.pid}/stat")
    assert signs._asleep(process.pid)
    assert [] == signs._files_of(process.pid, os.getuid())


# --- a backend ------------------------------------------------------------------------------------

MODELS = answer(200, b'{"object":"list","data":[{"id":"m"}]}', Connection="close")


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_first_answer_comes_with_the_sign_and_not_with_the_next_look(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_POLL", LONG)  # the rhythm alone
    seen: list[Loading] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(MODELS)
        writer.close()

    with bound() as listener:
        server = await asyncio.start_server(serve, sock=listener, start_serving=False)
        endpoint = f"http://{host}:{listener.getsockname()[1]}"
        async with server, open_backend("vllm", endpoint=endpoint, default_model="m") as backend:
            start = asyncio.get_running_loop().create_task
            began = time.monotonic()

            def listen(look: Loading) -> None:
                seen.append(look)
                starting.append(start(server.start_serving()))

            starting: list[asyncio.Task[None]] = []
            await backend.wait_ready(on_progress=listen)
            assert time.monotonic() - began < LONG
    assert ["refused"] == [look.state for look in seen]


async def test_the_budget_holds_with_signs(refusing_url: str) -> None:
    async with open_backend("llamacpp", endpoint=refusing_url, ready_timeout=0.3) as backend:
        with pytest.raises(APIConnectionError) as caught:
            await backend.wait_ready()
    assert caught.value.waited is not None
    assert 0.3 <= caught.value.waited < LONG
