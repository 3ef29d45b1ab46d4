"""The models for the OpenAI Agents SDK where something fails: errors, retries, servers that load, cancellation."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("agents", reason="needs the extra openai-agents: nox -s integrations")

from agents import (
    Agent,
    ModelBehaviorError,
    ModelRetrySettings,
    ModelSettings,
    ModelTracing,
    Runner,
    function_tool,
    retry_policies,
)
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BackendConfig,
    BackendError,
    ContextOverflowError,
    InternalServerError,
    LocalServer,
    ModelMismatchError,
    ModelNotFoundError,
    Observer,
    RateLimitError,
    RedirectError,
    Registry,
    RequestFacts,
    ResponseError,
    StreamInterruptedError,
    open_backend,
)
from ctxbackends.integrations import close_backends
from ctxbackends.integrations._openai_agents.errors import translate_error
from ctxbackends.integrations.openai_agents import CtxModel
from ctxbackends.testing import VARIANTS, FaultServer, cached_model, faults
from tests.faults.outcomes import Failure, Success
from tests.faults.test_table import Case
from tests.integrations.agents_runs import describe, get_response, run, serve_faults, streamed_or_not
from tests.integrations.fault_cases import FAULT_CASES, config_of
from tests.integrations.pages import categories_of, tiny_model  # noqa: F401  # the fixture
from tests.real.conftest import wait_for_slots
from tests.unit.test_cli import free_port
from tests.unit.test_errors import EXAMPLES

# --- failures -------------------------------------------------------------------------------------------

CATEGORIES: dict[type[BackendError], type[Exception]] = {
    # The first that the error is an instance of.
    APITimeoutError: openai.APITimeoutError,
    ContextOverflowError: openai.BadRequestError,
    AuthenticationError: openai.AuthenticationError,
    ModelNotFoundError: openai.NotFoundError,
    RateLimitError: openai.RateLimitError,
    InternalServerError: openai.InternalServerError,
    RedirectError: openai.APIStatusError,
    APIConnectionError: openai.APIConnectionError,
    StreamInterruptedError: openai.APIError,
    ResponseError: ModelBehaviorError,
    ModelMismatchError: ModelBehaviorError,
}


@pytest.mark.parametrize("case", FAULT_CASES, ids=str)
async def test_each_fault_has_its_category(case: Case) -> None:
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        chosen = CtxModel(config_of(case, server))
        expected = case.expected
        if isinstance(expected, Success):
            response = await get_response(chosen, stream=case.operation == "stream")
            calls = tuple(f"{item.name} {item.arguments}" for item in response.output if item.type == "function_call")
            assert expected.calls == calls
            if not calls:
                assert "".join(server.pieces) == response.output[0].content[0].text
        else:
            with pytest.raises(Exception) as caught:  # noqa: PT011  # the category is checked below
                await get_response(chosen, stream=case.operation == "stream")
            check_category(case, expected, caught.value, chosen)
        await close_backends()
        if expected.requests is not None:
            assert expected.requests == len(server.generations)
        await server.wait_idle()


@pytest.mark.parametrize("error", [example.values[0] for example in EXAMPLES], ids=lambda error: type(error).__name__)
def test_the_page_has_the_category_of_each_error(error: BackendError) -> None:
    assert type(translate_error(error)).__name__ in categories_of("openai-agents", error)


def check_category(case: Case, expected: Failure, error: BaseException, chosen: CtxModel) -> None:
    ours = error.__cause__
    assert expected.error is type(ours)
    category = next(theirs for kind, theirs in CATEGORIES.items() if issubclass(expected.error, kind))
    assert isinstance(error, category), repr(error)
    assert str(ours) == str(error)
    if isinstance(error, openai.APIStatusError):
        assert ours.status_code == error.status_code  # type: ignore[attr-defined]  # it is an APIStatusError
    advice = advise(chosen, error)
    was_not_processed = case.fault == "refuse" or isinstance(ours, RateLimitError)
    assert was_not_processed == bool(advice.suggested)
    assert ("safe" if was_not_processed else None) == (
        None if advice.replay_safety == "unsafe" else advice.replay_safety
    )
    partial = getattr(ours, "partial", None)
    assert (partial is not None and partial.text != "") == advice.response_started


def advise(chosen: CtxModel, error: BaseException) -> ModelRetryAdvice:
    assert isinstance(error, Exception)
    advice = chosen.get_retry_advice(ModelRetryAdviceRequest(error=error, attempt=1, stream=False))
    assert advice is not None
    return advice


@streamed_or_not
async def test_openais_codes_are_set(stream: bool) -> None:
    for fault, code in (("context_overflow", "context_length_exceeded"), ("model_not_found", "model_not_found")):
        async with serve_faults(faults.CATALOGUE[fault]) as (backend, _):
            with pytest.raises(openai.APIStatusError) as caught:
                await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
            assert code == caught.value.code


@streamed_or_not
@pytest.mark.parametrize("fault", ["rate_limited", "busy", "loading"])
async def test_without_waiting_there_is_one_request(fault: str, stream: bool) -> None:
    async with serve_faults(faults.CATALOGUE[fault], max_retries=0, ready_timeout=0) as (backend, server):
        chosen = CtxModel(backend)
        with pytest.raises((openai.RateLimitError, openai.InternalServerError)) as caught:
            await run(Agent(name="a", model=chosen), stream=stream)
        assert 1 == len(server.generations)
        advice = advise(chosen, caught.value)
        assert (True, "safe", False) == (advice.suggested, advice.replay_safety, advice.response_started)


@streamed_or_not
async def test_the_runner_retries_what_was_not_processed(stream: bool) -> None:
    retry = ModelRetrySettings(max_retries=2, policy=retry_policies.provider_suggested())
    settings = ModelSettings(retry=retry)
    async with serve_faults(faults.rate_limited("0.01"), max_retries=0) as (backend, server):
        result, _ = await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert "".join(server.pieces) == result.final_output
        assert 2 == len(server.generations)
        assert 2 == result.context_wrapper.usage.requests
    async with serve_faults(faults.CATALOGUE["server_error"]) as (backend, server):
        with pytest.raises(openai.InternalServerError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert 1 == len(server.generations)


@streamed_or_not
async def test_the_runner_turns_the_retries_of_the_backend_off(stream: bool) -> None:
    settings = ModelSettings(retry=ModelRetrySettings(max_retries=0))
    async with serve_faults(faults.rate_limited(), max_retries=2) as (backend, server):
        with pytest.raises(openai.RateLimitError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert 1 == len(server.generations)
        result, _ = await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
        assert "".join(server.pieces) == result.final_output


# --- servers that load ----------------------------------------------------------------------------------


@function_tool
def look(x: int) -> str:
    return f"looked {x}"


@function_tool
def find(y: int) -> str:
    return f"found {y}"


@streamed_or_not
@pytest.mark.parametrize("fault", ["refuse", "loading"])
async def test_a_model_load_in_the_middle_of_a_run(fault: str, stream: bool) -> None:
    async with serve_faults(faults.CATALOGUE["repeated_tool_index"], faults.CATALOGUE[fault]) as (backend, server):
        result, events = await run(Agent(name="a", model=CtxModel(backend), tools=[look, find]), stream=stream)
        assert "".join(server.pieces) == result.final_output
        assert 2 == result.context_wrapper.usage.requests
        if stream:
            completed = [event for event in describe(events) if event[0] == "response.completed"]
            assert 2 == len(completed)


class Waiting(Observer):
    """Tells when a request waits for the server."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def loading(self, facts: RequestFacts) -> None:  # noqa: ARG002  # of the base class
        self.began.set()


@pytest.mark.real
@streamed_or_not
async def test_a_server_that_starts_after_the_call(tiny_model: Callable[[str], Path], stream: bool) -> None:  # noqa: F811
    port = free_port()
    server = LocalServer(tiny_model("tiny"), port=port, threads=1, alias="tiny")
    config = BackendConfig(name="late", type="llamacpp", endpoint=f"http://127.0.0.1:{port}", default_model="tiny")
    waiting = Waiting()
    async with Registry([config], observers=[waiting]) as registry:
        agent = Agent(name="a", model=CtxModel(registry.resolve()), model_settings=ModelSettings(max_tokens=8))
        running = asyncio.create_task(run(agent, "Once upon a time", stream=stream))
        try:
            await waiting.began.wait()
            await server.start()
            result, _ = await running
            assert result.raw_responses[0].usage.output_tokens > 0
        finally:
            running.cancel()
            await server.aclose()


# --- cancellation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_server() -> Iterator[LocalServer]:
    """A server whose model generates slowly and never ends."""
    server = LocalServer(cached_model(VARIANTS["slow-tokens"]), alias="slow-tokens", threads=1, parallel=2)
    yield server
    asyncio.run(server.aclose())


@pytest.mark.real
@pytest.mark.parametrize("way", ["run", "run_streamed", "cancel()"])
async def test_cancelling_frees_the_slot(slow_server: LocalServer, way: str) -> None:
    endpoint = await slow_server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=slow_server.alias) as backend:
        await backend.wait_ready()
        agent = Agent(name="a", model=CtxModel(backend), model_settings=ModelSettings(max_tokens=4000))
        if way == "cancel()":
            result = Runner.run_streamed(agent, "Once upon a time")
            async for event in result.stream_events():
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    result.cancel()
        else:
            task = asyncio.create_task(run(agent, "Once upon a time", stream=way == "run_streamed"))
            assert 1 == await wait_for_slots(1, endpoint, within=20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert 0 == await wait_for_slots(0, endpoint, within=2)


async def test_leaving_the_stream_of_a_model_closes_the_connection() -> None:
    async with serve_faults(faults.CATALOGUE["stall"]) as (backend, server):
        events: Any = CtxModel(backend).stream_response(
            None, "Hi", ModelSettings(), [], None, [], ModelTracing.DISABLED
        )
        async for event in events:
            if event.type == "response.output_text.delta":
                break
        await events.aclose()
        await server.wait_idle()


@streamed_or_not
async def test_the_timeout_of_the_settings_ends_the_request(stream: bool) -> None:
    if "timeout" not in {field.name for field in dataclasses.fields(ModelSettings)}:
        pytest.skip("this version has no ModelSettings.timeout")
    from agents.exceptions import ModelTimeoutError  # noqa: PLC0415  # not in the lowest version

    async with serve_faults(faults.CATALOGUE["stall"]) as (backend, server):
        settings = ModelSettings(timeout=0.2)
        with pytest.raises(ModelTimeoutError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        await server.wait_idle()
        assert 1 == len(server.generations)
