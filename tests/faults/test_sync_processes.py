"""`ctxbackends.sync` and the processes it lives in: their exit, Ctrl-C, forks and children."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import ctxbackends
from ctxbackends.testing import FaultServer, faults

STRICT = ("-X", "dev", "-W", "error")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


PRELUDE = """
import asyncio, os, signal, sys, threading
from ctxbackends import BackendConfig, ClosedError
from ctxbackends.sync import SyncRegistry, open_backend

config = BackendConfig(name="one", type="vllm", endpoint=sys.argv[1], default_model="m", max_concurrency=1)
"""


def start(code: str, server: FaultServer, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.Popen(
        [sys.executable, *options, "-c", PRELUDE + code, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=environment,
    )


def complaints(errors: str) -> list[str]:
    """The lines of standard error, without what asyncio's debug mode tells of a slow machine."""
    return [line for line in errors.splitlines() if not line.startswith("Executing ")]


def some(cases: Iterable[str], *always: str) -> list[object]:
    """All cases, of which those that are not named run only in `nox -s tests_full`."""
    return [case if case in always else pytest.param(case, marks=pytest.mark.full) for case in cases]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- exit -------------------------------------------------------------------------------------------

EXITS = {
    "closed": """
with SyncRegistry([config]) as registry:
    print(registry.default().complete("Hello").text)
""",
    "not closed": """
registry = SyncRegistry([config])
print(registry.default().complete("Hello").text)
""",
    "without a name": """
print(SyncRegistry([config]).default().complete("Hello").text)
""",
    "with an open stream": """
backend = SyncRegistry([config]).default()
stream = backend.stream("Hello")
stream.__enter__()
next(stream)
print("Hello, world.")
""",
    "with an open backend": """
opened = open_backend("vllm", endpoint=sys.argv[1], default_model="m")
print(opened.__enter__().complete("Hello").text)
""",
    "in a thread": """
thread = threading.Thread(target=lambda: print(SyncRegistry([config]).default().complete("Hello").text))
thread.start()
thread.join()
""",
    "under a loop": """
registry = SyncRegistry([config])
async def main():
    return registry.default().complete("Hello").text
asyncio.run(main())
print(asyncio.run(main()))
""",
    "on another loop too": """
registry = SyncRegistry([config])
async def main():
    return (await registry.async_registry.default().complete("Hello")).text
registry.default().complete("Hello")
print(asyncio.run(main()))
""",
    "by an error": """
registry = SyncRegistry([config])
print(registry.default().complete("Hello").text)
sys.exit(0)
""",
    "never used": """
registry = SyncRegistry([config])
registry.default()
print("Hello, world.")
""",
}


@pytest.mark.parametrize("how", some(EXITS, "not closed", "with an open stream", "under a loop"))
def test_nothing_is_left_open_at_exit(server: FaultServer, how: str) -> None:
    process = start(EXITS[how], server, *STRICT)
    output, errors = process.communicate(timeout=60)
    assert ("Hello, world.\n", [], 0) == (output, complaints(errors), process.returncode)
    server.wait_idle_sync()


def test_exit_while_a_daemon_thread_waits(server: FaultServer) -> None:
    server.play_always(faults.no_response())
    process = start(
        """
def ask():
    try:
        registry.default().complete("Hello")
    except ClosedError as error:
        print("closed:", error)

registry = SyncRegistry([config])
threading.Thread(target=ask, daemon=True).start()
sys.stdin.readline()
""",
        server,
        *STRICT,
    )
    wait_for(lambda: server.generations, process)
    _, errors = process.communicate("\n", timeout=60)
    assert ([], 0) == (complaints(errors), process.returncode)
    server.wait_idle_sync()


def test_a_call_after_the_loop_is_closed(server: FaultServer) -> None:
    process = start(
        """
import atexit

def call_late():
    try:
        registry.default().complete("Hello")
    except ClosedError as error:
        print("closed:", error)

atexit.register(call_late)
registry = SyncRegistry([config])
from ctxbackends.sync import _loop_thread
atexit.unregister(_loop_thread.shared.exit)
atexit.register(_loop_thread.shared.exit)  # runs first
""",
        server,
        *STRICT,
    )
    output, errors = process.communicate(timeout=60)
    assert ("", 0) == (errors, process.returncode)
    assert output == "closed: ctxbackends.sync is closed: the interpreter exits\n"


# --- Ctrl-C -----------------------------------------------------------------------------------------

WAITS = {
    "complete": 'backend.complete("Hello")',
    "opening": """
with backend.stream("Hello") as stream:
    print("open")
""",
    "iteration": """
with backend.stream("Hello") as stream:
    for event in stream:
        pass
""",
    "final completion": """
with backend.stream("Hello") as stream:
    stream.get_final_completion()
""",
    "embed": 'backend.embed(["Hello"])',
    "a cold start": 'backend.complete("Hello", on_progress=lambda loading: None)',
    "a slot": """
with backend.stream("Hello") as stream:
    next(stream)
    backend.complete("Hello")
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process there")
@pytest.mark.parametrize("how", some(WAITS, "complete", "iteration"))
def test_an_interrupt_cancels_the_request(server: FaultServer, how: str) -> None:
    """And the next request gets its slot."""
    cut = {"a cold start": faults.loading(1000), **dict.fromkeys(("iteration", "final completion"), faults.stall())}
    server.play_always({**cut, "a slot": faults.stall()}.get(how, faults.no_response()))
    process = start(
        f"""
with SyncRegistry([config]) as registry:
    backend = registry.default()
    try:
        print("waiting", flush=True)
{textwrap.indent(WAITS[how].strip(), "        ")}
    except KeyboardInterrupt as error:
        print("interrupted", error.__context__, flush=True)
    sys.stdin.readline()
    print(backend.complete("Hello").text)
""",
        server,
        *STRICT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    wait_for(lambda: server.generations, process)
    time.sleep(0.3)  # so that it waits in the call of its test; the others pass too
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted None\n"
    server.wait_idle_sync()
    server.clear()
    output, errors = process.communicate("\n", timeout=60)
    assert ("Hello, world.\n", [], 0) == (output, complaints(errors), process.returncode)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process there")
def test_an_interrupt_that_nobody_handles(server: FaultServer) -> None:
    server.play_always(faults.no_response())
    process = start('SyncRegistry([config]).default().complete("Hello")\n', server, *STRICT)
    wait_for(lambda: server.generations, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")
    assert "During handling" not in errors
    assert "Exception ignored" not in errors
    server.wait_idle_sync()


# --- forks and other processes ----------------------------------------------------------------------

FORKS = {
    "sync": """
registry = SyncRegistry([config])
backend = registry.default()
print(backend.complete("Hello").text, flush=True)
if os.fork() == 0:
    print(backend.complete("Hello").text, flush=True)
    os._exit(0)
os.wait()
print(backend.complete("Hello").text, flush=True)
""",
    "sync, and the child exits as usual": """
registry = SyncRegistry([config])
backend = registry.default()
print(backend.complete("Hello").text, flush=True)
process = os.fork()
if process:
    os.wait()
print(backend.complete("Hello").text, flush=True)
""",
    "a stream is open": """
backend = SyncRegistry([config]).default()
with backend.stream("Hello") as stream:
    next(stream)
    if os.fork() == 0:
        print(backend.complete("Hello").text, flush=True)  # the slot is the parent's
        os._exit(0)
    os.wait()
    print(stream.get_final_completion().text, flush=True)
print(backend.complete("Hello").text, flush=True)
""",
    "async": """
from ctxbackends import Registry
registry = Registry([config])
async def use():
    print((await registry.default().complete("Hello")).text, flush=True)
async def main():
    await use()
    if os.fork() == 0:
        asyncio.run(use())
        os._exit(0)
    os.wait()
    await use()
asyncio.run(main())
""",
    "async, in a slot": """
from ctxbackends import Registry
registry = Registry([config])
async def use():
    print((await registry.default().complete("Hello")).text, flush=True)
async def main():
    async with registry.default().stream("Hello") as stream:
        await anext(stream)
        if os.fork() == 0:
            asyncio.run(use())
            os._exit(0)
        os.wait()
        print((await stream.get_final_completion()).text, flush=True)
    await use()
asyncio.run(main())
""",
    "threads are busy": """
registry = SyncRegistry([config])
backend = registry.default()
is_over = threading.Event()
def work():
    while not is_over.is_set():
        backend.complete("Hello")
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    if os.fork() == 0:
        backend.complete("Hello")
        os._exit(0)
    assert os.wait()[1] == 0
is_over.set()
for thread in threads:
    thread.join()
print("Hello, world.\\nHello, world.")
print(backend.complete("Hello").text)
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("how", some(FORKS, "sync", "async, in a slot", "threads are busy"))
def test_a_forked_process_has_its_own_connections(server: FaultServer, how: str) -> None:
    process = start(FORKS[how], server)
    output, errors = process.communicate(timeout=90)
    errors = "".join(line for line in errors.splitlines() if "DeprecationWarning" not in line and "os.fork" not in line)
    assert ("Hello, world.\n" * 3, "", 0) == (output, errors, process.returncode)
    server.wait_idle_sync()


POOL = """
import asyncio, multiprocessing, sys
from ctxbackends import BackendConfig, Registry
from ctxbackends.sync import SyncRegistry

def ask(config):
    with SyncRegistry([config]) as registry:
        return registry.default().complete("Hello").text

def ask_async(config):
    async def main():
        async with Registry([config]) as registry:
            return (await registry.default().complete("Hello")).text

    return asyncio.run(main())

if __name__ == "__main__":
    url, method, name = sys.argv[1:]
    config = BackendConfig(name="one", type="vllm", endpoint=url, default_model="m")
    function = globals()[name]
    print(function(config))
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(*pool.map(function, [config] * 4, chunksize=1), sep="\\n")
"""


@pytest.mark.parametrize("function", ["ask", "ask_async"])
@pytest.mark.parametrize("method", some(["fork", "spawn", "forkserver"], "fork"))
def test_multiprocessing(server: FaultServer, method: str, function: str, tmp_path: Path) -> None:
    """In a program of its own, which its other processes can import."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    program = tmp_path / "program.py"
    program.write_text(POOL)
    environment = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}
    arguments = [sys.executable, str(program), server.url, method, function]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=90, check=False)
    assert ("Hello, world.\n" * 5, 0) == (done.stdout, done.returncode), done.stderr
