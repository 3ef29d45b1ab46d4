"""What on this machine tells, without a word to the server, that a look at a server that starts is worth while now:
that something listens on its port, that the process which loads a model has nothing to do any more, or says so itself.
Sends nothing to any server; knows no HTTP and no retries.

A sign is a hint and no more: what is so is what the server answers. So nothing here is an error. Where a sign cannot be
had (another machine, another system, another namespace, another user's process), there is none.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol
from urllib.parse import urlsplit

import attrs

from ctxbackends.network import address_of, is_localhost
from ctxbackends.types import LoadState

EVERY = 0.06
"""Half of it is how late a sign comes in the middle. Each time costs 0.3 ms, nearly all for waking up."""
_SCAN_SECONDS = 0.001
_BUSY_TICKS = 2
"""Of CPU time between two readings: less is what answering a look costs."""
_ALL_THE_TIME = 0.8
"""What part of its time a process runs of which no thread need be looked at: it loads."""
_MOST_THREADS = 256
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 100


class Started(Protocol):
    """A server process that this SDK started."""

    @property
    def running(self) -> bool: ...

    @property
    def loaded(self) -> bool | None:
        """Whether it said that its model is loaded. None where it does not say such things."""
        ...


class Signs:
    """Of one server, for all who wait for it on an event loop: a thousand tasks that wait are told by one timer."""

    def __init__(self, url: str, started: Started | None = None) -> None:
        parts = urlsplit(url)
        self.url = url
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host = parts.hostname or ""
        self._started = started
        self._process: _Process | None = None
        self._waiting: set[Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @functools.cached_property
    def _addresses(self) -> tuple[str, ...]:
        return _own_addresses(self._host) if sys.platform == "linux" else ()

    def watch(self) -> Watch | None:
        """What waits for signs during one cold start, or None where there can be none."""
        if not self._waiting:
            self._process = None  # another one may listen there now
        return Watch(self) if self._addresses or self._started is not None else None

    async def wait(self, watch: Watch, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what waited on another one, that was left without its end, waits no more
            self._loop, self._timer, self._waiting = loop, None, set()
        self._waiting.add(watch)
        if self._timer is None:
            self._timer = loop.call_later(EVERY, self._look, loop)
        try:
            done, _ = await asyncio.wait([watch.told], timeout=seconds)
            return bool(done)
        finally:
            self._waiting.discard(watch)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        began = time.thread_time()
        seen = frozenset(self._seen({watch.state for watch in self._waiting}))
        for watch in self._waiting:
            watch.tell(seen)
        # A machine may have so many processes and threads that it takes long: no more than a hundredth of the time.
        self._timer = loop.call_later(max(EVERY, 100 * (time.thread_time() - began)), self._look, loop)

    def _seen(self, states: Collection[LoadState]) -> Iterator[str]:
        """What holds now."""
        loaded = None
        if self._started is not None:
            loaded = self._started.loaded
            if not self._started.running:
                yield "ended"
            if loaded:
                yield "loaded"
        if "refused" in states and any(_listener(address, self._port) for address in self._addresses):
            yield "listening"
        if "loading" in states and loaded is None and self._addresses:
            if self._process is None:
                self._process = _Process(self._addresses, self._port)
            if self._process.idle():
                yield "idle"


class Watch:
    """What one who waits has been told. A sign is what holds now, and did not when it was last looked."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._known: frozenset[str] = frozenset()
        self.state: LoadState = "refused"
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, state: LoadState, seconds: float) -> bool:
        """Wait as long, or until there is a sign for a look at a server that was last seen in this state: whether there
        was one."""
        self.state = state
        self.told = asyncio.get_running_loop().create_future()
        return await self._signs.wait(self, seconds)

    def tell(self, seen: frozenset[str]) -> None:
        if seen - self._known and not self.told.done():
            self.told.set_result(None)
        self._known = seen


# --- the sockets --------------------------------------------------------------------------------------


def _own_addresses(host: str) -> tuple[str, ...]:
    """The addresses that ``host`` is, where it is this machine. A name but localhost would have to be looked up."""
    if is_localhost(host):
        return ("127.0.0.1", "::1")
    address = address_of(host.partition("%")[0])
    if address is None:
        return ()
    if address.is_unspecified:  # what connects to it comes to loopback, see ip(7)
        return ("127.0.0.1" if address.version == 4 else "::1",)
    return (str(address),) if address.is_loopback or _is_own(address) else ()


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:  # UDP: it takes no port from anybody, and sends nothing
            bound.bind((str(address), 0))
    except OSError:
        return False
    return True


@attrs.frozen
class _Listener:
    uid: int
    inode: int


# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h: struct nlmsghdr, inet_diag_req_v2 with its inet_diag_sockid
# (ports and addresses in the order of the network), and the answer's inet_diag_msg.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBxI")
_NO_COOKIE = b"\xff" * 8
_ANSWER = struct.Struct("=BBBB48xIIIII")


def _listener(address: str, port: int) -> _Listener | None:
    """Who would accept a connection to this address of this machine, as the kernel itself finds it.

    One question about one socket, of some 20 µs. /proc/net/tcp has the same, but goes through the kernel's table of all
    connections, which grows with the machine's memory: 0.4 ms and, for IPv6, 2.6 ms were measured (262,144 places).
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ports = struct.pack(">HH", port, 0)
    asked = ports + socket.inet_pton(family, address).ljust(16, b"\0") + bytes(16) + bytes(4) + _NO_COOKIE
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN) + asked
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.setblocking(False)  # it has answered when the question is sent
            kernel.send(header + query)
            answer = kernel.recv(4096)
    except OSError:
        return None
    if len(answer) < _HEADER.size + _ANSWER.size or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    _, state, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return _Listener(uid, inode) if state == _TCP_LISTEN else None


# --- the process --------------------------------------------------------------------------------------


class _Process:
    """The process that listens there, once it is found: whether it has nothing to do.

    llama-server loads with all of a core, or waits for its disk; from when the model is loaded it does nothing until
    somebody asks. Nothing of that is certain: somebody else may ask, and a model may come over a network.
    """

    def __init__(self, addresses: tuple[str, ...], port: int) -> None:
        self._search: Iterator[int | None] = _owner(addresses, port)
        self._pid: int | None = None
        self._ticks: int | None = None
        self._read_at = 0.0
        self._idle = False

    def idle(self) -> bool:
        """Called every some ten milliseconds. A process that is gone has nothing to do either."""
        if self._pid is None:
            until = time.perf_counter() + _SCAN_SECONDS  # the event loop waits meanwhile
            for self._pid in self._search:  # noqa: B020  # goes on where it was left
                if self._pid is not None or time.perf_counter() > until:
                    break
        if self._pid is None:
            return False
        status = _status(f"/proc/{self._pid}/stat")
        ticks = int(status[11]) + int(status[12]) if status else 0  # utime and stime, see proc(5)
        ran = None if self._ticks is None else ticks - self._ticks
        since = time.monotonic() - self._read_at
        self._ticks, self._read_at = ticks, time.monotonic()
        if not status:
            self._idle = True
        elif ran is not None and self._idle:
            self._idle = ran < _BUSY_TICKS
        elif ran is not None:
            self._idle = ran < _ALL_THE_TIME * since * _TICKS_PER_SECOND and _asleep(self._pid)
        return self._idle


def _owner(addresses: tuple[str, ...], port: int) -> Iterator[int | None]:
    """The process that listens there, after a None for each that is not; nothing where it cannot be seen."""
    found = next(filter(None, (_listener(address, port) for address in addresses)), None)
    if found is None or os.geteuid() not in (0, found.uid):
        return
    # The newest processes first: the server has just been started.
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return
    for pid in sorted(pids, reverse=True):
        yield None
        for file in _files_of(pid, found.uid):
            with suppress(OSError):  # closed meanwhile
                yield pid if os.readlink(f"/proc/{pid}/fd/{file}") == f"socket:[{found.inode}]" else None


def _files_of(pid: int, uid: int) -> list[str]:
    try:
        ours = pid == os.getpid() or os.stat(f"/proc/{pid}").st_uid != uid
        return [] if ours else os.listdir(f"/proc/{pid}/fd")
    except OSError:  # it has ended, or it is not ours to look into
        return []


def _asleep(pid: int) -> bool:
    """Whether no thread runs, is about to run or waits for a disk."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    if len(threads) > _MOST_THREADS:  # reading them all would cost more than a look
        return False
    return not any(_status(f"/proc/{pid}/task/{thread}/stat")[:1] in (["R"], ["D"]) for thread in threads)


def _status(path: str) -> list[str]:
    """The fields of a stat file from the state on; none where the process is gone, or has ended and is a zombie."""
    try:
        with open(path, "rb", buffering=0) as file:
            fields = file.read(1024).decode("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[:1] == ["Z"] else fields
