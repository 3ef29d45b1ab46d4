"""The model for pydantic-ai where something fails: error categories, fallback, cancellation, a server that starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra pydantic-ai: nox -s integrations")

from pydantic_ai import Agent, exceptions
from pydantic_ai.messages import ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.settings import ModelSettings

from ctxbackends import BackendConfig, LocalServer, ModelMismatchError, StreamInterruptedError, errors
from ctxbackends.integrations import close_backends
from ctxbackends.integrations._common import BackendReference
from ctxbackends.integrations._pydantic_ai.errors import to_framework_error
from ctxbackends.integrations.pydantic_ai import CtxModel, CtxModelSettings
from ctxbackends.testing import Answer, FaultServer, OllamaStandIn, faults
from ctxbackends.testing._fault_server.answers import dump, plain
from tests.faults.outcomes import Failure, Success
from tests.faults.test_table import Case
from tests.integrations.fault_cases import FAULT_CASES, config_of
from tests.integrations.pages import Block, blocks_of, categories_of, llama_server, project, run_block, tiny_model  # noqa: F401
from tests.real.conftest import wait_for_slots
from tests.unit.test_errors import EXAMPLES

MESSAGES: Any = [ModelRequest([UserPromptPart("Hello")])]
PARAMETERS = ModelRequestParameters()


@pytest.fixture(autouse=True)
async def closed_backends() -> AsyncIterator[None]:
    yield
    await close_backends()


async def ask(model: CtxModel, operation: str, settings: ModelSettings | None = None) -> str:
    """The text of the answer, from a request or from a stream."""
    if operation == "complete":
        response = await model.request(MESSAGES, settings, PARAMETERS)
    else:
        async with model.request_stream(MESSAGES, settings, PARAMETERS) as stream:
            async for _ in stream:
                pass
        response = stream.get()
    return response.text or ""


# --- error categories ---------------------------------------------------------------------------------

CATEGORIES: dict[type[errors.BackendError], type[exceptions.ModelAPIError]] = {
    errors.APIConnectionError: exceptions.ModelConnectionError,
    errors.APITimeoutError: exceptions.ModelTimeoutError,
    errors.ResponseInterruptedError: exceptions.ModelConnectionError,
    errors.StreamInterruptedError: exceptions.ModelConnectionError,
    errors.ServerDiedError: exceptions.ModelConnectionError,
    errors.RateLimitError: exceptions.ModelRateLimitError,
    errors.InsufficientQuotaError: exceptions.ModelQuotaExceededError,
    errors.AuthenticationError: exceptions.ModelAuthenticationError,
    errors.PermissionDeniedError: exceptions.ModelAuthenticationError,
    errors.NotFoundError: exceptions.ModelNotFoundError,
    errors.ModelNotFoundError: exceptions.ModelNotFoundError,
    errors.BadRequestError: exceptions.ModelRequestRejectedError,
    errors.ContextOverflowError: exceptions.ModelContextWindowExceededError,
    errors.InternalServerError: exceptions.ModelServerError,
    errors.ModelLoadFailedError: exceptions.ModelServerError,
    errors.ServiceUnavailableError: exceptions.ModelUnavailableError,
    errors.ModelLoadingError: exceptions.ModelUnavailableError,
    errors.RedirectError: exceptions.ModelHTTPError,
    errors.MalformedResponseError: exceptions.ModelAPIError,
    errors.ResponseTooLargeError: exceptions.ModelAPIError,
    errors.ResponseError: exceptions.ModelAPIError,
    errors.EmptyChoicesError: exceptions.ModelAPIError,
    errors.ModelMismatchError: exceptions.ModelAPIError,
}
"""The category of each error. `FallbackModel` moves on for each of them."""


@pytest.mark.parametrize("case", FAULT_CASES, ids=str)
async def test_faults(case: Case) -> None:
    expected = case.expected
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        model = CtxModel(config_of(case, server))
        if isinstance(expected, Success):
            assert ("" if expected.calls else "Hello, world.") == await ask(model, case.operation)
        else:
            assert isinstance(expected, Failure)
            with pytest.raises(exceptions.ModelAPIError) as exc_info:
                await ask(model, case.operation)
            check_error(exc_info.value, expected)
        assert expected.requests in (None, len(server.generations))


def check_error(error: exceptions.ModelAPIError, expected: Failure) -> None:
    cause = error.__cause__
    assert expected.error is type(cause)
    assert expected.message in str(error)
    inner = expected.cause if expected.cause is not None and issubclass(expected.cause, errors.APIStatusError) else None
    assert isinstance(error, CATEGORIES[inner or expected.error])
    status = getattr(cause, "status_code", 0)
    if isinstance(error, exceptions.ModelHTTPError) and status:
        assert status == error.status_code
    if expected.error is StreamInterruptedError:
        assert error.in_stream or (expected.pieces or 0) == 0


@pytest.mark.parametrize(
    ("status", "body", "category"),
    [
        (400, {}, exceptions.ModelRequestRejectedError),
        (402, {}, exceptions.ModelQuotaExceededError),
        (403, {}, exceptions.ModelAuthenticationError),
        (404, {"code": "model_not_found"}, exceptions.ModelNotFoundError),
        (422, {}, exceptions.ModelRequestRejectedError),
        (429, {"code": "insufficient_quota"}, exceptions.ModelQuotaExceededError),
        (429, {}, exceptions.ModelRateLimitError),
        (500, {}, exceptions.ModelServerError),
        (503, {}, exceptions.ModelUnavailableError),
        (529, {}, exceptions.ModelOverloadedError),
    ],
)
@pytest.mark.parametrize("operation", ["complete", "stream"])
async def test_statuses(operation: str, status: int, body: dict[str, str], category: type[Exception]) -> None:
    async with FaultServer() as server:
        server.play_always(lambda _: iter([plain(status, dump({"error": {"message": "no", "type": "t", **body}}))]))
        model = CtxModel(fallback_config("openai", server.url))
        with pytest.raises(category) as exc_info:
            await ask(model, operation)
        assert 1 == len(server.generations)
    error = exc_info.value
    assert isinstance(error, exceptions.ModelHTTPError)
    assert (status, "m") == (error.status_code, error.model_name)
    assert 'backend "b"' in str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("c"),
        errors.UnsupportedOptionError("o", "p"),
        errors.ClosedError("c"),
        errors.EventLoopError("e"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_the_program_are_user_errors(error: errors.BackendError) -> None:
    """No other model mends them, so a FallbackModel raises them."""
    converted = to_framework_error(error, "m")
    assert (exceptions.UserError, str(error)) == (type(converted), str(converted))


def test_the_table_has_every_error() -> None:
    program_errors = (errors.ConfigError, errors.UnsupportedOptionError, errors.UnsupportedOperationError)
    for kind in vars(errors).values():
        if not isinstance(kind, type) or not issubclass(kind, errors.APIStatusError):
            continue
        assert kind in CATEGORIES or kind is errors.APIStatusError, kind
    assert not any(issubclass(kind, program_errors) for kind in CATEGORIES)


@pytest.mark.parametrize("error", [example.values[0] for example in EXAMPLES], ids=lambda error: type(error).__name__)
def test_the_page_has_the_category_of_each_error(error: errors.BackendError) -> None:
    assert type(to_framework_error(error, "m")).__name__ in categories_of("pydantic-ai", error)


async def test_another_model_is_an_error_with_the_whole_answer() -> None:
    async with FaultServer() as server:
        server.play(faults.other_model())
        model = CtxModel(BackendConfig(name="b", type="vllm", endpoint=server.url, default_model="m"))
        with pytest.raises(exceptions.ModelAPIError) as exc_info:
            await ask(model, "complete")
    cause = exc_info.value.__cause__
    assert isinstance(cause, ModelMismatchError)
    assert cause.completion is not None
    assert "Hello, world." == cause.completion.text


# --- fallback -----------------------------------------------------------------------------------------


def fallback_config(type_: str, url: str) -> BackendConfig:
    """As docs/frameworks says: one request, and no wait."""
    return BackendConfig(
        name="b", type=type_, endpoint=url, api_key="k", default_model="m", max_retries=0, ready_timeout=0
    )


@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("type_", ["vllm", "llamacpp", "ollama", "openai", "anthropic"])
async def test_a_fallback_model_moves_on_from_a_refused_server(type_: str, operation: str) -> None:
    """It takes a small part of the 90 s for which the backend would wait for a cold start."""
    with FaultServer() as server:
        url = server.url
    refused = CtxModel(fallback_config(type_, url))
    agent = Agent(FallbackModel(refused, TestModel(custom_output_text="from the other")))
    began = time.monotonic()
    if operation == "complete":
        output = (await agent.run("Hello")).output
    else:
        async with agent.run_stream("Hello") as result:
            output = await result.get_output()
    assert "from the other" == output
    assert time.monotonic() - began < 90 / 9


@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("fault", ["loading", "busy", "rate_limited", "server_error", "no_terminal_marker"])
async def test_a_fallback_model_moves_on_after_one_request(fault: str, operation: str) -> None:
    async with FaultServer() as server:
        server.play_always(faults.CATALOGUE[fault], probes=True)
        failing = CtxModel(fallback_config("vllm", server.url))
        model = FallbackModel(failing, TestModel(custom_output_text="from the other"))
        if operation == "complete":
            response = await model.request(MESSAGES, None, PARAMETERS)
        elif fault == "no_terminal_marker":  # text came before it broke off: too late for another model
            with pytest.raises(exceptions.ModelConnectionError, match="the stream ended without"):
                async with model.request_stream(MESSAGES, None, PARAMETERS) as stream:
                    async for _ in stream:
                        pass
            return
        else:
            async with model.request_stream(MESSAGES, None, PARAMETERS) as stream:
                async for _ in stream:
                    pass
            response = stream.get()
        assert "from the other" == response.text
        assert 1 == len(server.generations)


@pytest.mark.parametrize("operation", ["complete", "stream"])
async def test_settings_turn_off_retries_for_one_request(operation: str) -> None:
    async with FaultServer() as server:
        server.play_always(faults.rate_limited(""))
        model = CtxModel(BackendConfig(name="b", type="vllm", endpoint=server.url, default_model="m"))
        settings = CtxModelSettings(max_retries=0, ctx_request_options={"ready_timeout": 0})
        with pytest.raises(exceptions.ModelRateLimitError):
            await ask(model, operation, settings)
        assert 1 == len(server.requests)


# --- cold start, cancellation -------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["complete", "stream"])
async def test_a_server_that_starts_after_the_call(operation: str) -> None:
    async with FaultServer() as server:
        server.play(faults.refuse())
        model = CtxModel(BackendConfig(name="b", type="vllm", endpoint=server.url, default_model="m"))
        assert "Hello, world." == await ask(model, operation)


@pytest.mark.parametrize("operation", ["complete", "stream"])
async def test_a_model_that_loads_between_two_calls(operation: str) -> None:
    async with FaultServer() as server:
        model = CtxModel(BackendConfig(name="b", type="vllm", endpoint=server.url, default_model="m"))
        assert "Hello, world." == await ask(model, operation)
        server.play(faults.loading(2), probes=True)
        assert "Hello, world." == await ask(model, operation)


@pytest.mark.real
@pytest.mark.parametrize("how", ["complete", "stream", "break", "cancel()"])
async def test_cancelling_frees_the_slot(how: str, slow_model: CtxModel) -> None:
    endpoint = slow_model.base_url
    agent = Agent(slow_model, model_settings=ModelSettings(max_tokens=2000))

    async def use() -> None:
        if how == "complete":
            await agent.run("Hello")
            return
        async with slow_model.request_stream(MESSAGES, None, PARAMETERS) as stream:
            async for _ in stream:
                if how == "break":
                    break
                if how == "cancel()":
                    await stream.cancel()

    asking = asyncio.create_task(use())
    if how in ("complete", "stream"):
        assert 1 == await wait_for_slots(1, endpoint, within=20)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    else:
        await asking
    assert 0 == await wait_for_slots(0, endpoint, within=2)


@pytest.fixture(scope="session")
def slow_server(tiny_model: Callable[[str], Any]) -> Any:  # noqa: F811  # the fixture
    server = LocalServer(tiny_model("slow-tokens"), alias="slow", ctx_size=4096, parallel=2, threads=1)
    yield server
    asyncio.run(server.aclose())


@pytest.fixture
async def slow_model(slow_server: LocalServer) -> CtxModel:
    endpoint = await slow_server.start()
    config = BackendConfig(name="slow", type="llamacpp", endpoint=endpoint, default_model="slow")
    await BackendReference.of(config).get().wait_ready()
    return CtxModel(config)


async def test_a_cancelled_stream_is_interrupted() -> None:
    async with OllamaStandIn(answer=lambda _: Answer(text="one two three four five")) as stand_in:
        model = CtxModel(BackendConfig(name="b", type="ollama", endpoint=stand_in.url, default_model="qwen3:4b"))
        async with model.request_stream(MESSAGES, None, PARAMETERS) as stream:
            async for _ in stream:
                await stream.cancel()
        assert ("interrupted", True) == (stream.get().state, stream.cancelled)


# --- the page -----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("pydantic-ai"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811  # the fixture
    run_block(block, project)
