"""docs/guides and docs/install.md: the messages and the defaults that they quote are those of the code."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import (
    PROFILES,
    APITimeoutError,
    Backend,
    BackendError,
    ClosedError,
    FilePart,
    ImagePart,
    Message,
    Registry,
    ToolCall,
    arguments_of,
    http_status_of,
    open_backend,
    run_tools,
    stream_tools,
    tool_of,
)
from ctxbackends._client import retry
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._http.addresses import PRIVATE
from ctxbackends._http.connector import STALE_SECONDS
from ctxbackends.testing import Answer, FaultServer, OpenAIStandIn, faults
from tests.pages import read_page

ROOT = Path(__file__).parents[2]
ERRORS = re.compile(r"^\| (`{1,2}) ?(.+?) ?\1 (?:\(.*?\) )?\| ", re.MULTILINE)
GUIDES = ("streaming", "tools", "timeouts", "retries", "concurrency", "embeddings", "security", "messages")
KEY = "any-key-of-the-tests"


def quotes_of(guide: str) -> set[str]:
    """Return the messages in the table of errors of a guide."""
    return {match[2] for match in ERRORS.finditer(read_page(f"guides/{guide}").partition("## If it fails")[2])}


def get_weather(city: str) -> str:
    """Tell the weather of a town."""
    return city


def open_at(endpoint: str, **settings: Any) -> AbstractAsyncContextManager[Backend]:
    return open_backend("openai", endpoint=endpoint, api_key=KEY, **{"default_model": "m", **settings})


# --- what raises each message -----------------------------------------------------------------------


def expire(phase: str, key: str, field: str, backend_type: str = "openai") -> Callable[[], Awaitable[None]]:
    """A timeout of a phase, with the default of a type."""

    async def expire_phase() -> None:
        raise APITimeoutError(phase, getattr(PROFILES[backend_type], field), key=key)

    return expire_phase


def fail(fault: faults.Fault, *, embed: bool = False) -> Callable[[], Awaitable[None]]:
    """A request to a server with a fault, without a retry."""

    async def ask() -> None:
        async with FaultServer() as server:
            server.play(fault)
            async with open_backend(
                "openai", endpoint=server.url, api_key=KEY, default_model="m", max_retries=0
            ) as one:
                await (one.embed("Hello") if embed else one.complete("Hello"))

    return ask


async def break_a_stream() -> None:
    async with FaultServer() as server, open_at(server.url) as backend:
        server.play(faults.close_in_chunk())
        async with backend.stream("Hello") as stream:
            await stream.get_final_completion()


async def read_too_early() -> None:
    async with FaultServer() as server, open_at(server.url) as backend, backend.stream("Hello") as stream:
        _ = stream.completion


async def call_for_ever() -> None:
    answer = Answer(tool_calls=[("get_weather", {"city": "Oslo"})])
    async with OpenAIStandIn(answer=lambda _: answer) as server, open_at(server.url) as backend:
        await run_tools(backend, "Hello", [get_weather], model="gpt-5-mini")


async def answer_without_the_call() -> None:
    async with OpenAIStandIn(answer=lambda _: Answer(text="Sunny.")) as server, open_at(server.url) as backend:
        await run_tools(backend, "Hello", [get_weather], model="gpt-5-mini", tool_choice="required")


async def force_a_tool() -> None:
    async with open_backend("ollama", default_model="qwen3:4b") as backend:
        await backend.complete("Hello", tools=[get_weather], tool_choice="required")


async def pass_a_number() -> None:
    arguments_of(tool_of(get_weather), ToolCall(id="call_1", name="get_weather", arguments='{"city": 3}'))


async def find_nobody() -> None:
    async with open_at("http://127.0.0.1:9", max_retries=0) as backend:
        await backend.complete("Hello")


async def embed_at_anthropic() -> None:
    async with open_backend("anthropic", api_key=KEY, default_model="claude-haiku-4-5") as backend:
        await backend.embed("Hello")


async def embed_nothing() -> None:
    async with open_at("http://127.0.0.1:9") as backend:
        await backend.embed([])


async def embed_with_a_chat_model() -> None:
    async with OpenAIStandIn() as server, open_at(server.url, default_model="gpt-5-mini") as backend:
        await backend.embed("Hello")


async def leave_the_airgap() -> None:
    async with open_backend("vllm", endpoint="http://203.0.113.7:8000", default_model="m", airgap=True):
        pass


async def write_a_key() -> None:
    parse_ctxrc("backends: [{name: vllm, api_key: abc}]", path=".ctxrc")


async def forget_the_variable() -> None:
    config = "backends: [{name: cloud, type: openai-compatible, endpoint: https://x.org, api_key_env: EXAMPLE_API_KEY}]"
    async with Registry(parse_ctxrc(config, path=".ctxrc").backends) as registry:
        registry.resolve("cloud")


def complete(backend_type: str, prompt: Any) -> Callable[[], Awaitable[None]]:
    """A prompt that is rejected before it is sent."""

    async def ask() -> None:
        async with open_backend(backend_type, endpoint="http://127.0.0.1:9", default_model="m") as backend:
            await backend.complete(prompt)

    return ask


async def read_no_image() -> None:
    ImagePart.from_bytes(b"no image")


CACHED = [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]

MESSAGES: dict[str, Callable[[], Awaitable[None]]] = {
    "the connection broke before the response was complete": break_a_stream,
    "no completion: the stream has not been read to its end": read_too_early,
    "no connection within 5 s; raise connect_timeout to wait longer": expire(
        "connect", "connect_timeout", "connect_timeout"
    ),
    "no first token within 600 s; raise first_token_timeout to wait longer": expire(
        "first_token", "first_token_timeout", "first_token_timeout"
    ),
    "stream stalled: no further token within 60 s; raise idle_timeout to wait longer": expire(
        "idle", "idle_timeout", "idle_timeout"
    ),
    "stream stalled: no further token within 300 s; raise idle_timeout to wait longer": expire(
        "idle", "idle_timeout", "silent_idle_timeout"
    ),
    "no complete response within 600 s; raise timeout to wait longer": expire("total", "timeout", "timeout"),
    "the model still calls tools after 10 rounds; raise max_rounds, or go on with messages": call_for_ever,
    "no tool call in the answer: tool_choice requires a call, finish_reason stop; "
    "use a model with tool support, or leave tool_choice out": answer_without_the_call,
    "tool_choice: required: Ollama cannot force a tool call": force_a_tool,
    "response does not match get_weather: Expected `str`, got `int` - at `$.city`": pass_a_number,
    "HTTP 400": fail(faults.context_overflow(), embed=True),
    "HTTP 401": fail(faults.unauthorized()),
    "HTTP 403": embed_with_a_chat_model,
    "HTTP 429": fail(faults.rate_limited()),
    "HTTP 503": fail(faults.busy()),
    "unreachable at": find_nobody,
    "embed: not supported by the type anthropic: the server has no embeddings": embed_at_anthropic,
    "embed() needs at least one text": embed_nothing,
    "airgap: the endpoint http://203.0.113.7:8000 is neither loopback nor in a private network; "
    "nothing was sent to it": leave_the_airgap,
    "unsupported member: messages[0].content[0].cache_control": complete("vllm", CACHED),
    "unsupported value: messages[0].role is 'usr'; did you mean user?": complete(
        "vllm", [{"role": "usr", "content": "Hi"}]
    ),
    "the prompt has no messages; pass at least one": complete("vllm", []),
    "unknown image format: not PNG, JPEG, GIF or WebP; pass media_type=": read_no_image,
    "message: image url: Ollama does not fetch images; pass their bytes with ImagePart.from_bytes": complete(
        "ollama", [Message.user([ImagePart.from_url("https://example.org/a.png")])]
    ),
    "message: file: this API takes no documents; send their text, or their pages as images": complete(
        "vllm", [Message.user([FilePart(b"%PDF-1.4", "a.pdf")])]
    ),
    "API keys aren't allowed in .ctxrc; set an environment variable and name it in api_key_env": write_a_key,
    'environment variable not set: EXAMPLE_API_KEY; set it to the API key of backend "cloud"': forget_the_variable,
}
SERVERS_OWN = {"Context size has been exceeded."}  # the words of llama-server, tested with it


def exceptions_of(message: str) -> set[str]:
    """Return the exceptions that the guides name for a message."""
    lines = [line for guide in GUIDES for line in read_page(f"guides/{guide}").splitlines() if line.startswith("| `")]
    cells = [line.split(" | ")[1] for line in lines if line.startswith((f"| `{message}`", f"| `` {message} ``"))]
    return {name for cell in cells for name in re.findall(r"`(?:~ctxbackends\.)?(\w+Error)`", cell)}


@pytest.mark.parametrize("message", MESSAGES)
async def test_a_quoted_message(message: str) -> None:
    with pytest.raises((BackendError, ValueError, TypeError)) as caught:
        await MESSAGES[message]()
    assert message in str(caught.value)
    names = exceptions_of(message) or {"APITimeoutError"}  # the column of timeouts.md is the phase
    assert {type(caught.value).__name__} == names


def test_every_quoted_message_is_tested() -> None:
    assert {message for guide in GUIDES for message in quotes_of(guide)} == MESSAGES.keys() | SERVERS_OWN


# --- defaults -----------------------------------------------------------------------------------------


def defaults_of(guide: str) -> dict[str, str]:
    """Return the rows of a table of settings: the name and the default."""
    rows = re.findall(
        r"^\| `(\w+)`.*? \| (.+?) \| ", read_page(f"guides/{guide}").partition("## Settings")[2], re.MULTILINE
    )
    return dict(rows)


def default_of(function: Callable[..., object], parameter: str) -> object:
    return inspect.signature(function).parameters[parameter].default


def test_the_defaults_of_streams() -> None:
    local, vendor = PROFILES["vllm"], PROFILES["openai"]
    assert local.timeout is None
    defaults = {
        "first_token_timeout": f"{local.first_token_timeout:g} s",
        "idle_timeout": f"{local.idle_timeout:g} s; {local.silent_idle_timeout:g} s with tools or a schema",
        "timeout": f"none for servers on your machines, {vendor.timeout:g} s for vendors",
    }
    assert defaults == {name: defaults_of("streaming")[name] for name in defaults}


@pytest.mark.parametrize("function", [run_tools, stream_tools])
def test_the_defaults_of_a_tool_loop(function: Callable[..., object]) -> None:
    expected = {"max_rounds": "{}", "on_tool_error": '`"{}"`'}
    formatted = {name: form.format(default_of(function, name)) for name, form in expected.items()}
    assert formatted == {name: defaults_of("tools")[name] for name in expected}
    assert default_of(function, "approve") is None
    assert "none" == defaults_of("tools")["approve"]


def test_the_default_of_retries() -> None:
    page = read_page("guides/retries")
    assert f"The default is {retry.MAX_RETRIES} retries, so {retry.MAX_RETRIES + 1} attempts." in page
    assert f"{retry.MAX_RETRIES + 1} in total, or 1 + `max_retries`" in page
    assert (
        f"the delays double up to {retry.MAX_BACKOFF:g} s. A `Retry-After` of more than {retry.RETRY_AFTER_CAP:g} s"
        in page
    )
    assert f"{retry.FIRST_POLL * 1000:g} ms, then" in page
    assert f"up to {retry.LOCAL_POLL * 1000:g} ms, elsewhere up to {retry.REMOTE_POLL:g} s" in page
    assert f"closes within {STALE_SECONDS:g} s" in page


def test_the_networks_of_an_airgap() -> None:
    page = " ".join(read_page("guides/security").split())
    assert ", ".join(f"`{network}`" for network in PRIVATE) in page.replace("`::1`, ", "`::1/128`, ")


def test_the_defaults_of_embed() -> None:
    names = {"model", "dimensions", "encoding", "batch_size", "request_options"}
    assert names == defaults_of("embeddings").keys()
    assert {None} == {default_of(Backend.embed, name) for name in names}


def test_the_defaults_of_a_service() -> None:
    assert default_of(Registry.drain, "timeout") is None
    assert defaults_of("deployment")["timeout"].startswith("none")
    ready = {name: PROFILES[name].ready_timeout for name in ("vllm", "llamacpp", "ollama", "lmstudio", "openai")}
    assert {"vllm": 90, "llamacpp": 90, "ollama": None, "lmstudio": None, "openai": None} == ready
    assert "90 s for `vllm` and `llamacpp`, off for the others" == defaults_of("deployment")["ready_timeout"]
    assert 503 == http_status_of(ClosedError())


# --- installation -------------------------------------------------------------------------------------


def test_every_extra_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = read_page("install").partition("## Extras")[2].partition("\n## ")[0]
    assert set(project["optional-dependencies"]) == set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE))
    assert 7 == len(project["dependencies"])
    assert "which has seven dependencies" in table


def test_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    assert f"requires Python {oldest} or newer" in read_page("install")
