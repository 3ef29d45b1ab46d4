"""The environment of Ray, for this process and those that it starts. Ray reads it when it is imported."""

from __future__ import annotations

import os

_VARIABLES = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # starts no process for each CPU, and for each driver
}


def set_variables() -> None:
    """Set the variables."""
    os.environ.update(_VARIABLES)
