"""The command chat against SmolLM2 on a real llama.cpp server: what must be true whatever the model says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxbackends
from ctxbackends import LocalServer, open_backend
from tests import terminals
from tests.terminals import terminal

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN = 100.0
SLOT_SECONDS = 2.0
PROMPT = "\x1b[?2004h"  # prompt_toolkit's, where a message can be typed
STORY = "Write a very long story about a ship, with many chapters."


@pytest.fixture(scope="module")
def endpoint(smollm2: Path) -> Iterator[str]:
    server = LocalServer(smollm2, alias="smollm2", parallel=1, ctx_size=4096, threads=1)
    yield asyncio.run(_start(server))
    asyncio.run(server.aclose())


async def _start(server: LocalServer) -> str:
    endpoint = await server.start()
    async with open_backend("llamacpp", endpoint=endpoint) as backend:
        await backend.wait_ready()
    return endpoint


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(terminals, "WITHIN", WITHIN)


def run(*arguments: str, stdin: str = "") -> str:
    """Run the program, and return its standard output."""
    package = str(Path(ctxbackends.__file__).parent.parent)
    result = subprocess.run(
        [sys.executable, "-m", "ctxbackends", *arguments],
        env={**os.environ, "PYTHONPATH": package},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert 0 == result.returncode, result.stderr
    return result.stdout


def chat(endpoint: str, *arguments: str, stdin: str = "") -> str:
    return run("chat", *server_options(endpoint), "--max-tokens", "60", *arguments, stdin=stdin)


def server_options(endpoint: str) -> tuple[str, ...]:
    return ("--backend", "llamacpp", "--endpoint", endpoint, "--model", "smollm2")


def logged_messages() -> list[dict[str, Any]]:
    """The messages of the last conversation in the log."""
    summaries = json.loads(run("logs", "list", "--json"))
    turns = json.loads(run("logs", "show", str(summaries[0]["id"]), "--json"))["turns"]
    return [message for turn in turns for message in turn["messages"]]


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def busy_slots(endpoint: str) -> int | None:
    async def ask() -> int | None:
        async with open_backend("llamacpp", endpoint=endpoint) as backend:
            return (await backend.status()).busy_slots

    return asyncio.run(ask())


def test_an_answer_has_text_and_counted_tokens(endpoint: str) -> None:
    answer = json.loads(chat(endpoint, "--json", "What is the capital of France?"))
    assert answer["text"].strip()
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["usage"]["input_tokens"] > 5
    assert 0 < answer["usage"]["output_tokens"] <= 60


def test_a_pipe_gets_the_text_of_the_answer(endpoint: str) -> None:
    run("logs", "on")
    output = chat(endpoint, "Describe it in one sentence.", stdin="The sea is blue.")
    question, answer = logged_messages()
    assert text_of(question).startswith("The sea is blue.")
    assert text_of(answer).rstrip("\n") == output.rstrip("\n")
    assert output.strip()


def test_a_schema(endpoint: str) -> None:
    output = chat(endpoint, "--schema", "name, age int", "-o", "temperature=0", "Maria is 34 years old.")
    value = json.loads(output)
    assert ["age", "name"] == sorted(value)
    assert isinstance(value["name"], str)
    assert isinstance(value["age"], int)


@pytest.mark.posix
def test_the_progress_of_an_object(endpoint: str) -> None:
    arguments = ("--schema", "name, age int, city", "--temperature", "0", "Maria is 34 years old and lives in Lisbon.")
    with terminal("chat", *server_options(endpoint), *arguments) as at:
        at.read_until("receiving the answer (")
        assert 0 == at.end(), at.raw
    value = json.loads(at.raw.rpartition("\x1b[J")[2])
    assert ["age", "city", "name"] == sorted(value)


def test_continue_sends_the_messages_before(endpoint: str) -> None:
    run("logs", "on")
    first = json.loads(chat(endpoint, "--json", "What is the capital of France?"))
    second = json.loads(chat(endpoint, "--json", "--continue", "And of Italy?"))
    messages = logged_messages()
    assert ["user", "assistant", "user", "assistant"] == [message["role"] for message in messages]
    assert [first["text"], second["text"]] == [text_of(message) for message in messages[1::2]]
    grown = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert second["usage"]["input_tokens"] > grown, "the server has read the question and the answer again"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("columns", [20, 80])
def test_a_conversation(endpoint: str, columns: int, tmp_path: Path) -> None:
    """Ctrl-C frees the server's only slot, keeps the conversation, and the next answer comes."""
    run("logs", "on")
    options = (*server_options(endpoint), "--raw")
    with terminal("chat", *options, "--max-tokens", "200", columns=columns) as at:
        begin = at.read_until(PROMPT)
        at.type(f"{STORY}\r")
        begin = at.read_until("waiting for the ans", after=begin)
        begin = at.read_until(lambda text: len(text.partition("\x1b[J\r\r\x1b[J")[2]) > 20, after=begin)
        assert 1 == busy_slots(endpoint)
        at.type("\x03")
        stopped_at = time.monotonic()
        while busy_slots(endpoint):
            assert time.monotonic() - stopped_at < SLOT_SECONDS
        begin = at.read_until("stopped", after=begin)
        begin = at.read_until(PROMPT, after=begin)
        at.type("Say hello.\r")
        begin = at.read_until(PROMPT, after=begin)
        at.type("/save talk.json\r")
        begin = at.read_until("saved 4 messages to talk.json", after=begin)
        at.type("/quit\r")
        assert 0 == at.end()
    assert "Traceback" not in at.raw
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"]
    assert ["user", "assistant", "user", "assistant"] == [message["role"] for message in saved]
    assert [STORY, "Say hello."] == [text_of(message) for message in saved[::2]]
    assert all(text_of(message).strip() for message in saved)
    assert [text_of(message) for message in saved] == [text_of(message) for message in logged_messages()]
