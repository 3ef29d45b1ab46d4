"""Commands without a model open no socket and import no transport."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.knowledge.commands import WITHIN, environment, project, snapshot_context
from tests.knowledge.factories import write_example

# The program as its console script runs it, in a process that has no sockets; then, what it has imported.
RUN = """
import atexit, socket, sys
class NoSocket:
    def __init__(self, *args, **more):
        raise SystemExit("a socket was opened")
socket.socket = socket.create_connection = NoSocket
socket.getaddrinfo = NoSocket
unwanted = {"aiohttp", "anyio", "ctxbackends._http.transport", "ctxbackends._registry"}
unwanted.add("ctxbackends._client.http_backend")
atexit.register(lambda: print("imported", *sorted(unwanted & sys.modules.keys()), file=sys.stderr))
from ctxbackends._cli import ctxbackends
sys.argv[0] = "ctxbackends"
ctxbackends()
"""
ID = "20261123T130500Z-notes"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["setup", "--help"],
        ["setup", "--backend", "vllm", "--endpoint", "http://gpu:8000", "--model", "m"],
        ["proposals", "--help"],
        ["proposals", "list"],
        ["proposals", "list", "--json"],
        ["proposals", "show"],
        ["proposals", "show", "--html"],
        ["proposals", "show", ID, "d1", "--json"],
        ["proposals", "accept", "--all"],
        ["proposals", "accept", ID, "d1", "t1"],
        ["proposals", "reject", "d2", "--reason", "it is known"],
        ["proposals", "edit", ID, "d2", "--set", "rationale=It was late."],
        ["proposals", "export"],
        ["proposals", "export", "--format", "markdown"],
        ["proposals", "apply", "--yes"],
        ["ingest", "--help"],
        ["compact", "--help"],
        ["extract", "--help"],
    ],
    ids=" ".join,
)
def test_without_sockets(tmp_path: Path, arguments: list[str]) -> None:
    directory = project(tmp_path, None)
    path = write_example(directory)
    before, proposal = snapshot_context(directory), path.read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN,
        text=True,
        env=environment(),
    )
    assert 0 == result.returncode, result.stderr
    assert "imported" == result.stderr.strip().split("\n")[-1].strip()
    assert (before, proposal) == (snapshot_context(directory), path.read_bytes())


def test_the_sockets_are_really_gone(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN, "ping", "--backend", "vllm", "--endpoint", "http://127.0.0.1:9", "--no-wait"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN,
        text=True,
        env=environment(),
    )
    assert 0 != result.returncode
    assert "aiohttp" in result.stderr.strip().split("\n")[-1] or "a socket was opened" in result.stderr
