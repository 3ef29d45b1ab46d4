"""`BackendContext`: opens a backend, for a block or until it is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

from ctxbackends._client.backend import Backend
from ctxbackends._util.pickling import NotPicklable

B = TypeVar("B", bound=Backend)
Open: TypeAlias = Callable[[], Coroutine[Any, Any, tuple[B, Callable[[], Awaitable[None]]]]]
"""Opens a backend, and returns it with the function that closes it. It leaves nothing open if it raises."""


class BackendContext(NotPicklable, AbstractAsyncContextManager[B], Awaitable[B]):
    """A backend that is opened by ``async with`` or by ``await``, see :func:`open_backend`.

    ``async with`` closes the backend at the end of the block. ``await`` returns a backend that is open until its
    ``aclose()`` is called. Each use opens another backend.

    Args:
        open: Opens the backend, and returns it with the function that closes it.
    """

    def __init__(self, open: Open[B]) -> None:  # noqa: A002  # the verb
        self._open = open
        self._close: Callable[[], Awaitable[None]] | None = None

    def __await__(self) -> Generator[Any, None, B]:
        return self._open_backend().__await__()

    async def _open_backend(self) -> B:
        backend, _ = await self._open()
        return backend

    async def __aenter__(self) -> B:
        if self._close is not None:
            raise RuntimeError("the backend is open already; call the function again for another one")
        backend, self._close = await self._open()
        return backend

    async def __aexit__(self, *exc_info: object) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()
