"""`ctxbackends setup`: presets, model files, the check of the server, and files that are not files."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ctxbackends._config.reader import load_ctxrc
from tests.unit.test_cli import ENDPOINT_OF_NOBODY, Result, ctx

KEY = "sk-test-0123456789abcdef"
HEADER = b"GGUF" + bytes(20)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    for name in os.environ:
        if name.endswith(("_API_KEY", "_BASE_URL")) or name == "HF_TOKEN":
            monkeypatch.delenv(name)


# --- keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (("openrouter",), "OPENROUTER_API_KEY"),
        (("openai",), "OPENAI_API_KEY"),
        (("huggingface",), "HF_TOKEN"),
        (("azure-openai", "--endpoint", "https://me.openai.azure.com"), "AZURE_OPENAI_API_KEY"),
        (("vllm", "--api-key-env", "GPU_KEY"), "GPU_KEY"),
        (("openai", "--api-key-env", "WORK_KEY"), "WORK_KEY"),
    ],
)
def test_an_unset_key_is_named(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], variable: str) -> None:
    note = f"{variable} is not set; set it to the API key before the first request\n"
    result = ctx("setup", "--backend", *options)
    assert (0, "") == (result.code, result.out)
    assert note in result.err
    assert note in ctx("setup", "--backend", *options, "--json").err
    monkeypatch.setenv(variable, KEY)
    assert "is not set" not in ctx("setup", "--backend", *options).err
    assert KEY not in Path(".ctxrc").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options",
    [
        ("ollama",),
        ("litellm",),  # a proxy on this machine
        ("openai", "--endpoint", "http://localhost:9000"),
        ("openai", "--api-key-env", ""),
    ],
)
def test_no_key_is_asked_for_where_none_is_needed(options: tuple[str, ...]) -> None:
    assert "is not set" not in ctx("setup", "--backend", *options).err


# --- model files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothere.gguf", "--model-path: nothere.gguf: no such file"),
        ("models/nothere", "--model-path: models/nothere: no such file"),
        ("empty.gguf", "--model-path: empty.gguf is empty"),
        ("notes.txt", "--model-path: notes.txt is not a GGUF file"),
        ("cache", "--model-path: cache is a directory; name a .gguf file"),
        ("smollm2", "model smollm2 is not downloaded; run ctxbackends pull smollm2"),
        ("smollm", "smollm: no such file or model; did you mean smollm2?"),
    ],
)
def test_a_model_file_that_is_none(name: str, problem: str) -> None:
    Path("cache").mkdir()
    Path("empty.gguf").touch()
    Path("notes.txt").write_text("notes", encoding="utf-8")
    result = ctx("setup", "--backend", "llamacpp", "--model-path", name)
    assert Result(1, "", f"ctxbackends: {problem}\n") == result
    assert not Path(".ctxrc").exists()


def test_a_downloaded_model_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "models" / "mine.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(HEADER)
    assert 0 == ctx("setup", "--backend", "llamacpp", "--model-path", "mine").code
    assert str(path) == load_ctxrc(Path(".ctxrc")).backends[0].model_path
    Path("mine").write_bytes(HEADER)  # a file comes first
    assert 0 == ctx("setup", "--backend", "llamacpp", "--model-path", "mine").code
    assert str(tmp_path / "mine") == load_ctxrc(Path(".ctxrc")).backends[0].model_path


# --- the check --------------------------------------------------------------------------------------


class Models(BaseHTTPRequestHandler):
    """A server with one model."""

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "tiny", "object": "model"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def set_up(endpoint: str, *options: str) -> Result:
    return ctx("setup", "--backend", "openai-compatible", "--name", "gpu", "--endpoint", endpoint, *options)


def test_a_server_that_answers(endpoint: str, tmp_path: Path) -> None:
    added = f'backend "gpu" added to {tmp_path / ".ctxrc"}\n'
    answers = f"the server at {endpoint} answers; its first model is tiny\n"
    assert Result(0, "", added + answers) == set_up(endpoint, "--check")
    assert set_up(endpoint, "--check", "--model", "other").err.endswith("it does not list the default_model other\n")
    first, second = map(json.loads, set_up(endpoint, "--check", "--json").out.splitlines())
    assert (False, "tiny") == (first["changed"], second["model"])


def test_no_socket_is_opened_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert 0 == set_up("http://gpu.example.org").code


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    result = set_up(ENDPOINT_OF_NOBODY, "--check")
    assert (1, "") == (result.code, result.out)
    assert result.err.startswith(
        f'backend "gpu" added to {tmp_path / ".ctxrc"}\n'
        f'ctxbackends: backend "gpu" unreachable at {ENDPOINT_OF_NOBODY}: connection refused\n'
    )
    assert ["gpu"] == [config.name for config in load_ctxrc(tmp_path / ".ctxrc").backends]


def test_a_server_that_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = set_up(endpoint, "--check")
    added = f'backend "gpu" added to {tmp_path / ".ctxrc"}\n'
    assert Result(1, "", f"{added}ctxbackends: no answer from {endpoint} within 5 s\n") == result
    assert ["gpu"] == [config.name for config in load_ctxrc(tmp_path / ".ctxrc").backends]


# --- a .ctxrc that is not a file --------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("directory", "is a directory; .ctxrc must be a text file"),
        ("pipe", "is not a regular file; .ctxrc must be a text file"),
        ("device", "is not a regular file; .ctxrc must be a text file"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("latin-1", ":2: is not UTF-8 text"),
        ("huge", "is too large: more than 131072 bytes; is it the right file?"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("setup", "--backend", "vllm"), ("config", "list"), ("config", "set", "airgap", "true"), ("config", "edit")],
    ids=" ".join,
)
def test_a_ctxrc_that_is_not_a_text_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], kind: str, problem: str
) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    monkeypatch.setenv("VISUAL", "true")
    path = Path(".ctxrc")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "latin-1":
        path.write_bytes(b"# one\n# caf\xe9\n")
    elif kind == "huge":
        path.write_bytes(b"#" * 200_000)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": ".ctxrc"}[kind])
    before = os.lstat(path)
    result = ctx(*command)
    if (kind, command[1]) == ("latin-1", "edit"):  # it can be repaired there, and `true` changes nothing
        problem += "; the file is unchanged"
    separator = "" if problem.startswith(":") else ": "
    assert Result(1, "", f"ctxbackends: {tmp_path / '.ctxrc'}{separator}{problem}\n") == result
    assert (before.st_ino, before.st_mtime_ns) == (os.lstat(path).st_ino, os.lstat(path).st_mtime_ns)


@pytest.mark.posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("# shared\n")
    Path(".ctxrc").symlink_to("shared")
    assert 0 == ctx("setup", "--backend", "ollama").code
    assert Path(".ctxrc").is_symlink()
    assert (tmp_path / "shared").read_text().startswith("# shared\nbackends:\n")
