"""The options of a local server. Knows no process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import attrs


class ServeModelKeywords(TypedDict, total=False):
    """The fields of :class:`ServerOptions` as keyword arguments, without the API key."""

    host: str
    port: int | None
    ctx_size: int | None
    parallel: int | None
    threads: int | None
    alias: str | None
    embeddings: bool
    environment: Mapping[str, str] | None
    inherit_log: bool


class ServerKeywords(ServeModelKeywords, total=False):
    """The fields of :class:`ServerOptions` as keyword arguments."""

    api_key: str | None


@attrs.frozen(kw_only=True)
class ServerOptions:
    """How a local server runs.

    ``port``: None for a free one. ``ctx_size``: tokens of context over all slots, None for the model's own.
    ``parallel``: slots. ``alias``: the name that the model is served under, None for the file's name without its
    ending. ``api_key``: None for no key. ``embeddings``: serve embeddings too.
    ``environment``: further environment variables of the process. ``inherit_log``: its log goes to our standard error;
    otherwise it is kept in a file, and its last lines are in the error when the process ends by itself.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    threads: int | None = None
    alias: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    embeddings: bool = False
    environment: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    inherit_log: bool = False
