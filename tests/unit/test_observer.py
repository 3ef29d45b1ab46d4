"""Observers: the facts about each request, in order, and nothing changed by an observer that fails."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import pytest

import ctxbackends.sync
from ctxbackends import (
    APIConnectionError,
    Backend,
    BackendConfig,
    HTTPBackend,
    Loading,
    Message,
    NamedTool,
    Observer,
    RateLimitError,
    Registry,
    RequestFacts,
    ServerAddress,
    StreamInterruptedError,
    Tool,
    UnsupportedOptionError,
    open_backend,
)
from ctxbackends.testing import FaultServer, faults

METHODS = ("started", "queued", "attempt", "loading", "served", "first_event", "finished", "failed", "left")
WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {}})


class Recorder(Observer):
    """Records each call, and how often the context of an attempt was entered and left."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, RequestFacts]] = []
        self.entered = 0
        self.exited = 0

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            return lambda facts: self.calls.append((name, facts))
        return super().__getattribute__(name)

    @contextmanager
    def sending(self, _: RequestFacts) -> Iterator[None]:
        self.entered += 1
        yield
        self.exited += 1

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def facts(self, name: str) -> RequestFacts:
        """The facts of the only call of a method."""
        (facts,) = (facts for called, facts in self.calls if called == name)
        return facts


@pytest.fixture
async def server() -> Any:
    async with FaultServer(pieces=("Hel", "lo")) as server:
        yield server


def open_observed(type_: str, server: FaultServer, *observers: Observer, **settings: Any) -> Any:
    return open_backend(type_, endpoint=server.url, default_model="m", api_key="k", observers=observers, **settings)


# --- the facts of each operation ----------------------------------------------------------------------


async def test_a_completion_in_one_piece(server: FaultServer) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder, name="cloud") as backend:
        completion = await backend.complete("Hi", temperature=0.5, max_tokens=9)
    assert ["started", "attempt", "served", "finished"] == recorder.names
    facts = recorder.facts("finished")
    assert ("chat", "cloud", "openai", "m", False) == (
        facts.operation,
        facts.backend,
        facts.type,
        facts.model,
        facts.stream,
    )
    assert ServerAddress(scheme="http", host="127.0.0.1", port=server.port) == facts.server
    assert {"temperature": 0.5, "max_tokens": 9} == facts.options
    assert (completion.usage, completion.finish_reason) == (facts.usage, facts.finish_reason)
    assert (completion.served_model, completion.response_id) == (facts.served_model, facts.response_id)
    assert (1, None, None, None, None) == (
        facts.attempts,
        facts.retry_delay,
        facts.error,
        facts.queued_at,
        facts.first_event_at,
    )
    assert facts.sent_at is not None
    assert facts.ended_at is not None
    assert facts.started_at <= facts.sent_at <= facts.ended_at


@pytest.mark.parametrize("type_", ["vllm", "openai", "anthropic", "ollama"])
async def test_a_stream(server: FaultServer, type_: str) -> None:
    recorder = Recorder()
    async with open_observed(type_, server, recorder) as backend, backend.stream("Hi") as stream:
        async for _ in stream:
            pass
    assert ["started", "attempt", "served", "first_event", "finished"] == recorder.names
    facts = recorder.facts("finished")
    assert facts.stream
    assert (stream.completion.usage, "stop") == (facts.usage, facts.finish_reason)
    assert stream.completion.response_id == facts.response_id
    assert facts.first_event_at is not None
    assert facts.sent_at is not None
    assert facts.ended_at is not None
    assert facts.started_at <= facts.sent_at <= facts.first_event_at <= facts.ended_at
    assert "m" == recorder.facts("first_event").served_model  # so that timings carry the model
    assert (1, 1) == (recorder.entered, recorder.exited)


async def test_a_completion_that_streams_has_a_first_event(server: FaultServer) -> None:
    recorder = Recorder()
    async with open_observed("vllm", server, recorder) as backend:
        await backend.complete("Hi")
    assert ["started", "attempt", "served", "first_event", "finished"] == recorder.names
    assert not recorder.facts("finished").stream


async def test_embeddings_count_each_batch(server: FaultServer) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder) as backend:
        embeddings = await backend.embed(["a", "b", "c"], batch_size=2)
    assert ["started", "attempt", "attempt", "served", "finished"] == recorder.names
    facts = recorder.facts("finished")
    assert ("embeddings", {"batch_size": 2}, 2) == (facts.operation, facts.options, facts.attempts)
    assert (embeddings.usage, embeddings.served_model) == (facts.usage, facts.served_model)


async def test_a_token_count_and_a_model_load(refusing_url: str) -> None:
    recorder = Recorder()
    async with open_backend("ollama", endpoint=refusing_url, default_model="m", observers=[recorder]) as backend:
        with pytest.raises(APIConnectionError):
            await backend.load(keep_alive=math.inf)
        with pytest.raises(Exception, match="count"):
            await backend.count_tokens("Hi")
    assert ["started", "attempt", "failed", "started", "failed"] == recorder.names
    (load, _, failed, count, _) = (facts for _, facts in recorder.calls)
    assert ("load", {"keep_alive": math.inf}) == (load.operation, load.options)
    assert isinstance(failed.error, APIConnectionError)
    assert "count_tokens" == count.operation


async def test_options_have_no_content(server: FaultServer) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder) as backend:
        await backend.complete("Hi", tools=[WEATHER], tool_choice=NamedTool("weather"), extra_body={"secret": 1})
    assert {"tools": ("weather",), "tool_choice": "weather"} == recorder.facts("started").options


async def test_content_is_for_observers_that_ask_for_it(server: FaultServer) -> None:
    plain, full = Recorder(), Recorder()
    full.content = True
    async with open_observed("openai", server, plain, full) as backend:
        completion = await backend.complete("My secret", tools=[WEATHER])
    assert all(facts.content is None for _, facts in plain.calls)
    started, finished = full.facts("started").content, full.facts("finished").content
    assert started is not None
    assert finished is not None
    assert ((Message.user("My secret"),), (WEATHER,), None) == (started.messages, started.tools, started.completion)
    assert completion == finished.completion
    assert "My secret" not in repr(full.calls)


async def test_chunk_times_are_for_observers_that_ask_for_them(server: FaultServer) -> None:
    plain, timed = Recorder(), Recorder()
    async with open_observed("openai", server, plain) as backend, backend.stream("Hi") as stream:
        await stream.get_final_completion()
    timed.chunk_times = True
    async with open_observed("openai", server, timed) as backend, backend.stream("Hi") as stream:
        await stream.get_final_completion()
    assert () == plain.facts("finished").chunk_times
    times = timed.facts("finished").chunk_times
    assert times
    assert [*times] == sorted(times)


# --- retries, waits and queues ------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_has_its_reason_and_its_delay(server: FaultServer, stream: bool) -> None:
    recorder = Recorder()
    server.play(faults.rate_limited(retry_after="0"))
    async with open_observed("openai", server, recorder) as backend:
        if stream:
            async with backend.stream("Hi") as events:
                await events.get_final_completion()
        else:
            await backend.complete("Hi")
    first, second = (facts for name, facts in recorder.calls if name == "attempt")
    assert (1, None, None) == (first.attempts, first.error, first.retry_delay)
    assert (2, 0.0) == (second.attempts, second.retry_delay)
    assert isinstance(second.error, RateLimitError)
    facts = recorder.facts("finished")
    assert (2, None) == (facts.attempts, facts.error)
    assert (2, 2) == (recorder.entered, recorder.exited)


@pytest.mark.parametrize("method", ["complete", "stream", "embed"])
async def test_a_cold_start_shows_each_probe(server: FaultServer, method: str) -> None:
    recorder = Recorder()
    server.play(faults.loading(), faults.loading())
    async with open_observed("vllm", server, recorder) as backend:
        if method == "stream":
            async with backend.stream("Hi") as stream:
                await stream.get_final_completion()
        else:
            await getattr(backend, method)("Hi")
    assert ["started", "attempt", "loading", "attempt", "loading", "attempt"] == recorder.names[:6]
    loading = recorder.calls[2][1].loading
    assert loading is not None
    assert "loading" == loading.state
    assert 1 == recorder.names.count("finished")


async def test_a_request_that_waits_for_a_slot_is_queued(server: FaultServer) -> None:
    recorder = Recorder()
    held = asyncio.Event()

    def hold(response: Any) -> Iterator[Any]:
        yield held
        yield from faults.respond(response)

    server.play(hold)
    async with open_observed("openai", server, recorder, max_concurrency=1) as backend:
        first = asyncio.create_task(backend.complete("Hi"))
        while "attempt" not in recorder.names:
            await asyncio.sleep(0)
        second = asyncio.create_task(backend.complete("Hi"))
        while "queued" not in recorder.names:
            await asyncio.sleep(0)
        held.set()
        await asyncio.gather(first, second)
    waited = recorder.facts("queued")
    mine = [name for name, facts in recorder.calls if facts.id == waited.id]
    assert ["started", "queued", "attempt", "served", "finished"] == mine
    other = [name for name, facts in recorder.calls if facts.id != waited.id]
    assert ["started", "attempt", "served", "finished"] == other


async def test_what_a_caller_starts_in_on_progress_is_its_own_request(server: FaultServer) -> None:
    recorder = Recorder()
    tasks: list[asyncio.Task[Any]] = []
    server.play(faults.loading())
    async with open_observed("vllm", server, recorder) as backend:

        def on_progress(_: Loading) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(backend.status()))
                tasks.append(asyncio.create_task(backend.complete("Another")))

        await backend.complete("Hi", on_progress=on_progress)
        await asyncio.gather(*tasks)
    by_request = {facts.id: [name for name, of in recorder.calls if of.id == facts.id] for _, facts in recorder.calls}
    assert 2 == len(by_request)
    for names in by_request.values():  # the requests of status() are in neither
        assert re.fullmatch("started (attempt loading )*attempt served first_event finished", " ".join(names))


# --- failures and callers that leave ------------------------------------------------------------------


async def test_a_stream_that_breaks_off_has_failed(server: FaultServer) -> None:
    recorder = Recorder()
    server.play(faults.no_terminal_marker())
    async with open_observed("openai", server, recorder) as backend:
        with pytest.raises(StreamInterruptedError) as caught:
            async with backend.stream("Hi") as stream:
                await stream.get_final_completion()
    assert "failed" == recorder.names[-1]
    assert caught.value is recorder.facts("failed").error


@pytest.mark.parametrize("stream", [False, True])
async def test_an_option_that_is_not_supported_has_failed_before_an_attempt(server: FaultServer, stream: bool) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder) as backend:
        with pytest.raises(UnsupportedOptionError) as caught:
            if stream:
                backend.stream("Hi", top_k=3)
            else:
                await backend.complete("Hi", top_k=3)
    assert ["started", "failed"] == recorder.names
    assert caught.value is recorder.facts("failed").error


async def test_a_wrong_argument_and_a_stream_that_is_not_entered_are_no_requests(server: FaultServer) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder) as backend:
        backend.stream("Hi")
        with pytest.raises(ValueError, match="max_tokens"):
            await backend.complete("Hi", max_tokens=0)
    assert [] == recorder.names


@pytest.mark.parametrize("method", ["complete", "stream", "embed"])
@pytest.mark.parametrize("type_", ["openai", "vllm"])
async def test_a_cancelled_request_was_left(server: FaultServer, method: str, type_: str) -> None:
    recorder = Recorder()
    server.play(faults.no_response())
    async with open_observed(type_, server, recorder) as backend:

        async def run() -> None:
            if method == "stream":
                async with backend.stream("Hi") as stream:
                    await stream.get_final_completion()
            else:
                await getattr(backend, method)("Hi")

        task = asyncio.create_task(run())
        while not server.generations:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ["started", "attempt", "left"] == recorder.names
    assert recorder.facts("left").error is None
    assert recorder.entered == recorder.exited


@pytest.mark.parametrize("error", [None, KeyError("mine")])
async def test_a_stream_that_its_reader_leaves_was_left(server: FaultServer, error: Exception | None) -> None:
    recorder = Recorder()
    async with open_observed("openai", server, recorder) as backend:
        with pytest.raises(KeyError) if error is not None else nullcontext():
            async with backend.stream("Hi") as stream:
                async for _ in stream:
                    if error is not None:
                        raise error
                    break
    assert ["started", "attempt", "served", "first_event", "left"] == recorder.names


async def test_a_wait_for_a_server_that_the_caller_gives_up_was_left(refusing_url: str) -> None:
    recorder = Recorder()
    async with (
        open_backend("vllm", endpoint=refusing_url, default_model="m", observers=[recorder]) as backend,
        backend.stream("Hi") as stream,
    ):
        async for event in stream:
            assert isinstance(event, Loading)
            break
    assert {"started", "attempt", "loading", "left"} == {*recorder.names}
    assert ["started", "left"] == [recorder.names[0], recorder.names[-1]]
    assert 1 == recorder.names.count("left")


# --- observers that fail, and none --------------------------------------------------------------------


class Broken(Observer):
    """Raises in each method."""

    def __getattribute__(self, name: str) -> Any:
        if name in (*METHODS, "sending"):
            raise_in = super().__getattribute__("fail")
            return lambda _: raise_in(name)
        return super().__getattribute__(name)

    def fail(self, name: str) -> None:
        raise RuntimeError(f"broken in {name}")


async def test_an_observer_that_raises_is_logged_and_breaks_nothing(
    server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    server.play(faults.server_error())
    with caplog.at_level(logging.ERROR, "ctxbackends"):
        async with open_observed("openai", server, Broken(), recorder) as backend:
            with pytest.raises(Exception, match="500"):
                await backend.complete("My secret")
            async with backend.stream("My secret") as stream:
                await stream.get_final_completion()
    assert ["started", "attempt", "failed"] == recorder.names[:3]
    assert ["started", "attempt", "served", "first_event", "finished"] == recorder.names[3:]
    methods = ["started", "sending", "attempt", "failed"]
    methods += ["started", "sending", "attempt", "served", "first_event", "finished"]
    assert [f"Observer Broken raised in {name}()" for name in methods] == caplog.messages
    assert "broken in failed" in caplog.text
    assert "My secret" not in caplog.text
    assert "HTTP 500" not in caplog.text  # the failure of the request is not its context there


@pytest.mark.parametrize("place", ["enter", "exit"])
async def test_a_context_that_raises_is_logged_and_breaks_nothing(
    server: FaultServer, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    class BrokenContext(Observer):
        @contextmanager
        def sending(self, _: RequestFacts) -> Iterator[None]:
            if place == "enter":
                raise RuntimeError("broken")
            yield
            raise RuntimeError("broken")

    with caplog.at_level(logging.ERROR, "ctxbackends"):
        async with open_observed("openai", server, BrokenContext()) as backend:
            assert "Hello" == (await backend.complete("Hi")).text
    (message,) = caplog.messages
    assert message.endswith("BrokenContext raised in sending()")


async def test_a_base_class_observer_changes_nothing(server: FaultServer) -> None:
    async with open_observed("openai", server, Observer()) as backend:
        assert "Hello" == (await backend.complete("Hi")).text


async def count_calls_of_observation(pieces: int) -> int:
    """How often a function of the observation was called for a stream."""
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.endswith(("observed.py", "observation.py"))

    with FaultServer(pieces=("a",) * pieces) as server:  # in a thread, which is not profiled
        async with open_observed("openai", server, Observer()) as backend, backend.stream("Hi") as stream:
            before = sys.getprofile()
            sys.setprofile(count)
            try:
                assert pieces == len([text async for text in stream.text()])
            finally:
                sys.setprofile(before)
    return calls


async def test_an_observer_costs_nothing_for_each_event() -> None:
    few, many = await count_calls_of_observation(20), await count_calls_of_observation(2000)
    assert 0 < few
    assert few == many


def test_observers_must_be_observers() -> None:
    with pytest.raises(TypeError, match=r"not an observer: <class '.*Recorder'>; pass objects"):
        Registry(observers=[Recorder])  # type: ignore[list-item]


def test_without_observers_the_backend_is_the_plain_one() -> None:
    config = BackendConfig(name="a", type="vllm")
    assert type(Registry([config]).resolve()) is HTTPBackend
    assert isinstance(Registry([config], observers=[Observer()]).resolve(), HTTPBackend)
    assert isinstance(Registry([config], observers=[Observer()]).resolve(), Backend)


def test_without_observers_nothing_of_them_is_imported() -> None:
    code = (
        "import sys; from ctxbackends import *; Registry([BackendConfig(name='a', type='vllm')]).resolve();"
        "assert 'ctxbackends._client.observed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_a_managed_backend_has_no_address_before_its_start(tmp_path: Any) -> None:
    recorder = Recorder()
    model = tmp_path / "m.gguf"
    model.write_bytes(b"no model")
    config = BackendConfig(name="local", type="llamacpp", model_path=str(model))
    async with Registry([config], observers=[recorder]) as registry:
        with pytest.raises(Exception, match=r"gguf|GGUF"):
            await registry.resolve().complete("Hi")
    assert ["started", "failed"] == recorder.names
    assert recorder.facts("started").server is None


async def test_the_observers_of_a_file(server: FaultServer, tmp_path: Any) -> None:
    recorder = Recorder()
    ctxrc = tmp_path / ".ctxrc"
    ctxrc.write_text(f"backends:\n  - name: one\n    type: vllm\n    endpoint: {server.url}\n    default_model: m\n")
    async with Registry.from_ctxrc(ctxrc, observers=[recorder]) as registry:
        await registry.resolve().complete("Hi")
    assert "one" == recorder.facts("finished").backend


def test_synchronous_calls_are_observed() -> None:
    recorder = Recorder()
    with (
        FaultServer(pieces=("Hel", "lo")) as server,
        ctxbackends.sync.open_backend("vllm", endpoint=server.url, default_model="m", observers=[recorder]) as backend,
    ):
        backend.complete("Hi")
        with backend.stream("Hi") as stream:
            assert "Hello" == "".join(stream.text())
        server.play(faults.endless_stream())
        with backend.stream("Hi") as stream:
            next(iter(stream))
    whole = ["started", "attempt", "served", "first_event", "finished"]
    assert [*whole, *whole, *whole[:-1], "left"] == recorder.names
