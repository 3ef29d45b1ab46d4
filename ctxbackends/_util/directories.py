"""The directories of the user's data and cache. platformdirs names them, unless a variable does."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "CTXBACKENDS_DATA_DIR"
CACHE_VARIABLE = "CTXBACKENDS_CACHE_DIR"


def data_directory() -> Path:
    """Return the directory for data that must be kept, such as the log; it may not exist."""
    chosen = _read_variable(DATA_VARIABLE)
    if chosen is not None:
        return chosen
    import platformdirs  # noqa: PLC0415  # the extras `cli` and `llamacpp` have it

    return platformdirs.user_data_path("ctxbackends", appauthor=False)


def cache_directory() -> Path:
    """Return the directory for what can be downloaded again, such as models; it may not exist."""
    chosen = _read_variable(CACHE_VARIABLE)
    if chosen is not None:
        return chosen
    import platformdirs  # noqa: PLC0415  # as above

    return platformdirs.user_cache_path("ctxbackends", appauthor=False)


def _read_variable(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(os.path.abspath(value)) if value else None
