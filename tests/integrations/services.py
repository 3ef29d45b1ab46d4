"""Runs the services of docs/examples/services as processes over a FaultServer, and pages in a headless Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs

import ctxbackends
from ctxbackends.testing import FaultServer

SERVICES = Path(__file__).parents[2] / "docs" / "examples" / "services"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}


def write_ctxrc(directory: Path, server: FaultServer, type_: str = "vllm") -> None:
    (directory / ".ctxrc").write_text(
        f"backends:\n  - name: one\n    type: {type_}\n    endpoint: {server.url}\n    default_model: m\n"
    )


@attrs.define
class Service:
    """A running service."""

    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def wait_ended(self) -> str:
        """Wait for the end of the process and return what it logged."""
        _, errors = await self.process.communicate()
        return errors.decode()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def run_service(name: str, directory: Path) -> AsyncIterator[Service]:
    """Run a service until it listens; kill it at the end of the block if it still runs."""
    port = free_port()
    command = {
        "fastapi": (
            *("-m", "uvicorn", "fastapi_service:app", "--app-dir", str(SERVICES)),
            *("--port", str(port), "--timeout-graceful-shutdown", "30"),
        ),
        "aiohttp": (str(SERVICES / "aiohttp_service.py"), str(port)),
        "cookbook": ("-m", "uvicorn", "app:app", "--app-dir", str(directory), "--port", str(port)),
    }[name]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=directory, env=ENVIRONMENT, stdout=asyncio.subprocess.DEVNULL, stderr=-1
    )
    try:
        while not await _listens(port):
            assert process.returncode is None, await process.communicate()
            await asyncio.sleep(0.02)
        yield Service(port, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


# --- a browser ----------------------------------------------------------------------------------------


class Page:
    """A page of a browser, over the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while (message := await self._socket.receive_json()).get("id") != self._number:
            pass  # an event
        assert "error" not in message, message
        return message["result"]

    async def go_to(self, url: str) -> None:
        await self._call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; of a promise, once it is fulfilled."""
        result = await self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true, also while a page loads."""
        while not await self.evaluate(expression):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def open_page(directory: Path) -> AsyncIterator[Page]:
    """Open an empty page in a headless Chromium with a profile of its own."""
    assert CHROMIUM is not None, "skip the test without one"
    profile = directory / "chromium"
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        while not (port_file.exists() and "\n" in port_file.read_text()):
            assert process.returncode is None, "Chromium ended"
            await asyncio.sleep(0.05)
        port = port_file.read_text().split("\n")[0]
        async with aiohttp.ClientSession() as session:
            address = None
            while address is None:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    targets = await response.json(content_type=None)
                address = next((target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"), None)
            async with session.ws_connect(address) as connection:
                yield Page(connection)
    finally:
        if sys.platform == "win32":
            raise NotImplementedError
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
