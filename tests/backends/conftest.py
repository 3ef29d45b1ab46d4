"""Fixtures for the shared tests: the servers, each started once, and backends for them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ctxbackends import Backend, LocalServer, open_backend
from ctxbackends.testing import VARIANTS, cached_model
from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.lmstudio_stand_in import LMStudioStandIn
from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.backends import coverage
from tests.backends.targets import TARGETS, Target
from tests.real.conftest import OLD_BUILD
from tests.vllm.server import PYTHON_VARIABLE

RECORD = "CTXBACKENDS_RECORD_COVERAGE"
"""If set, the outcomes are written to the coverage file instead of compared with it. Run all tests in one process."""

_OUTCOMES = pytest.StashKey[coverage.Coverage]()
_ROWS = pytest.StashKey[coverage.Rows]()
_FAILURE = pytest.StashKey[bool]()


class Cell:
    """The outcome of one test with one server."""

    outcome = "tested"

    def mark_not_supported(self) -> None:
        """Record that the SDK raised an error because the server does not support this."""
        self.outcome = "not supported"


# --- servers ----------------------------------------------------------------------------------------


def _llama(environment: Mapping[str, str]) -> Iterator[LocalServer]:
    server = LocalServer(
        cached_model(VARIANTS["tiny-tools"]),
        alias="tiny-tools",
        ctx_size=4096,
        parallel=2,
        threads=1,
        embeddings=True,
        api_key="key-of-the-llama-server-1",  # as in targets.py
        environment=environment,
    )
    yield server
    asyncio.run(server.aclose())


@pytest.fixture(scope="session")
def llama_b11549() -> Iterator[LocalServer]:
    yield from _llama({})


@pytest.fixture(scope="session")
def llama_b8672() -> Iterator[LocalServer]:
    directory = os.environ.get(OLD_BUILD)
    if not directory:
        pytest.skip(f"{OLD_BUILD} names no directory with an xllamacpp of llama.cpp b8672; nox sets it")
    yield from _llama({"PYTHONPATH": directory})


STAND_INS: Mapping[str, Callable[[str | None], StandIn]] = {
    "openai": lambda key: OpenAIStandIn(api_key=key),
    "anthropic": lambda key: AnthropicStandIn(api_key=key),
    "ollama": lambda _: OllamaStandIn(),
    "lmstudio": lambda _: LMStudioStandIn(),
}


@pytest.fixture(params=TARGETS, ids=lambda target: coverage.column(target).replace(", ", "-").replace(" ", "_"))
def target(request: pytest.FixtureRequest) -> Target:
    chosen: Target = request.param
    if chosen.type == "vllm" and PYTHON_VARIABLE not in os.environ:
        pytest.skip(f"{PYTHON_VARIABLE} names no Python with vLLM; nox -s e2e_vllm sets it")
    return chosen


OpenBackend: TypeAlias = Callable[..., Any]


@pytest.fixture
async def stand_in(target: Target) -> AsyncIterator[StandIn | None]:
    """A new stand-in for each test; None for a real server."""
    if target.real:
        yield None
        return
    async with STAND_INS[target.server](target.key) as server:
        yield server


@pytest.fixture
def open_target(target: Target, stand_in: StandIn | None, request: pytest.FixtureRequest) -> OpenBackend:
    """A function that opens a backend for the target; ``embedding=True`` uses the server with the embedding model."""

    @asynccontextmanager
    async def open_it(*, embedding: bool = False, **settings: Any) -> AsyncIterator[Backend]:
        if stand_in is not None:
            endpoint = stand_in.url
        else:
            fixture = target.embedding_server if embedding and target.embedding_server else target.server
            server = request.getfixturevalue(fixture)
            endpoint = await server.start() if isinstance(server, LocalServer) else server.endpoint
        arguments = {
            "endpoint": endpoint,
            "wire_api": target.wire_api,
            "default_model": target.embedding_model if embedding else target.model,
            **({"api_key": target.key} if target.key is not None else {}),
            **target.settings,
            **settings,
        }
        async with open_backend(target.type, name="shared", **arguments) as ready:
            await ready.wait_ready()
            yield ready

    return open_it


@pytest.fixture
async def backend(open_target: OpenBackend) -> AsyncIterator[Backend]:
    async with open_target() as ready:
        yield ready


# --- coverage -----------------------------------------------------------------------------------------


@pytest.fixture
def cell(target: Target, request: pytest.FixtureRequest) -> Iterator[Cell]:
    """The cell of this test and this server, ``tested`` unless the test changes it. The coverage file must agree."""
    outcome = Cell()
    yield outcome
    if not request.node.stash.get(_FAILURE, False):
        column, row = coverage.column(target), row_of(request.node)
        if os.environ.get(RECORD):
            request.config.stash.setdefault(_OUTCOMES, {}).setdefault(column, {})[row] = outcome.outcome
        else:
            assert outcome.outcome == coverage.load().get(column, {}).get(row), (
                f"{column}: {row}: {coverage.PATH} differs"
            )


def row_of(test: pytest.Function) -> str:
    row = test.originalname.removeprefix("test_").replace("_", " ")
    kinds = [str(value) for name, value in test.callspec.params.items() if name != "target"]
    return row + (f": {', '.join(kinds)}" if kinds else "")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if outcomes := session.config.stash.get(_OUTCOMES, None):
        coverage.save(outcomes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # pytest's signature
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILURE] = not report.passed
    return report


@pytest.fixture
def rows(pytestconfig: pytest.Config) -> coverage.Rows:
    """The rows of the collected tests, by column."""
    return pytestconfig.stash[_ROWS]


@pytest.hookimpl(tryfirst=True)  # before what -m deselects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of real servers."""
    rows = config.stash.setdefault(_ROWS, {})
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and isinstance(item, pytest.Function) and "target" in item.fixturenames:
            chosen = item.callspec.params["target"]
            assert isinstance(chosen, Target)
            if chosen.real:
                item.add_marker(pytest.mark.real if chosen.type != "vllm" else pytest.mark.vllm)
            if "cell" in item.fixturenames:
                rows.setdefault(coverage.column(chosen), set()).add(row_of(item))
