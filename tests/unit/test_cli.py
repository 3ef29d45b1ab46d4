"""The command line: output, exit codes, and one clear line for every invalid input."""

from __future__ import annotations

import asyncio
import ctypes
import http.server
import importlib.util
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module, metadata
from operator import itemgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import click
import pytest

import ctxbackends
from ctxbackends import _cli as cli
from ctxbackends import errors
from ctxbackends._chat.responses import PartialCompletion
from ctxbackends._cli import detection, terminal
from ctxbackends._cli.chat.command import chat
from ctxbackends._cli.error_messages import format_error
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._cli.serve import set_variable_line
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends.local import LocalServer
from ctxbackends.local import _process as server
from ctxbackends.local import _worker as worker
from ctxbackends.local._models import install_command

with suppress(ImportError):  # not on Windows
    import fcntl
    import termios

ENDPOINT_OF_NOBODY = "http://127.0.0.1:1"  # needs root to listen on, and nobody does
KEY = "sk-test-0123456789abcdef"
LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
REFUSED_HINT = (
    "  is the server running? start one with ctxbackends serve MODEL.gguf, "
    "or correct the endpoint with ctxbackends config set local.endpoint URL\n"
)
WITHIN = 30.0

# --- the program ------------------------------------------------------------------------------------

LARGER = "give the server a larger context (ollama, lmstudio: context_length in .ctxrc)"


@attrs.frozen
class Result:
    code: int | str | None
    out: str
    err: str


class Stream(io.TextIOWrapper):
    """A standard stream in memory, with or without a terminal behind it."""

    def __init__(self, content: bytes = b"", *, tty: bool = False) -> None:
        self.bytes = io.BytesIO(content)
        super().__init__(self.bytes, encoding="utf-8", write_through=True)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()


def ctx(*arguments: str, stdin: bytes = b"", tty: str = "", merge: bool = False) -> Result:
    """Run the program in this process. ``tty`` names the standard streams that are terminals; ``merge`` writes standard
    error to standard output too."""
    streams = {
        "stdin": Stream(stdin, tty="stdin" in tty),
        "stdout": Stream(tty="stdout" in tty),
        "stderr": Stream(tty="stderr" in tty),
    }
    if merge:
        streams["stderr"] = streams["stdout"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ctxbackends", *arguments])
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as exit_info:
            cli.ctxbackends()
    return Result(exit_info.value.code, streams["stdout"].text, "" if merge else without_waits(streams["stderr"].text))


def without_waits(text: str) -> str:
    """Standard error without the lines that a slow machine gets after 5 seconds: ``waiting for the answer, 5 s``."""
    return re.sub(r"^waiting for the answer, \d+ s\n", "", text, flags=re.MULTILINE)


def environment() -> dict[str, str]:
    """For a process that imports the same package as this one, in whatever directory it runs."""
    return {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parent.parent)}


def without_coverage(variables: Mapping[str, str]) -> dict[str, str]:
    """For a process whose imports are tested: in one that it measures, coverage imports sqlite3."""
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE_")}


def command(*arguments: str) -> list[str]:
    """The program in a process of its own. The signal is given back its default: a background job ignores it."""
    start = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    return [sys.executable, "-c", start, sys.executable, "-m", "ctxbackends", *arguments]


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), text=True, stderr=subprocess.PIPE, timeout=WITHIN, **options
    )


def poll(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- a model server that a test scripts -----------------------------------------------------------


def text_chunk(text: str, **delta: str) -> dict[str, Any]:
    return {"model": "tiny", "choices": [{"index": 0, "delta": {"content": text, **delta}}]}


def last_chunk(reason: str = "stop") -> dict[str, Any]:
    return {
        "model": "tiny",
        "choices": [{"index": 0, "delta": {}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


@attrs.define
class Script:
    """The responses of the server, and the requests that it received. The last response of ``models`` repeats.
    ``rounds`` are the chunks of the first chat requests, before ``chunks``."""

    models: list[tuple[int, bytes]]
    chunks: list[dict[str, Any]]
    chat: tuple[int, bytes] | None = None  # instead of the chunks
    rounds: list[list[dict[str, Any]]] = attrs.field(factory=list)
    loading: int = 0  # chat requests that are answered with 503 first
    is_complete: bool = True  # the stream has its end
    silent: bool = False  # chat requests are not answered
    release: threading.Event = attrs.field(factory=threading.Event)
    requests: list[tuple[str, dict[str, Any], Mapping[str, str]]] = attrs.field(factory=list)
    endpoint: str = ""

    @property
    def chat_bodies(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests."""
        return [body for path, body, _ in self.requests if path == "/v1/chat/completions"]

    @property
    def chat_body(self) -> dict[str, Any]:
        """The body of the one chat request."""
        (body,) = self.chat_bodies
        return body


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    script: Script

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        script = self.server.script
        script.requests.append((self.path, {}, dict(self.headers)))
        status, body = script.models.pop(0) if len(script.models) > 1 else script.models[0]
        self.answer(status, body)

    def do_POST(self) -> None:
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script.requests.append((self.path, body, dict(self.headers)))
        if script.silent:
            script.release.wait(WITHIN)
        elif script.loading > 0:
            script.loading -= 1
            self.answer(503, LOADING)
        elif script.chat is not None:
            self.answer(*script.chat)
        else:
            chunks = script.rounds.pop(0) if script.rounds else script.chunks
            data = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)
            self.answer(200, data, more=0 if script.is_complete else 100, kind="text/event-stream")

    def answer(self, status: int, body: bytes, *, more: int = 0, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Not to the standard error of the tests."""


MODELS = {
    "data": [
        {"id": "tiny", "aliases": ["small"], "owned_by": "me", "meta": {"n_ctx": 4096}},
        {"id": "larger", "status": {"value": "unloaded"}},
        {"id": "no-facts"},
    ]
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's user is seen: no .ctxrc, no keys, no other servers, one kind of terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")

    async def find_no_servers(_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr(detection, "find_servers", find_no_servers)


@pytest.fixture
def script() -> Iterator[Script]:
    """The scripted server, running."""
    script = Script(
        models=[(200, json.dumps(MODELS).encode())], chunks=[text_chunk("Hé"), text_chunk("llo"), last_chunk()]
    )
    with Server(("127.0.0.1", 0), Handler) as http_server:
        http_server.script = script
        script.endpoint = f"http://127.0.0.1:{http_server.server_address[1]}"
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        script.release.set()
        http_server.shutdown()
        thread.join()


def ctxrc(*backends: Mapping[str, str], **top: str) -> None:
    """A .ctxrc in the working directory."""
    lines = [f"{name}: {value}" for name, value in top.items()]
    lines.append("backends:")
    for backend in backends:
        fields = [f"{name}: {value}" for name, value in backend.items()]
        lines += [("  - " if index == 0 else "    ") + field for index, field in enumerate(fields)]
    Path(".ctxrc").write_text("\n".join(lines) + "\n", encoding="utf-8")


def backend(endpoint: str, **fields: str) -> dict[str, str]:
    return {"name": "local", "type": "openai-compatible", "endpoint": endpoint, "default_model": "tiny", **fields}


# --- ctxbackends ping --------------------------------------------------------------------------------


def test_ping(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    assert Result(0, f"backend   local\nendpoint  {script.endpoint}\nmodel     tiny\n", "") == ctx("ping")


def test_ping_json(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    result = ctx("ping", "--json")
    assert (0, "") == (result.code, result.err)
    answer = json.loads(result.out)
    assert isinstance(answer.pop("elapsed"), float)
    default = {"default_model": "tiny", "default_model_listed": True}
    assert {"backend": "local", "endpoint": script.endpoint, "model": "tiny", **default} == answer
    assert result.out.count("\n") == 1


def test_ping_of_a_default_model_that_is_not_listed(script: Script) -> None:
    ctxrc(backend(script.endpoint, default_model="small"))
    assert Result(0, f"backend   local\nendpoint  {script.endpoint}\nmodel     tiny\n", "") == ctx("ping")
    ctxrc(backend(script.endpoint, default_model="nope"))
    result = ctx("ping")
    assert (0, "") == (result.code, result.err)
    assert "default   nope (not in the server's list; see ctxbackends models)" == result.out.splitlines()[-1]
    assert ("nope", False) == itemgetter("default_model", "default_model_listed")(json.loads(ctx("ping", "--json").out))


def test_ping_of_the_backend_that_is_named(script: Script) -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY, name="other"), backend(script.endpoint), default_backend="other")
    assert 0 == ctx("ping", "--backend", "local").code
    assert 0 == ctx("ping", "-b", "local").code
    assert 1 == ctx("ping").code


def test_a_wait_is_plain_lines_where_there_is_no_terminal(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.models[:0] = [(503, LOADING)] * 3
    result = ctx("ping")
    assert f"backend   local\nendpoint  {script.endpoint}\nmodel     tiny\n" == result.out
    assert f"waiting for {script.endpoint} (loading, 0 s of 90 s)\n" == result.err


def test_a_long_wait_repeats_its_line(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL", 0.0)
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.models[:0] = [(503, LOADING)] * 3
    assert [f"waiting for {script.endpoint} (loading, 0 s of 90 s)"] * 3 == ctx("ping").err.splitlines()


def test_a_wait_is_one_live_line_on_a_terminal(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.models[:0] = [(503, LOADING)] * 3
    result = ctx("ping", tty="stderr")
    assert f"backend   local\nendpoint  {script.endpoint}\nmodel     tiny\n" == result.out
    lines = [*re.finditer(rf"waiting for {re.escape(script.endpoint)} \(loading, \d s of 90 s\)", result.err)]
    assert lines, "the line appears"
    assert "\x1b[J" in result.err[lines[-1].end() :], "and is erased"


def test_no_wait(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.models = [(503, LOADING)]
    expected = (
        f'ctxbackends: backend "local": HTTP 503: {LOADING.decode()}\n'
        "  the model is still loading; raise ready_timeout in .ctxrc to wait longer\n"
    )
    assert Result(1, "", expected) == ctx("ping", "--no-wait")


def test_a_wait_that_ends_without_a_server() -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY, type="llamacpp", ready_timeout="100ms"))
    result = ctx("ping")
    assert (1, "") == (result.code, result.out)
    waiting, error, hint = result.err.splitlines()
    assert f"waiting for {ENDPOINT_OF_NOBODY} (refused, 0 s of 0 s)" == waiting
    assert error.startswith(
        f'ctxbackends: backend "local" unreachable at {ENDPOINT_OF_NOBODY}: connection refused (after waiting '
    )
    assert REFUSED_HINT == hint + "\n"


# --- ctxbackends models ------------------------------------------------------------------------------


def test_models(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    assert Result(0, "tiny      4096 tokens\nlarger    unloaded\nno-facts\n", "") == ctx("models")


def test_models_json(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    result = ctx("models", "--json")
    nothing: dict[str, object] = {
        "aliases": [],
        "context_length": None,
        "owned_by": None,
        "state": None,
        "parameters": None,
    }
    expected = [
        {**nothing, "id": "tiny", "aliases": ["small"], "context_length": 4096, "owned_by": "me"},
        {**nothing, "id": "larger", "state": "unloaded"},
        {**nothing, "id": "no-facts"},
    ]
    assert (0, expected, "") == (result.code, json.loads(result.out), result.err)


def test_a_server_without_models(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.models = [(200, b'{"data":[]}')]
    expected = 'ctxbackends: backend "local": the server lists no model\n  load or pull a model on the server first\n'
    assert Result(1, "", expected) == ctx("models")


# --- ctxbackends chat --------------------------------------------------------------------------------


def test_chat(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    assert Result(0, "Héllo\n", "") == ctx("chat", "Say it")
    assert [{"role": "user", "content": "Say it"}] == script.chat_body["messages"]
    assert "tiny" == script.chat_body["model"]
    assert script.chat_body["stream"] is True
    assert {"max_tokens", "temperature"}.isdisjoint(script.chat_body)


def test_chat_options(script: Script) -> None:
    ctxrc(backend(script.endpoint, default_model="another"))
    options = ("--system", "Be brief.", "--model", "tiny", "--max-tokens", "7", "--temperature", "0.5")
    assert 0 == ctx("chat", *options, "Hi").code
    assert [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ] == script.chat_body["messages"]
    assert ("tiny", 7, 0.5) == (
        script.chat_body["model"],
        script.chat_body["max_tokens"],
        script.chat_body["temperature"],
    )


def test_chat_json(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    result = ctx("chat", "--json", "Hi")
    assert (0, "") == (result.code, result.err)
    expected: dict[str, object] = {
        "text": "Héllo",
        "finish_reason": "stop",
        "usage": {
            "input_tokens": 3,
            "output_tokens": 2,
            "cached_input_tokens": None,
            "cache_write_tokens": None,
            "reasoning_tokens": None,
            "load_seconds": None,
            "prompt_seconds": None,
            "generation_seconds": None,
        },
        "requested_model": "tiny",
        "served_model": "tiny",
        "reasoning": "",
        "refusal": "",
        "tool_calls": [],
        "stop_sequence": None,
        "request_id": None,
        "response_id": None,
        "citations": [],
        "raw_finish_reason": "stop",
    }
    assert expected == json.loads(result.out)


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_prompt_on_standard_input(script: Script, arguments: tuple[str, ...]) -> None:
    ctxrc(backend(script.endpoint))
    assert Result(0, "Héllo\n", "") == ctx("chat", *arguments, stdin="Grüße\n".encode())
    assert [{"role": "user", "content": "Grüße\n"}] == script.chat_body["messages"]


def test_a_dash_reads_from_a_terminal_too(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    assert 0 == ctx("chat", "-", stdin=b"typed\n", tty="stdin").code
    assert [{"role": "user", "content": "typed\n"}] == script.chat_body["messages"]


def usage_error(problem: str) -> Result:
    return Result(
        2,
        "",
        f"Usage: ctxbackends chat [OPTIONS] [PROMPT]\nTry 'ctxbackends chat --help' for help.\n\nError: {problem}\n",
    )


def test_no_prompt_at_a_terminal() -> None:
    expected = usage_error("no prompt; pass it as an argument or on standard input")
    assert expected == ctx("chat", tty="stdin")


@pytest.mark.parametrize("stdin", [b"", b" \n\t"])
def test_an_empty_prompt_on_standard_input(stdin: bytes) -> None:
    assert usage_error("the prompt on standard input is empty") == ctx("chat", stdin=stdin)


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt(prompt: str) -> None:
    assert usage_error("the prompt is empty") == ctx("chat", prompt)


def test_a_prompt_that_is_not_utf8(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    advice = "convert it, for example with iconv -t UTF-8"
    expected = f"ctxbackends: the prompt on standard input is not UTF-8 (byte 3); {advice}\n"
    assert Result(1, "", expected) == ctx("chat", stdin=b"Gr\xfc\xdfe")
    assert Result(1, "", f"ctxbackends: the prompt is not UTF-8 (byte 1); {advice}\n") == ctx("chat", "\udcfc")
    assert [] == script.requests


@pytest.mark.parametrize("option", ["--system", "--model"])
def test_an_option_that_is_not_utf8(script: Script, option: str) -> None:
    ctxrc(backend(script.endpoint))
    problem = f"Invalid value for '{option[1:3]}' / '{option}': is not UTF-8"
    assert usage_error(problem) == ctx("chat", option, "\udcfc", "Hi")


def test_a_final_line_end_is_not_doubled(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.chunks = [text_chunk("Hello\n"), last_chunk()]
    assert Result(0, "Hello\n", "") == ctx("chat", "Hi")


def test_a_truncated_answer_is_reported(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.chunks = [text_chunk("Hel"), last_chunk("length")]
    note = "(truncated: finish_reason length)\n"
    assert Result(0, "Hel\n", note) == ctx("chat", "Hi")


def test_a_refusal_goes_to_standard_error(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.chunks = [text_chunk("", refusal="No\x07."), last_chunk()]
    assert Result(0, "\n", "the model refused: No\x07.\n") == ctx("chat", "Hi")
    assert Result(0, "\n", "the model refused: No\\x07.\n") == ctx("chat", "--quiet", "Hi", tty="stderr")


def test_control_characters_are_escaped_on_a_terminal_only(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.chunks = [text_chunk("\x1b[31m\x1b]0;title\x07a\tb\r\n\x00\x7f\x9bé"), last_chunk()]
    assert "\x1b[31m\x1b]0;title\x07a\tb\r\n\x00\x7f\x9bé\n" == ctx("chat", "Hi").out
    assert "\\x1b[31m\\x1b]0;title\\x07a\tb\\x0d\n\\x00\\x7f\\x9bé\n" == ctx("chat", "--raw", "Hi", tty="stdout").out


def test_chat_waits_for_a_cold_start(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.loading = 3
    assert Result(0, "Héllo\n", f"waiting for {script.endpoint} (loading, 0 s of 90 s)\n") == ctx("chat", "Hi")


def test_the_live_line_is_removed_before_the_answer(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.loading = 3
    result = ctx("chat", "--raw", "Hi", tty="stdout stderr", merge=True)
    _, _, after = result.out.rpartition("waiting for ")
    before, _, answer = after.rpartition("Hé")
    assert (0, "llo\n") == (result.code, answer)
    assert "\x1b[J" in before


def test_chat_with_an_unreachable_server() -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY, type="llamacpp", ready_timeout="100ms"))
    result = ctx("chat", "Hi")
    assert (1, "") == (result.code, result.out)
    assert f"waiting for {ENDPOINT_OF_NOBODY} (refused, 0 s of 0 s)\n" in result.err


def test_an_interrupted_stream(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.chunks, script.is_complete = [text_chunk("Hello")], False
    expected = (
        'ctxbackends: backend "local": the connection broke before the response was complete\n'
        "  5 characters were received; the answer is incomplete\n"
    )
    assert Result(1, "Hello\n", expected) == ctx("chat", "Hi")


@pytest.mark.parametrize(
    ("key", "phase"), [("first_token_timeout", "no first token"), ("timeout", "no complete response")]
)
def test_a_timeout_names_the_backend_the_duration_and_the_key(script: Script, key: str, phase: str) -> None:
    ctxrc(backend(script.endpoint, **{key: "200ms"}))
    script.silent = True
    expected = f'ctxbackends: backend "local": {phase} within 0.2 s; raise {key} to wait longer\n'
    assert Result(1, "", expected) == ctx("chat", "Hi")


@pytest.mark.posix
def test_chat_interrupted(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.silent = True
    with subprocess.Popen(
        command("chat", "Hi"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        poll(lambda: script.requests or program.poll() is not None)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=WITHIN)
    assert (130, "") == (program.returncode, out)
    assert err.endswith("\ninterrupted\n")  # a slow machine prints how long it has waited


@pytest.mark.posix
def test_interrupted_while_the_prompt_is_read(script: Script) -> None:
    """The event loop would put off the interrupt until somebody ends the input."""
    if sys.platform == "win32":
        raise NotImplementedError
    ctxrc(backend(script.endpoint))
    with subprocess.Popen(
        command("chat"),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        program.stdin.write(b"Hel")
        program.stdin.flush()
        unread = bytearray(4)  # the number of bytes that the program has not read yet
        stdin = program.stdin.fileno()
        poll(
            lambda: (
                (fcntl.ioctl(stdin, termios.FIONREAD, unread) == 0 and not any(unread)) or program.poll() is not None
            )
        )
        program.send_signal(signal.SIGINT)
        assert 130 == program.wait(WITHIN)
        assert program.stderr is not None
        assert b"\ninterrupted\n" == program.stderr.read()


# --- output that nobody takes -----------------------------------------------------------------------


def test_a_closed_output_pipe(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = process("models", stdout=writing)
    finally:
        os.close(writing)
    assert (1, "") == (result.returncode, result.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    with Path("/dev/full").open("wb") as full:
        result = process("models", stdout=full)
    assert (1, "ctxbackends: No space left on device\n") == (result.returncode, result.stderr)


def test_no_standard_input() -> None:
    """Closed, as some schedulers start programs."""
    result = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command("chat")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert usage_error("no prompt; pass it as an argument or on standard input") == Result(
        result.returncode, result.stdout, result.stderr
    )


# --- which backend ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("ping",), ("models",), ("chat", "Hi"), ("status",)])
def test_no_backend(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    sentence = "ctxbackends: no backend configured; run ctx setup --backend <name>"
    result = ctx(*arguments)
    assert (1, "") == (result.code, result.out)
    assert f"{sentence} (no .ctxrc in {tmp_path} or a directory above it)" == result.err.splitlines()[0]
    Path(".ctxrc").write_text("backends: []\n", encoding="utf-8")
    result = ctx(*arguments)
    assert (1, "") == (result.code, result.out)
    assert f"{sentence} ({tmp_path / '.ctxrc'} has no backends)" == result.err.splitlines()[0]


def test_several_backends_without_a_default() -> None:
    ctxrc({"name": "vllm"}, {"name": "ollama"})
    expected = (
        "ctxbackends: several backends configured: vllm, ollama; choose one with --backend or set default_backend\n"
    )
    assert Result(1, "", expected) == ctx("ping")


def test_a_backend_that_is_not_configured() -> None:
    ctxrc({"name": "vllm"})
    assert Result(1, "", 'ctxbackends: unknown backend: "none"; configured: vllm\n') == ctx("ping", "-b", "none")


def test_an_endpoint_on_the_command_line(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .ctxrc is read, and no key goes where nobody sent it."""
    Path(".ctxrc").write_text("[", encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    expected = Result(0, f"backend   openai\nendpoint  {script.endpoint}\nmodel     tiny\n", "")
    assert expected == ctx("ping", "--endpoint", script.endpoint + "/v1/", "--backend", "openai")
    assert ctx("ping", "--endpoint", script.endpoint).out.startswith("backend   openai-compatible\n")
    assert [None, None] == [headers.get("Authorization") for _, _, headers in script.requests]
    assert 0 == ctx("ping", "--endpoint", script.endpoint, "--api-key-env", "OPENAI_API_KEY").code
    assert f"Bearer {KEY}" == script.requests[-1][2]["Authorization"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("--api-key-env", "SOME_KEY"),
            "--api-key-env requires --endpoint; for a backend in .ctxrc, set api_key_env there",
        ),
        (
            ("--endpoint", ENDPOINT_OF_NOBODY, "--backend", "mine"),
            f"with --endpoint, --backend must be a backend type: {', '.join(PROFILES)}",
        ),
    ],
)
def test_mutually_exclusive_options(arguments: tuple[str, ...], problem: str) -> None:
    result = ctx("ping", *arguments)
    assert (2, "") == (result.code, result.out)
    assert result.err.endswith(f"Error: {problem}\n")


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"backends:\n  - name: vllm\n    tiemout: 3s\n",
            ":3: backends[0].tiemout: unknown key; did you mean timeout?",
        ),
        (
            b"backends:\n  - name: vllm\n    timeout: 30\n",
            ":3: backends[0].timeout: duration has no unit: 30; write 30s",
        ),
        (b"backends: [\n", ":2: invalid YAML at column 1"),
        (b"\xff\xfe", ":1: is not UTF-8 text"),
        (
            b"backends:\n  - name: vllm\n    endpoint: localhost\n",
            (
                ":3: backends[0].endpoint: 'localhost' must start with http:// or https://; "
                "write it like http://localhost:8080"
            ),
        ),
    ],
)
def test_a_malformed_ctxrc(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / ".ctxrc").write_bytes(content)
    result = ctx("ping")
    assert (1, "", 1) == (result.code, result.out, result.err.count("\n"))
    assert result.err.startswith(f"ctxbackends: {tmp_path}/.ctxrc{problem}")


@pytest.mark.posix
def test_a_ctxrc_that_cannot_be_read(tmp_path: Path) -> None:
    where, why = unreadable(tmp_path / ".ctxrc")
    assert Result(1, "", f"ctxbackends: {where}: cannot be read: {why}\n") == ctx("ping")


def unreadable(path: Path) -> tuple[Path, str]:
    """Make ``path`` a file that cannot be read, by root neither."""
    if sys.platform == "win32":
        raise NotImplementedError
    if os.geteuid() == 0:
        path.symlink_to("/proc/self/mem")  # nothing is mapped at address 0
        return path, "Input/output error"
    path.touch(0)
    return path, "Permission denied"


def test_a_refused_connection() -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY))
    expected = f'ctxbackends: backend "local" unreachable at {ENDPOINT_OF_NOBODY}: connection refused\n{REFUSED_HINT}'
    assert Result(1, "", expected) == ctx("ping")


def test_an_endpoint_that_is_not_a_model_server(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.models = [(404, b"<html>not here</html>")]
    expected = (
        'ctxbackends: backend "local": HTTP 404: <html>not here</html> '
        f"(requested: GET {script.endpoint}/v1/models, a route of OpenAI-compatible servers)\n"
        "  is this the endpoint of a model server? write it without /v1\n"
    )
    assert Result(1, "", expected) == ctx("ping")
    script.models = [(200, b"<html>hello</html>")]
    result = ctx("ping")
    assert (1, "", 1) == (result.code, result.out, result.err.count("\n"))
    assert result.err.startswith('ctxbackends: backend "local": unexpected response from the OpenAI API: ')


@pytest.mark.filterwarnings("default::ctxbackends.ModelMismatchWarning")
def test_another_model_is_one_line_of_warning(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    result = ctx("chat", "Hi", "--model", "nope")
    assert (0, "Héllo\n") == (result.code, result.out)
    warning = 'warning: backend "local": model mismatch: requested "nope", served "tiny"; request the served model, '
    assert result.err.startswith(f"ctxbackends: {warning}")
    assert 1 == result.err.count("\n")


def test_a_wrong_model(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    body = '{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","code":404}}'
    script.chat = (404, body.encode())
    requested = f"(requested: POST {script.endpoint}/v1/chat/completions)"
    hint = "list the available models with ctxbackends models"
    expected = f'ctxbackends: backend "local": HTTP 404: {body} {requested}\n  {hint}\n'
    assert Result(1, "", expected) == ctx("chat", "Hi", "--model", "nope")


def test_no_model(script: Script) -> None:
    ctxrc({"name": "vllm", "endpoint": script.endpoint})
    result = ctx("chat", "Hi")
    assert (1, "", ["/v1/models"]) == (result.code, result.out, [path for path, _, _ in script.requests])
    problem = "no model given: use --model NAME, or set default_model; the server has: tiny, larger, no-facts"
    assert f"ctxbackends: {problem}\n" == result.err


def test_a_prompt_that_does_not_fit(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    body = '{"error":{"message":"too long","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}'
    script.chat = (400, body.encode())
    hint = f"the prompt has 9000 tokens and the context 4096; shorten it, or {LARGER}"
    assert Result(1, "", f'ctxbackends: backend "local": HTTP 400: {body}\n  {hint}\n') == ctx("chat", "Hi")


def test_a_rejected_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    ctxrc(backend(script.endpoint, api_key_env="SOME_KEY"))
    body = '{"error": {"message": "Incorrect API key provided."}}'
    script.models = [(401, body.encode())]
    expected = f'ctxbackends: backend "local": HTTP 401: {body}\n  the key came from SOME_KEY\n'
    assert Result(1, "", expected) == ctx("ping")
    assert f"Bearer {KEY}" == script.requests[0][2]["Authorization"]


def test_a_missing_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    ctxrc(backend(script.endpoint))
    script.models = [(401, b"who are you?")]
    hint = "no API key was sent; set api_key_env in .ctxrc to the name of its environment variable"
    assert Result(1, "", f'ctxbackends: backend "local": HTTP 401: who are you?\n  {hint}\n') == ctx("ping")
    ctxrc(backend(script.endpoint, api_key_env="SOME_KEY"))
    assert Result(
        1, "", 'ctxbackends: environment variable not set: SOME_KEY; set it to the API key of backend "local"\n'
    ) == ctx("ping")


def test_keys_are_never_printed(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the server repeats it, nor in the traceback that --debug asks for."""
    monkeypatch.setenv("SOME_KEY", KEY)
    ctxrc(backend(script.endpoint, api_key_env="SOME_KEY"))
    script.models = [(401, f'{{"error":"bad key {KEY}"}}'.encode())]
    script.chat = script.models[0]
    for arguments in (["ping"], ["chat", "Hi"]):
        result = ctx(*arguments)
        assert 'HTTP 401: {"error":"bad key [key]"}' in result.err
        assert KEY not in result.out + result.err
        with pytest.raises(errors.AuthenticationError) as exc_info:
            debug(*arguments, "--debug")
        assert KEY not in "".join(traceback.format_exception(exc_info.value))
    # The key itself where its variable's name belongs.
    for wrong_arguments in (("ping", "--endpoint", script.endpoint), ("setup", "--backend", "vllm")):
        result = ctx(*wrong_arguments, "--api-key-env", KEY)
        assert 1 == result.code
        assert KEY not in result.out + result.err
        assert "must be the name of an environment variable" in result.err


# --- errors in general ------------------------------------------------------------------------------


def debug(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ctxbackends", *arguments])
        patch.setattr(sys, "stdin", Stream())
        cli.ctxbackends()


@pytest.mark.parametrize("arguments", [("--debug", "ping"), ("ping", "--debug")])
def test_debug_shows_the_traceback(arguments: tuple[str, ...]) -> None:
    with pytest.raises(errors.NoBackendConfiguredError):
        debug(*arguments)


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ctxbackends._registry.Registry.from_ctxrc", fail)
    with pytest.raises(ZeroDivisionError):
        debug("ping")


def status(kind: type[errors.APIStatusError], code: int) -> errors.APIStatusError:
    return kind(code, body=b"body")


def overflow(tokens: int | None, context: int | None) -> errors.ContextOverflowError:
    error = errors.ContextOverflowError(400, body=b"body")
    error.input_tokens, error.context_length = tokens, context
    return error


def authentication_error(source: str | None) -> errors.AuthenticationError:
    error = errors.PermissionDeniedError(403, body=b"body")
    error.key_source = source
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.BackendError("it broke"), "it broke"),
        (authentication_error("SOME_KEY"), "HTTP 403: body\n  the key came from SOME_KEY"),
        (
            authentication_error(None),
            "HTTP 403: body\n  no API key was sent; set api_key_env in .ctxrc to the name of its environment variable",
        ),
        (
            overflow(9, 8),
            f"HTTP 400: body\n  the prompt has 9 tokens and the context 8; shorten it, or {LARGER}",
        ),
        (
            overflow(None, 8),
            f"HTTP 400: body\n  shorten the prompt, or {LARGER}",
        ),
        (
            overflow(9, None),
            f"HTTP 400: body\n  shorten the prompt, or {LARGER}",
        ),
        (
            status(errors.ModelLoadingError, 503),
            "HTTP 503: body\n  the model is still loading; raise ready_timeout in .ctxrc to wait longer",
        ),
        (
            status(errors.InsufficientQuotaError, 402),
            "HTTP 402: body\n  add credit to the account of the API key at its vendor",
        ),
        (status(errors.ModelNotFoundError, 404), "HTTP 404: body\n  list the available models with ctxbackends models"),
        (
            status(errors.NotFoundError, 404),
            "HTTP 404: body\n  is this the endpoint of a model server? write it without /v1",
        ),
        (
            status(errors.InternalServerError, 502),
            (
                "HTTP 502: body\n  a proxy could not reach the server; "
                "if it is starting, wait for it with ctxbackends ping"
            ),
        ),
        (status(errors.InternalServerError, 500), "HTTP 500: body"),
        (errors.EmptyModelListError("no model"), "no model\n  load or pull a model on the server first"),
        (
            errors.IncompleteOutputError("length"),
            "structured output is incomplete: finish_reason length; raise max_tokens",
        ),
        (
            errors.StreamInterruptedError("cut", partial=PartialCompletion(text="abc")),
            "cut\n  3 characters were received; the answer is incomplete",
        ),
        (errors.StreamInterruptedError("cut"), "cut"),
        (
            errors.APIConnectionError("connection refused", refused=True),
            f"connection refused\n{REFUSED_HINT[:-1].replace('local', 'NAME')}",
        ),
        (
            errors.APIConnectionError("cannot find the host gpu", permanent=True),
            (
                "cannot find the host gpu\n  check the endpoint in .ctxrc; "
                "correct it with ctxbackends config set NAME.endpoint URL"
            ),
        ),
        (errors.APIConnectionError("closed", sent=True), "closed"),
        (
            errors.APITimeoutError("connect", 5.0, key="connect_timeout"),
            "no connection within 5 s; raise connect_timeout to wait longer",
        ),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "a.txt: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no number"), None),
        (ValueError("a fault of the program"), None),
    ],
)
def test_format_error(error: Exception, text: str | None) -> None:
    assert text == format_error(error)


# --- help and version -------------------------------------------------------------------------------


RUN = (
    *("--model", "--out", "--dry-run", "--resume", "--no-resume", "--max-concurrency", "--chunk-tokens"),
    *(
        "--dialogue-only",
        "--speakers",
        "--context-lines",
        "--passes",
        "--allow-unenforced",
        "--skip-failed",
        "--second-look",
        "--rate",
        "--quiet",
    ),
    *("--json", "--backend", "--endpoint", "--api-key-env", "--debug"),
)
OPTIONS = {
    (): ("--version", "--debug", "--help"),
    ("ping",): ("--backend", "--no-wait", "--probe", "--json", "--endpoint", "--api-key-env", "--debug"),
    ("status",): ("--backend", "--json", "--endpoint", "--api-key-env", "--debug"),
    ("models",): ("--backend", "--local", "--json", "--endpoint", "--api-key-env", "--debug"),
    ("batch",): (
        "INPUT",
        "--output",
        "--errors",
        "--format",
        "--schema",
        "--prompt",
        "--journal",
        "--resume / --fresh",
        "--max-concurrency",
        "--rpm",
        "--engine",
        "--workers",
        "--json",
        "--backend",
        "--endpoint",
    ),
    ("chat",): (
        *("-m, --model", "-s, --system", "-o, --option", "--max-tokens", "--temperature", "-f, --file", "-a, --image"),
        *(
            "--schema",
            "--tool",
            "--yes",
            "-c, --continue",
            "--no-stdin",
            "--raw",
            "--reasoning",
            "--stats",
            "-q, --quiet",
        ),
        *("--json", "--backend", "[PROMPT]"),
    ),
    ("extract",): ("--kinds", *RUN),
    ("compact",): ("[INPUT]...", "--last", "--subagents", "--no-subagents", "--hook", "--no-pack", "--emit", *RUN),
    ("ingest",): ("INPUT...", "--include", "--exclude", "--no-pack", "--extract", *RUN),
    ("completion",): ("bash|zsh|fish", "--debug"),
    ("config",): ("--help",),
    ("config", "list"): ("--json", "--debug"),
    ("config", "show"): ("[NAME]", "--json", "--debug"),
    ("config", "set"): ("KEY VALUE", "--debug"),
    ("config", "remove"): ("NAME|KEY", "--debug"),
    ("config", "default"): ("NAME", "--debug"),
    ("config", "path"): ("--json", "--debug"),
    ("config", "edit"): ("--debug",),
    ("count",): ("[PROMPT]", "--file", "--system", "--model", "--json", "--backend"),
    ("doctor",): ("--json", "--debug"),
    ("embed",): ("[TEXT]...", "--lines", "--model", "--dimensions", "--json", "--backend"),
    ("load",): ("[MODEL]", "--context-length", "--keep-alive", "--backend"),
    ("logs",): ("--help",),
    ("logs", "list"): ("-n", "--json", "--debug"),
    ("logs", "off"): ("--debug",),
    ("logs", "on"): ("--debug",),
    ("logs", "path"): ("--debug",),
    ("logs", "search"): ("TEXT", "-n", "--json", "--debug"),
    ("logs", "show"): ("[ID]", "--all", "--reasoning", "--json", "--debug"),
    ("proposals",): ("--help",),
    ("proposals", "list"): ("--out", "--json", "--debug"),
    ("proposals", "show"): (
        *("[PROPOSAL]", "ROW...", "--quarantined", "--json", "--html"),
        *("--output", "--force", "--out", "--debug"),
    ),
    ("proposals", "review"): ("[PROPOSAL]", "--all", "--out", "--debug"),
    ("proposals", "accept"): ("[PROPOSAL]", "ROW...", "--all", "--out", "--debug"),
    ("proposals", "reject"): ("[PROPOSAL]", "ROW...", "--all", "--reason", "--out", "--debug"),
    ("proposals", "edit"): ("PROPOSAL", "ROW", "--set", "--out", "--debug"),
    ("proposals", "requote"): ("PROPOSAL", "ROW", "--quote", "--source", "--out", "--debug"),
    ("proposals", "export"): (
        *("[PROPOSAL]", "--kind", "--format", "--section", "--output", "--dir", "--force", "--skip-incomplete"),
        *("--out", "--debug"),
    ),
    ("proposals", "apply"): (
        *("[PROPOSAL]", "ROW...", "--yes", "--section", "--ctx", "--timeout", "--uncertain", "--skip-incomplete"),
        *("--json", "--out", "--debug"),
    ),
    ("pull",): ("NAME", "--json", "--debug"),
    ("serve",): (
        *("MODEL", "--port", "--ctx-size", "--parallel", "--threads", "--alias", "--api-key-env", "--no-key"),
        *("--embeddings", "--show-log", "--json", "--debug"),
    ),
    ("unload",): ("[MODEL]", "--backend"),
    ("setup",): (
        *("--backend", "--name", "--endpoint", "--api-key-env", "--model", "--model-path", "--default"),
        *("--json", "--debug"),
    ),
}


@pytest.mark.parametrize("arguments", list(OPTIONS), ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(arguments: tuple[str, ...], flag: str) -> None:
    result = ctx(*arguments, flag)
    assert (0, "") == (result.code, result.err)
    assert result.out.startswith(" ".join(["Usage: ctxbackends", *arguments]))
    for option in OPTIONS[arguments]:
        assert option in result.out


def test_every_command_has_a_help_test() -> None:
    with click.Context(ctxbackends_group, info_name="ctxbackends") as context:
        names = {
            (name,): ctxbackends_group.get_command(context, name) for name in ctxbackends_group.list_commands(context)
        }
    groups = {name: command for (name,), command in names.items() if isinstance(command, click.Group)}
    below = {(name, command) for name, group in groups.items() for command in group.commands}
    assert set(OPTIONS) == {(), *names, *below}


def test_the_list_of_commands() -> None:
    """The summaries are written beside the names, so that the list imports no command."""
    help_text = ctx("--help").out
    with click.Context(ctxbackends_group, info_name="ctxbackends") as context:
        for name in ctxbackends_group.list_commands(context):
            subcommand = ctxbackends_group.get_command(context, name)
            assert subcommand is not None
            assert name == subcommand.name
            assert subcommand.help
    lines = [line.split(maxsplit=1) for line in help_text.splitlines()]
    assert ["proposals", "Review and export proposals."] in lines
    assert ["serve", "Serve a GGUF model with llama.cpp on this machine."] in lines
    assert ["setup", "Add or update a backend in .ctxrc."] in lines


@pytest.mark.parametrize("arguments", [(), ("proposals",)])
def test_a_group_alone_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = ctx(*arguments)
    assert (2, "") == (result.code, result.out)
    assert "Commands:" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("nope"),
        ("ping", "--nope"),
        ("chat", "--max-tokens", "0", "Hi"),
        ("chat", "--temperature", "-1", "Hi"),
        ("serve",),
        ("serve", "model.gguf", "--port", "70000"),
        ("serve", "model.gguf", "--parallel", "0"),
        ("serve", "model.gguf", "--no-key", "--api-key-env", "SOME_KEY"),
        ("setup",),
        ("setup", "--backend", "nope"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = ctx(*arguments)
    assert (2, "") == (result.code, result.out)
    assert result.err.startswith("Usage: ctxbackends")
    assert "\nError: " in result.err


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys; sys.argv = ['ctxbackends', '--help']\n"
        "from ctxbackends._cli import ctxbackends\n"
        "try: ctxbackends()\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiohttp', 'rich', 'tenacity', 'msgspec', 'anyio', 'ruamel', 'asyncio'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=WITHIN, check=True
    )
    assert result.stdout.endswith("\n[]\n"), result.stdout
    assert "Usage: ctxbackends" in result.stdout


def test_version() -> None:
    assert Result(0, f"ctxbackends {metadata.version('ctxbackends')}\n", "") == ctx("--version")


def test_the_console_scripts() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {"ctx": "ctxbackends._cli:ctx", "ctxbackends": "ctxbackends._cli:ctxbackends"} == project["scripts"]
    for target in project["scripts"].values():
        module, name = target.split(":")
        assert callable(getattr(import_module(module), name))


def test_completion_reads_no_prompt() -> None:
    """A shell that asks what comes next must not wait for standard input."""
    with chat.make_context("chat", ["-"], resilient_parsing=True) as context:
        assert "-" == context.params["prompt"]


# --- ctxbackends setup -------------------------------------------------------------------------------


def test_setup(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    message = f'backend "llamacpp" {{}} {path}\ntry: ctxbackends ping --backend llamacpp\n'
    assert Result(0, "", message.format("added to")) == ctx("setup", "--backend", "llamacpp")
    assert (
        "backends:\n  - name: llamacpp\n    type: llamacpp\n    endpoint: http://localhost:8080\n" == path.read_text()
    )
    assert Result(0, "", message.format("is unchanged in")) == ctx("setup", "--backend", "llamacpp")
    path.write_text(path.read_text().replace("8080", "8080 # mine"))
    assert Result(0, "", message.format("updated in")) == ctx(
        "setup", "--backend", "llamacpp", "--endpoint", "http://gpu:8000/v1"
    )
    assert (
        "backends:\n  - name: llamacpp\n    type: llamacpp\n    endpoint: http://gpu:8000 # mine\n" == path.read_text()
    )


def test_setup_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_KEY", KEY)
    result = ctx(
        *(
            "setup",
            "--backend",
            "openai",
            "--name",
            "work",
            "--endpoint",
            "https://gpu/v1",
            "--api-key-env",
            "WORK_KEY",
        ),
        *("--model", "gpt", "--default", "--json"),
    )
    path = tmp_path / ".ctxrc"
    assert {"path": str(path), "name": "work", "created": True, "changed": True} == json.loads(result.out)
    assert (0, "") == (result.code, result.err)
    expected = (
        "default_backend: work\nbackends:\n  - name: work\n    type: openai\n    endpoint: https://gpu\n"
        "    api_key_env: WORK_KEY\n    default_model: gpt\n"
    )
    assert expected == path.read_text()
    second = ctx("setup", "--backend", "openai", "--name", "work", "--json")
    assert {"path": str(path), "name": "work", "created": False, "changed": False} == json.loads(second.out)


def test_setup_of_a_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere")
    Path("model.gguf").write_bytes(b"GGUF")
    result = ctx("setup", "--backend", "llamacpp", "--model-path", "model.gguf")
    assert (0, "") == (result.code, result.out)
    assert "warning" not in result.err, "there is no endpoint that could differ"
    assert (
        f"backends:\n  - name: llamacpp\n    type: llamacpp\n    model_path: {Path('model.gguf').resolve()}\n"
        == (tmp_path / ".ctxrc").read_text()
    )


def test_setup_finds_the_file_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ctxrc").write_text("# ours\n")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert str(tmp_path / ".ctxrc") == json.loads(ctx("setup", "--backend", "ollama", "--json").out)["path"]
    assert (tmp_path / ".ctxrc").read_text().startswith("# ours\nbackends:\n")


@pytest.mark.parametrize(
    ("backend_type", "variable", "endpoint"),
    [
        ("openai", "OPENAI_BASE_URL", "https://api.openai.com"),
        ("vllm", "OPENAI_BASE_URL", "http://localhost:8000"),
        ("anthropic", "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    ],
)
@pytest.mark.parametrize("elsewhere", ["https://elsewhere/v1", "nonsense"])
def test_setup_warns_of_another_base_url(
    monkeypatch: pytest.MonkeyPatch, backend_type: str, variable: str, endpoint: str, elsewhere: str
) -> None:
    monkeypatch.setenv(variable, elsewhere)
    result = ctx("setup", "--backend", backend_type)
    assert 0 == result.code
    warning = f"warning: {variable} is set to another server; ctxbackends does not use it and connects to {endpoint}\n"
    assert result.err.startswith(warning)
    assert elsewhere == os.environ[variable]


def test_setup_is_silent_about_the_same_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1/")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://elsewhere")
    assert "warning" not in ctx("setup", "--backend", "openai").err


def test_setup_does_not_change_a_malformed_file(tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("backends: 3\n")
    result = ctx("setup", "--backend", "vllm")
    problem = 'backends: must be a list; begin each item with "- name:"'
    assert Result(1, "", f"ctxbackends: {tmp_path}/.ctxrc:1: {problem}\n") == result
    assert "backends: 3\n" == (tmp_path / ".ctxrc").read_text()


def test_setup_of_a_type_without_an_endpoint(tmp_path: Path) -> None:
    result = ctx("setup", "--backend", "openai-compatible")
    problem = "required for type openai-compatible; write it like http://localhost:8080"
    assert Result(1, "", f"ctxbackends: {tmp_path}/.ctxrc: endpoint: {problem}\n") == result
    assert not (tmp_path / ".ctxrc").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("models",),
        ("status", "--endpoint", "http://192.0.2.9"),
        ("chat", "--endpoint", "http://192.0.2.9", "--model", "m", "Hello"),
        ("extract", "--endpoint", "http://127.0.0.1:1", "--model", "m"),
        ("ingest", "notes.md", "--extract", "decisions", "--endpoint", "http://127.0.0.1:1", "--model", "m"),
        ("setup", "--backend", "vllm"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(("misspelling", "suggestion"), [("airgpa", "airgap"), ("privcy", "privacy")])
def test_a_misspelt_key_ends_every_command_that_reads_the_file(
    misspelling: str, suggestion: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    text = f"backends: []\n{misspelling}: true\n"
    Path(".ctxrc").write_text(text, encoding="utf-8")
    Path("notes.md").write_text("We use YAML.\n", encoding="utf-8")
    Path(".context").mkdir()
    result = ctx(*arguments, stdin=b"We use YAML.")
    problem = f"{tmp_path}/.ctxrc:2: {misspelling}: unknown key; did you mean {suggestion}?"
    assert Result(1, "", f"ctxbackends: {problem}\n") == result
    assert text == Path(".ctxrc").read_text(encoding="utf-8")


# --- ctxbackends serve, with a stand-in for llama-server ---------------------------------------------

FAKE_PROGRAM = """
import argparse, http.server, json, os, signal, sys, threading, time

parser = argparse.ArgumentParser()
for flag in ("--model", "--host", "--alias", "--ctx-size", "--parallel", "--threads", "--batch-size", "--ubatch-size"):
    parser.add_argument(flag)
parser.add_argument("--port", type=int)
parser.add_argument("--embeddings", action="store_true")
parser.add_argument("--kv-unified", action="store_true")
options = vars(parser.parse_args())
mode = os.environ["FAKE_MODE"]
with open(os.environ["FAKE_RECORD"], "w") as record:
    json.dump({**options, "key": os.environ.get("LLAMA_API_KEY")}, record)
print("loading", options["model"], flush=True)
if mode == "dies":
    print("\\nno such tensor\\n", file=sys.stderr, flush=True)
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": options["alias"]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.connection.close()
        if mode == "dies-later":
            os.kill(os.getpid(), signal.SIGKILL)
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer((options["host"], options["port"]), Handler).serve_forever(poll_interval=0.02)
"""


@attrs.frozen
class FakeServer:
    """A stand-in for llama-server on the PATH."""

    record: Path

    @property
    def options(self) -> dict[str, Any]:
        """Its arguments, and its key."""
        options: dict[str, Any] = json.loads(self.record.read_text())
        return options


def hide_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    hide_wheel(monkeypatch)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "fake.py").write_text(FAKE_PROGRAM)
    program = programs / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{programs}/fake.py" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_MODE", "serves")
    monkeypatch.setenv("FAKE_RECORD", str(tmp_path / "record.json"))
    return FakeServer(tmp_path / "record.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "some-model.gguf"
    path.write_bytes(b"GGUF and so on")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.posix  # the line for a shell
def test_serve_until_the_server_dies(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies-later")
    port = free_port()
    result = ctx("serve", str(model), "--port", str(port))
    assert (1, "") == (result.code, result.out)
    plain = [line for line in result.err.splitlines() if not line.startswith("waiting for ")]
    assert [
        f"some-model is ready at http://127.0.0.1:{port} (press Ctrl-C to stop)",
        "clients need this API key; in another terminal, run:",
        f"export CTX_SERVE_KEY={fake.options['key']}",
        (
            f"try: ctxbackends chat --backend llamacpp --endpoint http://127.0.0.1:{port} --api-key-env CTX_SERVE_KEY "
            "--model some-model 'Hello'"
        ),
        f"ctxbackends: the llama.cpp server was killed by signal 9 while serving {model}:",
        f"  loading {model}",
        "  another process or the system killed it; is there enough memory for the model?",
    ] == plain
    nothing = dict.fromkeys(("ctx_size", "parallel", "threads", "batch_size", "ubatch_size")) | {
        "embeddings": False,
        "kv_unified": False,
    }
    options = fake.options
    assert len(options.pop("key")) >= 32
    assert {**nothing, "model": str(model), "host": "127.0.0.1", "alias": "some-model", "port": port} == options


def test_serve_generates_a_new_key_each_time(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies-later")
    keys = []
    for _ in range(2):
        ready = json.loads(ctx("serve", str(model), "--port", str(free_port()), "--json").out)
        assert fake.options["key"] == ready["api_key"]
        keys.append(ready["api_key"])
    assert keys[0] != keys[1]


def test_serve_with_the_users_key(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies-later")
    monkeypatch.setenv("SOME_KEY", KEY)
    result = ctx("serve", str(model), "--port", str(free_port()), "--api-key-env", "SOME_KEY")
    assert KEY == fake.options["key"]
    assert " --api-key-env SOME_KEY --model some-model 'Hello'\n" in result.err
    assert "CTX_SERVE_KEY" not in result.err
    assert KEY not in result.out + result.err


def test_serve_without_a_key(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies-later")
    port = free_port()
    result = ctx("serve", str(model), "--port", str(port), "--no-key", "--alias", "it's mine")
    assert fake.options["key"] is None
    assert "API key" not in result.err
    assert "CTX_SERVE_KEY" not in result.err
    endpoint_option = f"--endpoint http://127.0.0.1:{port}"
    assert (
        f"try: ctxbackends chat --backend llamacpp {endpoint_option} --model 'it'\"'\"'s mine' 'Hello'\n" in result.err
    )
    ready = json.loads(ctx("serve", str(model), "--port", str(free_port()), "--no-key", "--json").out)
    assert {"endpoint", "model", "pid"} == ready.keys()


@pytest.mark.linux  # it chooses the platform itself
@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", "export A_NAME=k-1"), ("darwin", "export A_NAME=k-1"), ("win32", "$env:A_NAME = 'k-1'")],
)
def test_the_line_that_sets_the_key(platform: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert expected == set_variable_line("A_NAME", "k-1")


def test_serve_options(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies-later")
    monkeypatch.setenv("SOME_KEY", KEY)
    port = free_port()
    result = ctx(
        *("serve", str(model), "--port", str(port), "--ctx-size", "512", "--parallel", "2", "--threads", "1"),
        *("--alias", "mine", "--api-key-env", "SOME_KEY", "--embeddings", "--json"),
    )
    ready = json.loads(result.out)
    assert isinstance(ready.pop("pid"), int)
    assert {"endpoint": f"http://127.0.0.1:{port}", "model": "mine"} == ready
    assert {
        "model": str(model),
        "host": "127.0.0.1",
        "port": port,
        "alias": "mine",
        "ctx_size": "512",
        "parallel": "2",
        "threads": "1",
        "batch_size": "512",
        "ubatch_size": "512",
        "embeddings": True,
        "kv_unified": True,
        "key": KEY,
    } == fake.options
    assert KEY not in result.out + result.err


def test_serve_a_model_that_does_not_load(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies")
    result = ctx("serve", str(model), "--port", str(free_port()))
    assert (1, "") == (result.code, result.out)
    plain = [line for line in result.err.splitlines() if not line.startswith("waiting for ")]
    problem = f"the llama.cpp server exited with code 3 while serving {model}:"
    hint = "see the end of llama.cpp's log above; if it reports a corrupted or incomplete file, download the file again"
    assert [f'ctxbackends: backend "serve": {problem}', f"  loading {model}", "  no such tensor", f"  {hint}"] == plain


def test_serve_shows_the_log_on_standard_error(
    fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies")
    result = ctx("serve", str(model), "--port", str(free_port()), "--show-log")
    assert (
        f'ctxbackends: backend "serve": the llama.cpp server exited with code 3 while serving {model}\n  see'
        in result.err
    )
    assert ("", f"loading {model}\n\nno such tensor\n\n") == capfd.readouterr()


def test_serve_where_the_variable_is_not_set(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    problem = "environment variable not set: SOME_KEY; set it to the API key that clients must send"
    assert Result(1, "", f"ctxbackends: {problem}\n") == ctx("serve", str(model), "--api-key-env", "SOME_KEY")


@pytest.mark.posix
def test_serve_an_invalid_model_file(tmp_path: Path) -> None:
    where, why = unreadable(tmp_path / "unreadable.gguf")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("hello")
    for path, problem in {
        tmp_path / "none.gguf": f"{tmp_path}/none.gguf: no such file",
        tmp_path: f"{tmp_path} is a directory; name a .gguf file",
        where: f"{where} cannot be read: {why}",
        tmp_path / "empty.gguf": f"{tmp_path}/empty.gguf is empty",
        tmp_path / "text.gguf": f"{tmp_path}/text.gguf is not a GGUF file",
    }.items():
        assert Result(1, "", f"ctxbackends: {problem}\n") == ctx("serve", str(path))


def test_serve_on_a_port_in_use(fake: FakeServer, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        expected = f"ctxbackends: port {port} on 127.0.0.1 is in use; choose another with --port\n"
        assert Result(1, "", expected) == ctx("serve", str(model), "--port", str(port))


def test_serve_where_no_server_is_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_wheel(monkeypatch)
    monkeypatch.setenv("PATH", "/nowhere")
    problem = f"cannot serve {model}: no llama.cpp server is installed; run {install_command()}"
    assert Result(1, "", f'ctxbackends: backend "serve": {problem}\n') == ctx("serve", str(model))


def test_ping_of_a_model_that_is_served_here(fake: FakeServer, model: Path) -> None:
    """A backend with model_path: started for the command, with a key of its own, and gone with it."""
    ctxrc({"name": "llamacpp", "model_path": model.name})
    result = ctx("ping", "--json")
    assert 0 == result.code, result.err
    answer = json.loads(result.out)
    assert (f"http://127.0.0.1:{fake.options['port']}", "some-model") == (answer["endpoint"], answer["model"])
    assert len(fake.options["key"]) >= 24
    assert fake.options["key"] not in result.out + result.err
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", fake.options["port"]))


def test_a_served_model_with_a_configured_key(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    ctxrc({"name": "llamacpp", "model_path": model.name, "api_key_env": "SOME_KEY", "default_model": "mine"})
    assert "mine" == json.loads(ctx("ping", "--json").out)["model"]
    assert (KEY, "mine") == (fake.options["key"], fake.options["alias"])


# --- the process behind it --------------------------------------------------------------------------


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_server_starts_once_and_ends(fake: FakeServer, model: Path) -> None:
    local_server = LocalServer(model, api_key=KEY)
    assert local_server.pid is None
    url = await local_server.start()
    pid = local_server.pid
    assert pid is not None
    assert (url, pid) == (await local_server.start(), local_server.pid)
    assert local_server.failure() is None
    command_line = Path(f"/proc/{pid}/cmdline")
    poll(command_line.read_text)  # for an instant after the start, the kernel shows no arguments
    arguments = await asyncio.to_thread(command_line.read_text)
    assert str(model) in arguments
    assert KEY not in arguments, "every user of the machine can read these"
    await local_server.aclose()
    assert has_ended(pid)
    assert (None, None, ()) == (local_server.pid, local_server.failure(), local_server.log_tail())
    assert model.name == local_server.description
    with pytest.raises(errors.ClosedError):
        await local_server.start()


async def test_a_server_closed_before_its_start(model: Path) -> None:
    local_server = LocalServer(model)
    await local_server.aclose()
    with pytest.raises(errors.ClosedError):
        await local_server.start()


async def test_a_dead_server_is_an_error_for_a_while_then_restarted(
    fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "dies")
    local_server = LocalServer(model)
    await local_server.start()
    first_pid = local_server.pid
    poll(lambda: not local_server.running)
    with pytest.raises(errors.ServerDiedError) as exc_info:
        await local_server.start()
    assert (3, (f"loading {model}", "no such tensor")) == (exc_info.value.exit_code, exc_info.value.log_tail)
    monkeypatch.setenv("FAKE_MODE", "serves")
    with pytest.raises(errors.ServerDiedError):
        await local_server.start()
    monkeypatch.setattr(server, "RELAUNCH_AFTER_SECONDS", 0.0)
    await local_server.start()
    assert local_server.pid not in (None, first_pid)
    await local_server.aclose()


async def test_a_server_that_does_not_end_is_killed(
    fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "stubborn")
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.2)
    local_server = LocalServer(model)
    await serving(local_server)
    pid = local_server.pid
    assert pid is not None
    await local_server.aclose()
    assert has_ended(pid)


async def test_a_cancelled_end_kills_at_once(fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "stubborn")
    monkeypatch.setattr(server, "GRACE_SECONDS", WITHIN)
    local_server = LocalServer(model)
    await serving(local_server)
    pid = local_server.pid
    assert pid is not None
    ending = asyncio.create_task(local_server.aclose())
    await asyncio.sleep(0.1)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert has_ended(pid)


async def serving(local_server: LocalServer) -> None:
    """Started, and listening: then its signals are what it wants them to be."""
    address = await local_server.start()
    port = int(address.rpartition(":")[2])
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


async def test_an_unclosed_server_ends_with_its_object(fake: FakeServer, model: Path) -> None:
    """It ends with the object."""
    local_server = LocalServer(model)
    await local_server.start()
    pid = local_server.pid
    assert pid is not None
    del local_server
    assert has_ended(pid)


@pytest.mark.posix  # on Windows, the plugin replaces Popen
async def test_a_process_that_cannot_be_started(
    fake: FakeServer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(logs))
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        await LocalServer(model).start()
    # Where the wheel serves, the port is held for it: an unclosed socket would be a ResourceWarning.
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        await LocalServer(model).start()
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        await LocalServer(model, inherit_log=True).start()
    assert [] == os.listdir(logs)


async def test_a_port_of_another_machine(fake: FakeServer, model: Path) -> None:
    with pytest.raises(errors.ConfigError) as exc_info:
        await LocalServer(model, host="192.0.2.1", port=8080).start()
    problem = "port 8080 on 192.0.2.1 cannot be used: Cannot assign requested address; choose another with --port"
    assert problem == exc_info.value.problem


@pytest.mark.linux
async def test_the_port_of_a_starting_server_is_reserved(
    fake: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())  # the wheel serves
    problems: list[str] = []

    def take_port(command: list[str], **_: object) -> None:
        with socket.socket() as other, pytest.raises(OSError, match="in use") as exc_info:
            other.bind(("127.0.0.1", json.loads(command[-1])["port"]))
        problems.append(str(exc_info.value))
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", take_port)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        await LocalServer(model).start()
    assert 1 == len(problems)


# --- the worker -------------------------------------------------------------------------------------


class Parameters(SimpleNamespace):
    """The parameters of a build of the wheel."""

    def __init__(self, **names: Any) -> None:
        super().__init__(
            model=SimpleNamespace(path=None), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace(), **names
        )


def wheel(monkeypatch: pytest.MonkeyPatch, **names: Any) -> ModuleType:
    module = ModuleType("xllamacpp")
    vars(module)["CommonParams"] = lambda: Parameters(**names)
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    return module


def worker_options(**overrides: Any) -> dict[str, Any]:
    return {
        "model_path": "/m.gguf",
        "host": "127.0.0.1",
        "port": 8080,
        "alias": "mine",
        "reuse_port": True,
        "parallel": None,
        "ctx_size": None,
        "threads": None,
        "embeddings": False,
        "batch_size": None,
        **overrides,
    }


def test_the_parameters_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(monkeypatch, hostnames=[], ui=True, cors_origins="*", cors_origins_explicit=False, cors_credentials=True)
    monkeypatch.setenv(worker.KEY_VARIABLE, KEY)
    params = worker.parameters(worker_options(parallel=3, ctx_size=512, threads=2, embeddings=True, batch_size=512))
    assert ("/m.gguf", ["127.0.0.1"], 8080, {"mine"}) == (
        params.model.path,
        params.hostnames,
        params.port,
        params.model_alias,
    )
    assert (3, 512, 2, 2) == (
        params.n_parallel,
        params.n_ctx,
        params.cpuparams.n_threads,
        params.cpuparams_batch.n_threads,
    )
    assert (512, 512) == (params.n_batch, params.n_ubatch)
    assert (True, True, True, False) == (params.reuse_port, params.embedding, params.endpoint_slots, params.ui)
    assert ("localhost", True, False) == (params.cors_origins, params.cors_origins_explicit, params.cors_credentials)
    assert [KEY] == params.api_keys
    assert worker.KEY_VARIABLE not in os.environ, "no process that it starts inherits it"


def test_the_parameters_of_an_old_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(monkeypatch, hostname="", webui=True)
    monkeypatch.delenv(worker.KEY_VARIABLE, raising=False)
    params = worker.parameters(worker_options())
    assert ("127.0.0.1", 1, False) == (params.hostname, params.n_parallel, params.webui)
    for unset in ("hostnames", "ui", "api_keys", "n_ctx", "n_batch", "n_ubatch", "cors_origins"):
        assert not hasattr(params, unset)


def test_a_model_that_the_wheel_cannot_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("tensor 'output.weight' is truncated")

    vars(wheel(monkeypatch, hostnames=[]))["Server"] = refuse
    with pytest.raises(SystemExit) as exit_info:
        worker.serve(worker_options())
    assert "error: tensor 'output.weight' is truncated" == exit_info.value.code


def test_a_supervisor_kills_its_program_at_the_end_of_its_input() -> None:
    """As where the kernel does not end the program with its parent."""
    supervisor = "import runpy, sys; sys.exit(runpy.run_path(sys.argv[1])['supervise'](sys.argv[2:]))"
    program = "import time; print('ready', flush=True); time.sleep(3600)"
    with subprocess.Popen(
        [sys.executable, "-c", supervisor, worker.__file__, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        assert process.poll() is None
        out, _ = process.communicate(
            timeout=WITHIN
        )  # closes the input; the output ends with the last of both processes
    assert ("", 1 if sys.platform == "win32" else 128 + 9) == (out, process.returncode)


class Kernel:
    """What the worker asks of the system, without doing it to the process of the tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.handlers: dict[int, Callable[..., object]] = {}
        c_library = SimpleNamespace(prctl=lambda *arguments: self.calls.append(("prctl", *arguments)))
        monkeypatch.setattr(ctypes, "CDLL", lambda _: c_library)
        monkeypatch.setattr(signal, "signal", self.handlers.__setitem__)
        monkeypatch.setattr(os, "_exit", lambda code: self.calls.append(("_exit", code)))
        monkeypatch.setattr(os, "execv", lambda *arguments: self.calls.append(("execv", *arguments)))


def run_worker(monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any]) -> None:
    monkeypatch.setattr(sys, "argv", ["_worker.py", json.dumps(options)])
    runpy.run_path(worker.__file__, run_name="__main__")


@pytest.mark.linux
def test_the_worker_becomes_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    monkeypatch.setenv(worker.KEY_VARIABLE, KEY)
    monkeypatch.setenv("LLAMA_API_KEY", "another")
    monkeypatch.setenv("LLAMA_ARG_CORS_ORIGINS", "https://mine.example")
    monkeypatch.setenv("LLAMA_ARG_CORS_CREDENTIALS", "any")  # so that it is taken away again
    monkeypatch.delenv("LLAMA_ARG_CORS_CREDENTIALS")
    program = ["/bin/llama-server", "--port", "8080"]
    monkeypatch.setattr(worker, "supervise", lambda _: 0)  # execv, which comes back here, would not come back
    monkeypatch.setattr(sys, "argv", ["_worker.py", json.dumps({"parent": os.getppid(), "program": program})])
    with pytest.raises(SystemExit):
        worker.main()
    expected: list[tuple[object, ...]] = [("execv", "/bin/llama-server", program)]
    if sys.platform == "linux":
        expected.insert(0, ("prctl", 1, signal.SIGKILL))
    assert expected == kernel.calls
    assert (KEY, None) == (os.environ["LLAMA_API_KEY"], os.environ.get(worker.KEY_VARIABLE))
    assert "https://mine.example" == os.environ["LLAMA_ARG_CORS_ORIGINS"], "the user's own"
    assert "false" == os.environ["LLAMA_ARG_CORS_CREDENTIALS"]
    with pytest.raises(SystemExit):
        worker.main()
    assert KEY == os.environ["LLAMA_API_KEY"], "without a key of ours, what is there stays"


@pytest.mark.parametrize("is_readable", [True, False])
def test_the_worker_serves_until_its_input_ends(
    is_readable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Kernel(monkeypatch)
    loads: list[Any] = []

    def load(params: object) -> SimpleNamespace:
        loads.append(params)
        return SimpleNamespace(listening_address="http://127.0.0.1:8080")

    vars(wheel(monkeypatch, hostnames=[]))["Server"] = load
    pieces = [b"x", b""]

    def read(*_: object) -> bytes:
        if not is_readable:
            raise OSError(9, "Bad file descriptor")
        return pieces.pop(0)

    monkeypatch.setattr(os, "read", read)
    run_worker(monkeypatch, worker_options(parent=os.getppid()))
    assert "ready on http://127.0.0.1:8080\n" == capsys.readouterr().err
    assert "/m.gguf" == loads[0].model.path
    assert {signal.SIGTERM, signal.SIGINT} == kernel.handlers.keys()
    assert ("_exit", 1) not in kernel.calls
    kernel.handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ("_exit", 1) == kernel.calls[-1], "it was told before: at once now"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_worker_whose_parent_ended_exits(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Between its start and its wish to die with the parent."""
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SystemExit) as exit_info:
        run_worker(monkeypatch, {"parent": os.getpid()})
    assert "the parent process has ended already" == exit_info.value.code
    assert (1 if platform == "linux" else 0) == len(kernel.calls)
