"""What on this machine tells, without a word to the server, that a look at a server that starts is worth while now:
that something listens on its port, that the process which loads a model has nothing to do any more, or says so itself.
Sends nothing to any server; knows no HTTP and no retries.

A sign is a hint and no more: what is so is what the server answers. So nothing here is an error. Where a sign cannot be
had (another machine, another system, another namespace, another user's process), there is none.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol
from urllib.parse import urlsplit

import attrs

from ctxbackends.network import address_of, is_localhost
from ctxbackends.types import LoadState

_SCAN_SECONDS = 0.001
_BUSY_TICKS = 2
"""Of CPU time between two readings: less is what answering a look costs."""
_MOST_THREADS = 64


class Started(Protocol):
    """A server process that this SDK started."""

    @property
    def running(self) -> bool: ...

    @property
    def loaded(self) -> bool | None:
        """Whether it said that its model is loaded. None where it does not say such things."""
        ...


def signs_of(url: str, started: Started | None = None) -> Signs | None:
    """The signs of the server at ``url``, or None where there can be none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = _own_addresses(parts.hostname or "") if sys.platform == "linux" else ()
    return Signs(addresses, port, started) if addresses or started is not None else None


class Signs:
    """Of one server, while it is waited for. Called with the state that it was last seen in: whether there is news."""

    def __init__(self, addresses: tuple[str, ...], port: int, started: Started | None) -> None:
        self._addresses = addresses
        self._port = port
        self._started = started
        self._known: frozenset[str] = frozenset()
        self._process: _Process | None = None

    def __call__(self, state: LoadState) -> bool:
        seen = frozenset(self._seen(state))
        news = seen - self._known
        self._known = seen
        return bool(news)

    def _seen(self, state: LoadState) -> Iterator[str]:
        """What holds now. It is news where it did not hold before."""
        loaded = None
        if self._started is not None:
            loaded = self._started.loaded
            if not self._started.running:
                yield "ended"
            if loaded:
                yield "loaded"
        if state == "refused" and any(_listener(address, self._port) for address in self._addresses):
            yield "listening"
        if state == "loading" and loaded is None and self._addresses:
            if self._process is None:
                self._process = _Process(self._addresses, self._port)
            if self._process.idle():
                yield "idle"


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
        before, self._ticks = self._ticks, ticks
        if not status:
            self._idle = True
        elif before is None or ticks - before >= _BUSY_TICKS:
            self._idle = False
        elif ticks == before and not self._idle:
            self._idle = _asleep(self._pid)
        return self._idle


def _owner(addresses: tuple[str, ...], port: int) -> Iterator[int | None]:
    """The process that listens there, after a None for each that is not; nothing where it cannot be seen."""
    found = next(filter(None, (_listener(address, port) for address in addresses)), None)
    if found is None or os.geteuid() not in (0, found.uid):
        return
    # The newest processes first: the server has just been started.
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdecimal()), reverse=True):
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
