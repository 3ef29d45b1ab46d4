"""Runs a worker inside its process. Values are pickled here: engines only move bytes."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import attrs

from ctxbackends._engines.contract import Channel, EngineError, Worker
from ctxbackends._version import __version__
from ctxbackends.errors import BackendError

_ENDED = 1


@attrs.frozen
class WorkerWarning:
    """The note about a warning of Python in a worker, which the driver issues."""

    warning: Warning


class WorkerHost:
    """Creates a worker from its spec, and passes blocks and notes to it.

    Args:
        send: Sends a note of the worker to the driver. It is called in any thread.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._channel = Channel(lambda note: send(encode(note)))
        self._worker: Worker[Any, Any] | None = None
        self._calls: set[asyncio.Task[bytes]] = set()

    async def open(self, spec: bytes) -> bytes:
        """Create the worker. Return the outcome: name of the machine, or the exception."""
        try:
            version, data = pickle.loads(spec)  # noqa: S301  # from the driver, which started this process
            if version != __version__:
                raise EngineError(
                    f"versions of ctxbackends differ: {__version__} on host {socket.gethostname()}, {version} here; "
                    "install the same one on all nodes"
                )
            self._worker = await pickle.loads(data).open(self._channel)  # noqa: S301  # as above
        except Exception as error:  # noqa: BLE001  # raised by the driver
            return _encode_error(error)
        return _encode_outcome(socket.gethostname())

    async def answer(self, items: bytes) -> bytes:
        """Answer a block. Return the outcome: its results, or the exception."""
        call = asyncio.ensure_future(self._answer(items))
        self._calls.add(call)
        try:
            return await call
        finally:
            self._calls.discard(call)

    async def _answer(self, items: bytes) -> bytes:
        try:
            assert self._worker is not None
            return _encode_outcome(await self._worker.answer(decode(items)))
        except Exception as error:  # noqa: BLE001  # as above
            return _encode_error(error)

    def receive(self, note: bytes) -> None:
        """Pass a note of the driver to the worker."""
        self._channel.on_note(decode(note))

    def forward_warnings(self) -> None:
        """Send the warnings of this process to the driver, instead of printing them, until the process ends."""
        warnings.showwarning = self._send_warning

    def _send_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        try:
            warning = pickle.loads(pickle.dumps(message))  # noqa: S301  # not all exceptions survive
        except Exception:  # noqa: BLE001  # pickling a foreign object may raise anything
            warning = UserWarning(str(message))
        self._channel.send(WorkerWarning(warning))

    async def aclose(self) -> None:
        """Cancel the blocks, and close the worker."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.aclose()


def end_process() -> None:
    """End this process at once: its sockets are closed, and nothing else is sent."""
    os._exit(_ENDED)


def encode_spec(spec: object) -> bytes:
    """Return the bytes for :meth:`WorkerHost.open`. Raises what pickling raises, such as TypeError for a key."""
    return pickle.dumps((__version__, pickle.dumps(spec)))


def encode(value: object) -> bytes:
    """Return the bytes of a block for :meth:`WorkerHost.answer`, or of a note."""
    return pickle.dumps(value)


def decode(data: bytes) -> Any:
    """Return a block, or a note."""
    return pickle.loads(data)  # noqa: S301  # from a process that the engine started, or the one that started this


def decode_outcome(outcome: bytes) -> Any:
    """Return the result, or raise the worker's exception."""
    result, error = pickle.loads(outcome)  # noqa: S301  # from a process that the engine started
    if error is not None:
        raise error
    return result


def _encode_outcome(result: object) -> bytes:
    return pickle.dumps((result, None))


def _encode_error(error: Exception) -> bytes:
    if not isinstance(error, BackendError):  # a bug, or a module that is missing: show where
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        data = pickle.dumps((None, error))
        pickle.loads(data)  # noqa: S301  # the bytes of the line above; not all exceptions survive
    except Exception:  # noqa: BLE001  # as above
        text = f"worker failed: {type(error).__name__}: {error}"
        return pickle.dumps((None, EngineError(text)))
    return data
