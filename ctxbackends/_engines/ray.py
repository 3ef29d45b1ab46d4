"""The engine of a Ray cluster: each worker is an actor, with its own CPU.

Only the actors of Ray are used. Restarts and repeated calls are left to :mod:`ctxbackends._engines.distribute`, which
knows the limits and the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic

from ctxbackends._engines.contract import (
    SETTLE_SECONDS,
    EngineError,
    Item,
    Result,
    WorkerDiedError,
    WorkerSpec,
    WorkerStartError,
)
from ctxbackends._engines.hosting import WorkerHost, decode, decode_outcome, encode, encode_spec, end_process

INSTALL_COMMAND = "pip install 'ctxbackends[ray]'"
GRACE_SECONDS = 5.0
"""For a worker to close. It is killed then."""
CONNECT_SECONDS = 5.0
"""For a TCP connection to the cluster."""
CPU_SECONDS = 5.0
"""For CPUs to get free: those of an actor that has just ended are not free at once."""
START_SECONDS = 300.0
"""For an actor, which imports the package, on a busy node."""
LEASE_SECONDS = 15.0
"""A worker that hears nothing of its driver for so long ends by itself. Its node may be cut off from the cluster."""
BEAT_SECONDS = 3.0
WATCH_SECONDS = 1.0

_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of later versions; without it, ray.init() warns
}
# Ray binds the address of the machine even if it is told 127.0.0.1, except where it supports no clusters.
_LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class RayEngine:
    """Runs workers as actors of a Ray cluster. They end with the driver, at the latest after 15 seconds.

    Args:
        address: ``HOST:PORT`` of the cluster, or ``auto`` for one of this machine. None for the variable
            ``RAY_ADDRESS``. If it is not set, a cluster is started that listens on 127.0.0.1 and ends with the driver.
        options: More arguments of ``ray.init()``.
    """

    def __init__(self, address: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._options = dict(options or {})
        self._ray: Any = None
        self._is_owner = False
        self._restore: Callable[[], None] = _ignore
        self._workers: set[RayWorker[Any, Any]] = set()

    async def open(self, workers: int) -> None:
        """Connect to the cluster, or start one, and check that it has a free CPU for each worker."""
        if workers < 1:
            raise EngineError(f"invalid number of workers: {workers}; use at least 1")
        address = self._address
        if address is not None and "://" in address:
            raise EngineError(
                f"address is not supported: {address}; run the command on a node of the cluster, for example with "
                "`ray job submit`, and use --address auto"
            )
        if address is None:
            self._options = {"num_cpus": os.cpu_count() or 1, "include_dashboard": False, **self._options}
            _check_cpus(workers, self._options["num_cpus"], self._options["num_cpus"])
        elif address != "auto":
            await _check_connection(address)
        self._ray = _import_ray(loopback=address is None)
        try:
            await asyncio.to_thread(self._connect)
            free, total = await self._wait_cpus(workers)
            _check_cpus(workers, free, total)
        except BaseException:
            await self.aclose()
            raise

    def _connect(self) -> None:
        if self._ray.is_initialized():  # by the program, which disconnects
            return
        try:
            self._ray.init(
                address=self._address or "local",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **self._options,
            )
        except Exception as error:  # noqa: BLE001  # also plain ones, such as for a node that did not start in time
            text = " ".join(str(error.__cause__ or error).split())
            advice = "; install the versions of the cluster" if "ersion mismatch" in text else ""
            raise EngineError(f"cannot connect to Ray at {self._address or 'this machine'}: {text}{advice}") from None
        self._is_owner = True
        self._silence()

    def _silence(self) -> None:
        """Keep Ray from standard output, where it prints the end of nodes and actors whatever ``log_to_driver`` is."""
        module = sys.modules.get("ray._private.worker")
        if (original := getattr(module, "print_to_stdstream", None)) is not None:
            module.print_to_stdstream = _ignore  # type: ignore[union-attr]
            self._restore = partial(setattr, module, "print_to_stdstream", original)

    async def _wait_cpus(self, count: int) -> tuple[float, float]:
        """Wait until so many CPUs are free. Return the free ones and all, also if there are less."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CPU_SECONDS
        while True:
            free = (await asyncio.to_thread(self._ray.available_resources)).get("CPU", 0.0)
            if free >= count or loop.time() >= until:
                return free, (await asyncio.to_thread(self._ray.cluster_resources)).get("CPU", 0.0)
            await asyncio.sleep(0.2)

    async def start(
        self, spec: WorkerSpec[Item, Result], name: str, on_note: Callable[[Any], None]
    ) -> RayWorker[Item, Result]:
        """Create an actor, and open its worker."""
        data = encode_spec(spec)
        free, total = await self._wait_cpus(1)
        if free < 1:
            raise WorkerStartError(
                f"{name} was not started: {free:g} of {total:g} CPUs are free; add nodes, and resume"
            )
        actor = (
            self._ray.remote(WorkerActor)
            .options(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")
            .remote()
        )
        worker = RayWorker[Item, Result](self._ray, actor, name, on_note)
        self._workers.add(worker)
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker.open(data)
        except TimeoutError:
            worker.kill()
            raise WorkerStartError(
                f"{name} was not started within {START_SECONDS:g} s; check the nodes of Ray"
            ) from None
        except BaseException:
            worker.kill()
            raise
        return worker

    async def aclose(self) -> None:
        """Kill the workers that are left, and disconnect."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        if self._is_owner:
            self._is_owner = False
            await asyncio.to_thread(self._ray.shutdown)
            self._restore()


class RayWorker(Generic[Item, Result]):
    """An actor. See :class:`~ctxbackends._engines.contract.EngineWorker`."""

    host = ""

    def __init__(self, ray: Any, actor: Any, name: str, on_note: Callable[[Any], None]) -> None:
        self._ray = ray
        self._actor = actor
        self._name = name
        self._on_note = on_note
        self._sending: set[asyncio.Task[None]] = set()
        self._death: WorkerDiedError | None = None
        self._beating: asyncio.Task[None] | None = None

    async def open(self, spec: bytes) -> None:
        """Open the worker."""
        self._beating = asyncio.create_task(self._beat())
        self.host = await self._call("open", spec)

    async def answer(self, items: Sequence[Item], /) -> Sequence[Result]:
        """Return the results of a block."""
        results: Sequence[Result] = await self._call("answer", encode(items))
        return results

    def send(self, note: Any, /) -> None:
        """Send a note to the worker."""
        if self._death is None:
            self._sending.add(task := asyncio.create_task(self._send(encode(note))))
            task.add_done_callback(self._sending.discard)

    async def _send(self, note: bytes) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            await self._actor.receive.remote(note)

    async def aclose(self) -> None:
        """Close the worker, and kill its actor."""
        try:
            if self._death is None:
                async with asyncio.timeout(GRACE_SECONDS):
                    self._receive(await self._actor.close.remote())
        except (TimeoutError, self._ray.exceptions.RayError):
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process of the actor."""
        if self._beating is not None:
            self._beating.cancel()
        if self._death is None:
            self._death = WorkerDiedError(f"{self._name} was closed")
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(self._actor)

    async def _call(self, method: str, data: bytes) -> Any:
        if self._death is not None:
            raise self._death
        errors = self._ray.exceptions
        try:
            outcome = await getattr(self._actor, method).remote(data)
        except errors.RayTaskError as error:  # not of the worker, whose exceptions are outcomes
            raise EngineError(f"{self._name} failed: {error.cause}") from None
        except errors.RayError as error:
            if getattr(error, "actor_init_failed", False):
                text = str(error).strip().splitlines()[-1]
                raise EngineError(
                    f"{self._name} was not started: {text}; install the same ctxbackends on all nodes"
                ) from None
            death = describe_death(self._name, error)
            self.kill()  # it may only be out of reach
            self._death = death
            raise death from None
        return decode_outcome(outcome)

    async def _beat(self) -> None:
        """Let the worker know that its driver is there, and receive its notes."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            while True:
                self._receive(await self._actor.beat.remote())

    def _receive(self, notes: Sequence[bytes]) -> None:
        for note in notes:
            self._on_note(decode(note))


class WorkerActor:
    """A worker in its process. Ray imports this class there."""

    def __init__(self) -> None:
        self._host = WorkerHost(self._put)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._silent_seconds = 0.0
        self._notes: list[bytes] = []
        self._has_notes = asyncio.Event()

    async def open(self, spec: bytes) -> bytes:
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(self._watch())
        self._host.forward_warnings()
        return await self._host.open(spec)

    async def answer(self, items: bytes) -> bytes:
        return await self._host.answer(items)

    async def receive(self, note: bytes) -> None:
        self._host.receive(note)

    async def beat(self) -> list[bytes]:
        """Return the notes of the worker when there are some, or when the next beat is due."""
        self._silent_seconds = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                await self._has_notes.wait()
        return self._take_notes()

    async def close(self) -> list[bytes]:
        await self._host.aclose()
        return self._take_notes()

    def _put(self, note: bytes) -> None:
        """Keep a note for the driver. Called in any thread."""
        assert self._loop is not None, "it is open"
        self._loop.call_soon_threadsafe(self._add_note, note)

    def _add_note(self, note: bytes) -> None:
        self._notes.append(note)
        self._has_notes.set()

    def _take_notes(self) -> list[bytes]:
        self._has_notes.clear()
        notes, self._notes = self._notes, []
        return notes

    async def _watch(self) -> None:
        # Not by a clock: an event loop that is blocked, as by an import on a busy node, hears its driver afterwards.
        while self._silent_seconds < LEASE_SECONDS:
            await asyncio.sleep(WATCH_SECONDS)
            self._silent_seconds += WATCH_SECONDS
        end_process()


def _ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


def _import_ray(*, loopback: bool) -> Any:
    os.environ.update(_VARIABLES)
    if loopback:
        os.environ.setdefault(_LOOPBACK_VARIABLE, "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise EngineError(f"ray is not installed; run {INSTALL_COMMAND}") from None


def _check_cpus(workers: int, free: float, total: float) -> None:
    if free < workers:
        raise EngineError(
            f"too few CPUs for {workers} workers: {free:g} of {total:g} are free; "
            f"use {max(1, int(free))} or fewer, or add nodes"
        )


async def _check_connection(address: str) -> None:
    """Connect to the cluster, since ray.init() waits for a minute where nobody listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise EngineError(f"invalid address: {address}; use HOST:PORT, or auto")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        raise EngineError(f"cannot connect to Ray at {address}: no answer within {CONNECT_SECONDS:g} s") from None
    except OSError as error:
        raise EngineError(f"cannot connect to Ray at {address}: {error.strerror or error}") from None
    writer.close()


def describe_death(name: str, error: Exception) -> WorkerDiedError:
    """Return the error of a worker, with the time after which it certainly sends nothing."""
    text = str(error)
    if "worker process has died" in text:  # the kernel closed its connections
        return WorkerDiedError(f"{name} ended: its process died", settle=SETTLE_SECONDS)
    reason = "its node died" if "node has died" in text else " ".join(text.split())
    return WorkerDiedError(f"{name} ended: {reason}", settle=LEASE_SECONDS)
