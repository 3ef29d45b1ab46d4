"""The presets: their rows, and the requests that they send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aioresponses import aioresponses
from click.testing import CliRunner

from ctxbackends import BackendConfig, BackendType, Registry, UnsupportedOptionError, extract
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._profiles.builtin import PROFILES, SERVERS
from ctxbackends._profiles.presets import PRESETS, Preset
from tests.conftest import completion_body, models_body, sse

KEY = "made-up-key-0123456789"
OWN_ENDPOINT = "https://mine.example.org"

# The URLs as the vendors' documentation writes them.
URLS = {
    "azure-openai": f"{OWN_ENDPOINT}/openai/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "openrouter": "https://openrouter.ai/api/v1",
    "deepseek": "https://api.deepseek.com",
    "mistral": "https://api.mistral.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.ai/v1",
    "xai": "https://api.x.ai/v1",
    "huggingface": "https://router.huggingface.co/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "perplexity": "https://api.perplexity.ai",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "moonshot": "https://api.moonshot.ai/v1",
    "dashscope": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "sglang": "http://localhost:30000/v1",
    "tgi": "http://localhost:3000/v1",
    "llama-swap": "http://localhost:8080/v1",
    "litellm": "http://localhost:4000/v1",
    "infinity": "http://localhost:7997",
}
LOADING = {"sglang", "tgi", "llama-swap", "litellm", "infinity"}

every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))


@pytest.fixture
def mock_server() -> Iterator[aioresponses]:
    with aioresponses() as mock:
        yield mock


def config_of(preset: Preset, **settings: Any) -> BackendConfig:
    endpoint = OWN_ENDPOINT if preset.endpoint is None else None
    defaults = {"endpoint": endpoint, "default_model": "m", "max_concurrency": 8}
    return BackendConfig(name="mine", type=preset.type, **{**defaults, **settings})


def find_request(mock: aioresponses, place: int = -1) -> tuple[str, dict[str, Any]]:
    requests = [(str(url), call.kwargs) for (_, url), calls in mock.requests.items() for call in calls]
    return requests[place]


def test_every_type_has_one_row() -> None:
    assert list(URLS) == list(PRESETS)
    assert [*SERVERS, *PRESETS] == list(PROFILES)
    assert {str(name) for name in BackendType} == set(PROFILES)


@every_preset
def test_each_member_has_a_source(preset: Preset) -> None:
    optional = ("key_variable", "key_header", "loads", "query", "headers", "omit", "rename", "json_mode")
    members = {"api_path", *(name for name in optional if getattr(preset, name))}
    members |= {"endpoint"} if preset.endpoint is not None else set()
    assert members == set(preset.sources) - ({"endpoint"} if preset.endpoint is None else set())
    assert all(url.startswith("https://") for url in preset.sources.values())


@every_preset
def test_the_cold_start(preset: Preset) -> None:
    assert (90.0 if preset.type in LOADING else None) == PROFILES[preset.type].ready_timeout


@every_preset
async def test_the_request(preset: Preset, mock_server: aioresponses, monkeypatch: pytest.MonkeyPatch) -> None:
    if preset.key_variable is not None:
        monkeypatch.setenv(preset.key_variable, KEY)
    url = f"{URLS[preset.type]}/chat/completions"
    mock_server.post(url, body=completion_body())
    mock_server.post(url, body=sse("Hello"), headers={"Content-Type": "text/event-stream"})
    async with Registry([config_of(preset)]) as registry:
        backend = registry.resolve("mine")
        completion = await backend.complete("Hi", max_tokens=7, seed=3)
        async with backend.stream("Hi") as stream:
            streamed = await stream.get_final_completion()
    assert ("Hello", "Hello") == (completion.text, streamed.text)
    asked, sent = find_request(mock_server, 0)
    assert url == asked
    header, value = ("api-key", KEY) if preset.key_header else ("Authorization", f"Bearer {KEY}")
    assert (value if preset.key_variable else None) == sent["headers"].get(header)
    assert not preset.key_header or "Authorization" not in sent["headers"]
    renamed = {preset.rename.get(name, name): value for name, value in {"max_tokens": 7, "seed": 3}.items()}
    messages = [{"role": "user", "content": "Hi"}]
    assert {"model": "m", "messages": messages, **renamed} == json.loads(sent["data"])
    body = json.loads(find_request(mock_server)[1]["data"])
    assert ("stream_options" not in preset.omit) is ("stream_options" in body)


@every_preset
async def test_the_list_and_the_embeddings(preset: Preset, mock_server: aioresponses) -> None:
    mock_server.get(f"{URLS[preset.type]}/models", body=models_body("m"))
    mock_server.post(f"{URLS[preset.type]}/embeddings", body=b'{"data":[{"index":0,"embedding":[0.5]}]}')
    async with Registry([config_of(preset)]) as registry:
        backend = registry.resolve("mine")
        assert ["m"] == [model.id for model in await backend.models()]
        assert ((0.5,),) == (await backend.embed("x")).vectors
        status = await backend.status()
    assert preset.api_path == status.api_path


@every_preset
async def test_an_omitted_member_that_the_caller_sets(preset: Preset) -> None:
    options: dict[str, dict[str, Any]] = {
        "logprobs": {"logprobs": True},
        "top_logprobs": {"logprobs": True, "top_logprobs": 2},
        "frequency_penalty": {"frequency_penalty": 0.5},
        "presence_penalty": {"presence_penalty": 0.5},
    }
    async with Registry([config_of(preset)]) as registry:
        for name in preset.omit:
            with pytest.raises(UnsupportedOptionError):
                await registry.resolve("mine").complete("Hi", **options.get(name, {"extra_body": {name: 1}}))


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.json_mode])
async def test_extraction_where_only_json_mode_is(name: str, mock_server: aioresponses) -> None:
    mock_server.post(f"{URLS[name]}/chat/completions", body=completion_body('{"value":["a","b"]}'))
    async with Registry([config_of(PRESETS[name])]) as registry:
        backend = registry.resolve("mine")
        assert "unverified" == backend.schema_enforcement
        assert ["a", "b"] == await extract(backend, list[str], "a and b")
    body = json.loads(find_request(mock_server)[1]["data"])
    assert {"type": "json_object"} == body["response_format"]
    assert '"type":"array"' in body["messages"][0]["content"]
    assert "JSON" in body["messages"][0]["content"]


@every_preset
def test_the_documented_url_is_the_preset(preset: Preset) -> None:
    config = config_of(preset, endpoint=URLS[preset.type])
    assert (preset.endpoint or OWN_ENDPOINT) == config.endpoint


@every_preset
async def test_another_path_of_the_user_counts(preset: Preset, mock_server: aioresponses) -> None:
    mock_server.post("https://gateway.example.org/team/v7/chat/completions", body=completion_body())
    config = config_of(preset, endpoint="https://gateway.example.org/team/v7")
    async with Registry([config]) as registry:
        assert "Hello" == (await registry.resolve("mine").complete("Hi")).text


@every_preset
def test_setup(preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = ["--endpoint", OWN_ENDPOINT] if preset.endpoint is None else []
    for _ in range(2):  # adding it again changes nothing
        result = CliRunner().invoke(ctxbackends_group, ["setup", "--backend", str(preset.type), *endpoint])
        assert 0 == result.exit_code, result.output
    (config,) = load_ctxrc(tmp_path / ".ctxrc").backends
    assert (preset.type, preset.type) == (config.name, config.type)
    assert (preset.endpoint or OWN_ENDPOINT) == config.endpoint
