"""``python -m tests.soak --minutes 10 --seed 1``: a real llama-server, restarted and killed at random under a constant
load, and every request accounted for. Ends with 1 and a listing where one ended in a way that is not right, or where
something was left behind."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import sys
import time
import warnings
from typing import Any

import attrs

from ctxbackends import Registry
from tests.soak import figures
from tests.soak.disturbed_server import Act, DisturbedServer, schedule
from tests.soak.requests import CHAT, MESSAGES, OPERATIONS, Ledger, Load, settings

WARM_UP = (Act(1, "kill", 0), Act(1, "term", 0), Act(1, "pause", 2.5), Act(1, "flap", 0.5))
"""One of each before the first look: what is imported and cached on the way is no growth."""
QUIET_WITHIN = 15.0  # seconds until pooled connections are closed and the server's slots are free


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load after the warm-up (default: 10)")
    parser.add_argument("--seed", type=int, default=None, help="of everything that is done (default: one of the clock)")
    parser.add_argument("--workers", type=int, default=8, help="requests at a time (default: 8)")
    return parser.parse_args()


def free_port(chance: random.Random) -> int:
    """Below the ports that the kernel hands out to clients: a client that connects to a port of those on which nobody
    listens can be given that very port, and talks to itself (TCP's simultaneous open)."""
    while True:
        port = chance.randrange(15_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Soak:
    """One run."""

    def __init__(self, seed: int, workers: int) -> None:
        self._seed = seed
        self._workers = workers
        self._start = time.monotonic()
        self._port = free_port(random.Random())  # the seed does not choose it: another run may have it
        self._ledger = Ledger()
        self._server = DisturbedServer(self._port, self._print_line)

    def _print_line(self, what: str) -> None:
        print(f"{time.monotonic() - self._start:7.1f} s  {what}", flush=True)

    async def run(self, minutes: float) -> bool:
        """Whether all was right."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_unhandled)
        sys.unraisablehook = self._on_unraisable
        warnings.simplefilter("error")  # ResourceWarning among them: raised in a finaliser, it comes to the hook
        await self._server.start_and_wait()
        try:
            async with Registry(
                [settings(self._server.url, name) for name in (CHAT, MESSAGES)], default=CHAT
            ) as registry:
                load = Load(registry, self._server, self._ledger)
                await self._run_load(load, "warm-up", iter(WARM_UP), None)
                before = await self._measure_idle(registry)
                acts = schedule(random.Random(self._seed))  # to be repeated, not to be secret
                await self._run_load(load, f"soak for {minutes:g} min", acts, time.monotonic() + minutes * 60)
                after = await self._measure_idle(registry)
        finally:
            await self._server.close()
        return self._report(minutes, before, after)

    async def _run_load(self, load: Load, name: str, acts: Any, until: float | None) -> None:
        self._print_line(name)
        is_over = asyncio.Event()
        chances = [random.Random(f"{self._seed} {name} {worker}") for worker in range(self._workers)]
        work = asyncio.create_task(load.run(is_over, chances))
        for act in acts:
            if until is not None and time.monotonic() + act.quiet >= until:
                await asyncio.sleep(max(0.0, until - time.monotonic()))
                break
            await self._server.disturb(act)
        await asyncio.sleep(1)
        is_over.set()
        await work

    async def _measure_idle(self, registry: Registry) -> figures.Figures:
        """The figures once nothing is under way any more."""
        self._print_line("quiet")
        deadline = time.monotonic() + QUIET_WITHIN
        while (busy := (await registry.default().status()).busy_slots) != 0:
            if time.monotonic() > deadline:
                self._ledger.violate(f"{busy} slots of the server are busy, and nobody waits for an answer")
                break
            await asyncio.sleep(0.5)
        deadline = time.monotonic() + QUIET_WITHIN
        while figures.connections(self._port) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return figures.measure(self._port)

    def _on_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._ledger.violate(f"the event loop was told of {context}")

    def _on_unraisable(self, error_: Any) -> None:
        self._ledger.violate(f"raised where nobody can catch it: {error_.exc_value!r} in {error_.object!r}")

    def _report(self, minutes: float, before: figures.Figures, after: figures.Figures) -> bool:
        ledger = self._ledger
        print(
            f"\nseed {self._seed}, {minutes:g} min after the warm-up, {self._workers} workers, {os.cpu_count()} cores"
        )
        done = ", ".join(f"{count} {kind}" for kind, count in sorted(self._server.acts.items()))
        print(f"done to the server: {done}; started {self._server.starts} times")
        print(f"\n{'requests':26} {'begun':>6} {'completed':>10} {'cancelled':>10} {'failed':>7} {'longest':>9}")
        outcomes = ("completed", "cancelled", "failed")
        for kind in OPERATIONS:
            counts = [ledger.outcomes[kind, outcome] for outcome in outcomes]
            columns = f"{counts[0]:10} {counts[1]:10} {counts[2]:7} {ledger.longest.get(kind, 0.0):7.2f} s"
            print(f"{kind:26} {ledger.begun[kind]:6} {columns}")
        totals = [sum(ledger.outcomes[kind, outcome] for kind in OPERATIONS) for outcome in outcomes]
        begun = ledger.begun.total()
        print(f"{'all':26} {begun:6} {totals[0]:10} {totals[1]:10} {totals[2]:7}")
        print("\nfailed with")
        for what, count in ledger.errors.most_common():
            print(f"  {count:6}  {what}")
        print(f"\n{'held by the client':20} {'start':>9} {'end':>9} {'may grow by':>12}")
        end = attrs.asdict(after)
        for name, count in attrs.asdict(before).items():
            print(f"{name:20} {count:9} {end[name]:9} {figures.GROWTH[name]:12}")
        for what in figures.growth(before, after):
            ledger.violate(f"grown: {what}")
        if begun != sum(totals):
            ledger.violate(f"{begun} requests were begun, and {sum(totals)} are accounted for")
        if not all(totals[:2]):
            ledger.violate("nothing was completed, or nothing cancelled: this was no load")
        print(f"\n{ledger.violation_count} violations")
        for violation in ledger.violations:
            print(f"- {violation}")
        return not ledger.violation_count


def main() -> None:
    options = arguments()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    if not asyncio.run(Soak(seed, options.workers).run(options.minutes)):
        sys.exit(1)


if __name__ == "__main__":
    main()
