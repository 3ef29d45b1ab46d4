"""The parts that all adapters share. They need no framework."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxbackends import Backend, BackendConfig, NamedTool, Registry
from ctxbackends.errors import ClosedError, NoBackendConfiguredError, UnknownBackendError
from ctxbackends.integrations import close_backends
from ctxbackends.integrations._common import BackendReference, check_unsupported, require_extra, select_options
from ctxbackends.testing import FaultServer

VLLM = BackendConfig(name="gpu", type="vllm", endpoint="http://127.0.0.1:8000", default_model="m")
CTXRC = "backends:\n  - name: gpu\n    type: vllm\n    endpoint: http://127.0.0.1:8000\n"


def open_named(type_name: str) -> Backend:
    return Registry([BackendConfig(name="b", type=type_name, api_key="sk-none", default_model="m")]).resolve("b")


# --- references ---------------------------------------------------------------------------------------


def test_a_configuration_is_opened_once() -> None:
    backend = BackendReference.of(VLLM).get()
    assert ("gpu", "http://127.0.0.1:8000") == (backend.name, backend.endpoint)
    equal = BackendConfig(name="gpu", type="vllm", endpoint="http://127.0.0.1:8000", default_model="m")
    assert BackendReference.of(equal).get() is backend


def test_configurations_that_differ_are_different_backends() -> None:
    other = BackendConfig(name="gpu", type="vllm", endpoint="http://127.0.0.1:8001")
    assert "http://127.0.0.1:8001" == BackendReference.of(other).get().endpoint
    assert "http://127.0.0.1:8000" == BackendReference.of(VLLM).get().endpoint


def test_two_keys_are_two_backends() -> None:
    first, second = (
        BackendConfig(name="a", type="openai", api_key=key, default_model="m") for key in ("sk-one", "sk-two")
    )
    assert BackendReference.of(first).get() is not BackendReference.of(second).get()


def test_threads_share_one_backend() -> None:
    config = BackendConfig(name="threads", type="vllm", endpoint="http://127.0.0.1:8002")
    with ThreadPoolExecutor(8) as threads:
        backends = list(threads.map(lambda _: BackendReference.of(config).get(), range(32)))
    assert 1 == len({id(backend) for backend in backends})


def test_synchronous_calls_use_the_same_backend() -> None:
    """In a program, which leaves no open connection at its exit."""
    with FaultServer() as server:
        program = (
            "from ctxbackends import BackendConfig\n"
            "from ctxbackends.integrations._common import BackendReference\n"
            f"config = BackendConfig(name='b', type='vllm', endpoint={server.url!r}, default_model='m')\n"
            "backend = BackendReference.of(config).get_sync()\n"
            "print(backend.complete('Hello').text, BackendReference.of(config).get_sync().complete('Hello').text)\n"
        )
        command = [sys.executable, "-W", "error", "-c", program]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("Hello, world. Hello, world.\n", "") == (ended.stdout, ended.stderr)
        assert 1 == len(server.connections)


def test_a_name_is_resolved_in_the_nearest_ctxrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ctxrc").write_text(CTXRC)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    reference = BackendReference.of("gpu")
    monkeypatch.chdir("/")  # the file was found when the reference was built
    assert "http://127.0.0.1:8000" == reference.get().endpoint
    assert pickle.loads(pickle.dumps(reference)).get() is reference.get()  # noqa: S301  # our own bytes


def test_an_unknown_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ctxrc").write_text(CTXRC)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownBackendError, match='unknown backend: "cpu"; configured: gpu'):
        BackendReference.of("cpu").get()


def test_a_name_without_a_ctxrc_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.integrations._common.find_ctxrc", lambda: None)
    with pytest.raises(
        NoBackendConfiguredError, match=r'cannot find the backend "gpu": no .ctxrc in .*; run ctx setup'
    ):
        BackendReference.of("gpu").get()


async def test_a_backend_is_used_itself() -> None:
    async with Registry([VLLM]) as registry:
        backend = registry.resolve("gpu")
        reference = BackendReference.of(backend)
        assert reference.get() is backend
        assert copy.copy(reference).get() is backend
        assert copy.deepcopy(reference).get() is backend
        with pytest.raises(TypeError, match=r'cannot pickle the backend "gpu".*; pass its BackendConfig'):
            pickle.dumps(reference)


def test_a_reference_to_a_configuration_pickles_and_copies() -> None:
    reference = BackendReference.of(VLLM)
    for other in (copy.copy(reference), copy.deepcopy(reference), pickle.loads(pickle.dumps(reference))):  # noqa: S301
        assert reference == other
        assert other.get() is reference.get()


def test_a_key_is_in_no_pickle() -> None:
    reference = BackendReference.of(BackendConfig(name="o", type="openai", api_key="sk-secret", default_model="m"))
    assert "sk-secret" not in repr(reference)
    with pytest.raises(TypeError, match="set an environment variable and name it in api_key_env"):
        pickle.dumps(reference)


@pytest.mark.parametrize("source", [None, 1, {"type": "vllm"}, BackendConfig])
def test_other_sources_are_refused(source: object) -> None:
    with pytest.raises(TypeError, match=r"backend must be a BackendConfig, a name in \.ctxrc or a Backend"):
        BackendReference.of(source)  # type: ignore[arg-type]


def test_a_reference_has_its_backend_for_synchronous_calls() -> None:
    with FaultServer() as server:
        config = BackendConfig(name="sync", type="vllm", endpoint=server.url, default_model="m")
        reference = BackendReference.of(config)
        with ThreadPoolExecutor(2) as threads:
            texts = list(threads.map(lambda _: reference.get_sync().complete("a").text, range(4)))
        assert {"Hello"} == {text[:5] for text in texts}
        assert reference.get_sync().async_backend is reference.get()
        asyncio.run(close_backends())
        assert texts[0] == reference.get_sync().complete("a").text


async def test_closed_backends_are_opened_again() -> None:
    before = BackendReference.of(VLLM).get()
    await close_backends()
    with pytest.raises(ClosedError):
        await before.models()
    assert BackendReference.of(VLLM).get() is not before


# --- options ------------------------------------------------------------------------------------------


def test_options_that_are_not_set_are_left_out() -> None:
    options = {"temperature": 0.0, "top_p": None, "seed": 0}
    assert {"temperature": 0.0, "seed": 0} == select_options(open_named("vllm"), options, "error")
    assert {"temperature": 0.0, "seed": 0} == select_options(open_named("vllm"), options, "drop")


def test_drop_leaves_out_and_logs_what_the_backend_lacks(caplog: pytest.LogCaptureFixture) -> None:
    options = {"temperature": 0.5, "seed": 7, "stop_sequences": ["."]}
    with caplog.at_level(logging.INFO, "ctxbackends"):
        assert {"temperature": 0.5, "stop_sequences": ["."]} == select_options(open_named("anthropic"), options, "drop")
    assert ['backend "b": seed is not sent: the Messages API has no such option'] == caplog.messages


def test_error_keeps_what_the_backend_refuses() -> None:
    assert {"seed": 7} == select_options(open_named("anthropic"), {"seed": 7}, "error")


@pytest.mark.parametrize("choice", ["required", NamedTool("f")])
def test_a_required_tool_call_is_never_dropped(choice: object) -> None:
    options = {"tool_choice": choice, "extra_body": {"x": 1}, "model": "m", "max_tokens": 5}
    assert options == select_options(open_named("ollama"), options, "drop")


@pytest.mark.parametrize("value", ["error", "drop"])
def test_unsupported_is_returned(value: str) -> None:
    assert value == check_unsupported(value)


@pytest.mark.parametrize("value", ["ignore", "", None, True])
def test_unsupported_is_error_or_drop(value: object) -> None:
    with pytest.raises(ValueError, match=r"invalid unsupported: .*; use error or drop"):
        check_unsupported(value)  # type: ignore[arg-type]


# --- extras -------------------------------------------------------------------------------------------


def test_a_missing_framework_names_the_command() -> None:
    with (
        pytest.raises(
            ImportError, match=r"cannot import no_such_framework: .*; run pip install 'ctxbackends\[pydantic-ai\]'"
        ),
        require_extra("pydantic-ai"),
    ):
        import no_such_framework  # type: ignore[import-not-found]  # noqa: F401, PLC0415  # what the test is about


def test_the_package_imports_no_framework() -> None:
    program = (
        "import sys, ctxbackends, ctxbackends.integrations; ctxbackends.integrations.close_backends\n"
        "print(*{name.partition('.')[0] for name in sys.modules}"
        " & {'pydantic_ai', 'langchain_core', 'agents', 'llm', 'mcp', 'opentelemetry', 'pydantic'})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "" == ended.stdout.strip()
