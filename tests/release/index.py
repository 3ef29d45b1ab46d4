"""A package index on loopback, as PEP 503 describes it."""

from __future__ import annotations

import functools
import hashlib
import html
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base class
        pass


@contextmanager
def serve_index(project: str, files: Sequence[Path], *, requires_python: str) -> Iterator[str]:
    """Serve the distributions of one project, and yield the URL of the index."""
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "simple", project, "index.html")
        page.parent.mkdir(parents=True)
        links = []
        for file in files:
            shutil.copy(file, page.parent)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            needs = html.escape(requires_python)
            links.append(f'<a href="{file.name}#sha256={digest}" data-requires-python="{needs}">{file.name}</a>')
        page.write_text("<!DOCTYPE html>\n" + "\n".join(links), "utf-8")
        with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=directory)) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/simple/"
            finally:
                server.shutdown()
                thread.join()
