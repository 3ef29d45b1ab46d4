"""The command doctor: what it finds and says, what it never sends, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import click
import pytest
from aiohttp import web

from ctxbackends._cli import detection, diagnosis
from ctxbackends._cli.detection import FoundServer, find_servers, local_endpoints
from ctxbackends._cli.log_store import LogStore
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends.local._models import CHAT_ARGUMENTS, install_command
from ctxbackends.testing import LMStudioStandIn, OllamaStandIn, OpenAIStandIn
from tests.conftest import TestServerFactory
from tests.unit.test_cli import Result, ctx

KEY = "sk-test-0123456789abcdef"
SetEndpoints = Callable[..., None]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory on a machine where nothing is configured and no key is set; returns the directory."""
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(diagnosis, "find_next", lambda: None)
    monkeypatch.setattr(diagnosis, "has_server", lambda: True)
    for profile in PROFILES.values():
        if profile.default_key_variable is not None:
            monkeypatch.delenv(profile.default_key_variable, raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> SetEndpoints:
    """Sets the known endpoints of this machine."""

    def set_endpoints(*endpoints: str) -> None:
        monkeypatch.setattr(diagnosis, "local_endpoints", lambda: dict.fromkeys(endpoints, ()))

    set_endpoints()
    return set_endpoints


async def doctor(*arguments: str, tty: str = "") -> Result:
    return await asyncio.to_thread(ctx, "doctor", *arguments, tty=tty)


async def diagnose() -> dict[str, Any]:
    result = await doctor("--json")
    data: dict[str, Any] = json.loads(result.out)
    assert (result.code == 0) == data["usable"]
    return data


# --- the servers of this machine ------------------------------------------------------------------------


def test_the_known_endpoints_are_those_of_the_types_and_on_loopback() -> None:
    assert {
        "http://localhost:8000",
        "http://localhost:8080",
        "http://localhost:11434",
        "http://localhost:1234",
    } < set(local_endpoints())
    assert [] == [endpoint for endpoint in local_endpoints() if not endpoint.startswith("http://localhost:")]


@pytest.mark.posix
async def test_directories_that_cannot_be_searched(
    known: SetEndpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"CTXBACKENDS_{name}_DIR", str(tmp_path / (name * 100)))
    found = await diagnose()
    assert "File name too long" in found["log_problem"]
    assert found["cache_problem"].endswith("File name too long")


async def test_each_server_says_what_it_is(known: SetEndpoints) -> None:
    async with OllamaStandIn() as ollama, LMStudioStandIn() as lmstudio, OpenAIStandIn() as openai:
        servers = await find_servers([openai.url, ollama.url, lmstudio.url])
        requests = [*ollama.requests, *lmstudio.requests, *openai.requests]
    assert [("openai-compatible", "ready"), ("ollama", "ready"), ("lmstudio", "ready")] == [
        (server.type, server.state) for server in servers
    ]
    assert (ollama.version, ("qwen3:4b", "nomic-embed-text:latest")) == (servers[1].version, servers[1].models)
    assert ("qwen/qwen3-4b", "text-embedding-nomic-embed-text-v1.5") == servers[2].models
    assert {"GET"} == {request.method for request in requests}  # no generation, nothing loaded
    assert [] == [request for request in requests if "authorization" in request.headers]


def json_of(value: Any, status: int = 200) -> Callable[[], web.StreamResponse]:
    return lambda: web.json_response(value, status=status)


LLAMACPP = {
    "/v1/models": json_of({"data": [{"id": "tiny", "owned_by": "llamacpp"}]}),
    "/health": json_of({"status": "ok"}),
    "/props": json_of({"build_info": "b9000", "total_slots": 1, "default_generation_settings": {"n_ctx": 4096}}),
}
VLLM = {
    "/v1/models": json_of({"data": [{"id": "qwen", "owned_by": "vllm"}]}),
    "/health": lambda: web.Response(text=""),
    "/version": json_of({"version": "0.11.0"}),
}
OLLAMA_WITHOUT_MODELS = {
    "/v1/models": json_of({"object": "list", "data": None}),
    "/api/version": json_of({"version": "0.12.0"}),
    "/api/ps": json_of({"models": []}),
}


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param(LLAMACPP, ("llamacpp", "ready", None, "b9000", ("tiny",), ("tiny",)), id="llama.cpp"),
        pytest.param(VLLM, ("vllm", "ready", None, "0.11.0", ("qwen",), ("qwen",)), id="vLLM"),
        pytest.param(
            {"/v1/models": json_of({"data": [{"id": "qwen", "owned_by": "sglang"}]})},
            ("sglang", "ready", None, None, ("qwen",), None),
            id="SGLang",
        ),
        pytest.param(OLLAMA_WITHOUT_MODELS, ("ollama", "ready", None, "0.12.0", (), ()), id="Ollama without models"),
        pytest.param(
            {"/v1/models": json_of({"data": [{"id": "gpt-9", "owned_by": "openai"}]})},
            ("openai-compatible", "ready", None, None, ("gpt-9",), None),
            id="a proxy to a vendor",
        ),
        pytest.param(
            {"/v1/models": json_of({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)},
            (None, "loading", "it is loading a model", None, (), None),
            id="loading",
        ),
        pytest.param(
            {"/v1/models": json_of({"error": {"message": "no key"}}, 401)},
            (None, "error", "it requires an API key", None, (), None),
            id="with a key",
        ),
        pytest.param(
            {}, (None, "error", "it does not answer like a model server", None, (), None), id="no model server"
        ),
        pytest.param(
            {"/v1/models": lambda: web.Response(text="<html>Jenkins</html>", content_type="text/html")},
            (None, "error", "it does not answer like a model server", None, (), None),
            id="HTML",
        ),
    ],
)
async def test_a_server_is_what_it_says(
    test_server: TestServerFactory, routes: dict[str, Callable[[], web.StreamResponse]], expected: tuple[Any, ...]
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return routes.get(request.path, json_of({"error": "not found"}, 404))()

    server = await test_server(handler)
    url = str(server.make_url("")).rstrip("/")
    type_, state, problem, version, models, loaded = expected
    assert (
        FoundServer(
            endpoint=url, type=type_, state=state, problem=problem, version=version, models=models, loaded=loaded
        ),
    ) == await find_servers([url])


async def test_a_server_that_does_not_answer_is_no_wait(
    test_server: TestServerFactory, monkeypatch: pytest.MonkeyPatch, refusing_url: str
) -> None:
    monkeypatch.setattr(detection, "_SECONDS", 0.3)
    released = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    server = await test_server(handler)
    url = str(server.make_url("")).rstrip("/")
    servers = await find_servers([url, refusing_url])
    released.set()
    assert [(url, None, "error")] == [(server.endpoint, server.type, server.state) for server in servers]
    assert "within 0.3 s" in str(servers[0].problem)


# --- the page -----------------------------------------------------------------------------------------


async def test_a_machine_with_nothing_on_it(known: SetEndpoints, machine: Path, refusing_url: str) -> None:
    known(refusing_url)
    result = await doctor()
    assert (1, "") == (result.code, result.err)
    versions = result.out[result.out.index("Versions\n") : result.out.index("Next\n")]
    port = refusing_url.rpartition(":")[2]
    assert (
        f"""\
Configuration
  --  no .ctxrc in this directory or above it
Servers on this machine
  --  nothing listens on port {port}
API keys
  --  none is set
Models on this machine
  --  none is downloaded
Log
  --  off
      {machine.parent / "data" / "logs.db"}
{versions}\
Next
  ctxbackends pull smollm2
      download SmolLM2-135M-Instruct (Q4_1), a small English chat model (98 MB)
"""
        == result.out
    )
    assert f"Python {sys.version.split()[0]}, " in versions
    assert "      extras: " in versions


async def test_a_server_that_runs_is_the_next_command(known: SetEndpoints) -> None:
    async with OllamaStandIn() as ollama:
        known(ollama.url)
        result = await doctor()
    assert 0 == result.code
    assert f"  ok  ollama {ollama.version} at {ollama.url}\n      qwen3:4b, nomic-embed-text:latest\n" in result.out
    assert (
        f"  ctxbackends setup --backend ollama --endpoint {ollama.url} --model qwen3:4b\n"
        f"      use the server at {ollama.url}\n"
        f"  ctxbackends chat {CHAT_ARGUMENTS}\n"
    ) in result.out


async def test_a_server_without_models_cannot_be_used(known: SetEndpoints) -> None:
    async with OllamaStandIn(models=()) as ollama:
        known(ollama.url)
        result = await doctor()
    assert (1, True) == (result.code, "      it has no models\n" in result.out)


def write_ctxrc(machine: Path, *backends: str, **settings: str) -> None:
    lines = [f"{name}: {value}" for name, value in settings.items()]
    (machine / ".ctxrc").write_text("\n".join([*lines, "backends:", *(f"  - {one}" for one in backends), ""]))


async def test_the_configured_backends_are_asked_with_their_own_keys_only(
    known: SetEndpoints, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}-2")
    monkeypatch.setenv("HF_TOKEN", f"{KEY}-3")
    async with OpenAIStandIn(api_key=KEY) as one, OpenAIStandIn() as other, OllamaStandIn() as unconfigured:
        known(one.url, unconfigured.url)
        write_ctxrc(
            machine,
            f"{{name: one, type: openai, endpoint: '{one.url}', api_key_env: ONE_KEY, default_model: gpt-5-mini}}",
            f"{{name: other, type: openai-compatible, endpoint: '{other.url}'}}",
            default_backend="one",
        )
        result = await doctor()
        data = await diagnose()
        received = {
            name: {request.headers.get("authorization") for request in server.requests}
            for name, server in (("one", one), ("other", other), ("unconfigured", unconfigured))
        }
    assert {"one": {f"Bearer {KEY}", None}, "other": {None}, "unconfigured": {None}} == received
    assert "POST" not in {request.method for server in (one, other, unconfigured) for request in server.requests}
    assert f"  ok  one (default): openai at {one.url}\n      ready, gpt-5-mini\n" in result.out
    assert f"  ok  other: openai-compatible at {other.url}\n      ready" in result.out
    assert "  ok  HF_TOKEN is set\n  ok  ONE_KEY is set\n  ok  OPENAI_API_KEY is set\n" in result.out
    assert f"  ctxbackends chat {CHAT_ARGUMENTS}\n      one is ready\n" in result.out
    assert KEY not in result.out + result.err + json.dumps(data)
    assert [unconfigured.url] == [server["endpoint"] for server in data["servers"]]
    assert ["HF_TOKEN", "ONE_KEY", "OPENAI_API_KEY"] == data["set_keys"]
    assert [] == data["silent"]


async def test_a_backend_that_is_not_the_default_is_named(
    known: SetEndpoints, machine: Path, refusing_url: str
) -> None:
    async with OllamaStandIn() as ollama:
        write_ctxrc(
            machine,
            f"{{name: gpu, type: vllm, endpoint: '{refusing_url}'}}",
            f"{{name: 'my box', type: ollama, endpoint: '{ollama.url}'}}",
            default_backend="gpu",
        )
        result = await doctor()
    assert 0 == result.code
    assert f"  !!  gpu (default): vllm at {refusing_url}\n      refused: connection refused\n" in result.out
    assert f"  ctxbackends chat --backend 'my box' --model NAME {CHAT_ARGUMENTS}\n" in result.out


async def test_a_server_that_is_not_up_is_to_be_started(known: SetEndpoints, machine: Path, refusing_url: str) -> None:
    write_ctxrc(machine, f"{{name: gpu, type: vllm, endpoint: '{refusing_url}'}}")
    data = await diagnose()
    assert [
        {"command": "ctxbackends ping --backend gpu", "reason": "start the server of gpu, and wait until it is ready"}
    ] == data["next"][:1]


async def test_a_wrong_type_is_said(known: SetEndpoints, machine: Path) -> None:
    async with OllamaStandIn() as ollama:
        write_ctxrc(machine, f"{{name: local, type: lmstudio, endpoint: '{ollama.url}'}}")
        assert "      it says that it is ollama: correct the type\n" in (await doctor()).out
        write_ctxrc(machine, f"{{name: local, type: ollama, endpoint: '{ollama.url}'}}")
        assert "it says" not in (await doctor()).out
        write_ctxrc(machine, f"{{name: local, type: openai-compatible, endpoint: '{ollama.url}'}}")
        assert "it says" not in (await doctor()).out


async def test_a_key_that_is_not_set_is_named(known: SetEndpoints, machine: Path, refusing_url: str) -> None:
    write_ctxrc(machine, f"{{name: cloud, type: openai, endpoint: '{refusing_url}', api_key_env: MY_KEY}}")
    result = await doctor()
    assert "  !!  MY_KEY is not set\n" in result.out
    assert "      cloud needs this key\n" in result.out


@pytest.mark.parametrize("name", ["openai", "anthropic", "openrouter"])
async def test_a_vendor_is_not_asked_without_its_key(known: SetEndpoints, machine: Path, name: str) -> None:
    write_ctxrc(machine, f"{{name: {name}}}")
    data = await diagnose()
    variable = f"{name.upper()}_API_KEY"
    assert ([variable], "error", False) == (
        data["unset_keys"],
        data["backends"][0]["status"]["state"],
        data["usable"],
    )
    assert f"environment variable not set: {variable}" in data["backends"][0]["status"]["problem"]


async def test_airgap_is_respected(known: SetEndpoints, machine: Path) -> None:
    async with OllamaStandIn() as ollama:
        known(ollama.url)
        write_ctxrc(machine, "{name: cloud, type: openai-compatible, endpoint: 'https://192.0.2.1'}", airgap="true")
        data = await diagnose()
        result = await doctor()
    assert (True, "error") == (data["airgap"], data["backends"][0]["status"]["state"])
    assert "airgap" in data["backends"][0]["status"]["problem"]
    assert "      airgap: only loopback and private addresses are connected to\n" in result.out
    assert [ollama.url] == [server["endpoint"] for server in data["servers"]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("backends: [", ".ctxrc:"),
        ("airgap: maybe\n", ".ctxrc:1: airgap: must be true or false"),
        ("backends:\n  - {name: x, type: vllm, api_key_env: sk-test-0123456789abcdef}\n", "backends[0].api_key_env"),
        (None, ".ctxrc: is a directory"),
    ],
)
async def test_a_broken_ctxrc_is_the_first_finding(
    known: SetEndpoints, machine: Path, content: str | None, problem: str
) -> None:
    if content is None:
        (machine / ".ctxrc").mkdir()
    else:
        (machine / ".ctxrc").write_text(content)
    async with OllamaStandIn() as ollama:
        known(ollama.url)
        result = await doctor()
        data = await diagnose()
    title, first = result.out.splitlines()[:2]
    assert ("Configuration", 0) == (title, result.code)
    assert first.startswith("  !!  ")
    assert problem in first
    assert KEY not in result.out
    assert "ctxbackends config edit" == data["next"][0]["command"]
    assert f"ollama {ollama.version} at {ollama.url}" in result.out


async def test_a_file_further_up_is_hidden(known: SetEndpoints, machine: Path) -> None:
    (machine.parent / ".ctxrc").write_text("airgap: true\n")
    (machine / ".ctxrc").write_text("airgap: false\n")
    result = await doctor()
    assert f"  ok  {machine / '.ctxrc'}\n" in result.out
    assert f"  --  {machine.parent / '.ctxrc'} is not read: the nearest file wins\n" in result.out


async def test_a_model_file_that_can_be_served_is_usable(known: SetEndpoints, machine: Path) -> None:
    (machine / "tiny.gguf").write_bytes(b"GGUF")
    write_ctxrc(machine, "{name: local, type: llamacpp, model_path: tiny.gguf}")
    data = await diagnose()
    assert (True, True) == (data["usable"], data["backends"][0]["is_usable"])
    (machine / "tiny.gguf").unlink()
    assert not (await diagnose())["usable"]


@pytest.mark.parametrize(
    "settings",
    [
        "model_path: tiny.gguf",
        "unix_socket: /nowhere/llama.sock, endpoint: 'URL'",
        "endpoint: 'http://127.0.0.1:${LLAMA_PORT}'",
    ],
)
async def test_a_backend_elsewhere_is_not_the_server_at_its_default_endpoint(
    known: SetEndpoints, machine: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    """A server that a command starts has a free port; a Unix socket and an unset variable name no port."""
    async with OllamaStandIn() as ollama:
        known(ollama.url)
        llamacpp = attrs.evolve(PROFILES["llamacpp"], default_endpoint=ollama.url)
        monkeypatch.setattr(diagnosis, "PROFILES", {**PROFILES, "llamacpp": llamacpp})
        write_ctxrc(machine, f"{{name: mine, type: llamacpp, {settings.replace('URL', ollama.url)}}}")
        data = await diagnose()
    assert [(ollama.url, "ollama")] == [(server["endpoint"], server["type"]) for server in data["servers"]]
    assert [None] == [one["other_type"] for one in data["backends"]]


async def test_a_backend_whose_endpoint_has_a_variable_is_compared(
    known: SetEndpoints, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OllamaStandIn() as ollama:
        known(ollama.url)
        monkeypatch.setenv("LLAMA_PORT", str(urlsplit(ollama.url).port))
        write_ctxrc(machine, "{name: mine, type: llamacpp, endpoint: 'http://127.0.0.1:${LLAMA_PORT}'}")
        data = await diagnose()
    assert [] == data["servers"]
    assert ["ollama"] == [one["other_type"] for one in data["backends"]]


async def test_the_cached_models_and_the_log_are_shown(
    known: SetEndpoints, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = machine.parent / "cache" / "models"
    directory.mkdir(parents=True)
    (directory / "mine.gguf").write_bytes(b"GGUF" * 1000)
    LogStore.open().turn_on()
    result = await doctor()
    assert "Models on this machine\n  ok  mine (4 kB)\n" in result.out
    assert "Log\n  ok  on\n" in result.out
    assert (
        f"  ctxbackends chat --model-path mine {CHAT_ARGUMENTS}\n      talk to a model on this machine\n" in result.out
    )
    assert 0 == result.code
    monkeypatch.setattr(diagnosis, "has_server", lambda: False)
    assert 1 == (await doctor()).code


async def test_a_broken_log_is_said(known: SetEndpoints, machine: Path) -> None:
    LogStore.open().turn_on()
    path = machine.parent / "data" / "logs.db"
    path.write_text("no database")
    assert f"Log\n  !!  on\n      {path}: is not a SQLite database; move the file away" in (await doctor()).out


@pytest.mark.posix
async def test_a_cache_that_cannot_be_read_is_said(known: SetEndpoints, machine: Path) -> None:
    (machine.parent / "cache").mkdir()
    (machine.parent / "cache" / "models").symlink_to("models")
    data = await diagnose()
    assert {} == data["cached_models"]


async def test_without_llamacpp_it_says_how_to_get_it(known: SetEndpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "has_server", lambda: False)
    assert install_command() == (await diagnose())["next"][0]["command"]


async def test_the_other_ctx_is_named(known: SetEndpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_next", lambda: "/opt/bin/ctx")
    assert "      ctx passes other commands to /opt/bin/ctx\n" in (await doctor()).out


# --- the terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [10, 20, 40, 80, 120])
async def test_lines_fit_the_window(
    known: SetEndpoints, machine: Path, monkeypatch: pytest.MonkeyPatch, columns: int, refusing_url: str
) -> None:
    monkeypatch.setattr("ctxbackends._cli.doctor.window_size", lambda _: (columns, 24))
    known(refusing_url)
    write_ctxrc(machine, "{name: a-rather-long-name-of-a-backend, type: vllm, endpoint: 'http://127.0.0.1:1'}")
    result = await doctor(tty="stdout")
    page, _, commands = result.out.partition("Next")
    lines = [click.unstyle(line) for line in page.splitlines()]
    assert [] == [line for line in lines if line.startswith(" ") and len(line) > max(columns, 20)]
    assert "ctxbackends ping --backend a-rather-long-name-of-a-backend" in commands  # in one piece, to be copied


@pytest.mark.posix
@pytest.mark.parametrize(("term", "has_colour"), [("xterm", True), ("dumb", False)])
async def test_a_dumb_terminal_gets_plain_text(
    known: SetEndpoints, monkeypatch: pytest.MonkeyPatch, term: str, has_colour: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert has_colour == ("\x1b[" in (await doctor(tty="stdout")).out)
