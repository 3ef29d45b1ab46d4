"""The protocol of a server that the SDK starts."""

from __future__ import annotations

from typing import Protocol

from ctxbackends.errors import BackendError


class Launcher(Protocol):
    """Starts a server on first use."""

    @property
    def description(self) -> str:
        """The server, for messages before it has a URL."""
        ...

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        ...

    @property
    def shares_context(self) -> bool:
        """Whether its slots share one context."""
        ...

    async def start(self) -> str:
        """Start the server if it is not running, and return its base URL. Called before every request."""
        ...

    def failure(self) -> BackendError | None:
        """Return why the process ended by itself, or None."""
        ...

    async def aclose(self) -> None:
        """Stop the server."""
        ...
