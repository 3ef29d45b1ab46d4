"""The models for the OpenAI Agents SDK: names, copies, wrong arguments and traces."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("agents", reason="needs the extra openai-agents: nox -s integrations")

from agents import Agent, ModelSettings, MultiProvider, RunConfig, UserError
from agents.models.multi_provider import MultiProviderMap
from agents.tracing import Span, Trace, TracingProcessor, set_trace_processors, set_tracing_disabled

from ctxbackends import BackendConfig
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.openai_agents import CtxModel, CtxModelProvider
from ctxbackends.testing import FaultServer, faults
from tests.integrations.agents_runs import OPENAI, run, say, serve, serve_faults, streamed_or_not

# --- names, copies and traces ---------------------------------------------------------------------------


CTXRC = """backends:
  - {name: one, type: vllm, endpoint: "http://127.0.0.1:8000", default_model: m1}
  - {name: two, type: openai-compatible, endpoint: "http://127.0.0.1:8001"}
"""


@pytest.fixture
def ctxrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".ctxrc"
    path.write_text(CTXRC)
    return path


@pytest.mark.parametrize(
    ("name", "endpoint", "model_name"),
    [
        ("one/qwen3", "http://127.0.0.1:8000", "qwen3"),
        ("one", "http://127.0.0.1:8000", None),
        ("two/org/model:4b", "http://127.0.0.1:8001", "org/model:4b"),
    ],
)
def test_names_of_the_provider(ctxrc: Path, name: str, endpoint: str, model_name: str | None) -> None:
    chosen = CtxModelProvider().get_model(name)
    assert (endpoint, model_name) == (chosen._reference.get().endpoint, chosen.model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three/m", 'unknown backend: "three"; configured: one, two'),
        (None, "several backends"),
        ("", "several backends"),
    ],
)
def test_names_that_the_provider_does_not_know(ctxrc: Path, name: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CtxModelProvider().get_model(name)


def test_the_default_backend_of_the_provider(ctxrc: Path) -> None:
    ctxrc.write_text(f"default_backend: one\n{CTXRC}")
    chosen = CtxModelProvider().get_model(None)
    assert ("one", None) == (chosen._reference.get().name, chosen.model)


def test_the_provider_of_one_backend_takes_names_as_models() -> None:
    config = BackendConfig(name="only", type="vllm", endpoint="http://127.0.0.1:8000")
    assert "Qwen/Qwen3-4B" == CtxModelProvider(config).get_model("Qwen/Qwen3-4B").model


@streamed_or_not
async def test_runs_by_name(stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with FaultServer() as server:
        (tmp_path / ".ctxrc").write_text(
            f"backends: [{{name: local, type: vllm, endpoint: '{server.url}', default_model: m}}]\n"
        )
        config = RunConfig(model_provider=CtxModelProvider())
        # Without a model, the SDK passes its settings for GPT-5.
        for agent in (Agent(name="a", model="local/m"), Agent(name="b")):
            result, _ = await run(agent, stream=stream, run_config=config)
            assert "".join(server.pieces) == result.final_output
        assert ["m", "m"] == [request.json["model"] for request in server.generations]
        assert all("reasoning_effort" not in request.json for request in server.generations)
        names = MultiProviderMap()  # type: ignore[no-untyped-call]  # of the SDK
        names.add_provider("ctx", CtxModelProvider())
        config = RunConfig(model_provider=MultiProvider(provider_map=names))
        result, _ = await run(Agent(name="c", model="ctx/local/m"), stream=stream, run_config=config)
        assert "".join(server.pieces) == result.final_output
        await close_backends()


def test_models_pickle_and_copy_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    config = BackendConfig(name="o", type="openai", api_key_env="SOME_KEY", default_model="m")
    chosen = CtxModel(config, "gpt-5-mini", unsupported="drop")
    data = pickle.dumps(chosen)
    assert b"sk-secret" not in data
    for other in (pickle.loads(data), copy.deepcopy(chosen)):  # noqa: S301  # our own bytes
        assert ("gpt-5-mini", "drop") == (other.model, other._unsupported)
        assert other._reference.get() is chosen._reference.get()


async def test_a_model_of_a_backend_does_not_pickle() -> None:
    async with serve_faults() as (backend, _):
        with pytest.raises(TypeError, match="pass its BackendConfig"):
            pickle.dumps(CtxModel(backend))


@pytest.mark.parametrize("kind", [CtxModel, CtxModelProvider])
def test_wrong_arguments(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"backend must be a BackendConfig, a name in \.ctxrc or a Backend: int"):
        kind(1)
    with pytest.raises(ValueError, match="invalid unsupported: 'ignore'; use error or drop"):
        kind("name", unsupported="ignore")


class Recorder(TracingProcessor):
    """Keeps the spans of models."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def on_trace_start(self, trace: Trace) -> None: ...

    def on_trace_end(self, trace: Trace) -> None: ...

    def on_span_start(self, span: Span[Any]) -> None: ...

    def on_span_end(self, span: Span[Any]) -> None:
        exported = span.export()
        if exported is not None and exported["span_data"]["type"] == "generation":
            self.spans.append(exported)

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    processor = Recorder()
    set_trace_processors([processor])  # instead of the one that sends them to OpenAI
    set_tracing_disabled(False)
    yield processor
    set_tracing_disabled(True)
    set_trace_processors([])


@streamed_or_not
@pytest.mark.parametrize("content", [True, False], ids=["content", "no content"])
async def test_traces(recorder: Recorder, content: bool, stream: bool) -> None:
    config = RunConfig(trace_include_sensitive_data=content)
    async with serve(OPENAI, say("my answer")) as (backend, _):
        settings = ModelSettings(temperature=0.5, extra_headers={"x-secret": "hidden"})
        agent = Agent(name="a", model=CtxModel(backend, "gpt-4.1-mini"), model_settings=settings)
        await run(agent, "my question", stream=stream, run_config=config)
        (span,) = recorder.spans
        data = span["span_data"]
        assert "gpt-4.1-mini" == data["model"]
        assert (backend.endpoint, 0.5) == (data["model_config"]["base_url"], data["model_config"]["temperature"])
        assert data["usage"]["output_tokens"] > 0
        assert content == ("my question" in json.dumps(span))
        assert content == ("my answer" in json.dumps(span))
        assert "hidden" not in json.dumps(span)
    async with serve_faults(faults.CATALOGUE["unauthorized"]) as (backend, _):
        with pytest.raises(openai.AuthenticationError):
            await run(Agent(name="a", model=CtxModel(backend)), stream=stream, run_config=config)
    error = recorder.spans[1]["error"]
    assert "the request failed" == error["message"]
    assert content == ("401" in error["data"]["error"])


def test_a_missing_framework_names_the_command() -> None:
    program = (
        "import sys; sys.modules['agents'] = None\n"
        "try:\n    import ctxbackends.integrations.openai_agents\n"
        "except ImportError as error:\n    print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "run pip install 'ctxbackends[openai-agents]'" in ended.stdout
