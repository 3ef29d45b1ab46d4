"""Retries against the fault server: the waits that a server asks for, and reused connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    Backend,
    Loading,
    RateLimitError,
    ServiceUnavailableError,
    open_backend,
)
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Do, Fault, ResponseBuilder, Script, Step, respond

TYPES = ("openai", "vllm", "anthropic", "ollama")


async def texts_of(backend: Backend) -> list[str]:
    """The text of a completion and of a stream."""
    async with backend.stream("Hello") as stream:
        stream_text = (await stream.get_final_completion()).text
    return [(await backend.complete("Hello")).text, stream_text]


# --- what a server asks to wait ---------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda: faults.rate_limited("0"), id="seconds"),
        pytest.param(lambda: faults.rate_limited("0.05"), id="a part of a second"),
        pytest.param(lambda: faults.rate_limited("20", "retry-after-ms"), id="milliseconds"),
        pytest.param(lambda: faults.rate_limited(faults.date_in(-5)), id="a date that has passed"),
        pytest.param(lambda: faults.rate_limited(faults.date_in(1)), id="a date"),
        pytest.param(lambda: faults.rate_limited(""), id="nothing"),
        pytest.param(lambda: faults.rate_limited("soon"), id="what is no time"),
        pytest.param(lambda: faults.rate_limited("-3"), id="less than nothing"),
        pytest.param(lambda: faults.rate_limited("nan"), id="no number"),
        pytest.param(lambda: faults.busy(503), id="503"),
        pytest.param(lambda: faults.busy(529), id="529"),
    ],
)
async def test_retry_after_is_waited_for_before_the_retry(fault: Callable[[], Fault], type_: str) -> None:
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play(fault())  # the dates count from now
        assert "Hello, world." == (await backend.complete("Hello")).text
        assert 2 == len(server.generations)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("retry_after", ["3600", "1e9", "a date"])
async def test_a_retry_after_of_an_hour_is_an_error(retry_after: str, type_: str) -> None:
    retry_after = (
        faults.date_in(3600) if retry_after == "a date" else retry_after
    )  # the clock is read while the test runs
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play_always(faults.rate_limited(retry_after))
        with pytest.raises(RateLimitError) as exc_info:
            await backend.complete("Hello")
        assert exc_info.value.retry_after is not None
        assert exc_info.value.retry_after > 3000
        assert 1 == len(server.generations)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("fault", "error"), [("rate_limited", RateLimitError), ("busy", ServiceUnavailableError)])
async def test_three_attempts_at_most(fault: str, error: type[Exception], type_: str) -> None:
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play_always(faults.CATALOGUE[fault])
        with pytest.raises(error):
            await backend.complete("Hello")
        assert 3 == len(server.generations)


# --- a server that starts ---------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["vllm", "llamacpp"])
async def test_refused_then_loading_then_ready(type_: str) -> None:
    """A cold start in all its states, and the generation is done once."""
    progress: list[Loading] = []
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play(faults.refuse(0.3), faults.loading(0.3), probes=True)
        answer = await backend.complete("Hello", on_progress=progress.append)
        assert "Hello, world." == answer.text
        assert ["refused", "loading"] == list(dict.fromkeys(event.state for event in progress))


@pytest.mark.parametrize("type_", ["vllm", "llamacpp"])
async def test_only_probes_wait_for_a_swap_proxy(type_: str) -> None:
    """502 may also mean that the server behind the proxy died with the request: a generation is not sent again."""
    progress: list[Loading] = []
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play(faults.swap_proxy(0.3), probes=True)
        await backend.wait_ready(on_progress=progress.append)
        assert {"starting"} == {event.state for event in progress}
        assert "Hello, world." == (await backend.complete("Hello")).text
        assert 1 == len(server.generations)


async def test_loading_has_a_budget() -> None:
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", ready_timeout=0.5) as backend,
    ):
        server.play_always(faults.loading(1000), probes=True)
        with pytest.raises(ServiceUnavailableError) as exc_info:
            await backend.complete("Hello")
        assert exc_info.value.waited is not None
        assert exc_info.value.waited >= 0.5


# --- connections that are kept ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [faults.close_after_response(), faults.close_on_reuse()], ids=lambda fault: fault.name
)
@pytest.mark.parametrize("type_", [*TYPES, "llamacpp", "lmstudio"])
async def test_back_to_back_requests_on_closed_connections(type_: str, fault: Fault) -> None:
    """A connection that is closed between two requests, or in the moment in which the second comes, costs nobody an
    answer, and no generation arrives twice."""
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        server.play_always(fault, probes=True)
        count = 0
        for _ in range(10):
            assert ["Hello, world."] * 2 == await texts_of(backend)
            count += 2
        assert count == len(server.generations)


@pytest.mark.parametrize("type_", [*TYPES, "llamacpp", "lmstudio"])
async def test_an_unsolicited_response_answers_no_request(type_: str) -> None:
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        for _ in range(3):
            server.play(faults.unsolicited_response())
            assert "Hello, world." == (await backend.complete("Hello")).text
            await asyncio.sleep(0.05)  # the other one comes, if the connection is still there
            assert "Hello, world." == (await backend.complete("Hello")).text
        assert 6 == len(server.generations)


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET])
@pytest.mark.parametrize("type_", TYPES)
async def test_a_server_that_dies_during_a_request_on_a_reused_connection(type_: str, end: Do) -> None:
    """It had read the request, and worked for a while: that it was lost is an error, and it is not sent again."""
    async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
        await backend.complete("Hello")

        def die(_: ResponseBuilder) -> Iterator[Step]:
            yield 0.25  # longer than a connection that had been closed takes to show it
            yield end

        server.play(die)
        with pytest.raises(APIConnectionError, match="closed the connection before a response") as exc_info:
            await backend.complete("Hello")
        assert exc_info.value.sent
        assert 2 == len(server.generations)
        assert 1 == len({request.connection.number for request in server.generations})


@pytest.mark.parametrize("type_", TYPES)
async def test_concurrent_requests_arrive_once(type_: str) -> None:
    """Under every fault that may come after the request was processed, at the same time."""
    scripts: tuple[Script, ...] = (
        faults.close_before_headers(),
        faults.reset_before_headers(),
        faults.close_in_headers(),
        faults.close_in_chunk(),
        faults.reset_in_body(),
        faults.no_response(),
        faults.stall(),
        faults.server_error(),
        faults.swap_proxy(0.0),
        faults.not_http(),
        respond,
    )
    limits: dict[str, Any] = {"first_token_timeout": 4.0, "idle_timeout": 4.0, "timeout": 4.0}
    async with (
        FaultServer() as server,
        open_backend(type_, endpoint=server.url, default_model="m", **limits) as backend,
    ):
        server.play(*scripts * 5)
        results = await asyncio.gather(
            *(backend.complete(f"number {number}") for number in range(len(scripts) * 5)), return_exceptions=True
        )
        prompts = sorted(str(request.json["messages"][-1]["content"]) for request in server.generations)
        assert sorted(f"number {number}" for number in range(len(scripts) * 5)) == prompts
        assert 5 == sum(not isinstance(result, BaseException) for result in results)
        assert {"first_token", "idle", "total"} >= {
            result.phase for result in results if isinstance(result, APITimeoutError)
        }
