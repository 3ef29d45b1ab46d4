"""With max_retries and ready_timeout at 0, a call is one request, whatever the server answers, on every wire."""

from __future__ import annotations

from typing import Any

import pytest

from ctxbackends import APIConnectionError, Backend, BackendError, Completion, RequestOptions, open_backend
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Fault
from tests.faults.test_table import USUAL_ROUTES, Route

ONCE = RequestOptions(max_retries=0, ready_timeout=0)
FAULTS: dict[str, Fault] = {
    **{name: faults.CATALOGUE[name] for name in ("loading", "swap_proxy", "rate_limited", "busy", "server_error")},
    **{name: faults.CATALOGUE[name] for name in ("load_failed", "close_before_headers", "reset_before_headers")},
    **{name: faults.CATALOGUE[name] for name in ("close_in_headers", "unauthorized", "context_overflow")},
    "rate_limited without a time": faults.rate_limited(""),
    "overloaded": faults.busy(529),
}


def settings_of(route: Route, server: FaultServer) -> dict[str, Any]:
    settings: dict[str, Any] = {"endpoint": server.url, "default_model": "m", "wire_api": route.wire, "api_key": "k"}
    return settings | ({"complete_streams": False} if route.in_one_piece else {})


async def ask(backend: Backend, operation: str, options: RequestOptions | None) -> Completion:
    if operation == "complete":
        return await backend.complete("Hello", request_options=options)
    async with backend.stream("Hello", request_options=options) as stream:
        return await stream.get_final_completion()


@pytest.mark.parametrize("route", USUAL_ROUTES, ids=lambda route: route.name)
@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_one_request(fault: Fault, operation: str, route: Route) -> None:
    async with FaultServer() as server, open_backend(route.type, **settings_of(route, server)) as backend:
        server.play_always(fault)
        with pytest.raises(BackendError) as exc_info:
            await ask(backend, operation, ONCE)
        assert (1, None) == (len(server.requests), exc_info.value.waited)


@pytest.mark.parametrize("route", USUAL_ROUTES, ids=lambda route: route.name)
@pytest.mark.parametrize("operation", ["complete", "stream"])
async def test_a_refused_connection_is_an_error_at_once(operation: str, route: Route) -> None:
    async with FaultServer() as server, open_backend(route.type, **settings_of(route, server)) as backend:
        server.play(faults.refuse())
        with pytest.raises(APIConnectionError) as exc_info:
            await ask(backend, operation, ONCE)
        assert (True, None, []) == (exc_info.value.refused, exc_info.value.waited, server.requests)


@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("max_retries", [0, 1])
async def test_a_connection_that_closes_on_reuse(max_retries: int, operation: str) -> None:
    """The server closes the pooled connection when the request arrives: with a retry, the answer comes."""
    options = RequestOptions(max_retries=max_retries, ready_timeout=0)
    async with (
        FaultServer() as server,
        open_backend("openai", endpoint=server.url, default_model="m", api_key="k") as backend,
    ):
        server.play(faults.close_on_reuse())
        await ask(backend, "complete", options)
        if max_retries:
            assert "Hello, world." == (await ask(backend, operation, options)).text
            assert (2, 2) == (len(server.generations), len(server.connections))
        else:
            with pytest.raises(APIConnectionError, match="closed the connection before a response") as exc_info:
                await ask(backend, operation, options)
            assert (APIConnectionError, True) == (type(exc_info.value), exc_info.value.sent)
            assert (1, 1) == (len(server.generations), len(server.connections))
