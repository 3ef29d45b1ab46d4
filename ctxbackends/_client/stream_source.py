"""The source of a stream's bytes, and its timeouts. Knows no wire format and no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from ctxbackends._chat.events import OnProgress
from ctxbackends.errors import BackendError, ModelMismatchError


class Body(Protocol):
    """The body of a response, as the transport returns it."""

    def read_buffered(self) -> bytes:
        """Return the bytes that have arrived."""
        ...

    async def read_chunk(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers."""
        ...

    @property
    def sent_at(self) -> float:
        """When the request was sent, on the event loop's clock."""
        ...

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        ...

    def close(self) -> None:
        """Close the body at once."""
        ...


@attrs.frozen(kw_only=True)
class StreamTimeouts:
    """The timeouts of a stream in seconds, None for no limit.

    Attributes:
        first_token: Until the first token.
        idle: Between tokens.
        total: For the whole answer.
    """

    first_token: float | None
    idle: float | None
    total: float | None


class StreamSource(Protocol):
    """Opens and closes the request of a stream, and checks and annotates its result."""

    @property
    def can_open_immediately(self) -> bool:
        """Whether nothing precedes the request."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the registry or the backend was closed."""
        ...

    async def open(self) -> Body:
        """Send the request once."""
        ...

    async def reopen(self, error: BackendError | None, *, on_progress: OnProgress) -> Body:
        """Send the request with retries; ``error`` is the failure of ``open``, None if it was not called."""
        ...

    def close(self) -> None:
        """Close the body, if there is one."""
        ...

    def accepts_model(self, served: str) -> bool:
        """Return whether ``served`` is known to be right for the requested model."""
        ...

    async def find_mismatch(self, served: str) -> ModelMismatchError | None:
        """Return the error if ``served`` is another model than the requested one; None after a warning too."""
        ...

    def annotate(self, error: BackendError) -> BackendError:
        """Add the details of the backend to ``error``."""
        ...


def timeout_key(phase: str) -> str:
    """Return the configuration key of a phase's timeout."""
    return "timeout" if phase == "total" else f"{phase}_timeout"
