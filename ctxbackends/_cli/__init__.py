"""The programs ``ctx`` and ``ctxbackends``.

Imports neither click nor rich: ``ctx`` may only pass its arguments to another program, and the extra ``cli`` may not be
installed. Imports as little as it can: until a function here runs, a Ctrl-C prints a traceback.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]  # `signal` imports `enum`, for 3 ms
import os
import sys

from ctxbackends._cli.live_line import ERASE, LINE, draw_first


def ctx() -> None:
    """Run ``ctx``: ``ctx ai VERB`` and a few first-level commands; pass others to the next ``ctx`` on the PATH."""
    exit_on_interrupt()
    from ctxbackends._cli.dispatch import hand_on, is_ours  # `ctxbackends` needs none of it

    arguments = sys.argv[1:]
    if not is_ours(arguments):
        raise_on_interrupt()
        sys.exit(hand_on(arguments))
    _run("ctx")


def ctxbackends() -> None:
    """Run ``ctxbackends``: the verbs of ``ctx ai`` at the first level."""
    exit_on_interrupt()
    _run("ctxbackends")


def _run(program: str) -> None:
    try:
        with LINE:
            draw_first(sys.argv[1:])
            from importlib.util import find_spec  # after the first line on the terminal

            if any(find_spec(name) is None for name in ("click", "rich")):
                sys.exit(f"{program}: the command line requires an extra; run pip install 'ctxbackends[cli]'")
            from ctxbackends._cli.root import run  # needs click

            run(program)
    finally:
        raise_on_interrupt()


# --- Ctrl-C ---------------------------------------------------------------------------------------------


def exit_on_interrupt() -> None:
    """End the process at a Ctrl-C, until :func:`raise_on_interrupt`.

    A KeyboardInterrupt in the middle of an import can become another exception, or be ignored. Nothing has begun that
    has to be cleaned up.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # a background job ignores the signal
        try:
            _signal.signal(_signal.SIGINT, _exit)
        except ValueError:  # not the main thread
            return


def raise_on_interrupt() -> None:
    """Raise KeyboardInterrupt at a Ctrl-C again, as Python does."""
    if _signal.getsignal(_signal.SIGINT) is _exit:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _exit(*_: object) -> None:
    try:
        os.write(2, f"{ERASE if LINE.is_drawn else ''}\ninterrupted\n".encode())
    finally:  # standard error may be closed
        os._exit(130)
