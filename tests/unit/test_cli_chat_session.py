"""The session behind chat: what a conversation keeps, the log, and --continue."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends import BackendConfig, BackendError, Completion, Message, Registry, TextDelta, tool_of
from ctxbackends._chat.tool_runs import RoundEnd
from ctxbackends._cli.chat.session import ChatSession
from ctxbackends._cli.log_store import LogStore
from tests.paced_server import PacedServer, paced_server
from tests.unit.test_cli import (
    ENDPOINT_OF_NOBODY,
    Result,
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    ctx,
    ctxrc,
    last_chunk,
    script,  # noqa: F401  # a fixture
    text_chunk,
)
from tests.unit.test_cli_chat_tools import call_chunk


@attrs.define
class RecordingDisplay:
    """Records what it is told. ``seen``: set at the first text."""

    calls: list[str] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    answers: list[Completion | None] = attrs.field(factory=list)
    seen: asyncio.Event = attrs.field(factory=asyncio.Event)

    def start(self) -> None:
        self.calls.append("start")

    def progress(self, _: Any) -> None:
        self.calls.append("progress")

    def event(self, event: Any) -> None:
        self.calls.append(type(event).__name__)
        if isinstance(event, TextDelta):
            self.texts.append(event.text)
        if isinstance(event, TextDelta | RoundEnd):
            self.seen.set()

    def pause(self) -> None:
        self.calls.append("pause")

    def finish(self, answer: Completion | None) -> None:
        self.answers.append(answer)


@pytest.fixture
def server() -> Iterator[PacedServer]:
    with paced_server() as server:
        yield server


@contextlib.asynccontextmanager
async def session_of(endpoint: str, **fields: Any) -> Any:
    config = BackendConfig(name="local", type="openai-compatible", endpoint=endpoint, default_model="tiny")
    async with Registry([config]) as registry:
        yield ChatSession(backend=registry.resolve(), **fields)


# --- what is kept -------------------------------------------------------------------------------------------


async def test_a_conversation_grows(server: PacedServer) -> None:
    display = RecordingDisplay()
    async with session_of(server.url, system="Be brief.", model="tiny") as session:
        for question, answer in (("One?", "1"), ("Two?", "2")):
            asked = asyncio.create_task(session.ask(Message.user(question), display))
            reply = await asyncio.to_thread(server.next_reply)
            reply.finish(answer)
            assert answer == (await asked).text
    assert ["user", "assistant"] * 2 == [message.role for message in session.messages]
    assert ["Be brief.", "One?", "1", "Two?"] == reply.texts
    assert "tiny" == reply.body["model"]
    assert (["1", "2"], None) == (display.texts, session.failed)
    assert ["1", "2"] == [turn.completion.text for turn in session.turns]
    assert "start" == display.calls[0]


async def test_a_cancelled_answer_is_kept_as_far_as_it_came(server: PacedServer) -> None:
    display = RecordingDisplay()
    async with session_of(server.url) as session:
        asked = asyncio.create_task(session.ask(Message.user("One?"), display))
        reply = await asyncio.to_thread(server.next_reply)
        reply.send("Once upon ")
        await display.seen.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await asyncio.to_thread(reply.disconnected.wait, 30)
    assert [Message.user("One?"), Message.assistant("Once upon ")] == session.messages
    assert (None, [None], []) == (session.failed, display.answers, session.turns)


async def test_a_message_that_was_cancelled_before_any_text(server: PacedServer) -> None:
    display = RecordingDisplay()
    earlier = [Message.user("Zero?"), Message.assistant("0")]
    async with session_of(server.url, messages=[*earlier]) as session:
        asked = asyncio.create_task(session.ask(Message.user("One?"), display))
        await asyncio.to_thread(server.next_reply)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert (earlier, Message.user("One?")) == (session.messages, session.failed)


async def test_a_message_that_failed_can_be_sent_again(server: PacedServer) -> None:
    display = RecordingDisplay()
    async with session_of(server.url) as session:
        asked = asyncio.create_task(session.ask(Message.user("One?"), display))
        reply = await asyncio.to_thread(server.next_reply)
        reply.send("Once ")
        await display.seen.wait()
        reply.break_off()
        with pytest.raises(BackendError):
            await asked
        assert ([], Message.user("One?"), [None]) == (session.messages, session.failed, display.answers)
        asked = asyncio.create_task(session.ask(session.failed, display))
        (await asyncio.to_thread(server.next_reply)).finish("1")
        await asked
    assert ["One?", "1"] == [message.text for message in session.messages]
    assert session.failed is None


def add(a: int, b: int) -> int:
    return a + b


async def test_rounds_of_tools_are_kept(server: PacedServer) -> None:
    display = RecordingDisplay()
    asked_about: list[str] = []

    def approve(request: Any) -> bool:
        asked_about.append(request.call.name)
        assert "pause" == display.calls[-1]
        return True

    call = call_chunk("add", a=2, b=3)["choices"][0]["delta"]
    async with session_of(server.url, tools=(tool_of(add),), approve=approve) as session:
        asked = asyncio.create_task(session.ask(Message.user("2 + 3?"), display))
        reply = await asyncio.to_thread(server.next_reply)
        reply.send(**call)
        reply.finish(reason="tool_calls")
        (await asyncio.to_thread(server.next_reply)).finish("5.")
        await asked
    assert ["user", "assistant", "tool", "assistant"] == [message.role for message in session.messages]
    assert (["add"], 2) == (asked_about, len(session.turns[0].rounds))
    assert "5." == session.messages[-1].text


async def test_complete_rounds_are_kept_when_the_next_is_cancelled(server: PacedServer) -> None:
    display = RecordingDisplay()
    call = call_chunk("add", a=2, b=3)["choices"][0]["delta"]
    async with session_of(server.url, tools=(tool_of(add),)) as session:
        asked = asyncio.create_task(session.ask(Message.user("2 + 3?"), display))
        reply = await asyncio.to_thread(server.next_reply)
        reply.send(**call)
        reply.finish(reason="tool_calls")
        await asyncio.to_thread(server.next_reply)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert ["user", "assistant", "tool"] == [message.role for message in session.messages]


# --- the log ------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script) -> LogStore:
    ctxrc(backend(script.endpoint))
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    store = LogStore.open()
    store.turn_on()
    return store


def test_nothing_is_logged_unless_it_is_on(log: LogStore) -> None:
    log.turn_off()
    assert 0 == ctx("chat", "Hi").code
    assert () == log.conversations(limit=9)


def test_an_answer_is_logged(log: LogStore, script: Script) -> None:
    assert Result(0, "Héllo\n", "") == ctx("chat", "-s", "Be brief.", "-o", "top_p=0.5", "Hi", stdin=b"piped")
    conversation = log.last_conversation()
    assert ["piped Hi", "Héllo"] == [message.text for message in conversation.messages]
    assert ("local", None, "Be brief.", {"top_p": 0.5}) == (
        conversation.backend,
        conversation.model,
        conversation.system,
        conversation.options,
    )
    (turn,) = log.turns(conversation.id)
    assert ("tiny", "stop", 3, 2) == (turn.served_model, turn.finish_reason, turn.input_tokens, turn.output_tokens)
    assert (turn.seconds or 0) > 0


@pytest.mark.parametrize("arguments", [["--json"], ["--schema", "a,"]])
def test_an_answer_in_another_form_is_logged(log: LogStore, script: Script, arguments: list[str]) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.chunks = [text_chunk('{"a": "b"}'), last_chunk()]
    assert 0 == ctx("chat", *arguments, "Hi").code
    conversation = log.last_conversation()
    assert ('{"a": "b"}', {}) == (conversation.messages[-1].text, conversation.options)


def test_an_error_is_not_logged(log: LogStore, script: Script) -> None:
    script.is_complete = False
    assert 1 == ctx("chat", "Hi").code
    assert () == log.conversations(limit=9)


def test_private_files_are_not_logged(log: LogStore, script: Script) -> None:
    Path("notes").mkdir()
    Path("notes/me.md").write_text("secret\n", encoding="utf-8")
    text = Path(".ctxrc").read_text(encoding="utf-8")
    Path(".ctxrc").write_text(f"{text}privacy:\n  redact: ['notes/**']\n", encoding="utf-8")
    assert 0 == ctx("chat", "-f", "notes/me.md", "Hi").code
    (turn,) = log.turns(log.conversations(limit=1)[0].id)
    assert (True, ()) == (turn.is_private, turn.messages)


def test_a_broken_log_is_a_warning(log: LogStore, script: Script) -> None:
    log.path.write_bytes(b"not a database" * 100)
    result = ctx("chat", "Hi")
    assert (0, "Héllo\n") == (result.code, result.out)
    assert result.err.startswith("warning: the answer was not logged: ")


# --- --continue ---------------------------------------------------------------------------------------------


def sent(script: Script) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in script.chat_bodies[-1]["messages"]]


def test_the_last_conversation_goes_on(log: LogStore, script: Script) -> None:
    assert 0 == ctx("chat", "-m", "small", "-s", "Be brief.", "--temperature", "0.5", "One").code
    assert 0 == ctx("chat", "-c", "Two").code
    assert [("system", "Be brief."), ("user", "One"), ("assistant", "Héllo"), ("user", "Two")] == sent(script)
    assert ("small", 0.5) == (script.chat_bodies[-1]["model"], script.chat_bodies[-1]["temperature"])
    assert 0 == ctx("chat", "--continue", "-s", "Be long.", "-m", "tiny", "-o", "temperature=1", "Three").code
    assert ("system", "Be long.") == sent(script)[0]
    assert ("tiny", 1) == (script.chat_bodies[-1]["model"], script.chat_bodies[-1]["temperature"])
    assert 6 == len(log.last_conversation().messages)
    assert 1 == len(log.conversations(limit=9))


def test_a_conversation_goes_on_at_its_server(log: LogStore, script: Script) -> None:
    """Which the command line named: neither the server nor its type is in .ctxrc."""
    ctxrc(backend(ENDPOINT_OF_NOBODY))
    server = ("-b", "vllm", "--endpoint", script.endpoint, "-m", "tiny")
    assert 0 == ctx("chat", *server, "One").code
    assert Result(0, "Héllo\n", "") == ctx("chat", "-c", "Two")
    assert [("user", "One"), ("assistant", "Héllo"), ("user", "Two")] == sent(script)


def test_another_backend_is_said(log: LogStore, script: Script) -> None:
    other = script.endpoint.replace("127.0.0.1", "localhost")
    ctxrc(backend(script.endpoint), backend(other, name="other"), default_backend="local")
    assert 0 == ctx("chat", "-m", "small", "One").code
    note = f"note: the conversation was with {script.endpoint}; it goes on with {other}\n"
    assert Result(0, "Héllo\n", note) == ctx("chat", "-c", "-b", "other", "Two")
    assert "tiny" == script.chat_bodies[-1]["model"]  # small is a model of the first backend


def test_rounds_of_tools_go_on(log: LogStore, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("logtools.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n", encoding="utf-8")
    script.rounds = [[call_chunk("add", a=2, b=3), last_chunk("tool_calls")]]
    assert 0 == ctx("chat", "-q", "--yes", "--tool", "logtools:add", "2 + 3?").code
    assert 0 == ctx("chat", "-c", "And now?").code
    assert ["user", "assistant", "tool", "assistant", "user"] == [role for role, _ in sent(script)]
    assert "tools" not in script.chat_bodies[-1]


def test_nothing_to_continue(log: LogStore, script: Script) -> None:
    log.turn_off()
    result = ctx("chat", "-c", "Two")
    assert (1, "") == (result.code, result.out)
    assert "no conversation to continue: the log is empty; the log is off: turn it on with ctxbackends logs on" in (
        result.err
    )
    assert [] == script.requests


def test_the_json_of_a_continued_conversation(log: LogStore, script: Script) -> None:
    assert 0 == ctx("chat", "One").code
    assert "Héllo" == json.loads(ctx("chat", "-c", "--json", "Two").out)["text"]
