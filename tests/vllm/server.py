"""Owns the process of a real vLLM server: its command line, its environment, its log and its end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

PYTHON_VARIABLE: Final = "CTXBACKENDS_TEST_VLLM_PYTHON"
"""The Python that has vLLM; the nox session ``e2e_vllm`` sets it."""

MODEL_NAME: Final = "tiny"
CONTEXT_TOKENS: Final = 4096

READY_SECONDS: Final = 240.0  # 20 to 55 on two shared cores
_STOP_SECONDS: Final = 8.0  # an idle server takes 0.4 to 2.7; one with a request in flight may never end by itself

_ROOT: Final = Path(__file__).resolve().parents[2]
_LOOPBACK: Final = "127.0.0.1"

_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_TARGET_DEVICE": "cpu",  # otherwise read from the version of the distribution `vllm`, which may not say it
    "VLLM_HOST_IP": _LOOPBACK,
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # no pinning: the cores are shared
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # or else the first request with logprobs compiles C++ for 3 to 15 seconds
    "VLLM_SERVER_DEV_MODE": "1",  # /sleep, /wake_up, /is_sleeping
}
# Not VLLM_CPU_KVCACHE_SPACE: that counts in GiB and wins over --kv-cache-memory-bytes.
_ARGUMENTS: Final = (
    *("--served-model-name", MODEL_NAME),
    *("--dtype", "bfloat16"),
    *("--max-model-len", str(CONTEXT_TOKENS)),
    *("--max-num-seqs", "8"),
    *("--kv-cache-memory-bytes", "64M"),
    "--enforce-eager",
)
_KIND_ARGUMENTS: Final[Mapping[str, Sequence[str]]] = {
    "chat": (
        *("--logits-processors", "tests.vllm.scripted:ScriptedProcessor"),
        "--enable-auto-tool-choice",
        *("--tool-call-parser", "hermes"),
        # This parser takes all up to `</think>` for reasoning, and an answer without it for reasoning alone; unless
        # the request, or this default, turns thinking off. A test of reasoning asks for it:
        # `"chat_template_kwargs": {"enable_thinking": true}`.
        *("--reasoning-parser", "qwen3"),
        *("--default-chat-template-kwargs", '{"enable_thinking": false}'),
    ),
    "embed": ("--runner", "pooling", "--convert", "embed"),
}


class VLLMServer:
    """A server on a free port of loopback, as a context manager: ready inside, and gone with all its processes after.

    ``start``, ``wait_ready`` and ``stop`` are there for tests of a cold start and of an end. The log is
    ``directory / "server.log"``; each start empties it.
    """

    def __init__(
        self,
        python: str,
        model: Path,
        directory: Path,
        *,
        kind: Literal["chat", "embed"] = "chat",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.endpoint = f"http://{_LOOPBACK}:{self.port}"
        self.log_path = directory / "server.log"
        self.command = [
            *(python, "-m", "vllm.entrypoints.cli.main", "serve", str(model)),
            *("--host", _LOOPBACK, "--port", str(self.port)),
            *_ARGUMENTS,
            *_KIND_ARGUMENTS[kind],
            *arguments,
        ]
        self.environment = {
            **{name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ},
            **_ENVIRONMENT,
            "PYTHONPATH": str(_ROOT),  # for the logits processor
            "HF_HOME": str(directory / "huggingface"),
            "VLLM_CACHE_ROOT": str(directory / "cache"),
            "VLLM_CONFIG_ROOT": str(directory / "config"),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, which refuses connections until it is ready."""
        assert self.process is None
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.log_path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its engine and its worker outlive it; they end with the process group
            )

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the server answers, or raise with the end of its log."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not self._answers():
            if (code := self.process.poll()) is not None:
                raise RuntimeError(f"vLLM ended with exit code {code} before it was ready:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"vLLM was not ready after {seconds:.0f} seconds:\n{self.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server, its engine and its worker: kindly first, for then they clean up /dev/shm."""
        if self.process is None:
            return
        if sys.platform == "win32":
            raise NotImplementedError
        process, self.process = self.process, None
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(_LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def make_model(python: str, directory: Path) -> Path:
    """Let the Python that has the libraries write the tiny model."""
    maker = Path(__file__).with_name("tiny_hf.py")
    done = subprocess.run(
        [python, str(maker), str(directory)],
        env={**os.environ, **_ENVIRONMENT, "PYTHONSAFEPATH": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{maker.name} failed with exit code {done.returncode}:\n{done.stdout}")
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Run a server by hand until Ctrl-C or SIGTERM: ``python -m tests.vllm.server chat DIRECTORY`` (or ``embed``)."""
    if sys.platform == "win32":
        raise NotImplementedError
    kind, directory = sys.argv[1], Path(sys.argv[2]).resolve()
    assert kind in ("chat", "embed")
    python = os.environ[PYTHON_VARIABLE]
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell's background job starts with it ignored
        signal.signal(number, lambda *_: sys.exit())
    model = make_model(python, directory / "model")
    with VLLMServer(python, model, directory, kind="chat" if kind == "chat" else "embed") as server:
        sys.stdout.write(f"{server.endpoint} is ready; its log is {server.log_path}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
