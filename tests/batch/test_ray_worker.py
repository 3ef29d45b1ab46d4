"""The process of a Ray worker, without Ray: when it ends by itself."""

from __future__ import annotations

import asyncio
import time

import attrs
import pytest

from ctxbackends._engines import ray as ray_engine
from ctxbackends._engines.hosting import decode_outcome, encode_spec


@attrs.frozen
class _SlowSpec:
    """A worker whose opening blocks the event loop, as imports do on a busy node."""

    seconds: float

    async def open(self) -> _SlowSpec:
        time.sleep(self.seconds)  # noqa: ASYNC251  # blocks
        return self


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    event = asyncio.Event()
    monkeypatch.setattr(ray_engine, "end_process", event.set)
    monkeypatch.setattr(ray_engine, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(ray_engine, "WATCH_SECONDS", 0.02)
    return event


async def test_a_worker_without_a_driver_ends(ended: asyncio.Event) -> None:
    actor = ray_engine.WorkerActor()
    decode_outcome(await actor.open(encode_spec(_SlowSpec(0.0))))
    async with asyncio.timeout(30):
        await ended.wait()


async def test_a_worker_whose_event_loop_was_blocked_hears_its_driver_first(ended: asyncio.Event) -> None:
    actor = ray_engine.WorkerActor()
    decode_outcome(await actor.open(encode_spec(_SlowSpec(0.5))))
    await asyncio.sleep(0.02)  # the watch runs once
    assert not ended.is_set()
    for _ in range(20):
        await actor.beat()
        await asyncio.sleep(0.02)
        assert not ended.is_set()
    async with asyncio.timeout(30):
        await ended.wait()
