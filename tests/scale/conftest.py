"""A cluster of Ray on loopback, for all tests of a process."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine_workers import CountingServer, Parts, counting_server
from tests.scale.environment import set_variables

if TYPE_CHECKING:
    from tests.scale.cluster import LoopbackCluster

ROOT = str(Path(__file__).parents[2])
collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("ray") is None else []

set_variables()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))  # Ray starts slowly where other processes use the CPUs


@pytest.fixture(scope="session")
def key_variable() -> Iterator[str]:
    """The variable of an API key. The nodes of the cluster have it."""
    name = "CTX_TEST_CANARY_KEY"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, f"canary-{secrets.token_hex(16)}")
        yield name


@pytest.fixture(scope="session")
def cluster(key_variable: str) -> Iterator[LoopbackCluster]:
    from tests.scale.cluster import LoopbackCluster  # noqa: PLC0415  # needs ray

    with pytest.MonkeyPatch.context() as patch:
        # Worker processes import the tests; the package comes first.
        patch.setenv("PYTHONPATH", os.pathsep.join([*filter(None, sys.path), ROOT]))
        with LoopbackCluster() as cluster:
            yield cluster


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    async with counting_server(seconds=0.02) as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)
