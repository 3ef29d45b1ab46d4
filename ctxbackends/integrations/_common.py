"""Shared by the adapters: reference to a backend, choice of options, error for a missing extra."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeAlias

import attrs

from ctxbackends._chat.requests import NamedTool
from ctxbackends._client.backend import Backend, is_backend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.ctxrc_file import find_ctxrc, no_backend_error
from ctxbackends._registry import Registry
from ctxbackends._wire.options import SCALAR_OPTIONS
from ctxbackends.errors import NoBackendConfiguredError
from ctxbackends.sync._backend import SyncBackend
from ctxbackends.sync._loop_thread import shared

logger = logging.getLogger("ctxbackends")

BackendSource: TypeAlias = BackendConfig | Backend | str
"""A configuration, a backend, or the name of a backend in the nearest ``.ctxrc``."""

UnsupportedOptions: TypeAlias = Literal["error", "drop"]
"""How an adapter treats an option that the backend does not support: raise an error, or leave it out."""

_DROPPABLE = frozenset({*SCALAR_OPTIONS, "stop_sequences", "tool_choice: auto"})
"""Options that tune an answer. Without the others, it would be an answer to another question."""

_registries: dict[BackendConfig | Path, Registry] = {}
"""The registries of this process, by what they were created from."""


# --- extras -------------------------------------------------------------------------------------------


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Import a framework inside this context, which names the extra to install if the framework is missing.

    Args:
        extra: The name of the extra, such as ``pydantic-ai``.

    Raises:
        ImportError: The framework, or a part of it, cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"cannot import {error.name or extra}: {error}; run pip install 'ctxbackends[{extra}]'", name=error.name
        ) from error


# --- backends -----------------------------------------------------------------------------------------


@attrs.frozen
class BackendReference:
    """A backend that an adapter refers to, which can be copied and pickled.

    Build it with :meth:`of`. The backend itself is created on first use, once for each configuration and process.
    """

    _source: BackendSource | None
    _ctxrc: Path | None = None

    @classmethod
    def of(cls, source: BackendSource) -> BackendReference:
        """Build a reference to a backend.

        Args:
            source: A configuration, a backend, or the name of a backend in the nearest ``.ctxrc``. The file is searched
                now, from the working directory upwards, and read on first use.

        Raises:
            TypeError: It is none of these.
        """
        if isinstance(source, str):
            path = find_ctxrc()
            return cls(source, path and path.absolute())
        if not isinstance(source, BackendConfig) and not is_backend(source):
            raise TypeError(
                f"backend must be a BackendConfig, a name in .ctxrc or a Backend: {type(source).__name__}; "
                "pass BackendConfig(name=..., type=...)"
            )
        return cls(source)

    @classmethod
    def of_default(cls) -> BackendReference:
        """Build a reference to the default backend of the nearest ``.ctxrc``, which is searched now."""
        path = find_ctxrc()
        return cls(None, path and path.absolute())

    def get(self) -> Backend:
        """Return the backend, the same object for equal references in one process.

        Raises:
            ConfigError: The configuration is not valid, or the ``.ctxrc`` does not have the backend.
        """
        if self._source is None or isinstance(self._source, str):
            return self._open_ctxrc().resolve(self._source)
        if isinstance(self._source, BackendConfig):
            registry = _registries.get(self._source)
            # Threads may come here at once: setdefault() keeps one registry, and the other has opened nothing.
            registry = registry or _registries.setdefault(self._source, Registry([self._source]))
            return registry.resolve(self._source.name)
        return self._source

    def get_sync(self) -> SyncBackend:
        """Return the backend for synchronous calls, from any thread. Its connections are closed at the exit.

        Raises:
            ConfigError: The configuration is not valid, or the ``.ctxrc`` does not have the backend.
        """
        backend = SyncBackend(self.get())
        for registry in list(_registries.values()):
            shared.close_at_exit(registry)
        return backend

    def _open_ctxrc(self) -> Registry:
        if self._ctxrc is None and self._source is None:
            raise no_backend_error(None)
        if self._ctxrc is None:
            raise NoBackendConfiguredError(
                f'cannot find the backend "{self._source}": no .ctxrc in the working directory or above it; '
                "run ctx setup --backend <name>"
            )
        return _registries.get(self._ctxrc) or _registries.setdefault(self._ctxrc, Registry.from_ctxrc(self._ctxrc))

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Refuse to pickle a backend, which belongs to its process."""
        if not isinstance(self._source, BackendConfig | str | None):
            raise TypeError(
                f'cannot pickle the backend "{self._source.name}": it has open connections; '
                "pass its BackendConfig, or its name in .ctxrc, instead of the Backend"
            )
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> BackendReference:
        return self  # it is immutable, and the backend is shared

    def __deepcopy__(self, memo: Mapping[int, object]) -> BackendReference:
        return self


def list_backends() -> tuple[str, ...]:
    """Return the names of the backends in the nearest ``.ctxrc``, in their order; none without a file.

    Raises:
        ConfigError: The file cannot be read or is not valid.
    """
    reference = BackendReference.of_default()
    return () if reference._ctxrc is None else reference._open_ctxrc().names


async def close_backends() -> None:
    """Close the backends that adapters opened from a configuration or a ``.ctxrc``. The next use opens them again."""
    registries = list(_registries.values())
    _registries.clear()
    for registry in registries:
        await registry.aclose()


# --- options ------------------------------------------------------------------------------------------


def check_unsupported(unsupported: str) -> UnsupportedOptions:
    """Return the argument ``unsupported`` of an adapter. Raise ValueError if it is invalid."""
    if unsupported not in ("error", "drop"):
        raise ValueError(f"invalid unsupported: {unsupported!r}; use error or drop")
    return unsupported  # type: ignore[return-value]  # checked above


def select_options(backend: Backend, options: Mapping[str, Any], unsupported: UnsupportedOptions) -> dict[str, Any]:
    """Return the options that are set, to pass them to the backend.

    Args:
        backend: The backend of the request.
        options: Options of :class:`ChatOptions`, None for those that are not set.
        unsupported: ``error`` returns all of them, and the request raises UnsupportedOptionError. ``drop`` leaves out
            those that tune an answer and that the backend does not support, and logs their names at INFO; tools, a
            required tool call and a response format are never left out.
    """
    selected = {name: value for name, value in options.items() if value is not None}
    if unsupported == "drop":
        for name, value in list(selected.items()):
            key = _find_key(name, value)
            if key in _DROPPABLE and (reason := backend.refusal(key)) is not None:
                del selected[name]
                logger.info('backend "%s": %s is not sent: %s', backend.name, key, reason)
    return selected


def _find_key(name: str, value: Any) -> str:
    """Return the key of the option tables for an option and its value."""
    if name == "tool_choice":
        return "tool_choice: named" if isinstance(value, NamedTool) else f"tool_choice: {value}"
    return name
