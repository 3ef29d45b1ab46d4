"""The commands embed, count, load and unload: output, inputs, and servers that cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends.testing import AnthropicStandIn, LMStudioStandIn, OllamaStandIn, OpenAIStandIn
from tests.conftest import TestServerFactory
from tests.unit.test_cli import ENDPOINT_OF_NOBODY, Result, ctx

EMBEDDING_MODEL = "nomic-embed-text"
UNSUPPORTED = 'ctxbackends: backend "{0}": {1}: not supported by the type {0}'


@pytest.fixture
async def ollama() -> AsyncIterator[OllamaStandIn]:
    async with OllamaStandIn() as server:
        yield server


async def run(*arguments: str, backend: str, url: str, stdin: bytes = b"", tty: str = "") -> Result:
    """Run a command with a server, beside which it runs in a thread."""
    options = ("--backend", backend, "--endpoint", url)
    return await asyncio.to_thread(ctx, *arguments, *options, stdin=stdin, tty=tty)


# --- embed ------------------------------------------------------------------------------------------


async def test_embed_prints_one_vector_per_text(ollama: OllamaStandIn) -> None:
    result = await run("embed", "one", "two", "-m", EMBEDDING_MODEL, backend="ollama", url=ollama.url)
    vectors = [json.loads(line) for line in result.out.splitlines()]
    assert (0, 2) == (result.code, len(vectors))
    assert vectors[0] != vectors[1]
    assert result.err == f"2 vectors of {len(vectors[0])} dimensions from {EMBEDDING_MODEL}\n"


async def test_embed_prints_one_object_with_json(ollama: OllamaStandIn) -> None:
    arguments = ("embed", "one", "-m", EMBEDDING_MODEL)
    plain = await run(*arguments, backend="ollama", url=ollama.url)
    data = json.loads((await run(*arguments, "--json", backend="ollama", url=ollama.url)).out)
    assert {"vectors", "requested_model", "served_model", "usage"} == set(data)
    assert ([json.loads(plain.out)], EMBEDDING_MODEL) == (data["vectors"], data["requested_model"])


@pytest.mark.parametrize("content", [b"one\ntwo\n", b"one\ntwo", b"\xef\xbb\xbfone\r\ntwo\r\n"])
async def test_embed_reads_one_text_per_line(ollama: OllamaStandIn, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "texts").write_bytes(content)
    options: Any = {"backend": "ollama", "url": ollama.url}
    by_argument = await run("embed", "one", "two", "-m", EMBEDDING_MODEL, **options)
    by_stdin = await run("embed", "-m", EMBEDDING_MODEL, **options, stdin=content)
    by_file = await run("embed", "-m", EMBEDDING_MODEL, "--lines", str(tmp_path / "texts"), **options)
    assert by_argument == by_stdin == by_file


async def test_embed_takes_shorter_vectors(ollama: OllamaStandIn) -> None:
    arguments = ("embed", "one", "-m", EMBEDDING_MODEL, "--dimensions", "8")
    result = await run(*arguments, backend="ollama", url=ollama.url)
    assert 8 == len(json.loads(result.out))
    assert "1 vector of 8 dimensions" in result.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "problem"),
    [
        ((), b"", 1, "standard input is empty"),
        ((), b"one\n\ntwo\n", 1, "standard input: line 2 is empty, and an empty text has no vector; remove it"),
        ((), b"one\n\xff\n", 1, "standard input is not UTF-8 (byte 5)"),
        ((" ",), b"", 2, "a TEXT is empty, and an empty text has no vector"),
        (("\udcff",), b"", 2, "is not UTF-8"),
        (("one", "--lines", "-"), b"two", 2, "TEXT and --lines are mutually exclusive"),
        (("--lines", "nothere"), b"", 1, "cannot read nothere: No such file or directory"),
        (("--lines", "."), b"", 1, "cannot read .: Is a directory"),
        (("one", "--dimensions", "0"), b"", 2, "0 is out of range"),
    ],
)
def test_embed_rejects_texts_that_have_no_vector(
    arguments: tuple[str, ...], stdin: bytes, code: int, problem: str
) -> None:
    result = ctx("embed", *arguments, "-m", "any", "--endpoint", ENDPOINT_OF_NOBODY, stdin=stdin)
    assert (code, "") == (result.code, result.out)
    assert problem in result.err


def test_embed_without_text_on_a_terminal_is_an_error() -> None:
    result = ctx("embed", "--endpoint", ENDPOINT_OF_NOBODY, tty="stdin")
    assert (2, True) == (result.code, "no text; pass it as an argument or on standard input" in result.err)


async def test_embed_says_what_a_server_cannot_do() -> None:
    async with AnthropicStandIn() as anthropic:
        result = await run("embed", "one", "-m", "claude-haiku-4-5", backend="anthropic", url=anthropic.url)
        assert (1, f"{UNSUPPORTED.format('anthropic', 'embed')}: the server has no embeddings\n") == (
            result.code,
            result.err,
        )
        assert [] == anthropic.requests


async def test_embed_says_that_a_model_only_generates(test_server: TestServerFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": [{"id": "tiny"}]})
        message = "This server does not support embeddings. Start it with `--embeddings`"
        return web.json_response(
            {"error": {"code": 501, "message": message, "type": "not_supported_error"}}, status=501
        )

    server = await test_server(handler)
    result = await run("embed", "one", "-m", "tiny", backend="llamacpp", url=str(server.make_url("")).rstrip("/"))
    assert (1, "") == (result.code, result.out)
    assert "not an embedding model: tiny; use one, and start the server with embeddings on" in result.err


# --- count --------------------------------------------------------------------------------------------


async def test_count_prints_the_servers_number(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Why a registry?")
    async with OpenAIStandIn() as openai:
        options: Any = {"backend": "openai", "url": openai.url}
        plain = await run("count", "Why a registry?", "-m", "gpt-5-mini", **options)
        assert (0, "") == (plain.code, plain.err)
        assert int(plain.out) > 0
        assert plain == await run("count", "-m", "gpt-5-mini", **options, stdin=b"Why a registry?")
        assert plain == await run("count", "-m", "gpt-5-mini", "-f", str(tmp_path / "prompt.txt"), **options)
        with_system = await run("count", "Why a registry?", "-s", "Be brief.", "-m", "gpt-5-mini", **options)
        assert int(with_system.out) > int(plain.out)
        as_json = await run("count", "Why a registry?", "-m", "gpt-5-mini", "--json", **options)
    assert {"tokens": int(plain.out), "backend": "openai", "model": "gpt-5-mini"} == json.loads(as_json.out)


async def test_count_never_estimates(ollama: OllamaStandIn) -> None:
    result = await run("count", "Why?", "-m", "qwen3:4b", backend="ollama", url=ollama.url)
    assert (1, "") == (result.code, result.out)
    reason = "the server cannot count tokens, and the number is never estimated"
    assert f"{UNSUPPORTED.format('ollama', 'count_tokens')}: {reason}\n" == result.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "problem"),
    [
        ((), b" ", 2, "the prompt on standard input is empty"),
        (("one", "-f", "two"), b"", 2, "PROMPT and --file are mutually exclusive"),
        (("-f", "nothere"), b"", 1, "cannot read nothere: No such file or directory"),
    ],
)
def test_count_rejects_prompts_that_are_none(arguments: tuple[str, ...], stdin: bytes, code: int, problem: str) -> None:
    result = ctx("count", *arguments, "--endpoint", ENDPOINT_OF_NOBODY, stdin=stdin)
    assert (code, "") == (result.code, result.out)
    assert problem in result.err


# --- load and unload ------------------------------------------------------------------------------------


async def test_load_and_unload_move_a_model(ollama: OllamaStandIn) -> None:
    options: Any = {"backend": "ollama", "url": ollama.url}
    loaded = await run("load", "qwen3:4b", "--context-length", "2048", "--keep-alive", "10m", **options)
    assert (0, "", f"loaded qwen3:4b on {ollama.url}\n") == (loaded.code, loaded.out, loaded.err)
    load = next(request.json for request in ollama.requests if request.method == "POST")
    assert ("qwen3:4b", {"num_ctx": 2048}, "600s") == (load["model"], load["options"], load["keep_alive"])
    status = json.loads((await run("status", "--json", **options)).out)[0]
    assert (["qwen3:4b"], 2048) == (status["models"], status["context_length"])
    unloaded = await run("unload", "qwen3:4b", **options)
    assert (0, "", f"unloaded qwen3:4b from {ollama.url}\n") == (unloaded.code, unloaded.out, unloaded.err)
    assert [] == json.loads((await run("status", "--json", **options)).out)[0]["models"]


async def test_load_keeps_a_model_forever(ollama: OllamaStandIn) -> None:
    await run("load", "qwen3:4b", "--keep-alive", "forever", backend="ollama", url=ollama.url)
    assert -1 == ollama.requests[-1].json["keep_alive"]


async def test_load_says_what_a_server_cannot_do() -> None:
    async with OpenAIStandIn() as openai, LMStudioStandIn() as lmstudio:
        result = await run("load", "gpt-5-mini", backend="openai", url=openai.url)
        assert f"{UNSUPPORTED.format('openai', 'load')}: models are always loaded\n" == result.err
        result = await run("unload", "gpt-5-mini", backend="openai", url=openai.url)
        assert f"{UNSUPPORTED.format('openai', 'unload')}: models are always loaded\n" == result.err
        assert [] == openai.requests
        result = await run("unload", "nothere", backend="lmstudio", url=lmstudio.url)
        assert (1, True) == (result.code, "LM Studio has no model nothere" in result.err)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_a_model_must_be_named(verb: str) -> None:
    result = ctx(verb, "--backend", "ollama", "--endpoint", ENDPOINT_OF_NOBODY)
    assert 1 == result.code
    assert "model" in result.err


@pytest.mark.parametrize(("value", "problem"), [("10", "write 10s"), ("-1m", "must not be negative"), ("x", "x")])
def test_load_rejects_a_duration_that_is_none(value: str, problem: str) -> None:
    result = ctx("load", "any", f"--keep-alive={value}", "--endpoint", ENDPOINT_OF_NOBODY)
    assert (2, True) == (result.code, problem in result.err)


async def test_unload_does_not_wait_for_a_server(test_server: TestServerFactory) -> None:
    async def loading(_: web.Request) -> web.StreamResponse:
        body = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
        return web.json_response(body, status=503)

    server = await test_server(loading)
    result = await run("unload", "any", backend="llamacpp", url=str(server.make_url("")).rstrip("/"))
    assert (1, True) == (result.code, "loading" in result.err.lower())
