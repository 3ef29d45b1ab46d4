"""The concurrency limit: slots in order of arrival, one probe for all waiters, and no lost slot."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest

from ctxbackends import APIConnectionError, Backend, BackendError, Loading, ServiceUnavailableError, open_backend
from ctxbackends._client.concurrency import Limiter
from ctxbackends._client.slots import Release
from ctxbackends.errors import ServerDiedError
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import RecordedRequest, ResponseBuilder, Script, Step, respond

# --- slots ------------------------------------------------------------------------------------------


async def test_unlimited() -> None:
    limiter = Limiter()
    releases = [await limiter.acquire() for _ in range(1000)]
    for release in releases:
        release()
    assert limiter.limit is None


async def test_slots_in_arrival_order() -> None:
    limiter = Limiter(2)
    order: list[int] = []

    async def work(number: int) -> None:
        release = await limiter.acquire()
        order.append(number)
        await asyncio.sleep(0)
        release()

    await asyncio.gather(*(work(number) for number in range(100)))
    assert list(range(100)) == order


async def test_release_is_idempotent() -> None:
    limiter = Limiter(1)
    release = await limiter.acquire()
    release()
    second = await limiter.acquire()
    release()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    second()
    (await waiting)()


async def test_cancelled_waiters_lose_no_slot() -> None:
    limiter = Limiter(1)
    release = await limiter.acquire()
    waiting = [asyncio.create_task(limiter.acquire()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[2].cancel()
    release()
    waiting[1].cancel()  # it has the place by now, and does not know
    for number in (3, 4):
        (await waiting[number])()
    assert [True, True, True, False, False] == [task.cancelled() for task in waiting]
    (await limiter.acquire())()


def test_one_event_loop_after_another() -> None:
    limiter = Limiter(1)
    for _ in range(3):
        asyncio.run(_acquire_without_release(limiter))


async def _acquire_without_release(limiter: Limiter) -> Release:
    return await limiter.acquire()


async def test_larger_limit_admits_a_waiter() -> None:
    limiter = Limiter()
    limiter.set_limit(1)
    first = await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    limiter.set_limit(2)
    second = await waiting
    first()
    second()


async def test_configured_limit_stays() -> None:
    async def probe() -> int:
        raise AssertionError("the probe was called")

    limiter = Limiter(3, probe=probe)
    limiter.set_limit(7)
    limiter.invalidate()
    (await limiter.acquire())()
    assert 3 == limiter.limit


@pytest.mark.parametrize("value", [0, -1])
async def test_limit_below_one_is_ignored(value: int) -> None:
    limiter = Limiter()
    limiter.set_limit(value)
    (await limiter.acquire())()
    assert limiter.limit is None


async def test_acquired_slots_count_after_a_new_limit() -> None:
    limiter = Limiter()
    limiter.set_limit(2)
    releases = [await limiter.acquire(), await limiter.acquire()]
    limiter.set_limit(None)
    limiter.set_limit(2)
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    releases[0]()
    (await waiting)()
    releases[1]()


def test_a_slot_released_after_its_loop_ended() -> None:
    limiter = Limiter(1)
    release = asyncio.run(_acquire_without_release(limiter))
    release()


async def test_a_slot_released_in_another_thread() -> None:
    limiter = Limiter(1)
    release = await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.to_thread(release)
    (await waiting)()


# --- the limit -------------------------------------------------------------------------------------


class StubProbe:
    """A probe that counts its calls, and answers after ``may_answer``."""

    def __init__(self, *answers: int | BackendError | None) -> None:
        self.times = 0
        self.answers = list(answers)
        self.response = asyncio.Event()

    async def __call__(self) -> int | None:
        self.times += 1
        await self.response.wait()
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, BackendError):
            raise answer
        return answer


async def test_one_probe_for_all_waiters() -> None:
    probe = StubProbe(4)
    limiter = Limiter(probe=probe)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await asyncio.sleep(0.01)
    probe.response.set()
    for task in tasks:
        (await task)()
    assert (1, 4) == (probe.times, limiter.limit)


async def test_failed_probe_fails_all_waiters() -> None:
    probe = StubProbe(ServerDiedError("died", exit_code=1), 4)
    probe.response.set()
    limiter = Limiter(probe=probe)
    results = await asyncio.gather(*(limiter.acquire() for _ in range(10)), return_exceptions=True)
    assert [("died", 1)] * 10 == [
        (str(error), error.exit_code) for error in results if isinstance(error, ServerDiedError)
    ]
    assert (10, 1) == (len({id(error) for error in results}), probe.times)
    (await limiter.acquire())()
    assert (2, 4) == (probe.times, limiter.limit)


async def test_probe_is_repeated_without_a_number() -> None:
    probe = StubProbe(0, 0, 3)
    probe.response.set()
    limiter = Limiter(probe=probe)
    await asyncio.gather(*(limiter.acquire() for _ in range(10)))
    assert (1, None) == (probe.times, limiter.limit)
    await limiter.acquire()
    await limiter.acquire()
    await limiter.acquire()
    assert (3, 3) == (probe.times, limiter.limit)


async def test_cancelled_probe_is_taken_over() -> None:
    probe = StubProbe(4)
    limiter = Limiter(probe=probe)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    probe.response.set()
    await asyncio.gather(*tasks[1:])
    assert (2, 4) == (probe.times, limiter.limit)


# --- over a server ---------------------------------------------------------------------------------


class Counting:
    """Answers when it is told to, and counts how many requests are there at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.prompts: list[str] = []

    def script(self) -> Script:
        def play(response: ResponseBuilder) -> object:
            probe = response.request.json
            self.prompts.append(str(probe.get("input") or probe["messages"][-1]["content"]))
            self.now += 1
            self.most = max(self.most, self.now)
            yield 0.002
            self.now -= 1
            yield from respond(response)

        return play  # type: ignore[return-value]


def slots(number: int) -> Script:
    """llama-server's own word for it."""

    def play(response: ResponseBuilder) -> list[Step]:
        body = b'{"total_slots": %d}' % number
        if response.route == "/props":
            return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body]
        return list(respond(response))

    return play


def props(server: FaultServer) -> list[RecordedRequest]:
    return [request for request in server.requests if request.path == "/props"]


async def use(backend: Backend, operation: str, prompt: str) -> None:
    if operation == "complete":
        await backend.complete(prompt)
    elif operation == "stream":
        async with backend.stream(prompt) as stream:
            await stream.get_final_completion()
    else:
        await backend.embed([prompt])


@pytest.mark.parametrize(
    ("type_", "operation"),
    [
        ("vllm", "complete"),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in [("openai", "complete"), ("ollama", "stream"), ("vllm", "embed")]
        ),
    ],
)
async def test_a_thousand_tasks_over_four_slots(type_: str, operation: str) -> None:
    counting = Counting()
    async with (
        FaultServer() as server,
        open_backend(type_, endpoint=server.url, default_model="m", max_concurrency=4) as backend,
    ):
        server.play_always(counting.script())
        await asyncio.gather(*(use(backend, operation, f"{number:04}") for number in range(1000)))
        assert (4, 1000) == (counting.most, len(server.generations))
    assert sorted(counting.prompts) == [prompt.strip("[']") for prompt in counting.prompts] or operation == "embed"


@pytest.mark.full
@pytest.mark.parametrize("operation", ["complete", "embed"])
async def test_a_thousand_tasks_over_the_servers_slots(operation: str) -> None:
    counting = Counting()
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m") as backend,
    ):
        server.play_always(counting.script())
        server.play(slots(4), probes=True)
        await asyncio.gather(*(use(backend, operation, f"{number:04}") for number in range(1000)))
        assert (4, 1000, 1) == (counting.most, len(server.generations), len(props(server)))


async def test_waiting_for_a_slot_does_not_count_as_server_time() -> None:
    """Ten one after the other take longer than the first token of any may."""
    async with (
        FaultServer() as server,
        open_backend(
            "vllm", endpoint=server.url, default_model="m", max_concurrency=1, first_token_timeout=0.5
        ) as backend,
    ):

        def slow(response: ResponseBuilder) -> object:
            yield 0.1
            yield from respond(response)

        server.play_always(slow)  # type: ignore[arg-type]
        answers = await asyncio.gather(*(backend.complete("Hello") for _ in range(10)))
        assert ["Hello, world."] * 10 == [answer.text for answer in answers]


ENDS = [
    "break",
    "cancel",
    "timeout",
    "close_in_chunk",
    "stall",
    "server_error",
    "not_http",
    "unauthorized",
    "forgotten",
]


@pytest.mark.parametrize("type_", [pytest.param("openai", marks=pytest.mark.full), "vllm"])
@pytest.mark.parametrize("how", ENDS)
async def test_every_end_of_a_request_releases_its_slot(how: str, type_: str) -> None:
    limits = {"first_token_timeout": 5.0, "idle_timeout": 0.2}
    async with (
        FaultServer() as server,
        open_backend(type_, endpoint=server.url, default_model="m", max_concurrency=1, **limits) as backend,  # type: ignore[arg-type]
    ):
        for _ in range(3):
            server.play(faults.CATALOGUE.get(how) or faults.stall())
            await end(backend, how)
        async with asyncio.timeout(20):
            assert "Hello, world." == (await backend.complete("Hello")).text


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("type_", [pytest.param("openai", marks=pytest.mark.full), "vllm"])
async def test_a_forgotten_stream_closes_its_connection(type_: str, in_thread: bool) -> None:
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play_always(faults.stall())
        for _ in range(3):
            await forget_stream(backend)
        if in_thread:
            await asyncio.to_thread(gc.collect)
        else:
            gc.collect()
        async with asyncio.timeout(20):
            await server.wait_idle()


async def forget_stream(backend: Backend) -> None:
    stream = backend.stream("Hello")
    await stream.__aenter__()
    await anext(stream)
    cycle = [stream]
    cycle.append(cycle)  # type: ignore[arg-type]  # only the garbage collector finds it


async def end(backend: Backend, how: str) -> None:
    stream = backend.stream("Hello")
    if how == "forgotten":
        await stream.__aenter__()
        await anext(stream)
        del stream
        gc.collect()
        return
    try:
        async with stream:
            await anext(stream)
            if how == "break":
                return
            if how == "cancel":
                raise asyncio.CancelledError
            async with asyncio.timeout(0.05 if how == "timeout" else None):
                await stream.get_final_completion()
    except (asyncio.CancelledError, BackendError, TimeoutError):
        return
    pytest.fail("it was to end otherwise")


async def test_a_waiting_retry_has_no_slot() -> None:
    async with (
        FaultServer() as server,
        open_backend("openai", endpoint=server.url, default_model="m", max_concurrency=1) as backend,
    ):
        server.play(faults.rate_limited("30"))
        waiting = asyncio.create_task(backend.complete("later"))
        while not server.generations:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            await backend.complete("at once")
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_thousand_tasks_on_an_absent_server_fail_together(refusing_url: str) -> None:
    progress: list[Loading] = []
    async with open_backend("llamacpp", endpoint=refusing_url, default_model="m", ready_timeout=3.0) as backend:
        async with asyncio.timeout(60):
            results = await asyncio.gather(
                *(backend.complete("Hello", on_progress=progress.append) for _ in range(1000)), return_exceptions=True
            )
    assert {APIConnectionError} == {type(error) for error in results}
    assert all(isinstance(error, APIConnectionError) and error.refused and error.waited for error in results)
    assert progress


async def test_a_server_that_comes_back_with_fewer_slots_gets_fewer() -> None:
    """Also from those who wait for it."""
    counting = Counting()
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m") as backend,
    ):
        server.play_always(counting.script())
        server.play(slots(4), probes=True)
        await asyncio.gather(*(backend.complete("Hello") for _ in range(20)))
        assert 4 == counting.most
        counting.most = 0
        server.play(faults.refuse(1.0), slots(2), probes=True)
        await asyncio.gather(*(backend.complete("Hello") for _ in range(20)))
        assert 2 == counting.most


@pytest.mark.parametrize("first", ["loading", "rate_limited", "server_error", "stall"])
async def test_a_failed_probe_is_repeated(first: str) -> None:
    counting = Counting()
    limits = {"ready_timeout": 0}
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m", **limits) as backend,  # type: ignore[arg-type]
    ):
        scripts: list[Script] = [faults.CATALOGUE[first], *[slots(2)] * 100]
        work = counting.script()
        server.play_always(
            lambda response: (scripts.pop(0) if response.route == "/props" else work)(response), probes=True
        )
        with suppress(ServiceUnavailableError):
            await backend.complete("Hello")
        await backend.complete("Hello")
        counting.most = 0
        await asyncio.gather(*(backend.complete("Hello") for _ in range(20)))
        assert 2 == counting.most


async def test_two_backends_do_not_share() -> None:
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", max_concurrency=1) as one,
        open_backend("vllm", endpoint=server.url, default_model="m", max_concurrency=1) as other,
        one.stream("Hello") as busy_stream,
    ):
        await anext(busy_stream)
        async with asyncio.timeout(20):
            await other.complete("Hello")
        assert 2 == len(server.generations)


@pytest.mark.parametrize("fault", ["model_not_found", "unauthorized", "not_http", "html_page", "close_before_headers"])
async def test_a_server_without_a_slot_count_has_no_limit(fault: str) -> None:
    counting = Counting()
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m") as backend,
    ):
        server.play_always(counting.script())
        server.play(faults.CATALOGUE[fault], probes=True)
        await backend.complete("Hello")
        await asyncio.gather(*(backend.complete("Hello") for _ in range(20)))
        assert counting.most > 4


async def test_a_restarted_server_is_probed_again() -> None:
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m") as backend,
    ):
        await backend.complete("Hello")
        await backend.complete("Hello")
        assert 1 == len(props(server))
        server.play(faults.refuse(0.2))
        await backend.complete("Hello")
        await backend.complete("Hello")
        assert 2 == len(props(server))


async def test_status_sets_the_limit() -> None:
    counting = Counting()
    async with (
        FaultServer() as server,
        open_backend("llamacpp", endpoint=server.url, default_model="m") as backend,
    ):
        server.play(*[slots(2)] * 4, probes=True)
        assert 2 == (await backend.status()).slots
        server.play_always(counting.script())
        await asyncio.gather(*(backend.complete("Hello") for _ in range(20)))
        assert (2, 1) == (counting.most, len(props(server)))


async def test_wait_for_a_slot_can_be_cancelled() -> None:
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", max_concurrency=1) as backend,
    ):
        server.play(faults.stall())
        async with backend.stream("Hello") as busy_stream:
            await anext(busy_stream)
            waiting = [asyncio.create_task(backend.complete("Hello")) for _ in range(3)]
            await asyncio.sleep(0.02)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        assert "Hello, world." == (await backend.complete("Hello")).text
        assert 2 == len(server.generations)
