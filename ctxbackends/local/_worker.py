"""The child process: run the llama.cpp server of the `xllamacpp` wheel, or the program `llama-server`.

It imports only the standard library and the wheel. Run as ``python -P _worker.py '<json>'``. The API key is passed in
the environment, since arguments are visible to every user of the machine. Signals act as on llama-server: SIGTERM ends
the process at once while the model loads, and gracefully after that; a second one ends it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

KEY_VARIABLE = "CTXBACKENDS_WORKER_API_KEY"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_SECONDS = 10.0
"""Seconds for the server to stop; then the process exits with code 1."""
SIGNAL_SECONDS = 1.0
"""The longest wait in one call: a signal that arrives just before a call begins does not interrupt it."""


def end_with_parent(parent: int) -> None:
    """Be killed by the kernel when the parent dies, however it dies (Linux; elsewhere standard input ends then)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # On Windows, the parent may be the launcher of a virtual environment, which starts the Python that this is.
    if sys.platform != "win32" and os.getppid() != parent:
        sys.exit("the parent process has ended already")


def _wheel() -> Any:
    return importlib.import_module("xllamacpp")  # has no type information


def parameters(options: dict[str, Any]) -> Any:
    """The wheel's parameters. Names that differ between its builds are tried in turn."""
    params = _wheel().CommonParams()
    params.model.path = options["model_path"]
    if hasattr(params, "hostnames"):
        params.hostnames = [options["host"]]
    else:  # builds before 2026.9
        params.hostname = options["host"]
    params.port = options["port"]
    params.reuse_port = options["reuse_port"]
    params.model_alias = {options["alias"]}
    params.n_parallel = options["parallel"] or 1
    params.endpoint_slots = True
    params.embedding = options["embeddings"]
    # With a cache for each slot, llama.cpp cuts texts of different lengths in one batch into parts, and pools each part
    # alone: the vector of a text then depends on its neighbours (measured, b8672 and b11549).
    params.kv_unified = options["embeddings"]
    if options["batch_size"]:
        params.n_batch = params.n_ubatch = options["batch_size"]
    for name in ("ui", "webui"):
        if hasattr(params, name):
            setattr(params, name, False)
    if hasattr(params, "cors_origins"):  # builds without it let every web page read the answers
        params.cors_origins, params.cors_origins_explicit, params.cors_credentials = "localhost", True, False
    if options["ctx_size"]:
        params.n_ctx = options["ctx_size"]
    if options["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    key = os.environ.pop(KEY_VARIABLE, "")
    if key:
        params.api_keys = [key]
    return params


def serve(options: dict[str, Any]) -> None:
    """Load the model, serve it, and return when the process is told to end."""
    ended = threading.Event()
    try:
        # Keeps the GIL until the model is loaded: until then a signal has its default effect, and no other thread runs.
        server = _wheel().Server(parameters(options))
    except (RuntimeError, ValueError, OverflowError) as error:
        sys.exit(f"error: {error}")

    def end(*_: object) -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    threading.Thread(target=_watch_input, args=(end,), daemon=True).start()
    sys.stderr.write(f"ready on {server.listening_address}\n")
    while not ended.wait(SIGNAL_SECONDS):
        pass
    # llama.cpp waits forever if it is told to stop just before it listens. The watchdog needs no GIL, which the wheel
    # does not release here.
    faulthandler.dump_traceback_later(STOP_SECONDS, exit=True, file=2)
    del server
    faulthandler.cancel_dump_traceback_later()


def _watch_input(end: Any) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    end()


def supervise(program: list[str]) -> int:
    """Run ``program`` until it ends and return its exit code: 128 plus the number if it was killed by a signal.

    A SIGTERM is passed on, and the program is killed at the end of standard input, for platforms whose kernel does not
    end a process with its parent.
    """
    process = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    threading.Thread(target=_watch_input, args=(process.kill,), daemon=True).start()
    waiting = threading.Thread(target=process.wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(SIGNAL_SECONDS)
    code = process.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    options = json.loads(sys.argv[1])
    end_with_parent(options["parent"])
    if options.get("program"):
        key = os.environ.pop(KEY_VARIABLE, "")
        if key:
            os.environ["LLAMA_API_KEY"] = key
        # Flags that an older program does not know would end it; variables that it does not know do nothing.
        for name, value in {"LLAMA_ARG_CORS_ORIGINS": "localhost", "LLAMA_ARG_CORS_CREDENTIALS": "false"}.items():
            os.environ.setdefault(name, value)
        if sys.platform == "linux":
            os.execv(options["program"][0], options["program"])  # noqa: S606  # no shell; the arguments are ours
        sys.exit(supervise(options["program"]))
    serve(options)


if __name__ == "__main__":
    main()
