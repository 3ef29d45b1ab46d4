"""The conversation at a pseudo-terminal, against a server whose answers arrive piece by piece."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.paced_server import WITHIN, PacedServer, Reply, paced_server
from tests.unit.test_cli import Result, ctx

if sys.platform == "win32":
    pytest.skip("needs a terminal of POSIX", allow_module_level=True)

from tests.terminals import Terminal, terminal

pytestmark = pytest.mark.posix

ENTER, NEW_LINE, CTRL_C, CTRL_D, CTRL_R, UP = "\r", "\x1b\r", "\x03", "\x04", "\x12", "\x1b[A"
HOW_TO_LEAVE = "press Ctrl-D or type /quit to leave"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[PacedServer]:
    with paced_server() as server:
        yield server


class Chat:
    """A conversation at a terminal."""

    def __init__(self, at: Terminal, server: PacedServer) -> None:
        self.at = at
        self.server = server
        self.is_dumb = False
        self._mark = 0

    def see(self, text: str) -> None:
        """Wait for ``text`` after what was seen before."""
        self._mark = self.at.read_until(text, after=self._mark)

    def wait_for_prompt(self) -> None:
        """Wait until the next message can be typed."""
        self.see("> " if self.is_dumb else "\x1b[?2004h")

    def type(self, text: str) -> None:
        self.at.type(text)

    def ask(self, text: str) -> Reply:
        """Send a message, and return the request that arrives."""
        self.type(text + ENTER)
        return self.server.next_reply()

    def exchange(self, text: str, answer: str) -> Reply:
        """Send a message, answer it, and wait for the next prompt."""
        reply = self.ask(text)
        reply.finish(answer)
        self.see(answer)
        self.wait_for_prompt()
        return reply

    def leave(self) -> int:
        self.type("/quit" + ENTER)
        return self.at.end()


@contextmanager
def chat(server: PacedServer, *arguments: str, **options: Any) -> Iterator[Chat]:
    if "--endpoint" not in arguments and "--backend" not in arguments:
        arguments = ("--endpoint", server.url, "--model", "tiny", *arguments)
    with terminal("chat", *arguments, **options) as at:
        chat = Chat(at, server)
        chat.is_dumb = options.get("TERM") == "dumb"
        chat.wait_for_prompt()
        yield chat


# --- messages -----------------------------------------------------------------------------------------


def test_a_conversation(server: PacedServer) -> None:
    with chat(server, "--system", "Be brief.") as at:
        at.exchange("Hello", "Hi **you**".replace("*", ""))
        reply = at.exchange("And now?", "Nothing.")
        assert 0 == at.leave()
    assert ["Be brief.", "Hello", "Hi you", "And now?"] == reply.texts
    assert f"tiny at {server.url}; /help shows the commands, Ctrl-D leaves\r\n" in at.at.raw
    assert "Traceback" not in at.at.raw


def test_markdown_is_drawn_and_raw_is_not(server: PacedServer) -> None:
    for arguments, expected in (((), " \x1b[1mbold\x1b[0m"), (("--raw",), " **bold**")):
        with chat(server, *arguments) as at:
            reply = at.ask("Hello")
            reply.send("This is **bo")
            at.see("This is")
            reply.finish("ld**")
            at.see(expected)
            assert 0 == at.leave()


def test_several_lines(server: PacedServer) -> None:
    with chat(server) as at:
        assert ["one\ntwo"] == at.exchange(f"one{NEW_LINE}two", "a1").texts
        assert "a\nb\n c" == at.exchange("\x1b[200~a\r\nb\n c\x1b[201~", "a2").texts[-1]
        assert 0 == at.leave()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (f'"""one{ENTER}two"""', "one\ntwo"),
        (f'"""{ENTER}one{ENTER}{ENTER}two{ENTER}"""', "one\n\ntwo"),
        ('"""one"""', "one"),
        ('"""\x1b[200~a\nb\x1b[201~"""', "a\nb"),
        ('say "hello"', 'say "hello"'),
        ('""" quotes""" and more', '""" quotes""" and more'),
        ('"""a"""b"""', '"""a"""b"""'),
    ],
)
def test_a_message_between_three_quotes(server: PacedServer, typed: str, expected: str) -> None:
    with chat(server) as at:
        assert [expected] == at.exchange(typed, "Hi").texts
        assert 0 == at.leave()


@pytest.mark.parametrize("word", ["exit", "quit", "quit  "])
def test_a_word_leaves(server: PacedServer, word: str) -> None:
    with chat(server) as at:
        assert [" exit"] == at.exchange(" exit", "Hi").texts
        assert "exit now" == at.exchange("exit now", "Bye").texts[-1]
        at.type(word + ENTER)
        assert 0 == at.at.end()


def test_ctrl_z_is_not_text(server: PacedServer) -> None:
    with chat(server) as at:  # without a shell that could continue it, the system does not stop it
        at.type("Hel\x1a")
        assert ["Hello"] == at.exchange("lo", "Hi").texts
        assert 0 == at.leave()


def test_an_empty_line_is_not_sent(server: PacedServer) -> None:
    with chat(server) as at:
        at.type(f"{ENTER}   {ENTER}")
        assert ["Hello"] == at.exchange("Hello", "Hi").texts


def test_a_slash_after_a_space_is_a_message(server: PacedServer) -> None:
    with chat(server) as at:
        assert [" /etc/hosts?"] == at.exchange(" /etc/hosts?", "A file.").texts


def test_bytes_that_are_not_utf8_are_not_sent(server: PacedServer) -> None:
    with chat(server) as at:
        at.type("a\udcffb" + ENTER)
        at.see("the message is not UTF-8; it was not sent")
        assert ["Hello"] == at.exchange("Hello", "Hi").texts


def test_what_is_typed_during_an_answer_waits(server: PacedServer) -> None:
    with chat(server) as at:
        reply = at.ask("one")
        reply.send("first")
        at.see("first")
        at.type("typed ahead" + ENTER)
        reply.finish(" answer")
        at.see("first answer")
        assert "typed" not in at.at.raw[: at._mark]
        assert ["one", "first answer", "typed ahead"] == server.next_reply().texts


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_the_width_of_the_window(server: PacedServer, columns: int) -> None:
    with chat(server, columns=columns) as at:
        reply = at.ask("Hello")
        at.see("waiting for the ans")
        reply.send("- one two three four five six seven eight nine")
        reply.finish("\n- ten")
        at.see("ten")
        assert 0 == at.leave()


def test_a_dumb_terminal(server: PacedServer) -> None:
    with chat(server, TERM="dumb") as at:
        reply = at.exchange("Hello", "**Hi**")
        assert 0 == at.leave()
    assert ["Hello"] == reply.texts
    assert "\x1b" not in at.at.raw


def test_standard_error_in_a_file(server: PacedServer, tmp_path: Path) -> None:
    with chat(server, "--reasoning", "--stats", stderr=tmp_path / "err") as at:
        reply = at.ask("Hello")
        reply.send(reasoning_content="I think.")
        reply.finish("Hi")
        at.see("Hi")
        at.wait_for_prompt()
        assert 0 == at.leave()
    lines = (tmp_path / "err").read_text(encoding="utf-8").splitlines()
    assert [f"tiny at {server.url}; /help shows the commands, Ctrl-D leaves", "I think.", "", ""] == lines[:4]
    assert lines[4].startswith("3 tokens in, 2 out, ")
    assert 5 == len(lines)


# --- Ctrl-C and Ctrl-D ----------------------------------------------------------------------------------


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(server: PacedServer) -> None:
    with chat(server) as at:
        reply = at.ask("Count")
        reply.send("one two")
        at.see("one two")
        at.type(CTRL_C)
        assert reply.disconnected.wait(WITHIN), "the connection is closed, so that the slot becomes free"
        at.see("stopped")
        assert ["Count", "one two", "Go on"] == at.exchange("Go on", "three").texts
        assert 0 == at.leave()
    assert "^C" not in at.at.raw


@pytest.mark.parametrize("is_answering", [True, False])
def test_a_program_that_is_terminated_leaves_the_terminal_usable(server: PacedServer, is_answering: bool) -> None:
    with chat(server) as at:
        if is_answering:
            at.ask("Hello").send("One")
            at.see("One")
        assert not at.at.echoes()
        at.at.process.terminate()
        assert 143 == at.at.end()
        assert at.at.echoes()
    assert at.at.raw.count("\x1b[?25l") <= at.at.raw.count("\x1b[?25h")
    assert "Traceback" not in at.at.raw


def test_ctrl_c_before_the_answer(server: PacedServer) -> None:
    with chat(server) as at:
        reply = at.ask("Count")
        at.see("waiting for the answer")
        at.type(CTRL_C)
        assert reply.disconnected.wait(WITHIN)
        at.see("stopped")
        assert ["Count"] == at.exchange("/retry", "one").texts
        assert ["Count", "one", "More"] == at.exchange("More", "two").texts


def test_ctrl_c_while_the_server_starts(server: PacedServer) -> None:
    Path(".ctxrc").write_text(
        f"backends:\n  - name: llamacpp\n    endpoint: {server.url}\n    default_model: tiny\n", encoding="utf-8"
    )
    server.loading = 1_000_000
    with chat(server, "--backend", "llamacpp") as at:
        at.type("Hello" + ENTER)
        at.see(f"waiting for {server.url} (loading, ")
        at.type(CTRL_C)
        at.see("stopped")
        server.loading = 0
        assert ["Hello"] == at.exchange("/retry", "Hi").texts


def test_ctrl_c_at_the_prompt(server: PacedServer) -> None:
    with chat(server) as at:
        at.type(CTRL_C)
        at.see(HOW_TO_LEAVE)
        at.type("not this" + CTRL_C)
        assert ["but this"] == at.exchange("but this", "Hi").texts
        assert 0 == at.leave()
    assert 1 == at.at.raw.count(HOW_TO_LEAVE)


def test_ctrl_d_leaves(server: PacedServer) -> None:
    with chat(server) as at:
        at.type("text" + CTRL_D + CTRL_C + CTRL_D)  # it leaves only where nothing is typed
        assert 0 == at.at.end()
    assert [] == server.requests


# --- failures -------------------------------------------------------------------------------------------


def test_a_server_that_breaks_off(server: PacedServer) -> None:
    with chat(server) as at:
        at.exchange("one", "first")
        reply = at.ask("two")
        reply.send("sec")
        at.see("sec")
        reply.break_off()
        at.see("the answer is incomplete; /retry sends the message again\r\n")
        assert ["one", "first", "three"] == at.exchange("three", "third").texts
        assert 0 == at.leave()
    assert "Traceback" not in at.at.raw


def test_retry_after_a_failure(server: PacedServer) -> None:
    with chat(server) as at:
        server.error = (400, {"message": "no such thing", "type": "invalid_request_error"})
        at.type("one" + ENTER)
        at.see("no such thing")
        at.wait_for_prompt()
        server.error = None
        assert ["one"] == at.exchange("/retry", "first").texts


def test_a_server_that_is_gone(server: PacedServer) -> None:
    with paced_server() as other:
        pass
    with chat(server, "--endpoint", other.url, "--model", "tiny") as at:
        at.type("Hello" + ENTER)
        at.see("/retry sends the message again")
        assert 0 == at.leave()
    (line,) = (line for line in at.at.raw.splitlines() if "/retry sends" in line)
    assert f"unreachable at {other.url}: connection refused; is the server running?" in line


# --- the history ----------------------------------------------------------------------------------------


def test_the_history(server: PacedServer, tmp_path: Path) -> None:
    with chat(server) as at:
        at.exchange("first message", "a1")
        at.exchange(f"second{NEW_LINE}message", "a2")
        at.leave()
    history = tmp_path / "data" / "history"
    assert 0o600 == stat.S_IMODE(history.stat().st_mode)
    assert 0o700 == stat.S_IMODE(history.parent.stat().st_mode)
    with chat(server) as at:
        at.type(UP + UP)  # the last line was /quit
        at.see("second")
        at.type(ENTER)
        reply = server.next_reply()
        assert ["second\nmessage"] == reply.texts
        reply.finish("a3")
        at.see("a3")
        at.wait_for_prompt()
        at.type(CTRL_R + "first" + ENTER + ENTER)
        assert "first message" == server.next_reply().texts[-1]


@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_cannot_be_written(server: PacedServer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    _check_without_history(server)


def test_a_data_directory_that_is_a_file(server: PacedServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("", encoding="utf-8")
    _check_without_history(server)


def _check_without_history(server: PacedServer) -> None:
    with chat(server) as at:
        at.exchange("one", "first")
        assert ["one", "first", "two"] == at.exchange("two", "second").texts
        assert 0 == at.leave()
    assert 1 == at.at.raw.count("cannot use the history")


# --- commands -------------------------------------------------------------------------------------------


def test_commands_at_the_terminal(server: PacedServer) -> None:
    with chat(server) as at:
        at.type("/hlep" + ENTER)
        at.see("unknown command: /hlep; did you mean /help?")
        at.type("/help" + ENTER)
        at.see("/retry")
        at.wait_for_prompt()
        at.type("/mod\t")
        at.see("el")  # what is typed already is not drawn again
        at.type(" lar\t")
        at.see("ger")
        at.type(ENTER)
        at.see("model: larger")
        assert "larger" == at.exchange("Hello", "Hi").body["model"]


def test_a_command_that_raises_keeps_the_conversation(server: PacedServer) -> None:
    with chat(server) as at:
        at.exchange("one", "first")
        at.type("/file nothere.txt" + ENTER)
        at.see("nothere.txt: no such file")
        at.type("/save nothere/x.md" + ENTER)
        at.see("nothere")
        assert ["one", "first", "two"] == at.exchange("two", "second").texts


# --- tools ----------------------------------------------------------------------------------------------

TOOLS = '''
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"
'''


def call(reply: Reply, city: str = "Paris") -> None:
    function = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
    reply.send(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": function}])
    reply.finish(reason="tool_calls")


@pytest.fixture
def tool() -> str:
    Path("my_tools.py").write_text(TOOLS, encoding="utf-8")
    return "my_tools:weather"


def test_tools_are_approved_one_by_one(server: PacedServer, tool: str) -> None:
    with chat(server, "--tool", tool) as at:
        call(at.ask("How is Paris?"))
        at.see('the model calls weather({"city": "Paris"})')
        at.see("run it? [y]es, [n]o, [a]lways:")
        at.type("y" + ENTER)
        reply = server.next_reply()
        assert "rain in Paris" == reply.texts[-1]
        reply.finish("It rains.")
        at.see("It rains.")
        at.wait_for_prompt()
        call(at.ask("And Rome?"), "Rome")
        at.see("run it?")
        at.type("perhaps" + ENTER)
        at.see("run it?")
        at.type("n" + ENTER)
        reply = server.next_reply()
        assert "rain" not in reply.texts[-1]
        reply.finish("I do not know.")
        at.see("know.")
        at.wait_for_prompt()
        call(at.ask("And Oslo?"), "Oslo")
        at.see("run it?")
        at.type("a" + ENTER)
        call(server.next_reply(), "Bergen")
        reply = server.next_reply()
        assert ["rain in Oslo", "rain in Bergen"] == [text for text in reply.texts if text and "rain in" in text][1:]
        reply.finish("Rain.")
        at.see("Rain.")
        assert 0 == at.leave()


def test_ctrl_c_at_the_question_stops_the_answer(server: PacedServer, tool: str) -> None:
    with chat(server, "--tool", tool) as at:
        call(at.ask("How is Paris?"))
        at.see("run it?")
        at.type(CTRL_C)
        at.see("stopped")
        at.wait_for_prompt()
        reply = at.exchange("Never mind", "Fine.")
        assert ["Never mind"] == reply.texts
        reply = at.ask("Wait")
        reply.send("I am")
        at.see("I am")
        at.type(CTRL_C)  # the question has not broken it
        assert reply.disconnected.wait(WITHIN)
        at.see("stopped")
        assert 0 == at.leave()


# --- without prompt_toolkit -----------------------------------------------------------------------------


def test_without_prompt_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._cli.chat.command.find_spec", lambda _: None)
    expected = "ctxbackends: a conversation requires prompt_toolkit; run pip install 'ctxbackends[cli]'\n"
    assert Result(1, "", expected) == ctx("chat", "--endpoint", "http://127.0.0.1:1", tty="stdin stdout")
