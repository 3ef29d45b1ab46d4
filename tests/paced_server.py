"""A model server whose answers a test sends piece by piece."""

from __future__ import annotations

import http.server
import json
import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WITHIN = 30.0
LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


class Reply:
    """The answer to one chat request. ``body``: the request."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.disconnected = threading.Event()
        self._actions: queue.Queue[bytes | None] = queue.Queue()

    @property
    def texts(self) -> list[str]:
        """The messages of the request, as far as they are text."""
        return [message["content"] for message in self.body["messages"]]

    def send(self, text: str = "", **delta: Any) -> None:
        self._event({"choices": [{"index": 0, "delta": {**({"content": text} if text else {}), **delta}}]})

    def progress(self, processed: int, total: int) -> None:
        """The member of llama.cpp."""
        progress = {"processed": processed, "total": total, "cache": 0, "time_ms": 900}
        self._event({"choices": [], "prompt_progress": progress})

    def finish(self, text: str = "", reason: str = "stop") -> None:
        if text:
            self.send(text)
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage})
        self._actions.put(b"data: [DONE]\n\n")
        self._actions.put(None)

    def break_off(self) -> None:
        """Close the connection in the middle of the answer."""
        self._actions.put(None)

    def _event(self, value: dict[str, Any]) -> None:
        self._actions.put(b"data: %s\n\n" % json.dumps({"model": "tiny", **value}).encode())

    def play(self, connection: socket.socket, write: Callable[[bytes], object]) -> None:
        while True:
            try:
                data = self._actions.get(timeout=0.02)
            except queue.Empty:
                if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
                    self.disconnected.set()
                    return
                continue
            if data is None:
                return
            write(data)


class PacedServer:
    """The server. ``loading``: how many chat requests are answered with 503 first; ``requests``: all that came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.models = ["tiny", "larger"]
        self.loading = 0
        self.error: tuple[int, dict[str, Any]] | None = None
        self.requests: list[dict[str, Any]] = []
        self.replies: queue.Queue[Reply] = queue.Queue()

    def next_reply(self) -> Reply:
        """Wait for the next chat request."""
        return self.replies.get(timeout=WITHIN)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        data = [{"id": name} for name in self.server.paced.models]
        self._answer(200, json.dumps({"data": data}).encode())

    def do_POST(self) -> None:
        paced = self.server.paced
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        paced.requests.append(body)
        if paced.loading:
            paced.loading -= 1
            self._answer(503, LOADING)
            return
        if paced.error is not None:
            status, error = paced.error
            self._answer(status, json.dumps({"error": error}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        reply = Reply(body)
        paced.replies.put(reply)
        reply.play(self.connection, self.wfile.write)
        self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Not to the standard error of the tests."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    paced: PacedServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


@contextmanager
def paced_server() -> Iterator[PacedServer]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.paced = PacedServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.paced
        finally:
            server.shutdown()
            thread.join()
