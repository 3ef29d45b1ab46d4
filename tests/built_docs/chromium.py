"""A headless Chromium, driven over the Chrome DevTools Protocol.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

WITHIN = 120.0  # seconds for a page on a busy machine
_ADDRESS = re.compile(rb"DevTools listening on (ws://\S+)")


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._responses: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._session: dict[str, str] = {}

    async def attach(self) -> None:
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        await self.send("Page.enable")

    async def read(self) -> None:
        """Read the browser's messages until it closes."""
        async for message in self._socket:
            content = message.json()
            if content.get("method") == "Page.loadEventFired":
                self._loaded.set()
            if waiter := self._responses.pop(content.get("id"), None):
                waiter.set_result(content)

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        waiter = self._responses[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **self._session})
        async with asyncio.timeout(WITHIN):
            response = await waiter
        if "error" in response:
            raise RuntimeError(f"{method} failed: {response['error']['message']}")
        result: dict[str, Any] = response["result"]
        return result

    async def open(self, url: str) -> None:
        self._loaded.clear()
        result = await self.send("Page.navigate", url=url)
        if "errorText" in result:
            raise RuntimeError(f"the page cannot be opened: {url}: {result['errorText']}")
        if "loaderId" in result:  # not for another anchor of the same page
            await self.wait_loaded()

    async def wait_loaded(self) -> None:
        async with asyncio.timeout(WITHIN):
            await self._loaded.wait()

    async def press_enter(self) -> None:
        """Press Enter, and wait for the page that it opens."""
        self._loaded.clear()
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **key)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **key)
        await self.wait_loaded()

    async def evaluate(self, script: str) -> Any:
        """Return the value of an expression, or of its promise."""
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"the script failed: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        await self.send("Emulation.setDeviceMetricsOverride", mobile=False, **size)

    async def set_color_scheme(self, name: str) -> None:
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def screenshot(self) -> bytes:
        """Return the visible part of the page as a PNG."""
        return base64.b64decode((await self.send("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def open_tab(program: str) -> AsyncIterator[Tab]:
    """Start the browser with an empty profile, open a tab, and end the browser at the end."""
    # Its sandbox does not run as root. The pages are our own.
    sandbox = ["--no-sandbox"] if sys.platform != "win32" and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            *sandbox,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            address = await _read_address(process)
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                readers = [asyncio.create_task(tab.read()), asyncio.create_task(_discard(process))]
                try:
                    await tab.attach()
                    yield tab
                finally:
                    for reader in readers:
                        reader.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _read_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    output = []
    async with asyncio.timeout(WITHIN):
        async for line in process.stderr:
            if match := _ADDRESS.search(line):
                return match[1].decode()
            output.append(line)
    raise RuntimeError(f"the browser did not start: {b''.join(output).decode(errors='replace')}")


async def _discard(process: asyncio.subprocess.Process) -> None:
    """Read what the browser writes, so that its pipe does not fill."""
    assert process.stderr is not None
    async for _ in process.stderr:
        pass
