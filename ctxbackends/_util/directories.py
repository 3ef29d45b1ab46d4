"""The directory of the user's data. platformdirs names it, unless a variable does."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "CTXBACKENDS_DATA_DIR"


def data_directory() -> Path:
    """Return the directory for data that must be kept, such as the log; it may not exist."""
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        return Path(os.path.abspath(chosen))
    import platformdirs  # noqa: PLC0415  # the extra `cli` has it

    return platformdirs.user_data_path("ctxbackends", appauthor=False)
