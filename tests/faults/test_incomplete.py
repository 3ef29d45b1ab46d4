"""An answer that broke off has one base class, plain or streamed, on every wire."""

from __future__ import annotations

import pytest

from ctxbackends import IncompleteResponseError, PartialCompletion, open_backend
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._fault_server.answers import PIECES, Kind
from tests.faults.test_one_request import ask, settings_of
from tests.faults.test_table import USUAL_ROUTES, Route

FAULTS = ("close_in_chunk", "reset_in_body", "short_body", "no_terminal_marker", "abort", "unknown_finish_reason")


@pytest.mark.parametrize("route", USUAL_ROUTES, ids=lambda route: route.name)
@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_answer_that_broke_off(fault: str, operation: str, route: Route) -> None:
    kind: Kind = "stream" if operation == "stream" or route.complete_streams else "plain"
    if not faults.CATALOGUE[fault].applies_to(kind, route.wire):
        pytest.skip("the fault has another form there")
    async with FaultServer() as server, open_backend(route.type, **settings_of(route, server)) as backend:
        server.play(faults.CATALOGUE[fault])
        with pytest.raises(IncompleteResponseError) as exc_info:
            await ask(backend, operation, None)
        assert isinstance(exc_info.value.partial, PartialCompletion)
        assert "".join(PIECES).startswith(exc_info.value.partial.text)
        assert (kind == "stream") == bool(exc_info.value.partial.text)
        assert 1 == len(server.generations)
