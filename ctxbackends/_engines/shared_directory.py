"""Proves that the driver and a worker on another machine share a directory."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from pathlib import Path
from typing import Generic

import attrs

from ctxbackends._engines.contract import Channel, EngineError, Item_contra, Result_co, Worker, WorkerSpec

WITHIN_SECONDS = 5.0
"""A network file system shows a new file to other machines after a while."""
_PROBE_SECONDS = 0.1


@attrs.frozen
class SharedSpec(Generic[Item_contra, Result_co]):
    """The spec of a worker that first proves that it shares the driver's directory.

    Attributes:
        spec: The worker.
        directory: The directory.
        nonce: Content and part of the name of the driver's file.
        reply: Content and part of the name of the worker's file.
        option: The option that chooses the directory.
    """

    spec: WorkerSpec[Item_contra, Result_co]
    directory: Path
    nonce: str
    reply: str
    option: str

    async def open(self, channel: Channel, /) -> Worker[Item_contra, Result_co]:
        """Read the driver's file, write one for the driver, and create the worker.

        Raises:
            EngineError: The directory is another one here.
        """
        if not await _has(_path(self.directory, self.nonce), self.nonce):
            raise _error(self.directory, socket.gethostname(), self.option)
        try:
            _path(self.directory, self.reply).write_text(self.reply)
        except OSError as error:
            raise EngineError(
                f"worker on host {socket.gethostname()} cannot write to {self.directory}: {error.strerror}; "
                f"use {self.option} with a directory that all nodes can write to"
            ) from None
        return await self.spec.open(channel)


class SharedDirectory:
    """The driver's side of the proof: a context manager, whose files exist only inside of it.

    Args:
        directory: The directory; it exists.
        option: The option that chooses the directory, for errors.

    Raises:
        OSError: The directory cannot be written.
    """

    def __init__(self, directory: Path, *, option: str = "--journal") -> None:
        self._option = option
        self._directory = Path(directory).absolute()
        self._nonce = secrets.token_hex(16)
        self._files = [_path(self._directory, self._nonce)]
        self._files[0].write_text(self._nonce)

    def wrap(self, spec: WorkerSpec[Item_contra, Result_co]) -> SharedSpec[Item_contra, Result_co]:
        """Return the spec with the proof."""
        reply = secrets.token_hex(16)
        self._files.append(_path(self._directory, reply))
        return SharedSpec(spec, self._directory, self._nonce, reply, self._option)

    async def verify(self, spec: SharedSpec[Item_contra, Result_co], host: str) -> None:
        """Read the file of a worker that was started with ``spec``.

        Raises:
            EngineError: There is none, so the worker's directory is another one.
        """
        if not await _has(_path(self._directory, spec.reply), spec.reply):
            raise _error(self._directory, host, self._option)

    def close(self) -> None:
        """Delete the files."""
        for file in self._files:
            with contextlib.suppress(OSError):
                file.unlink()


def _path(directory: Path, nonce: str) -> Path:
    return directory / f".shared-{nonce}"


async def _has(path: Path, text: str) -> bool:
    for _ in range(round(WITHIN_SECONDS / _PROBE_SECONDS)):
        with contextlib.suppress(OSError):
            if await asyncio.to_thread(path.read_text) == text:
                return True
        await asyncio.sleep(_PROBE_SECONDS)
    return False


def _error(directory: Path, host: str, option: str) -> EngineError:
    return EngineError(
        f"directory is not shared with the worker on host {host}: {directory}; "
        f"use {option} with a directory that all nodes mount"
    )
