"""Wait for a server before an operation that reports no progress itself."""

from __future__ import annotations

from typing import Any

from ctxbackends._cli.terminal import waiting


async def wait_for(backend: Any, operation: str) -> None:
    """Wait until the server is ready, and show the wait; not if the backend does not support ``operation``."""
    if backend.refusal(operation) is None:
        with waiting() as line:
            await backend.wait_ready(on_progress=line)
