"""The registry: backend types, names, the default, and the shared session."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import aiohttp
import attrs
import pytest

from ctxbackends._client.backend import Backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType, Profile
from ctxbackends._registry import Registry, http_backend, open_backend
from ctxbackends.errors import (
    AmbiguousBackendError,
    ClosedError,
    ConfigError,
    DuplicateBackendError,
    EventLoopError,
    InvalidEndpointError,
    MissingKeyError,
    NoBackendConfiguredError,
    UnknownBackendError,
    UnknownBackendTypeError,
)
from tests.conftest import RawServerFactory, completion_body, http_response, models_body

LOCAL = BackendConfig(name="local", type="llamacpp")
FAST = BackendConfig(name="fast", type="vllm")


class OwnBackend(HTTPBackend):
    """A backend of an own type, which remembers that it was closed."""

    closes = 0

    async def aclose(self) -> None:
        self.closes += 1


OWN = Profile(type="own", default_endpoint="http://own:1")


def own_factory(config: BackendConfig, transport: Transport) -> OwnBackend:
    return OwnBackend(config, profile=OWN, transport=transport)


# --- which backend --------------------------------------------------------------------------------


async def test_no_backend_is_configured() -> None:
    async with Registry() as registry:
        with pytest.raises(NoBackendConfiguredError) as exc_info:
            registry.default()
        assert "no backend configured; run ctx setup --backend <name>" == str(exc_info.value)
        with pytest.raises(NoBackendConfiguredError):
            registry.resolve()
        assert () == registry.names


async def test_the_only_one_is_the_default() -> None:
    async with Registry([LOCAL]) as registry:
        assert "local" == registry.default().name
        assert registry.default() is registry.resolve() is registry.resolve("local")


async def test_several_backends_need_a_default() -> None:
    async with Registry([LOCAL, FAST]) as registry:
        for choose in (registry.default, registry.resolve):
            with pytest.raises(AmbiguousBackendError) as exc_info:
                choose()
            assert ("local", "fast") == exc_info.value.names
            assert "local, fast" in str(exc_info.value)
            assert "--backend" in str(exc_info.value)
            assert "default_backend" in str(exc_info.value)
        assert "fast" == registry.resolve("fast").name


async def test_the_configured_default() -> None:
    async with Registry([LOCAL, FAST], default="fast") as registry:
        assert "fast" == registry.default().name
        registry.set_default("local")
        assert "local" == registry.resolve().name
        assert ("local", "fast") == registry.names


async def test_an_unknown_name() -> None:
    async with Registry([LOCAL, FAST]) as registry:
        for use in (registry.resolve, registry.set_default):
            with pytest.raises(UnknownBackendError) as exc_info:
                use("slow")
            assert ("slow", ("local", "fast")) == (exc_info.value.name, exc_info.value.names)
            assert 'unknown backend: "slow"; configured: local, fast' == str(exc_info.value)
        with pytest.raises(AmbiguousBackendError):
            registry.default()  # a default that is not there has changed nothing
    with pytest.raises(UnknownBackendError, match="configured: none"):
        Registry(default="slow")


async def test_the_same_object_every_time() -> None:
    async with Registry([LOCAL]) as registry:
        assert registry.resolve("local") is registry.resolve("local")


async def test_duplicate_names() -> None:
    with pytest.raises(DuplicateBackendError) as exc_info:
        Registry([LOCAL, FAST, attrs.evolve(LOCAL, endpoint="http://other:1")])
    assert ("local", 'duplicate backend: "local"; use a different name') == (exc_info.value.name, str(exc_info.value))


async def test_configuration_errors_are_raised_on_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    config = BackendConfig(name="keyed", type="vllm", api_key_env="NOT_SET_ANYWHERE")
    async with Registry([config, LOCAL]) as registry:
        assert "local" == registry.resolve("local").name
        for _ in range(2):
            with pytest.raises(MissingKeyError, match="NOT_SET_ANYWHERE"):
                registry.resolve("keyed")


def test_an_endpoint_is_checked_at_construction() -> None:
    with pytest.raises(InvalidEndpointError):
        BackendConfig(name="a", type="openai-compatible")


# --- types ----------------------------------------------------------------------------------------


async def test_the_built_in_types() -> None:
    async with Registry() as registry:
        assert {str(name) for name in BackendType} == set(registry.types)
        assert all(type(name) is str for name in registry.types)
        for name in registry.types:
            registry.configure(BackendConfig(name=name, type=name, endpoint="http://gpu:1"))
            backend = registry.resolve(name)
            assert isinstance(backend, HTTPBackend)
            assert (name, name, "http://gpu:1") == (backend.name, backend.type, backend.endpoint)


async def test_an_unknown_type() -> None:
    async with Registry() as registry:
        with pytest.raises(UnknownBackendTypeError) as exc_info:
            registry.configure(BackendConfig(name="mine", type="own"))
        assert ("own", registry.types) == (exc_info.value.type_name, exc_info.value.types)
        assert 'unknown backend type: "own"' in str(exc_info.value)
        assert () == registry.names


async def test_custom_type() -> None:
    registry = Registry()
    registry.register("own", own_factory)
    registry.configure(BackendConfig(name="mine", type="own"))
    backend = registry.default()
    assert isinstance(backend, OwnBackend)
    assert ("mine", "http://own:1") == (backend.name, backend.endpoint)
    assert "own" == registry.types[-1]
    for name in ("own", "vllm"):
        with pytest.raises(DuplicateBackendError, match=f'duplicate backend type: "{name}"') as exc_info:
            registry.register(name, own_factory)
        assert name == exc_info.value.name
    await registry.aclose()
    await registry.aclose()
    assert 1 == backend.closes


async def test_a_type_made_from_a_profile_alone() -> None:
    async with Registry() as registry:
        registry.register("own", partial(http_backend, profile=OWN))
        registry.configure(BackendConfig(name="mine", type="own"))
        assert "http://own:1" == registry.default().endpoint


async def test_a_locally_served_model() -> None:
    config = BackendConfig(name="here", type="llamacpp", model_path="/models/tiny.gguf")
    async with Registry([config]) as registry:
        backend = registry.default()
        assert isinstance(backend, Backend)
        assert "tiny" in backend.endpoint  # what it will serve: nothing is started before it is used


# --- .ctxrc ---------------------------------------------------------------------------------------


CTXRC = """
default_backend: fast
backends:
  - name: local
    type: llamacpp
    default_model: qwen3-4b
  - name: fast
    type: vllm
    endpoint: http://gpu:8000
"""


async def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(CTXRC)
    for source in (path, str(path)):
        async with Registry.from_ctxrc(source) as registry:
            assert ("local", "fast") == registry.names
            assert "http://gpu:8000" == registry.default().endpoint
            assert "qwen3-4b" == registry.resolve("local").default_model


async def test_from_the_working_directory_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ctxrc").write_text(CTXRC)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    async with Registry.from_ctxrc() as registry:
        assert "fast" == registry.default().name


async def test_without_a_default_in_the_file(tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text(CTXRC.replace("default_backend: fast", ""))
    async with Registry.from_ctxrc(tmp_path / ".ctxrc") as registry:
        with pytest.raises(AmbiguousBackendError):
            registry.default()


async def test_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._config.ctxrc_file.find_ctxrc", lambda: None)
    async with Registry.from_ctxrc() as registry:
        assert () == registry.names


async def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Registry.from_ctxrc(tmp_path / "nowhere")
    (tmp_path / ".ctxrc").write_text("backends:\n  - name: mine\n    type: own\n")
    with pytest.raises(UnknownBackendTypeError) as exc_info:
        Registry.from_ctxrc(tmp_path / ".ctxrc")
    assert 3 == exc_info.value.line


async def test_custom_types_in_a_file(tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("backends:\n  - name: mine\n    type: own\n")
    async with Registry.from_ctxrc(tmp_path / ".ctxrc", types={"own": own_factory}) as registry:
        assert isinstance(registry.default(), OwnBackend)


# --- closing, and the one session -----------------------------------------------------------------


async def test_closed() -> None:
    async with Registry([LOCAL]) as registry:
        backend = registry.default()
    for use in (registry.default, registry.resolve, lambda: registry.resolve("local")):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError) as exc_info:
        await backend.models()
    assert "local" == exc_info.value.backend


async def test_one_session_for_all(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, completion_body())]] * 2)
    configs = [
        BackendConfig(name=name, type="openai-compatible", endpoint=server.url, default_model="m")
        for name in ("a", "b")
    ]
    async with Registry(configs) as registry:
        assert ["m", "m"] == [(await registry.resolve(name).complete("Hi")).served_model for name in ("a", "b")]
    assert [0, 0] == server.connection_numbers
    assert await server.client_closed()


async def test_a_session_of_the_service(raw_server: RawServerFactory, tmp_path: Path) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]] * 3)
    config = BackendConfig(name="a", type="openai-compatible", endpoint=server.url)
    path = tmp_path / ".ctxrc"
    path.write_text(f"backends:\n  - name: v\n    type: openai-compatible\n    endpoint: {server.url}\n")
    async with aiohttp.ClientSession(headers={"X-Service": "1"}) as session:
        async with Registry([config], session=session) as registry:
            await registry.default().ping()
        async with Registry.from_ctxrc(path, session=session) as registry:
            await registry.default().ping()
        async with open_backend("openai-compatible", endpoint=server.url, session=session) as backend:
            await backend.ping()
        assert not session.closed
    assert [("1", 0)] * 3 == [(request.headers["x-service"], request.connection.number) for request in server.requests]


class StubbornBackend(OwnBackend):
    async def aclose(self) -> None:
        raise RuntimeError("does not end")


async def test_the_session_is_closed_whatever_a_backend_does(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]])
    registry = Registry()
    registry.register("stubborn", lambda config, transport: StubbornBackend(config, profile=OWN, transport=transport))
    registry.configure(BackendConfig(name="mine", type="stubborn", endpoint=server.url))
    await registry.default().models()
    with pytest.raises(ExceptionGroup) as exc_info:
        await registry.aclose()
    assert isinstance(exc_info.value.exceptions[0], RuntimeError)
    assert await server.client_closed()


async def test_a_session_on_another_loop(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]])
    async with (
        aiohttp.ClientSession() as session,
        open_backend("vllm", endpoint=server.url, session=session) as backend,
    ):
        await backend.ping()
        with pytest.raises(EventLoopError) as exc_info:
            await asyncio.to_thread(lambda: asyncio.run(_ping(backend)))
    assert "vllm" == exc_info.value.backend


async def _ping(backend: Backend) -> None:
    await backend.ping()


# --- one backend alone ----------------------------------------------------------------------------


async def test_open_backend(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]])
    async with open_backend(BackendType.VLLM, endpoint=server.url, default_model="m") as backend:
        assert ("vllm", "vllm", "m") == (backend.name, backend.type, backend.default_model)
        assert "m" == (await backend.ping()).model
    assert await server.client_closed()
    with pytest.raises(ClosedError):
        await backend.ping()


async def test_open_backend_with_a_name() -> None:
    async with open_backend("llamacpp", name="mine") as backend:
        assert ("mine", PROFILES["llamacpp"].default_endpoint) == (backend.name, backend.endpoint)
    with pytest.raises(UnknownBackendTypeError):
        async with open_backend("own"):
            pass


def test_a_new_registry_opens_no_socket_and_needs_no_loop() -> None:
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('a socket')\n"
        "socket.socket.connect = socket.socket.bind = refuse\n"
        "from ctxbackends import BackendConfig, Registry\n"
        "print(Registry([BackendConfig(name='local', type='llamacpp')]).default())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ("<HTTPBackend 'local' (llamacpp) at http://localhost:8080>\n", "") == (done.stdout, done.stderr)
