"""docs/servers: the pages have the same form, their settings work, and the errors that they quote are raised."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

import ctxbackends
from ctxbackends import (
    PROFILES,
    APITimeoutError,
    Backend,
    BackendConfig,
    BackendError,
    ImagePart,
    JSONObjectFormat,
    Message,
    ReasoningPart,
    Registry,
    open_backend,
)
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._profiles.builtin import SERVERS
from ctxbackends._profiles.presets import PRESETS
from ctxbackends.testing import FaultServer, LMStudioStandIn, OllamaStandIn, OpenAIStandIn, faults
from ctxbackends.testing._stand_ins.stand_in import StandIn
from ctxbackends.testing.faults import ResponseBuilder, Step
from tests.integrations.stand_in_threads import serve
from tests.pages import DOCS
from tests.server_pages import (
    KEY,
    PAGES,
    STAND_INS,
    Raise,
    ask,
    at_faults,
    at_nobody,
    at_stand_in,
    complete,
    configured,
    errors_of,
    first_block,
    read,
    respond,
)

# --- the pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_the_same_sections(page: str) -> None:
    first, *others = re.findall(r"^## (.+)$", read(page), re.MULTILINE)
    assert first in {"Start the server", "Get a key", "Get a key, or start the server"}
    sections = ["Configure", "Supported", "Good to know", "If it fails"]
    assert sections == [title for title in others if title in sections]
    start = read(page).partition(f"## {first}")[2].partition("\n## ")[0]
    assert re.search(r"^```console\n\$ ", start, re.MULTILINE)
    assert [PAGES[page]] == re.findall(r"^```\{server\} (.+)$", read(page), re.MULTILINE)


def test_each_type_has_a_page() -> None:
    assert {*PAGES, "index", "answers"} == {path.stem for path in (DOCS / "servers").glob("*.md")}
    assert {*PAGES, "answers"} <= set(read("index").splitlines())
    assert ["vendors", "servers"] == re.findall(r"^```\{presets\} (.+)$", read("compatible"), re.MULTILINE)
    assert {True, False} == {preset.loads for preset in PRESETS.values()}


def test_the_index_names_the_default_variables() -> None:
    variables = {
        f"`{row.default_key_variable}` for `{row.type}`" for row in SERVERS.values() if row.default_key_variable
    }
    assert variables == set(re.findall(r"`\w+_API_KEY` for `\w+`", read("index")))


@pytest.mark.parametrize("page", PAGES)
def test_the_endpoint_is_the_default(page: str) -> None:
    default = PROFILES[PAGES[page]].default_endpoint
    if page == "compatible":
        assert default is None
    else:
        assert default == configured(page).endpoint
        is_local = page not in ("openai", "anthropic")
        assert is_local == (f"`{default}`" in read(page).partition("## Configure")[0])


# --- the settings -------------------------------------------------------------------------------------


@pytest.fixture
def server(page: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "EXAMPLE_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    with serve(STAND_INS[page]()) as stand_in:
        yield stand_in


@pytest.mark.parametrize("page", STAND_INS)
def test_the_program_runs(page: str, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings in Python are those of `.ctxrc`."""
    configs: list[BackendConfig] = []

    def open_stand_in(type_: str, **settings: Any) -> Any:
        configs.append(BackendConfig(type=type_, **{"name": type_, **settings}))
        return open_backend(type_, **{**settings, "endpoint": server.url})

    monkeypatch.setattr(ctxbackends, "open_backend", open_stand_in)
    program = compile(first_block(page, "python"), f"{page}.md", "exec", dont_inherit=True)
    exec(program, {"__name__": "__main__"})  # noqa: S102
    assert [configured(page)] == configs
    assert "POST" in {request.method for request in server.requests}


@pytest.mark.parametrize("page", ["vllm", "llamacpp"])  # their programs run in test_docs.py
def test_the_program_has_the_settings_of_the_file(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[BackendConfig] = []

    def open_nothing(type_: str, **settings: Any) -> Any:
        configs.append(BackendConfig(type=type_, name=type_, **settings))
        raise LookupError("no server")

    monkeypatch.setattr(ctxbackends, "open_backend", open_nothing)
    with pytest.raises(LookupError, match="no server"):
        exec(first_block(page, "python"), {"__name__": "__main__"})  # noqa: S102
    assert [configured(page)] == configs


@pytest.mark.parametrize("page", STAND_INS)
async def test_the_file_works(page: str, server: StandIn) -> None:
    async with Registry([attrs.evolve(configured(page), endpoint=server.url)]) as registry:
        assert (await registry.default().complete("Why is the sky blue?")).text


@pytest.mark.parametrize("page", PAGES)
def test_the_command_writes_the_first_lines(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    match = re.search(r"`ctxbackends (setup --backend [^`]+)`", read(page))
    assert match is not None
    done = CliRunner().invoke(ctxbackends_group, match[1].split())
    assert 0 == done.exit_code, done.output
    [written] = parse_ctxrc((tmp_path / ".ctxrc").read_text("utf-8"), path=".ctxrc").backends
    if page == "compatible":
        assert ("openrouter", "NAME") == (written.type, written.default_model)
    else:
        expected = configured(page)
        for name in ("name", "type", "endpoint", "default_model"):
            assert getattr(expected, name) == getattr(written, name)


# --- the errors ---------------------------------------------------------------------------------------


def get_weather(city: str) -> str:
    """Tell the weather of a town."""
    return city


async def load_and_ask_for_another(backend: Backend) -> None:
    await backend.load()
    await backend.complete("Hello", model="qwen3-14b")


def abort(response: ResponseBuilder) -> Iterator[Step]:
    yield response.head()
    yield response.frame(response.stream_start + response.text_event("one") + response.finish_event("abort"))
    yield response.frame(response.terminal_marker)
    yield response.last_chunk


async def die_while_loading() -> None:
    stops: list[asyncio.Task[None]] = []
    async with FaultServer() as server:
        server.play_always(faults.loading(60))
        call = complete(on_progress=lambda _: stops.append(asyncio.create_task(server.stop())))
        try:
            await ask("llamacpp", call, endpoint=server.url)
        finally:
            await asyncio.gather(*stops)


async def load_with_another_context() -> None:
    async with LMStudioStandIn() as server:
        settings: dict[str, Any] = {"endpoint": server.url, "default_model": "qwen/qwen3-4b"}
        await ask("lmstudio", complete(), **settings)
        await ask("lmstudio", complete(), **settings, context_length=16384)


async def wait_for_the_first_token() -> None:
    raise APITimeoutError("first_token", PROFILES["ollama"].first_token_timeout or 0, key="first_token_timeout")


async def leave_out_the_endpoint() -> None:
    async with open_backend("openai-compatible", default_model="m"):
        pass


async def leave_out_the_variable() -> None:
    async with Registry([configured("compatible")]) as registry:
        await registry.default().complete("Hello")


async def use_another_account() -> None:
    async with Registry([attrs.evolve(configured("openai"), api_key_env="SECOND_ACCOUNT")]) as registry:
        await registry.default().complete("Hello")


async def ask_groq_for_logprobs() -> None:
    async with FaultServer() as server, open_backend("groq", endpoint=server.url, api_key=KEY) as backend:
        await backend.complete("Hello", model="m", logprobs=True)


LONG = "word " * 9000
IMAGE = [Message.user([ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")])]
FORCED = {"tools": [get_weather], "tool_choice": "required"}
OTHER_SERVERS = [Message.user("Hi"), Message("assistant", (ReasoningPart("Hm."),)), Message.user("And now?")]
LATE_SYSTEM = [Message.user("Hi"), Message.system("Be brief.")]
# The words of servers that have no stand-in, or whose stand-in has no such case: seen at the real ones, or documented.
TOOL_FLAGS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
CONTEXT = "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens"
GRAMMAR = 'Grammar error: Unimplemented keys: ["uniqueItems"]'
BATCH = "input (901 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
NO_IMAGES = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
QUOTA = "You exceeded your current quota, please check your plan and billing details."
TEMPERATURE = "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default is supported."
CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
EXTRA = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
}

MESSAGES: dict[str, dict[str, Raise]] = {
    "ollama": {
        "unreachable at": at_nobody("ollama"),
        "model 'qwen3:14b' not found": at_stand_in("ollama", complete(model="qwen3:14b")),
        "the input length exceeds the context length": at_stand_in("ollama", complete(LONG)),
        "does not support tools": at_stand_in(
            "ollama",
            complete(tools=[get_weather]),
            server=lambda: OllamaStandIn(models=["gemma3:4b"]),
            default_model="gemma3:4b",
        ),
        "does not support chat": at_stand_in("ollama", complete(model="nomic-embed-text")),
        "tool_choice: required: Ollama cannot force a tool call": at_stand_in("ollama", complete(**FORCED)),
        "maximum pending requests exceeded": at_stand_in("ollama", complete("[[busy]]")),
        "an error was encountered while running the model": at_stand_in("ollama", complete("[[fail]]")),
        "no first token within 600 s; raise first_token_timeout to wait longer": wait_for_the_first_token,
    },
    "vllm": {
        "unreachable at": at_nobody("vllm"),
        "does not exist": at_faults("vllm", respond(404, "The model `m` does not exist.")),
        "tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set": at_faults(
            "vllm", respond(400, TOOL_FLAGS)
        ),
        "This model's maximum context length is": at_faults("vllm", respond(400, CONTEXT)),
        "is not a multimodal model": at_faults("vllm", respond(400, "m is not a multimodal model")),
        "Grammar error": at_faults("vllm", respond(400, GRAMMAR)),
        "HTTP 401": at_faults("vllm", respond(401, {"error": "Unauthorized"})),
        "vLLM is sleeping; wake it with load() or POST /wake_up": at_faults(
            "vllm", respond(200, {"is_sleeping": True}), call=lambda backend: backend.wait_ready(), probes=True
        ),
        "this vLLM has no sleep endpoints; start it with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode": at_faults(
            "vllm", respond(404, {"detail": "Not Found"}), call=lambda backend: backend.load()
        ),
        "the server ended the response with finish_reason 'abort'": at_faults("vllm", abort),
        "EngineCore encountered an issue": at_faults("vllm", faults.server_error()),
    },
    "llamacpp": {
        "unreachable at": at_nobody("llamacpp"),
        "Loading model": at_faults("llamacpp", faults.loading(60), ready_timeout=0.2),
        "the server died while loading": die_while_loading,
        "failed to load": at_faults("llamacpp", faults.load_failed()),
        'model mismatch: requested "gpt-4o", served "m"': at_faults("llamacpp", call=complete(model="gpt-4o")),
        "exceeds the available context size": at_faults("llamacpp", faults.context_overflow()),
        "Context size has been exceeded.": at_faults("llamacpp", respond(500, "Context size has been exceeded.")),
        "is too large to process": at_faults("llamacpp", respond(500, BATCH), call=lambda backend: backend.embed("Hi")),
        "embed: not an embedding model: m; use one, and start the server with embeddings on": at_faults(
            "llamacpp", respond(501, NO_EMBEDDINGS), call=lambda backend: backend.embed("Hi")
        ),
        "this llama-server serves only the model that it was started with": at_faults(
            "llamacpp", respond(404, "File Not Found"), call=lambda backend: backend.load()
        ),
        "image input is not supported": at_faults("llamacpp", respond(500, NO_IMAGES), call=complete(IMAGE)),
        "Invalid API Key": at_faults("llamacpp", respond(401, "Invalid API Key")),
    },
    "lmstudio": {
        "unreachable at": at_nobody("lmstudio"),
        "No models loaded": at_stand_in("lmstudio", complete(), server=lambda: LMStudioStandIn(jit=False)),
        "Invalid model identifier": at_stand_in("lmstudio", complete(model="qwen3-14b")),
        'model mismatch: requested "qwen3-14b", served "qwen/qwen3-4b"': at_stand_in(
            "lmstudio", load_and_ask_for_another
        ),
        "is loaded with a context of 4096 tokens, and context_length says 16384": load_with_another_context,
        "greater than the context length": at_stand_in("lmstudio", complete(LONG)),
        "The model has crashed": at_stand_in("lmstudio", complete("[[fail]]")),
        "An LM Studio API token is required": at_stand_in(
            "lmstudio", complete(), server=lambda: LMStudioStandIn(api_key="other"), api_key=None, api_key_env=""
        ),
        "the server lists no model": at_stand_in(
            "lmstudio", lambda backend: backend.models(), server=lambda: LMStudioStandIn(models=[])
        ),
        "this LM Studio has no /api/v1; it needs version 0.4 or newer": at_stand_in(
            "lmstudio", lambda backend: backend.load(), server=OpenAIStandIn
        ),
    },
    "openai": {
        "environment variable not set": use_another_account,
        "You didn't provide an API key": at_stand_in("openai", complete(), api_key=None, api_key_env=""),
        "Incorrect API key provided": at_stand_in("openai", complete(), api_key="another-key"),
        "does not exist or you do not have access to it": at_stand_in("openai", complete(model="gpt-0")),
        "You exceeded your current quota": at_faults(
            "openai", respond(429, {"error": {"message": QUOTA, "type": "insufficient_quota"}})
        ),
        "Rate limit reached": at_stand_in("openai", complete("[[rate]]")),
        "Unsupported value: 'temperature' does not support 0.2 with this model": at_faults(
            "openai", respond(400, TEMPERATURE)
        ),
        "'messages' must contain the word 'json'": at_stand_in("openai", complete(response_format=JSONObjectFormat())),
        "Input tokens exceed the configured limit": at_stand_in("openai", complete(LONG)),
        "top_k: not an option of the OpenAI API": at_stand_in("openai", complete(top_k=4)),
        "You are not allowed to generate embeddings from this model": at_stand_in(
            "openai", lambda backend: backend.embed("Hi")
        ),
    },
    "anthropic": {
        "x-api-key header is required": at_stand_in("anthropic", complete(), api_key=None, api_key_env=""),
        "invalid x-api-key": at_stand_in("anthropic", complete(), api_key="another-key"),
        "Your credit balance is too low": at_faults("anthropic", respond(400, CREDIT)),
        "model: claude-9": at_stand_in("anthropic", complete(model="claude-9")),
        "Overloaded": at_stand_in("anthropic", complete("[[overload]]")),
        "would exceed your organization's rate limit": at_stand_in("anthropic", complete("[[rate]]")),
        "prompt is too long": at_stand_in("anthropic", complete(LONG)),
        "`max_tokens` must be greater than `thinking.budget_tokens`": at_stand_in(
            "anthropic", complete(reasoning_budget=2000, max_tokens=1000)
        ),
        "temperature: this server accepts at most 1": at_stand_in("anthropic", complete(temperature=1.5)),
        "message: system: the Messages API takes system messages only at the beginning; move it there": at_stand_in(
            "anthropic", complete(LATE_SYSTEM)
        ),
        "this reasoning has no signature, so it came from another server": at_stand_in(
            "anthropic", complete(OTHER_SERVERS)
        ),
        "embed: not supported by the type anthropic: the server has no embeddings": at_stand_in(
            "anthropic", lambda backend: backend.embed("Hi")
        ),
    },
    "compatible": {
        "endpoint: required for type openai-compatible": leave_out_the_endpoint,
        'environment variable not set: EXAMPLE_API_KEY; set it to the API key of backend "big"': leave_out_the_variable,
        "HTTP 404": at_stand_in("compatible", complete(), api_path="/v2"),
        "HTTP 401": at_stand_in("compatible", complete(), api_key="another-key"),
        "HTTP 402": at_faults("compatible", respond(402, "Insufficient credits")),
        "Extra inputs are not permitted": at_faults("compatible", respond(422, EXTRA)),
        "incomplete response: finish_reason is None": at_faults("compatible", faults.no_terminal_marker()),
        "logprobs: this backend leaves it out": ask_groq_for_logprobs,
    },
}


@pytest.mark.parametrize(("page", "message"), [(page, message) for page, rows in MESSAGES.items() for message in rows])
async def test_a_quoted_message(page: str, message: str) -> None:
    with pytest.raises(BackendError) as caught:
        await MESSAGES[page][message]()
    assert message in str(caught.value)
    assert errors_of(page)[message] == type(caught.value).__name__


@pytest.mark.parametrize("page", PAGES)
def test_every_quoted_message_is_tested(page: str) -> None:
    assert MESSAGES[page].keys() == errors_of(page).keys()
