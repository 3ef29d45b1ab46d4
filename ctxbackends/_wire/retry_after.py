"""The time that a response asks the client to wait before a retry."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from ctxbackends._wire.base import HTTPResponse


def parse_retry_after(response: HTTPResponse) -> float | None:
    """Return the seconds to wait, or None if the response does not say or the value is invalid.

    OpenAI's `retry-after-ms` is finer and wins over `Retry-After`, which is seconds or a date (RFC 9110, 10.2.3). Azure
    sends 0 milliseconds next to a second, and means the second.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = response.headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if seconds == 0 and unit < 1 and response.headers.get("retry-after", "").strip():
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = parsedate_to_datetime(response.headers.get("retry-after", ""))
        # Prefer the server's own clock: only the difference matters, and clocks differ.
        server_date = response.headers.get("date")
        now = (
            parsedate_to_datetime(server_date).replace(tzinfo=UTC).timestamp() if server_date else response.received_at
        )
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
