"""How a stream begins, where its bytes come from, and its timeouts. Knows no wire format and no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from ctxbackends._chat.events import OnProgress
from ctxbackends.errors import BackendError


class Body(Protocol):
    """The bytes of an answer, as the transport hands them out."""

    def read_buffered(self) -> bytes: ...

    async def read_chunk(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def sent_at(self) -> float: ...

    @property
    def at_end(self) -> bool: ...

    def close(self) -> None: ...


@attrs.frozen(kw_only=True)
class StreamTimeouts:
    """Seconds, None for no limit: until the first token, between tokens, and for the whole answer."""

    first_token: float | None
    idle: float | None
    total: float | None


class StreamSource(Protocol):
    """How a stream begins and ends, and what is known of its server. ``can_open_immediately``: nothing comes before the
    request."""

    @property
    def can_open_immediately(self) -> bool: ...

    async def open(self) -> Body:
        """Send the request once."""
        ...

    async def reopen(self, error: BackendError | None, *, on_progress: OnProgress) -> Body:
        """Send it under the retry policy; ``error`` is the failure of ``open``, None where that was not called."""
        ...

    def close(self) -> None:
        """Close the body, where there is one."""
        ...

    def check_model(self, served: str) -> None: ...

    def annotate(self, error: BackendError) -> BackendError: ...


def timeout_key(phase: str) -> str:
    """The configuration key that tunes a phase."""
    return "timeout" if phase == "total" else f"{phase}_timeout"
