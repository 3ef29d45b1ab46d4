"""The SDK without async: the same backends, from any thread. Public names, imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.sync._backend import SyncBackend as SyncBackend
    from ctxbackends.sync._local import serve_model as serve_model
    from ctxbackends.sync._registry import SyncRegistry as SyncRegistry
    from ctxbackends.sync._registry import open_backend as open_backend
    from ctxbackends.sync._stream import SyncStream as SyncStream
    from ctxbackends.sync._structured import SyncExtractionStream as SyncExtractionStream
    from ctxbackends.sync._structured import extract as extract
    from ctxbackends.sync._structured import extract_result as extract_result
    from ctxbackends.sync._structured import extract_stream as extract_stream
    from ctxbackends.sync._structured import probe_schema as probe_schema
    from ctxbackends.sync._tools import SyncToolStream as SyncToolStream
    from ctxbackends.sync._tools import run_tools as run_tools
    from ctxbackends.sync._tools import stream_tools as stream_tools
