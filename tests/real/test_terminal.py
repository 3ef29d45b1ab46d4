"""The command line over a real llama.cpp server, at a real terminal and without one."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import ctxbackends
from ctxbackends import LocalServer, LocalServerUnavailableError, open_backend
from ctxbackends.local import _process as local_server
from ctxbackends.local._models import install_command
from ctxbackends.testing import VARIANTS, cached_model
from tests.real.conftest import wait_for_slots
from tests.terminals import PseudoTerminal, Screen, environment

if sys.platform == "win32":
    pytest.skip("needs a terminal of POSIX", allow_module_level=True)

import pty

pytestmark = pytest.mark.real

WITHIN = 60.0
COLUMNS = 132
ROWS = 30
KEY = "sk-test-0123456789abcdef"

# In the new session: take the terminal, so that its Ctrl-C reaches us, and become the program. A background job ignores
# the interrupt, and would hand that on.
_START = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
if os.isatty(2):
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", _START, "-m", "ctxbackends", *arguments]


# --- a terminal -------------------------------------------------------------------------------------


class Terminal(PseudoTerminal):
    """A program at a pseudo-terminal of its own. ``reads``: what it wrote, piece by piece, and when."""

    within = WITHIN

    def __init__(self, *arguments: str, **variables: str) -> None:
        super().__init__()
        self._master, slave = pty.openpty()
        self._set_size(slave, COLUMNS, ROWS)
        self.reads: list[tuple[float, bytes]] = []
        try:
            self.process = subprocess.Popen(
                command(*arguments),
                env=environment(**variables),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)

    def _keep(self, data: bytes) -> None:
        self.reads.append((time.monotonic(), data))
        super()._keep(data)

    def read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert self.read(), f"it ended too soon: {self.raw}"
            assert time.monotonic() < deadline, f"it did not happen in time: {self.raw}"

    def type(self, text: bytes) -> None:
        os.write(self._master, text)


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[Terminal]:
    at = Terminal(*arguments, **variables)
    try:
        yield at
    finally:
        at.close()


def screen(raw: str) -> list[str]:
    """The lines that are left on a terminal that was sent ``raw``."""
    left = Screen(COLUMNS, ROWS)
    left.feed(raw)
    return left.lines


@contextmanager
def program(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Without a terminal."""
    with subprocess.Popen(
        command(*arguments),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ctx(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )


# --- servers ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no .ctxrc here."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny() -> Path:
    return cached_model(VARIANTS["tiny"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """Of every thread: the kernel lists a child under the thread that started it. One may end meanwhile."""
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            pids += [int(child) for child in task.joinpath("children").read_text().split()]
    return pids


def has_ended(pid: int) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def backend_options(endpoint: str) -> tuple[str, ...]:
    return ("--backend", "llamacpp", "--endpoint", endpoint)


# --- at a terminal -----------------------------------------------------------------------------------


async def test_ping_waits_with_one_live_line() -> None:
    """The program is there before the server: it sees the refused connection, the loading and the answer."""
    port = free_port()
    server = LocalServer(cached_model(VARIANTS["slow-load"]), port=port, alias="slow-load", threads=1)
    with terminal("ping", *backend_options(f"http://127.0.0.1:{port}")) as at:
        await asyncio.to_thread(at.read_until, lambda: "(refused, " in at.raw)
        try:
            await server.start()
            assert 0 == await asyncio.to_thread(at.end), at.raw
        finally:
            await server.aclose()
    updates = [piece for piece in at.raw.split("\x1b[J") if "waiting for" in piece]
    assert len(updates) > 1, "it was written anew"
    assert f"waiting for http://127.0.0.1:{port} (loading, " in at.raw
    assert 1 == max(piece.count("waiting for") for piece in updates), "and each time over the last one"
    assert [
        "backend   llamacpp",
        f"endpoint  http://127.0.0.1:{port}",
        "model     slow-load",
    ] == [line for line in screen(at.raw) if line]


async def test_chat_streams_and_ends_on_ctrl_c() -> None:
    server = LocalServer(cached_model(VARIANTS["slow-tokens"]), alias="slow-tokens", threads=1, ctx_size=4096)
    try:
        endpoint = await server.start()
        async with open_backend("llamacpp", endpoint=endpoint) as backend:
            await backend.wait_ready()
        with terminal("chat", *backend_options(endpoint), "--model", "slow-tokens", "Hello") as at:
            await asyncio.to_thread(at.read_until, lambda: len(at.reads) >= 8)
            assert 1 == await wait_for_slots(1, endpoint, within=WITHIN)
            at.type(b"\x03")
            assert 130 == await asyncio.to_thread(at.end), at.raw
        assert 0 == await wait_for_slots(0, endpoint, within=WITHIN)
        # Nothing is wrong with the server: it answers the next one.
        async with open_backend("llamacpp", endpoint=endpoint, default_model="slow-tokens") as backend:
            assert (await backend.complete("Hello", max_tokens=2)).text
    finally:
        await server.aclose()
    assert at.reads[7][0] - at.reads[0][0] > 0.01, "the pieces came over time"
    assert "Traceback" not in at.raw
    assert at.raw.endswith("\r\ninterrupted\r\n")


# --- ctxbackends serve -------------------------------------------------------------------------------


def test_serve_at_a_terminal_until_ctrl_c(tiny: Path) -> None:
    port = free_port()
    with terminal("serve", str(tiny), "--port", str(port), "--alias", "tiny", "--threads", "1") as at:
        at.read_until(lambda: "--model tiny 'Hello'\r\n" in at.raw)
        (server,) = children(at.process.pid)
        assert os.getsid(server) != os.getsid(at.process.pid), "or Ctrl-C would end it before its clients are told"
        key = re.search("^export CTX_SERVE_KEY=(.+)$", at.raw.replace("\r", ""), re.MULTILINE)
        assert key is not None
        ping = ctx(
            *("ping", *backend_options(f"http://127.0.0.1:{port}"), "--api-key-env", "CTX_SERVE_KEY", "--json"),
            CTX_SERVE_KEY=key[1],
        )
        second = ctx("serve", str(tiny), "--port", str(port))
        at.type(b"\x03")
        assert 130 == at.end(), at.raw
        assert has_ended(server)
    assert (1, "") == (second.returncode, second.stdout)
    assert f"ctxbackends: port {port} on 127.0.0.1 is in use; choose another with --port\n" == second.stderr
    assert 0 == ping.returncode, ping.stderr
    assert ("llamacpp", f"http://127.0.0.1:{port}", "tiny") == tuple(
        json.loads(ping.stdout)[name] for name in ("backend", "endpoint", "model")
    )
    assert "Traceback" not in at.raw
    lines = [line for line in screen(at.raw) if line]
    assert f"tiny is ready at http://127.0.0.1:{port} (press Ctrl-C to stop)" == lines[0]
    assert "interrupted" == lines[-1]


def test_the_printed_commands_of_serve_work(tiny: Path, tmp_path: Path) -> None:
    """Run by a shell, word for word; and the key is in no other place that serve writes to."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "ctxbackends").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ctxbackends "$@"\n')
    (tmp_path / "programs" / "ctxbackends").chmod(0o755)
    path = f"{tmp_path}/programs{os.pathsep}{os.environ['PATH']}"
    options = ("--port", str(free_port()), "--alias", "my tiny", "--ctx-size", "64", "--threads", "1", "--show-log")
    with program("serve", str(tiny), *options) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("try: "):
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        export, chat = lines[-2], lines[-1].removeprefix("try: ")
        arguments = Path(f"/proc/{children(process.pid)[0]}/cmdline").read_text(encoding="utf-8")
        shells = [
            subprocess.run(
                ["/bin/sh", "-c", script], env=environment(PATH=path), capture_output=True, text=True, timeout=WITHIN
            )
            for script in (export + chat, chat)
        ]
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=WITHIN)
    success, rejection = shells
    assert 0 == success.returncode, success.stderr
    assert success.stdout.strip()
    assert (1, "") == (rejection.returncode, rejection.stdout), "without the variable"
    assert "environment variable not set: CTX_SERVE_KEY" in rejection.stderr
    key = export.removeprefix("export CTX_SERVE_KEY=").strip()
    assert len(key) >= 32
    output = "".join(line for line in lines if line != export)
    assert "llama" in output, "its log is there too"
    assert key not in output + arguments + out + rest + success.stdout + success.stderr


def test_serve_until_it_is_terminated(tiny: Path) -> None:
    """Without a terminal: plain lines; the data alone is on standard output; the key is asked for and never shown."""
    port = free_port()
    options = ("--alias", "tiny", "--threads", "1", "--ctx-size", "512", "--parallel", "2", "--embeddings")
    with program(
        *("serve", str(tiny), "--port", str(port), *options, "--api-key-env", "SOME_KEY", "--json"), SOME_KEY=KEY
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        arguments = Path(f"/proc/{ready['pid']}/cmdline").read_text(encoding="utf-8") + Path(
            f"/proc/{process.pid}/cmdline"
        ).read_text(encoding="utf-8")
        endpoint = f"http://127.0.0.1:{port}"
        chat = ("chat", *backend_options(endpoint), "--model", "tiny", "--max-tokens", "2", "Hello")
        rejection = ctx(*chat)
        success = ctx(*chat, "--api-key-env", "SOME_KEY", SOME_KEY=KEY)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WITHIN)
    assert {"endpoint": endpoint, "model": "tiny"} == {name: ready[name] for name in ("endpoint", "model")}
    assert KEY not in arguments
    assert 1 == rejection.returncode
    assert "HTTP 401: " in rejection.stderr
    assert rejection.stderr.endswith(
        "\n  no API key was sent; use --api-key-env VARIABLE with the name of its environment variable\n"
    )
    assert 0 == success.returncode, success.stderr
    assert success.stdout.strip()
    assert (130, "") == (process.returncode, out)
    assert has_ended(ready["pid"])
    assert KEY not in err
    assert "\x1b" not in err
    updates = err.removesuffix("\ninterrupted\n")
    assert updates != err, "nothing else comes after the waits"
    assert all(line.startswith(f"waiting for {tiny.name} (") for line in updates.splitlines())


def test_serve_that_is_killed_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    options = ("--port", str(free_port()), "--threads", "1", "--json")
    with program("serve", str(tiny), *options, TMPDIR=str(tmp_path)) as process:  # nobody takes its log away
        assert process.stdout is not None
        server = json.loads(process.stdout.readline())["pid"]
        assert not has_ended(server)
        process.kill()
        process.wait(WITHIN)
        wait_until(lambda: has_ended(server))


def test_serve_reports_that_its_server_died(tiny: Path) -> None:
    with program("serve", str(tiny), "--port", str(free_port()), "--threads", "1", "--json") as process:
        assert process.stdout is not None
        os.kill(json.loads(process.stdout.readline())["pid"], signal.SIGKILL)
        _, err = process.communicate(timeout=WITHIN)
    assert 1 == process.returncode
    assert f"ctxbackends: the llama.cpp server was killed by signal 9 while serving {tiny}" in err
    assert "Traceback" not in err


def test_serve_a_truncated_model(tiny: Path, tmp_path: Path) -> None:
    truncated_file = tmp_path / "truncated.gguf"
    truncated_file.write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])
    result = ctx("serve", str(truncated_file), "--port", str(free_port()))
    assert (1, "") == (result.returncode, result.stdout)
    assert (
        f'ctxbackends: backend "serve": the llama.cpp server exited with code 1 while serving {truncated_file}:\n'
        in result.stderr
    )
    assert "Traceback" not in result.stderr


# --- llama-server on the PATH -------------------------------------------------------------------------

# The flags as `llama-server --help` documents them; an unknown one is an error there too.
STAND_IN = """
import argparse, json, os, sys
sys.path.insert(0, os.environ["TEST_WORKER_DIRECTORY"])
import _worker as worker

parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
for flag in ("--model", "--host", "--alias"):
    parser.add_argument(flag, required=True)
for flag in ("--port", "--ctx-size", "--parallel", "--threads", "--batch-size", "--ubatch-size"):
    parser.add_argument(flag, type=int)
parser.add_argument("--embeddings", action="store_true")
parser.add_argument("--kv-unified", action="store_true")
options = vars(parser.parse_args())
options |= {"model_path": options.pop("model"), "reuse_port": False}
key = os.environ.get("LLAMA_API_KEY")
with open(os.environ["TEST_RECORD"], "w") as record:
    json.dump({**options, "key": key}, record)
if key:
    os.environ[worker.KEY_VARIABLE] = key
reader, writer = os.pipe()
os.dup2(reader, 0)  # llama-server does not read its standard input
worker.serve(options)  # both batch sizes are batch_size there
"""


@attrs.frozen
class StandIn:
    """A program named llama-server on the PATH."""

    record: Path

    @property
    def options(self) -> dict[str, Any]:
        """Its options, and its key."""
        options: dict[str, Any] = json.loads(self.record.read_text())
        return options


@pytest.fixture
def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """xllamacpp is not importable here; the stand-in, a process of its own, has it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))


@pytest.fixture
def llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_wheel: None) -> StandIn:
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "stand_in.py").write_text(STAND_IN)
    script = directory / "llama-server"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{directory}/stand_in.py" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TEST_WORKER_DIRECTORY", str(Path(local_server.__file__).parent))
    monkeypatch.setenv("TEST_RECORD", str(tmp_path / "record.json"))
    return StandIn(tmp_path / "record.json")


async def test_llama_server_on_the_path(llama_server: StandIn, tiny: Path) -> None:
    server = LocalServer(
        tiny, alias="tiny", ctx_size=1024, parallel=2, threads=1, api_key=KEY, embeddings=True, port=free_port()
    )
    try:
        endpoint = await server.start()
        pid = server.pid
        assert pid is not None
        async with open_backend(
            "llamacpp", endpoint=endpoint, default_model="tiny", api_key=KEY, ready_timeout=WITHIN
        ) as backend:
            await backend.wait_ready()
            (model,) = await backend.models()
            answer = await backend.complete("Hello", max_tokens=4)
            embeddings = await backend.embed(["a", "b"])
    finally:
        await server.aclose()
    assert ("tiny", 1024) == (model.id, model.context_length)
    assert answer.text
    assert 2 == len(embeddings.vectors)
    assert has_ended(pid)
    host, port = endpoint.removeprefix("http://").split(":")
    assert {
        "model_path": str(tiny),
        "host": host,
        "port": int(port),
        "alias": "tiny",
        "ctx_size": 1024,
        "parallel": 2,
        "threads": 1,
        "embeddings": True,
        "kv_unified": True,
        "batch_size": 1024,
        "ubatch_size": 1024,
        "reuse_port": False,
        "key": KEY,
    } == llama_server.options


async def test_llama_server_on_the_path_with_defaults(llama_server: StandIn, tiny: Path) -> None:
    """A free port, and none of the flags that were not asked for."""
    async with ctxbackends.serve_model(tiny, alias="tiny") as backend:
        assert "tiny" == (await backend.ping()).model
    options = llama_server.options
    flags = ("ctx_size", "parallel", "threads", "batch_size", "ubatch_size")
    assert {**dict.fromkeys(flags), "embeddings": False} == {name: options[name] for name in (*flags, "embeddings")}
    assert len(options["key"]) >= 32  # nobody chose one, so it is a fresh one


# Without the wheel, start a server, say which process it is, and wait.
PARENT = """
import asyncio, importlib.util, sys, time
from ctxbackends import LocalServer

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "xllamacpp" else find_spec(name)
server = LocalServer(sys.argv[1])
asyncio.run(server.start())
print(server.pid, flush=True)
time.sleep(600)
"""


def test_llama_server_ends_with_a_parent_that_is_killed(llama_server: StandIn, tiny: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny)],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        wait_until(llama_server.record.exists)  # it is the other program by now
        parent.kill()
        parent.wait(WITHIN)
        wait_until(lambda: has_ended(server))


async def test_neither_the_wheel_nor_the_program(
    without_wheel: None, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LocalServerUnavailableError) as exc_info:
        await LocalServer(tiny).start()
    message = f"cannot serve {tiny}: no llama.cpp server is installed; run {install_command()}"
    assert message == str(exc_info.value)


# --- the worker -------------------------------------------------------------------------------------


def worker_process(tiny: Path, **options: Any) -> subprocess.Popen[bytes]:
    fields: dict[str, Any] = {"parallel": None, "ctx_size": 512, "threads": 1, "embeddings": False, "reuse_port": False}
    fields |= {"batch_size": None, "model_path": str(tiny), "host": "127.0.0.1", "port": free_port(), "alias": "tiny"}
    worker = Path(local_server.__file__).with_name("_worker.py")
    return subprocess.Popen(
        [sys.executable, "-P", str(worker), json.dumps({**fields, "parent": os.getpid(), **options})],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def read_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if ready := re.search(rb"ready on (http://127\.0\.0\.1:\d+)", line):  # llama.cpp may be in the middle of a line
            # llama.cpp ignores an order to stop that comes before its main loop, which answers this request.
            slots = f"{ready[1].decode()}/slots"
            with urllib.request.urlopen(slots, timeout=WITHIN) as response:  # noqa: S310  # a loopback address
                assert 200 == response.status
            return
    raise AssertionError("it ended before it was ready")


def drain(process: subprocess.Popen[bytes]) -> threading.Thread:
    """Its log is read on: a full pipe would stop it."""
    assert process.stderr is not None
    reading = threading.Thread(target=process.stderr.read)
    reading.start()
    return reading


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_ends_gracefully_when_it_is_told_to(tiny: Path, number: signal.Signals) -> None:
    with worker_process(tiny) as process:
        read_ready(process)
        process.send_signal(number)
        reading = drain(process)
        assert 0 == process.wait(WITHIN)
        reading.join()


def test_the_worker_ends_with_its_standard_input(tiny: Path) -> None:
    """Where no kernel tells it that its parent has gone."""
    with worker_process(tiny) as process:
        read_ready(process)
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.close()
        reading = drain(process)
        assert 0 == process.wait(WITHIN)
        reading.join()
