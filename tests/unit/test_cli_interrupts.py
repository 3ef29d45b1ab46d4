"""A Ctrl-C before a command has begun: one word, exit code 130, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ctxbackends import _cli as cli
from tests.unit.test_cli import WITHIN, Result, ctx, environment

INTERRUPTED_IMPORT = """
import os, signal, sys

NAME = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

from ctxbackends._cli import ctxbackends
interrupter = Interrupter()
sys.meta_path.insert(0, interrupter)
try:
    ctxbackends()
finally:
    if interrupter in sys.meta_path:
        sys.exit("it was not imported")
"""


@pytest.mark.posix
@pytest.mark.parametrize(
    "module",
    [
        *("click", "ctxbackends._cli.root", "ctxbackends._cli.ai", "asyncio"),
        *("ctxbackends._config.ctxrc_file", "ctxbackends._registry", "ctxbackends.errors", "aiohttp"),
    ],
)
def test_an_interrupted_import(module: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, "ping", "--backend", "vllm"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert (130, "", "\ninterrupted\n") == (result.returncode, result.stdout, result.stderr)


def test_the_handler_of_the_caller_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ctxbackends", "--version"])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        cli.ctxbackends()
    assert before is signal.getsignal(signal.SIGINT)
    assert capsys.readouterr().out.startswith("ctxbackends ")


def test_a_background_job_ignores_the_signal() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cli.exit_on_interrupt()
        assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=cli.exit_on_interrupt)
    thread.start()
    thread.join()
    assert before is signal.getsignal(signal.SIGINT)


def test_an_interrupt_that_an_import_turned_into_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until Python 3.12, an exception while a class is created becomes a RuntimeError."""

    def fail(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ctxbackends._registry.Registry.from_ctxrc", fail)
    assert Result(130, "", "\ninterrupted\n") == ctx("ping")
