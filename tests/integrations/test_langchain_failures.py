"""The LangChain adapter: every fault has LangChain's category, the number of requests, fallbacks, and cancellation."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core import exceptions as langchain
from langchain_core.messages import AIMessage, HumanMessage

import ctxbackends.errors
from ctxbackends import BackendConfig, BackendError
from ctxbackends.integrations._langchain.errors import CATEGORIES, to_model_error
from ctxbackends.integrations.langchain import ChatCtxbackends
from ctxbackends.local import LocalServer
from ctxbackends.testing import VARIANTS, FaultServer, cached_model, faults
from tests.faults.outcomes import Failure
from tests.faults.test_table import Case
from tests.integrations.fault_cases import FAULT_CASES, config_of
from tests.integrations.langchain_models import Way, ask, both_ways, get_time
from tests.real.conftest import SLOTS, busy_slots, wait_for_slots

PAGE = Path(__file__).parents[2] / "docs" / "frameworks" / "langchain.md"


def category_of(kind: type[BackendError]) -> type[langchain.ModelError]:
    """Return the category that the table in the documentation has for an error."""
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", PAGE.read_text(), re.MULTILINE))
    row = next(rows[parent.__name__] for parent in kind.__mro__ if parent.__name__ in rows)
    category: type[langchain.ModelError] = getattr(langchain, row)
    return category


@pytest.mark.parametrize("case", FAULT_CASES, ids=str)
async def test_every_fault_has_its_category_and_requests(case: Case) -> None:
    expected = case.expected
    way: Way = "stream" if case.operation == "stream" else "invoke"
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        model = ChatCtxbackends(backend=config_of(case, server))
        if isinstance(expected, Failure):
            with pytest.raises(langchain.ModelError) as caught:
                await ask(model, "Hello", way)
            is_status = expected.cause is not None and issubclass(expected.cause, ctxbackends.APIStatusError)
            assert isinstance(
                caught.value, category_of(expected.cause if is_status and expected.cause else expected.error)
            )
            assert isinstance(caught.value, expected.error)
            assert expected.message in str(caught.value)
        else:
            message = await ask(model, "Hello", way)
            assert expected.finish_reason == message.response_metadata["finish_reason"]
            calls = tuple(f"{call['name']} {json.dumps(call['args'])}" for call in message.tool_calls)
            assert tuple(call.replace(":", ": ") for call in expected.calls) == calls
            assert {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5} == message.usage_metadata
    assert expected.requests in (None, len(server.generations))


def test_the_table_has_every_error() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)`", PAGE.read_text(), re.MULTILINE)
    expected = {kind.__name__: category.__name__ for kinds, category in CATEGORIES for kind in kinds}
    assert expected == dict(rows)


@pytest.mark.parametrize(
    ("error", "is_retryable"),
    [
        (ctxbackends.RateLimitError(429, retry_after=3.0), True),
        (ctxbackends.InsufficientQuotaError(402), False),
        (ctxbackends.APIConnectionError("no such host", permanent=True), False),
        (ctxbackends.APIConnectionError("refused", refused=True), True),
        (ctxbackends.BadRequestError(400, body=b"x"), False),
        (ctxbackends.APITimeoutError("total", 3.0, key="timeout"), True),
        (ctxbackends.StrictSchemaError("/x", "y"), False),
        (ctxbackends.ModelLoadFailedError(500), False),
    ],
)
def test_an_error_keeps_its_facts_and_copies(error: BackendError, is_retryable: bool) -> None:
    error.backend = "gpu"
    converted = to_model_error(error)
    assert isinstance(converted, langchain.ModelError)
    assert is_retryable is converted.is_retryable
    facts = {name: value for name, value in vars(converted).items() if name != "is_retryable"}
    assert (str(error), vars(error)) == (str(converted), facts)
    for other in (copy.copy(converted), pickle.loads(pickle.dumps(converted))):  # noqa: S301  # our own bytes
        assert type(other) is type(converted)
        assert (str(converted), vars(converted)) == (str(other), vars(other))


# --- retries and fallbacks ----------------------------------------------------------------------------


@both_ways
async def test_a_fallback_takes_over_after_one_request(way: Way) -> None:
    for fault in ("rate_limited", "busy", "server_error", "loading"):
        async with FaultServer() as broken, FaultServer() as working:
            broken.play_always(faults.CATALOGUE[fault])
            first, second = (
                ChatCtxbackends(
                    backend=BackendConfig(name="v", type="vllm", endpoint=server.url),
                    model="m",
                    max_retries=0,
                    ready_timeout=0,
                )
                for server in (broken, working)
            )
            message = await ask(first.with_fallbacks([second]), "Hello", way)
        assert "stop" == message.response_metadata["finish_reason"]
        assert (1, 1) == (len(broken.generations), len(working.generations))


async def test_a_fallback_takes_over_from_a_server_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config = BackendConfig(name="gone", type="vllm", endpoint=endpoint, default_model="m")
        async with FaultServer() as working:
            second = ChatCtxbackends(backend=BackendConfig(name="v", type="vllm", endpoint=working.url), model="m")
            first = ChatCtxbackends(backend=config, max_retries=0, ready_timeout=0)
            async with asyncio.timeout(10):  # ready_timeout of the type is 90 s
                assert isinstance(await ask(first.with_fallbacks([second]), "Hello"), AIMessage)


async def test_retries_of_langchain_add_to_none_of_ours() -> None:
    async with FaultServer() as server:
        server.play_always(faults.CATALOGUE["rate_limited"])
        model = ChatCtxbackends(
            backend=BackendConfig(name="v", type="vllm", endpoint=server.url), model="m", max_retries=0
        )
        retried = model.with_retry(
            retry_if_exception_type=(langchain.ModelRateLimitError,),
            stop_after_attempt=3,
            wait_exponential_jitter=False,
        )
        with pytest.raises(langchain.ModelRateLimitError):
            await retried.ainvoke("Hello")
    assert 3 == len(server.generations)


# --- a real server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_llama_server() -> Iterator[LocalServer]:
    server = LocalServer(
        cached_model(VARIANTS["slow-tokens"]), alias="slow-tokens", threads=1, parallel=SLOTS, ctx_size=4096
    )
    yield server
    asyncio.run(server.aclose())


@pytest.mark.real
@pytest.mark.parametrize("leave", ["cancel invoke", "cancel stream", "break stream"])
async def test_leaving_frees_the_slot(leave: str, slow_llama_server: LocalServer) -> None:
    endpoint = await slow_llama_server.start()
    config = BackendConfig(name="slow", type="llamacpp", endpoint=endpoint, default_model="slow-tokens")
    model = ChatCtxbackends(backend=config)
    await model._reference.get().wait_ready()
    if leave == "break stream":
        async for _ in model.astream("Hello"):
            assert 1 == await busy_slots(endpoint)
            break
    else:
        working = asyncio.ensure_future(ask(model, "Hello", "invoke" if leave == "cancel invoke" else "stream"))
        assert 1 == await wait_for_slots(1, endpoint, within=60)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert 0 == await wait_for_slots(0, endpoint, within=2)


@pytest.mark.real
async def test_a_server_that_starts_after_the_call_is_waited_for(tiny_model: Callable[[str], Path]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    config = BackendConfig(name="later", type="llamacpp", endpoint=f"http://127.0.0.1:{port}", default_model="tiny")
    model = ChatCtxbackends(backend=config, max_tokens=4)
    waiting = asyncio.ensure_future(ask(model.bind_tools([get_time]), [HumanMessage("Hello")]))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)  # it waits, and does not fail
    server = LocalServer(tiny_model("tiny"), alias="tiny", threads=1, port=port)
    try:
        await server.start()
        assert isinstance(await waiting, AIMessage)
    finally:
        await server.aclose()
