"""The version of the installed distribution."""

from __future__ import annotations

from importlib import metadata

try:
    __version__: str = metadata.version("ctxbackends")
except metadata.PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"
