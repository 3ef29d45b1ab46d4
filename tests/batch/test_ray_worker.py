"""The process of a Ray worker, without Ray: when it ends by itself."""

from __future__ import annotations

import asyncio
import time
import warnings

import attrs
import pytest

from ctxbackends._engines import ray as ray_engine
from ctxbackends._engines.contract import Channel
from ctxbackends._engines.hosting import decode, decode_outcome, encode, encode_spec


@attrs.frozen
class _SlowSpec:
    """A worker whose opening blocks the event loop, as imports do on a busy node."""

    seconds: float

    async def open(self, _: Channel, /) -> _SlowSpec:
        time.sleep(self.seconds)  # noqa: ASYNC251  # blocks
        return self


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    event = asyncio.Event()
    monkeypatch.setattr(ray_engine, "end_process", event.set)
    monkeypatch.setattr(ray_engine, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(ray_engine, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(ray_engine, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)  # which the actor replaces
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
        assert [] == await actor.beat()
        assert not ended.is_set()
    async with asyncio.timeout(30):
        await ended.wait()


@attrs.frozen
class _NoteSpec:
    """A worker that sends a note when it is opened, and what it receives."""

    async def open(self, channel: Channel, /) -> _NoteSpec:
        channel.on_note = channel.send
        channel.send("opened")
        return self


async def test_the_answer_to_a_beat_has_the_notes(ended: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "BEAT_SECONDS", 60.0)
    actor = ray_engine.WorkerActor()
    beat = asyncio.create_task(actor.beat())  # it waits for the first note
    decode_outcome(await actor.open(encode_spec(_NoteSpec())))
    assert ["opened"] == [decode(note) for note in await beat]
    await actor.receive(encode("later"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("strange", stacklevel=1)
    notes = [decode(note) for note in await actor.beat()]
    assert ["later", "strange"] == [str(getattr(note, "warning", note)) for note in notes]
    assert not ended.is_set()
