"""The programs ``ctx`` and ``ctxbackends``.

Imports neither click nor rich: ``ctx`` may only pass its arguments to another program, and the extra ``cli`` may not be
installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec


def ctx() -> None:
    """Run ``ctx``: ``ctx ai VERB`` and a few first-level commands; pass others to the next ``ctx`` on the PATH."""
    from ctxbackends._cli.dispatch import hand_on, is_ours  # noqa: PLC0415  # `ctxbackends` needs none of it

    arguments = sys.argv[1:]
    if not is_ours(arguments):
        sys.exit(hand_on(arguments))
    _run("ctx")


def ctxbackends() -> None:
    """Run ``ctxbackends``: the verbs of ``ctx ai`` at the first level."""
    _run("ctxbackends")


def _run(program: str) -> None:
    if any(find_spec(name) is None for name in ("click", "rich")):
        sys.exit(f"{program}: the command line requires an extra; run pip install 'ctxbackends[cli]'")
    from ctxbackends._cli.root import run  # noqa: PLC0415  # needs click

    run(program)
