"""Backend types of other distributions: the example of the docs, built and installed, and plug-ins that are broken."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ctxbackends
from ctxbackends import (
    Backend,
    BackendConfig,
    BackendType,
    ConfigError,
    DuplicateBackendError,
    HTTPBackend,
    Profile,
    Registry,
    UnknownBackendTypeError,
    http_backend,
    open_backend,
)
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._config.writer import setup_backend
from ctxbackends.errors import MissingKeyError
from ctxbackends.testing import FaultServer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "plugin"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a distribution with one module and the entry points of backend types visible."""

    def install(name: str, code: str = "", **types: str) -> None:
        target = tmp_path / name
        info = target / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{type_.replace('_', '-')} = {value}" for type_, value in types.items()]
        (info / "entry_points.txt").write_text("\n".join(["[ctxbackends.backends]", *lines, ""]))
        (target / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(target))
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


def resolve(type_name: str, **settings: Any) -> Backend:
    config = BackendConfig(name="one", type=type_name, endpoint="http://127.0.0.1:1", **settings)
    return Registry([config]).resolve()


# --- the example --------------------------------------------------------------------------------------


def test_the_example_is_short() -> None:
    files = [path for path in EXAMPLE.iterdir() if path.is_file()]
    assert {"pyproject.toml", "ctxbackends_gateway.py"} == {path.name for path in files}
    assert sum(len(path.read_text().splitlines()) for path in files) < 40


@pytest.fixture
def installed_example(tmp_path: Path) -> Path:
    """The example, built with its own build backend and installed into a directory."""
    source = tmp_path / "source"
    source.mkdir()
    for path in EXAMPLE.iterdir():
        if path.is_file():
            (source / path.name).write_text(path.read_text())
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=True, timeout=60
    )
    target = tmp_path / "target"
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        wheel.extractall(target)
    return target


CHAT = """
import asyncio, sys
from ctxbackends import Registry, open_backend

async def main():
    async with open_backend("gateway", endpoint=sys.argv[1], api_key="k", default_model="m") as backend:
        print(backend.type, (await backend.complete("Hi")).text)
    async with Registry.from_ctxrc(sys.argv[2]) as registry:
        print(registry.default().name, (await registry.default().complete("Hi")).text)

asyncio.run(main())
"""


def test_the_example_is_used_from_another_distribution(installed_example: Path, tmp_path: Path) -> None:
    ctxrc = tmp_path / "gateway.ctxrc"
    with FaultServer(pieces=("Hel", "lo")) as server:
        ctxrc.write_text(
            f"backends:\n  - name: company\n    type: gateway\n    endpoint: {server.url}\n"
            "    default_model: m\n    api_path: /v1\n"
        )
        path = os.pathsep.join([str(installed_example), str(Path(ctxbackends.__file__).parents[1])])
        code = CHAT.replace('api_key="k"', 'api_key="k", api_path="/v1"')
        done = subprocess.run(
            [sys.executable, "-c", code, server.url, str(ctxrc)],
            env={**os.environ, "PYTHONPATH": path, "GATEWAY_API_KEY": "sk-mine"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ("gateway Hello\ncompany Hello\n", "") == (done.stdout, done.stderr)
        assert ["Bearer k", "Bearer sk-mine"] == [request.headers["authorization"] for request in server.generations]
        assert {"search"} == {request.headers["x-team"] for request in server.generations}


# --- plug-ins that work -------------------------------------------------------------------------------


def test_a_factory_may_do_what_it_wants(install: Install) -> None:
    code = (
        "from ctxbackends import Profile, http_backend\n"
        "def create(config, transport):\n"
        "    return http_backend(config, transport, profile=Profile(type='mine', default_endpoint=None))\n"
    )
    install("factory_plugin", code, mine="factory_plugin:create")
    backend = resolve("mine")
    assert isinstance(backend, HTTPBackend)
    assert "mine" == backend.type


async def test_open_backend_takes_the_type_of_a_plug_in(install: Install) -> None:
    code = "from ctxbackends import Profile\nP = Profile(type='mine', default_endpoint='http://127.0.0.1:9')"
    install("open_plugin", code, mine="open_plugin:P")
    async with open_backend("mine") as backend:
        assert "http://127.0.0.1:9" == backend.endpoint


def test_a_plug_in_cannot_replace_a_type(install: Install) -> None:
    install("evil_plugin", "raise RuntimeError", vllm="evil_plugin:P", mine="evil_plugin:P")
    assert isinstance(resolve("vllm"), HTTPBackend)
    registry = Registry()
    registry.register(
        "mine",
        lambda config, transport: http_backend(config, transport, profile=Profile(type="mine", default_endpoint=None)),
    )
    registry.configure(BackendConfig(name="one", type="mine", endpoint="http://127.0.0.1:1"))
    assert isinstance(registry.resolve(), HTTPBackend)


def test_a_profile_can_be_registered() -> None:
    registry = Registry()
    registry.register("mine", Profile(type="mine", default_endpoint="http://127.0.0.1:9"))
    registry.configure(BackendConfig(name="one", type="mine"))
    assert "http://127.0.0.1:9" == registry.resolve().endpoint
    with pytest.raises(DuplicateBackendError):
        registry.register("mine", Profile(type="mine", default_endpoint=None))


def test_a_ctxrc_may_have_the_type_of_a_plug_in(install: Install, tmp_path: Path) -> None:
    install("quiet_plugin", "raise RuntimeError('imported')", my_type="quiet_plugin:P")
    text = "backends:\n  - name: a\n    type: my-type\n  - name: b\n    type: vllm\n"
    assert ["my-type", "vllm"] == [config.type for config in parse_ctxrc(text, path=".ctxrc").backends]
    ctxrc = tmp_path / ".ctxrc"
    ctxrc.write_text(text)
    setup_backend(ctxrc, type="ollama")
    assert "my-type" in ctxrc.read_text()
    assert "ollama" in ctxrc.read_text()


# --- plug-ins that do not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "value", "problem"),
    [
        (
            "raise RuntimeError('out of order')",
            "broken_plugin:P",
            "cannot import broken_plugin:P: RuntimeError: out of",
        ),
        ("import not_there_at_all", "broken_plugin:P", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("", "broken_plugin:P", "AttributeError"),
        ("def (", "broken_plugin:P", "SyntaxError"),
        ("", "other_module:P", "ModuleNotFoundError"),
        ("P = 3", "broken_plugin:P", "broken_plugin:P is neither a Profile nor a factory: int"),
        ("def P(): pass", "broken_plugin:P", "broken_plugin:P raised TypeError: P() takes 0 positional arguments"),
        ("def P(config, transport): return 3", "broken_plugin:P", "returned int instead of a Backend"),
        (
            "class Half: complete = stream = None\ndef P(config, transport): return Half()",
            "broken_plugin:P",
            "returned Half instead of a Backend",
        ),
    ],
)
def test_a_broken_plug_in_is_an_error_of_its_type_alone(
    install: Install, tmp_path: Path, code: str, value: str, problem: str
) -> None:
    install("broken_plugin", code, broken=value)
    ctxrc = tmp_path / ".ctxrc"
    ctxrc.write_text(
        "backends:\n  - name: bad\n    type: broken\n    endpoint: http://127.0.0.1:1\n  - name: good\n    type: vllm\n"
    )
    registry = Registry.from_ctxrc(ctxrc)
    assert "vllm" == registry.resolve("good").type
    with pytest.raises(ConfigError) as caught:
        registry.resolve("bad")
    text = str(caught.value)
    assert 'cannot use the backend type "broken" of broken_plugin 1.2: ' in text
    assert problem in text
    assert text.endswith("; update or uninstall the distribution")
    assert ("type", "bad") == (caught.value.key, caught.value.backend)


async def test_the_status_of_a_broken_plug_in_is_an_error(install: Install) -> None:
    install("status_plugin", "raise RuntimeError", broken="status_plugin:P")
    config = BackendConfig(name="bad", type="broken", endpoint="http://127.0.0.1:1")
    async with Registry([config]) as registry:
        (status,) = await registry.statuses()
    assert "error" == status.state
    assert status.problem is not None
    assert "status_plugin 1.2" in status.problem


def test_the_errors_of_a_configuration_stay_its_own(install: Install) -> None:
    code = "from ctxbackends import Profile\nP = Profile(type='mine', default_endpoint=None)"
    install("key_plugin", code, mine="key_plugin:P")
    with pytest.raises(MissingKeyError):
        resolve("mine", api_key_env="NOT_SET_ANYWHERE")


def test_two_distributions_of_one_type(install: Install) -> None:
    install("first_plugin", "", twice="first_plugin:P")
    install("second_plugin", "", twice="second_plugin:P")
    with pytest.raises(ConfigError, match=r'"twice": \w+ 1.2, \w+ 1.2; uninstall all but one') as caught:
        resolve("twice")
    assert "first_plugin" in str(caught.value)
    assert "second_plugin" in str(caught.value)


def test_an_unknown_type_lists_those_of_plug_ins(install: Install) -> None:
    install("listed_plugin", "raise RuntimeError", listed="listed_plugin:P")
    with pytest.raises(UnknownBackendTypeError) as caught:
        Registry([BackendConfig(name="one", type="not-there")])
    assert {*BackendType, "listed"} == {*caught.value.types}
    with pytest.raises(UnknownBackendTypeError, match="listed"):
        parse_ctxrc("backends:\n  - name: a\n    type: not-there\n", path=".ctxrc")


def test_known_types_read_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise AssertionError("entry points were read")

    monkeypatch.setattr(importlib.metadata, "entry_points", fail)
    resolve("vllm")
    registry = Registry()
    registry.register("mine", Profile(type="mine", default_endpoint=None))
    registry.configure(BackendConfig(name="one", type="mine", endpoint="http://127.0.0.1:1"))
    registry.resolve()
    parse_ctxrc("backends:\n  - name: a\n    type: ollama\n", path=".ctxrc")
    with pytest.raises(AssertionError, match="entry points were read"):
        Registry([BackendConfig(name="one", type="not-there")])


@pytest.mark.parametrize("factory", [None, 5, "vllm"])
def test_a_factory_is_a_function_or_a_profile(factory: Any) -> None:
    registry = Registry()
    with pytest.raises(TypeError, match=f"^factory must be a function or a Profile, not {type(factory).__name__}$"):
        registry.register("own", factory)
    assert "own" not in registry.types
