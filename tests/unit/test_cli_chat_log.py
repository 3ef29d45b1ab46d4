"""chat and the log: what it records, what it continues, and what never gets there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Message, OpaquePart, ReasoningPart, TextPart
from ctxbackends._cli.log_entries import LogEntry
from ctxbackends._cli.log_store import LogStore
from ctxbackends.testing import Answer, OpenAIStandIn, Question
from tests.unit.test_cli import Result, ctx, environment, without_waits

KEY = "sk-test-0123456789abcdef"
SECRET = "the merger is on Friday"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the log turned on."""
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    LogStore.open().turn_on()
    return tmp_path / "project"


def repeat(question: Question) -> Answer:
    return Answer(text=f"You said: {question.prompt}")


@pytest.fixture
async def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIStandIn]:
    """The server of the only backend in .ctxrc, which repeats what it is asked."""
    monkeypatch.setenv("GATE", KEY)
    async with OpenAIStandIn(api_key=KEY, answer=repeat) as server:
        (project / ".ctxrc").write_text(
            f"backends:\n  - {{name: local, type: openai, endpoint: '{server.url}', api_key_env: GATE, "
            "default_model: gpt-4.1-mini}\nprivacy:\n  redact: ['*.pem']\n"
        )
        yield server


async def chat(*arguments: str, stdin: bytes = b"", tty: str = "stdin") -> Result:
    return await asyncio.to_thread(ctx, "chat", *arguments, stdin=stdin, tty=tty)


def texts() -> list[str]:
    return [message.text for message in LogStore.open().last_conversation().messages]


async def test_an_answer_is_recorded_and_continued(server: OpenAIStandIn) -> None:
    first = await chat("one", "--system", "Be brief.", "--temperature", "0.5")
    assert (0, "You said: one\n", "") == (first.code, first.out, first.err)
    second = await chat("-c", "two")
    assert (0, "You said: two\n", "") == (second.code, second.out, second.err)
    assert ["one", "You said: one", "two", "You said: two"] == texts()
    request = server.requests[-1].json
    assert ["Be brief.", "one", "You said: one", "two"] == [message["content"] for message in request["messages"]]
    assert 0.5 == request["temperature"]
    assert 1 == len(LogStore.open().conversations(limit=9))


async def test_an_older_conversation_is_continued_by_its_id(server: OpenAIStandIn) -> None:
    await chat("one")
    await chat("other")
    result = await chat("--conversation", "1", "two")
    assert (0, ["one", "You said: one", "two", "You said: two"]) == (result.code, texts())
    for number in ("99", "99999999999999999999"):
        unknown = await chat("--conversation", number, "two")
        assert (1, f"ctxbackends: no such conversation: {number}; list them with ctxbackends logs list\n") == (
            unknown.code,
            unknown.err,
        )


async def test_nothing_is_recorded_when_the_log_is_off(server: OpenAIStandIn) -> None:
    LogStore.open().turn_off()
    assert 0 == (await chat("one")).code
    assert () == LogStore.open().conversations(limit=9)
    result = await chat("-c", "two")
    assert (1, 1) == (result.code, len(server.requests))
    assert "no conversation to continue: the log is empty; the log is off: turn it on with" in result.err


async def test_a_conversation_goes_on_with_the_endpoint_of_the_command_line(server: OpenAIStandIn) -> None:
    options = ("--backend", "openai", "--endpoint", server.url, "--api-key-env", "GATE", "-m", "gpt-5-mini")
    await chat("one", *options)
    assert 0 == (await chat("-c", "two")).code
    assert "gpt-5-mini" == server.requests[-1].json["model"]
    assert ["one", "You said: one", "two", "You said: two"] == texts()


async def test_another_backend_gets_no_reasoning_of_the_first(server: OpenAIStandIn) -> None:
    answer = Message.assistant([ReasoningPart("hm", "c2lnbmF0dXJl"), OpaquePart("messages", "{}"), TextPart("1")])
    LogStore.open().record(LogEntry(messages=(Message.user("one"), answer), backend="anthropic", server="https://x"))
    result = await chat("-c", "two", "--backend", "local")
    assert (0, f"note: the conversation was with https://x; it goes on with {server.url}\n") == (
        result.code,
        result.err,
    )
    messages = server.requests[-1].json["messages"]
    assert [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}] == messages[:2]


async def test_another_server_is_said(server: OpenAIStandIn) -> None:
    await chat("one")
    async with OpenAIStandIn() as other:
        result = await chat("-c", "two", "--backend", "openai", "--endpoint", other.url, "-m", "gpt-5-mini")
    assert f"note: the conversation was with {server.url}; it goes on with {other.url}\n" == result.err


def record(backend: str, server: str) -> None:
    messages = (Message.user("one"), Message.assistant("1"))
    LogStore.open().record(LogEntry(messages=messages, backend=backend, server=server))


async def test_another_server_gets_nothing_unless_the_command_line_names_it(
    server: OpenAIStandIn, project: Path
) -> None:
    """A backend of the same name may be that of another project."""
    record("local", "http://gpu:8000")
    result = await chat("-c", "two")
    problem = f"ctxbackends: the conversation was with http://gpu:8000, and local is at {server.url} now"
    assert (1, "", f"{problem}; to send it there, use --backend local\n") == (result.code, result.out, result.err)
    assert [] == server.requests
    assert 0 == (await chat("-c", "two", "--backend", "local")).code


async def test_a_backend_of_ctxrc_does_not_become_a_type_elsewhere(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here is no .ctxrc, so its name would be that of a vendor."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    record("anthropic", "http://gateway:8000")
    result = await chat("-c", "two")
    problem = "ctxbackends: the conversation was with http://gateway:8000, and anthropic is at"
    assert (1, "") == (result.code, result.out)
    assert result.err == f"{problem} https://api.anthropic.com now; to send it there, use --backend anthropic\n"


def assert_nothing_kept(result: Result, project: Path) -> None:
    assert (0, "", True) == (result.code, result.err, SECRET in result.out)
    content = b"".join(path.read_bytes() for path in (project.parent / "data").iterdir())
    assert SECRET.encode() not in content
    assert [True] == [summary.is_private for summary in LogStore.open().conversations(limit=9)]


async def test_nothing_of_a_private_file_is_kept(server: OpenAIStandIn, project: Path) -> None:
    (project / "server.pem").write_text(SECRET)
    assert_nothing_kept(await chat("-f", "server.pem", "Summarize."), project)
    assert "matches privacy.redact" in (await chat("-c", "more")).err


@pytest.mark.linux
async def test_nothing_of_a_private_standard_input_is_kept(server: OpenAIStandIn, project: Path) -> None:
    (project / "server.pem").write_text(SECRET)

    def run() -> Result:
        with open("server.pem", "rb") as file:
            command = [sys.executable, "-m", "ctxbackends", "chat", "Summarize."]
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, env=environment())
        return Result(done.returncode, done.stdout, without_waits(done.stderr))

    assert_nothing_kept(await asyncio.to_thread(run), project)


async def test_a_key_that_the_server_repeats_is_masked(server: OpenAIStandIn) -> None:
    await chat(f"My key is {KEY}.")
    assert ["My key is [masked].", "You said: My key is [masked]."] == texts()


async def test_an_answer_is_never_lost_because_of_the_log(server: OpenAIStandIn, project: Path) -> None:
    path = project.parent / "data" / "logs.db"
    path.write_text("no database")
    result = await chat("one")
    assert (0, "You said: one\n") == (result.code, result.out)
    assert result.err == (
        f"warning: the answer was not logged: {path}: is not a SQLite database; move the file away, and ctxbackends "
        "creates a new one\n"
    )
    requests = len(server.requests)
    continued = await chat("-c", "two")
    assert (1, "", requests) == (continued.code, continued.out, len(server.requests))


async def test_a_model_file_is_continued_with_the_same_file(
    server: OpenAIStandIn, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of a model file has another port each time; here it is a stand-in."""
    from ctxbackends import BackendConfig  # noqa: PLC0415  # only this test needs it
    from ctxbackends._cli import backends  # noqa: PLC0415

    paths: list[Any] = []

    def configure(choice: backends.Choice) -> BackendConfig:
        paths.append(choice.model_path)
        return BackendConfig(
            name="llamacpp", type="openai", endpoint=server.url, api_key_env="GATE", default_model="gpt-4.1-mini"
        )

    monkeypatch.setattr(backends, "_config_of_model", configure)
    (project / "tiny.gguf").write_bytes(b"GGUF")
    await chat("one", "--model-path", "tiny.gguf")
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    result = await chat("-c", "two")
    assert (0, "") == (result.code, result.err)
    assert ["tiny.gguf", str(project / "tiny.gguf")] == paths
