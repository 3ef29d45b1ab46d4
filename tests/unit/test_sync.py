"""`ctxbackends.sync`: the same methods, results and errors as the async backends, from any thread."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import inspect
import pickle
import re
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import ctxbackends
from ctxbackends import (
    APIConnectionError,
    Backend,
    BackendConfig,
    ClosedError,
    Completion,
    EventLoopError,
    Finish,
    Loading,
    Observer,
    Registry,
    StreamInterruptedError,
    StructuredOutputError,
    TextDelta,
    UnsupportedOptionError,
    local,
    sync,
)
from ctxbackends._client.backend import Stream
from ctxbackends._extract_stream import ExtractionStream
from ctxbackends._schema.members import Member
from ctxbackends._tool_stream import ToolStream
from ctxbackends.sync import SyncBackend, SyncExtractionStream, SyncRegistry, SyncStream, SyncToolStream
from ctxbackends.sync import _loop_thread as loop_thread
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import ResponseBuilder, Step, respond

TYPES = ("openai", "vllm", "anthropic", "ollama")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def config_of(server: FaultServer, type_: str = "vllm", **settings: Any) -> BackendConfig:
    return BackendConfig(name=type_, type=type_, endpoint=server.url, default_model="m", **settings)


@pytest.fixture
def backend(server: FaultServer) -> Iterator[SyncBackend]:
    with SyncRegistry([config_of(server)]) as registry:
        yield registry.default()


# --- the same signatures ----------------------------------------------------------------------------

ASYNC_NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
ASYNC_NAMES |= {"__anext__": "__next__"}
TYPES_OF = {"Backend": "SyncBackend", "ChatStream": "SyncStream", "HTTPBackend": "SyncBackend"}
TYPES_OF |= {"Stream": "SyncStream", "ExtractionStream": "SyncExtractionStream", "ToolStream": "SyncToolStream"}
OMITTED = {"session"}
"""An aiohttp session belongs to the event loop of the caller."""

PAIRS: list[tuple[Any, Any]] = [
    (Backend, SyncBackend),
    (Registry, SyncRegistry),
    (Stream, SyncStream),
    (ExtractionStream, SyncExtractionStream),
    (ToolStream, SyncToolStream),
]


def members(cls: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(cls).items()
        if (not name.startswith("_") or name in ASYNC_NAMES)
        and (callable(member) or isinstance(member, property | classmethod))
    }


def signature(function: Any) -> list[tuple[str, object, object, str]]:
    """The parameters, and what is returned, each with what differs without async replaced."""

    def replace(annotation: object) -> str:
        text = re.sub(r"\bAsyncIterator\b", "Iterator", str(annotation))
        text = re.sub(r"\bBackendContext\[(\w+)\]", r"\1", text)  # a SyncBackend is a context manager itself
        return re.sub(r"\b(\w+)\b", lambda match: TYPES_OF.get(match[1], match[1]), text)

    parameters = [
        (parameter.name, parameter.kind, parameter.default, replace(parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in OMITTED
    ]
    returned = replace(inspect.signature(function).return_annotation)
    return [*parameters, ("return", None, None, returned)]


@pytest.mark.parametrize(("async_class", "sync_class"), PAIRS)
def test_classes_have_the_same_methods(async_class: type, sync_class: type) -> None:
    expected = {ASYNC_NAMES.get(name, name): member for name, member in members(async_class).items()}
    actual = {name: getattr(sync_class, name, None) for name in expected}
    for name, member in expected.items():
        if isinstance(member, property):
            attribute = actual[name]
            getter = attribute.fget if isinstance(attribute, property) else None
            assert getter is not None, f"{sync_class.__name__}.{name} is not a property"
            assert signature(member.fget) == signature(getter), name
        elif name in ("__iter__", "__exit__", "__next__"):
            assert callable(actual[name])
        else:
            assert actual[name] is not None, f"{sync_class.__name__}.{name} is missing"
            function = getattr(async_class, name) if isinstance(member, classmethod) else member
            assert signature(function) == signature(actual[name]), name
            assert not inspect.iscoroutinefunction(actual[name])


@pytest.mark.parametrize("name", ["__init__", "from_ctxrc"])
def test_registries_are_created_in_the_same_way(name: str) -> None:
    assert signature(getattr(Registry, name)) == signature(getattr(SyncRegistry, name))


FUNCTIONS = ["open_backend", "extract", "extract_result", "extract_stream", "probe_schema", "serve_model"]
FUNCTIONS += ["run_tools", "stream_tools"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_same_parameters(name: str) -> None:
    module = local if name == "serve_model" else ctxbackends
    assert signature(getattr(module, name)) == signature(getattr(sync, name))


# --- the same results -------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
def test_every_operation_returns_what_the_async_backend_returns(server: FaultServer, type_: str) -> None:
    registry = SyncRegistry([config_of(server, type_)])
    sync_backend = registry.default()
    operations: list[Callable[[Any], Any]] = [
        lambda backend: backend.complete("Hello", max_tokens=5),
        lambda backend: backend.models(),
        lambda backend: backend.wait_ready(),
        lambda backend: backend.embed(["a", "b"]),
        lambda backend: backend.count_tokens("Hello"),
        lambda backend: backend.load(),
        lambda backend: backend.unload(),
        lambda backend: backend.complete("Hello", top_k=0.5),
    ]

    async def run(operation: Callable[[Any], Any]) -> object:
        return await operation(sync_backend.async_backend)

    for operation in operations:
        expected = outcome(lambda operation: asyncio.run(run(operation)), operation)
        assert expected == outcome(lambda operation: operation(sync_backend), operation)
    registry.close()


def outcome(call: Callable[[Any], object], operation: object) -> object:
    try:
        return call(operation)
    except Exception as error:  # whatever it is, it is the same
        return type(error), str(error)


def test_properties(server: FaultServer) -> None:
    with SyncRegistry([config_of(server)]) as registry:
        backend = registry.default()
        assert ("vllm", "vllm", "m", server.url) == (
            backend.name,
            backend.type,
            backend.default_model,
            backend.endpoint,
        )
        assert backend.async_backend.schema_enforcement == backend.schema_enforcement
        assert backend.async_backend.capabilities == backend.capabilities
        assert backend.async_backend.refusal("reasoning_budget") == backend.refusal("reasoning_budget")
        assert ("m", "ready") == (backend.ping().model, backend.status().state)
        assert backend is registry.resolve("vllm") is registry.resolve()
        assert (("vllm",), False) == (registry.names, registry.airgap)
        assert ["ready"] == [status.state for status in registry.statuses()]
        assert f"<SyncBackend of {backend.async_backend!r}>" == repr(backend)


def test_from_ctxrc(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text(f"backends: [{{name: vllm, endpoint: '{server.url}', default_model: m}}]\n")
    with SyncRegistry.from_ctxrc(tmp_path / ".ctxrc") as registry:
        assert "Hello, world." == registry.default().complete("Hello").text


def test_open_backend(server: FaultServer) -> None:
    with sync.open_backend("vllm", name="one", endpoint=server.url, default_model="m") as backend:
        assert ("one", "Hello, world.") == (backend.name, backend.complete("Hello").text)
    with pytest.raises(ClosedError):
        backend.complete("Hello")


@attrs.frozen
class Count:
    number: int


def test_extract() -> None:
    with (
        FaultServer(pieces=('{"num', 'ber": 7}')) as server,
        sync.open_backend("vllm", endpoint=server.url, default_model="m") as backend,
    ):
        assert Count(7) == sync.extract(backend, Count, "seven", max_tokens=20)
        result = sync.extract_result(backend, Count, "seven", instructions="Count.")
        assert (Count(7), '{"number": 7}', "grammar") == (result.value, result.completion.text, result.enforcement)
        with pytest.raises(StructuredOutputError):
            sync.extract(backend, list[int], "seven")
        assert "ignored" == sync.probe_schema(backend).outcome
        with sync.extract_stream(backend, Count, "seven") as stream:
            member, extraction = list(stream)
            assert Member("number", 7) == member
            assert "m" == stream.stream.served_model
            assert extraction == stream.get_result() == result


# --- streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
def test_the_events_of_a_stream(server: FaultServer, type_: str) -> None:
    async def read(backend: Backend) -> list[object]:
        async with backend.stream("Hello") as stream:
            return [event async for event in stream]

    with SyncRegistry([config_of(server, type_)]) as registry:
        backend = registry.default()
        with backend.stream("Hello") as stream:
            events = list(stream)
            assert [] == list(stream)
        assert asyncio.run(read(backend.async_backend)) == events
        assert (True, "Hello, world.") == (stream.is_complete, stream.completion.text)
        assert (stream.completion.served_model, stream.completion.response_id, stream.completion.request_id) == (
            stream.served_model,
            stream.response_id,
            stream.request_id,
        )
        assert ("Hello, world.", "Hello, world.") == (stream.text_so_far, stream.partial.text)
        with backend.stream("Hello") as stream:
            assert "Hello, world." == "".join(stream.text())
        with backend.stream("Hello") as stream:
            first = next(stream)
            assert isinstance(first, TextDelta)
            assert "Hello, world." == stream.get_final_completion().text
            assert [] == list(stream)


def test_events_arrive_as_the_server_sends_them(server: FaultServer, backend: SyncBackend) -> None:
    resume = threading.Event()

    def play(response: ResponseBuilder) -> Iterator[Step]:
        *parts, last = [step for step in respond(response) if isinstance(step, bytes)]
        yield from parts[:-1]
        while not resume.is_set():
            yield 0.01
        yield from (*parts[-1:], last)

    server.play(play)
    with backend.stream("Hello") as stream:
        assert isinstance(next(stream), TextDelta)
        assert not stream.is_complete
        with pytest.raises(ClosedError, match="not been read to its end"):
            _ = stream.completion
        resume.set()
        assert isinstance(list(stream)[-1], Finish)


@pytest.mark.parametrize("how", ["leave", "error", "close", "delete"])
def test_a_stream_that_is_left_frees_its_slot(server: FaultServer, how: str) -> None:
    with SyncRegistry([config_of(server, max_concurrency=1)]) as registry:
        backend = registry.default()
        server.play(faults.stall())
        if how == "delete":
            stream = backend.stream("Hello").__enter__()
            next(stream)
            del stream
            gc.collect()
        else:
            with (
                pytest.raises(KeyError) if how == "error" else nullcontext(),
                backend.stream("Hello") as stream,
            ):
                next(stream)
                if how == "error":
                    raise KeyError
                if how == "close":
                    stream.close()
                    stream.close()
        assert "Hello, world." == backend.complete("Hello").text


def test_a_stream_is_used_inside_its_block_and_once(backend: SyncBackend) -> None:
    stream = backend.stream("Hello")
    with pytest.raises(ClosedError, match="not open"):
        next(stream)
    with stream:
        pass
    with pytest.raises(ClosedError, match="only once"):
        stream.__enter__()


# --- errors -----------------------------------------------------------------------------------------


def test_errors_keep_their_class_and_have_no_context(server: FaultServer, backend: SyncBackend) -> None:
    server.play(faults.unauthorized())
    with pytest.raises(ctxbackends.AuthenticationError) as exc_info:
        backend.complete("Hello")
    text = "".join(traceback.format_exception(exc_info.value))
    assert (None, False) == (exc_info.value.__context__, "During handling" in text)
    frames = [frame.name for frame in traceback.extract_tb(exc_info.value.__traceback__)]
    assert "test_errors_keep_their_class_and_have_no_context" == frames[0]
    assert frames.count("complete") == 2  # here, and in the thread of the loop
    assert "vllm" == exc_info.value.backend


def test_an_error_is_freed_without_the_garbage_collector() -> None:
    async def fail() -> None:
        raise ClosedError("closed")

    gc.disable()
    try:
        error = catch(lambda: loop_thread.run(fail))
        reference = weakref.ref(error)
        del error
        assert reference() is None
    finally:
        gc.enable()


def catch(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:  # any
        return error
    raise AssertionError("there was no error")


def test_an_interrupted_stream_has_its_partial_answer(server: FaultServer, backend: SyncBackend) -> None:
    server.play(faults.close_in_chunk())
    with backend.stream("Hello") as stream:
        events = []
        with pytest.raises(StreamInterruptedError) as exc_info:
            for event in stream:
                events.append(event)  # those before the error
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == exc_info.value.partial.text


def test_invalid_calls(backend: SyncBackend) -> None:
    with pytest.raises(TypeError, match="max_token"):
        backend.complete("Hello", max_token=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        backend.stream("Hello", max_token=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="at least one text"):
        backend.embed([])


@pytest.mark.parametrize("function", [sync.extract, sync.extract_result, sync.extract_stream])
def test_extract_needs_a_sync_backend(backend: SyncBackend, function: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"^backend must be a SyncBackend, not HTTPBackend$"):
        function(backend.async_backend, dict, "Hi")
    with pytest.raises(TypeError, match=r"^backend must be a SyncBackend, not NoneType$"):
        sync.probe_schema(None)  # type: ignore[arg-type]


def test_a_call_that_cannot_be_made_is_an_error() -> None:
    """A plug-in's backend may have other parameters, and raise before it returns a coroutine."""

    def make() -> Any:
        raise TypeError("unexpected keyword argument")

    with pytest.raises(TypeError, match="unexpected keyword"):
        loop_thread.run(make)


@pytest.mark.parametrize("operation", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_pickled_nor_copied(backend: SyncBackend, operation: Callable[[object], object]) -> None:
    for value in (backend, SyncRegistry([])):
        with pytest.raises(TypeError, match=f"cannot pickle or copy a {type(value).__name__}: it has connections"):
            operation(value)


# --- progress ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["complete", "stream", "ping", "wait_ready"])
def test_progress_is_reported_in_the_calling_thread(server: FaultServer, operation: str) -> None:
    reports: list[tuple[Loading, threading.Thread]] = []

    def report(loading: Loading) -> None:
        reports.append((loading, threading.current_thread()))

    with SyncRegistry([config_of(server, ready_timeout=10)]) as registry:
        backend = registry.default()
        server.play(faults.loading(3), probes=True)
        if operation == "stream":
            with backend.stream("Hello", on_progress=report) as stream:
                events = list(stream)
            assert [loading for loading, _ in reports] == [event for event in events if isinstance(event, Loading)]
        else:
            call = getattr(backend, operation)
            call("Hello", on_progress=report) if operation == "complete" else call(on_progress=report)
    assert {threading.current_thread()} == {thread for _, thread in reports}
    assert all(loading.state == "loading" for loading, _ in reports)


@pytest.mark.parametrize("operation", ["complete", "stream"])
def test_an_error_of_on_progress_cancels_the_request(server: FaultServer, operation: str) -> None:
    def report(loading: Loading) -> None:
        raise KeyError(loading.state)

    with SyncRegistry([config_of(server, ready_timeout=60)]) as registry:
        server.play_always(faults.loading(1000))
        with pytest.raises(KeyError, match="loading"):
            if operation == "complete":
                registry.default().complete("Hello", on_progress=report)
            else:
                with registry.default().stream("Hello", on_progress=report) as stream:
                    list(stream)
        server.clear()
        assert "Hello, world." == registry.default().complete("Hello").text


# --- threads and event loops ------------------------------------------------------------------------


def test_many_threads(server: FaultServer) -> None:
    now, most = [0], [0]

    def play(response: ResponseBuilder) -> Iterator[Step]:
        now[0] += 1
        most[0] = max(most[0], now[0])
        yield 0.002
        now[0] -= 1
        yield from respond(response)

    server.play_always(play)
    with SyncRegistry([config_of(server, max_concurrency=3)]) as registry:

        def ask(_: int) -> str:
            return registry.default().complete("Hello").text

        async def ask_async() -> list[Completion]:
            backend = registry.async_registry.default()
            return await asyncio.gather(*(backend.complete("Hello") for _ in range(40)))

        with ThreadPoolExecutor(9) as pool:
            asking = pool.submit(asyncio.run, ask_async())
            assert ["Hello, world."] * 80 == list(pool.map(ask, range(80)))
            assert 40 == len(asking.result())
        assert 3 == most[0]
    assert 1 == sum(thread.name == "ctxbackends-sync" for thread in threading.enumerate())


async def test_under_a_running_loop(backend: SyncBackend) -> None:
    """As in a notebook."""
    assert "Hello, world." == backend.complete("Hello").text
    with backend.stream("Hello") as stream:
        assert "Hello, world." == "".join(stream.text())


def test_between_runs_of_asyncio(backend: SyncBackend) -> None:
    async def ask() -> str:
        return (await backend.async_backend.complete("Hello")).text

    for _ in range(2):
        assert "Hello, world." == asyncio.run(ask()) == backend.complete("Hello").text


def test_a_call_on_its_own_loop_would_block_it(server: FaultServer) -> None:
    errors: list[BaseException] = []

    class Caller(Observer):
        def started(self, *_: object) -> None:
            errors.append(catch(registry.default().models))

    with SyncRegistry([config_of(server)], observers=[Caller()]) as registry:
        assert "Hello, world." == registry.default().complete("Hello").text
    assert [EventLoopError] == [type(error) for error in errors]
    assert "use the async backend there" in str(errors[0])


def test_context_variables_of_the_caller(server: FaultServer) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    users: list[str] = []

    class Reader(Observer):
        def started(self, *_: object) -> None:
            users.append(user.get())

    with SyncRegistry([config_of(server)], observers=[Reader()]) as registry:
        user.set("somebody")
        registry.default().complete("Hello")
    assert ["somebody"] == users


# --- close ------------------------------------------------------------------------------------------


def test_a_closed_registry(server: FaultServer) -> None:
    registry = SyncRegistry([config_of(server)])
    backend = registry.default()
    backend.complete("Hello")
    registry.close()
    registry.close()
    for call in (registry.default, backend.models):
        with pytest.raises(ClosedError):
            call()
    server.wait_idle_sync()


def test_drain(server: FaultServer) -> None:
    registry = SyncRegistry([config_of(server)])
    backend = registry.default()
    backend.models()
    server.play(faults.no_response())
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(catch, partial(backend.complete, "Hello"))
        while not server.generations:
            threading.Event().wait(0.01)
        assert not registry.drain(0.05)
        assert isinstance(asking.result(10), ClosedError)
    assert SyncRegistry([config_of(server)]).drain()
    with pytest.raises(ClosedError):
        backend.models()


def test_close_ends_the_calls_of_other_threads(server: FaultServer) -> None:
    server.play_always(faults.no_response())
    registry = SyncRegistry([config_of(server)])
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(catch, partial(registry.default().complete, "Hello")) for _ in range(3)]
        while len(server.generations) < 3:
            threading.Event().wait(0.01)
        registry.close()
        assert [ClosedError] * 3 == [type(done.result(10)) for done in asking]


def test_a_backend_outlives_the_name_of_its_registry(server: FaultServer) -> None:
    """And both close when nothing refers to them."""
    backend = SyncRegistry([config_of(server)]).default()
    gc.collect()
    stream = backend.stream("Hello")
    with stream:
        del backend
        gc.collect()
        assert "Hello, world." == "".join(stream.text())
    del stream
    gc.collect()
    server.wait_idle_sync()


def test_an_unused_registry_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread.shared, "_thread", None)
    registry = SyncRegistry([BackendConfig(name="one", type="vllm")])
    assert "one" == registry.default().name
    del registry
    gc.collect()
    assert loop_thread.shared._thread is None


def test_an_absent_server(refusing_url: str) -> None:
    with sync.open_backend("openai", endpoint=refusing_url, default_model="m", api_key="k" * 20) as backend:
        with pytest.raises(APIConnectionError) as exc_info:
            backend.complete("Hello")
        assert exc_info.value.refused
        with pytest.raises(UnsupportedOptionError):
            backend.complete("Hello", top_k=5)
