"""The faults of the catalogue for the tests of adapters: each fault, in one piece and streamed, on two wires.

A test plays ``faults.CATALOGUE[case.fault]`` on a FaultServer, calls its framework with `config_of(case, server)`, and
compares the framework's error with its own table. ``case.expected`` is the outcome of the backend: a Success, or a
Failure with the error that the framework's error has as its cause, and the number of requests.
"""

from __future__ import annotations

from collections.abc import Iterator

from ctxbackends import BackendConfig
from ctxbackends.testing import FaultServer, faults
from tests.faults.test_table import USUAL_ROUTES, Case, Operation

_OPERATIONS: tuple[Operation, ...] = ("complete", "stream")
_ROUTES = tuple(route for route in USUAL_ROUTES if route.type in ("openai", "anthropic"))


def _cases() -> Iterator[Case]:
    for name, fault in faults.CATALOGUE.items():
        for route in _ROUTES:
            for operation in _OPERATIONS:
                if fault.applies_to(route.kind(operation), route.wire):
                    yield Case(name, route, operation)


FAULT_CASES = tuple(_cases())


def config_of(case: Case, server: FaultServer) -> BackendConfig:
    return BackendConfig(
        name="one", type=case.route.type, endpoint=server.url, api_key="k", default_model="m", **case.limits
    )
