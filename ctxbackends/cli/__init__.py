"""The command line: the only place that words errors for people. Loads each command on use, so that ``ctx --help``
costs next to nothing."""

from __future__ import annotations

import gc


def main() -> None:
    """Entry point of ``ctx`` and ``ctxbackends``."""
    # The collector finds nothing while modules are made, and costs a twentieth of `ctx --help`.
    gc.disable()
    from ctxbackends.cli.root import run  # noqa: PLC0415  # the console script imports this module alone

    gc.enable()
    run()
