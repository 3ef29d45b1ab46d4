"""The limits of a backend: its concurrent requests, and the server whose rate limit it shares."""

from __future__ import annotations

from ctxbackends._client.backend import Backend
from ctxbackends._client.http_backend import HTTPBackend


def find_limit(backend: Backend) -> int | None:
    """Return how many requests a backend sends at once, None if it has no limit, or does not know it yet.

    That is its ``max_concurrency``, else the number of slots that its server has reported.
    """
    return backend._connection.limiter.limit if isinstance(backend, HTTPBackend) else None


def have_same_account(one: Backend, other: Backend) -> bool:
    """Return whether two backends send to the same host and port with the same key."""
    if one is other:
        return True
    if not (isinstance(one, HTTPBackend) and isinstance(other, HTTPBackend)):
        return False
    return one._connection.shares_account(other._connection)
