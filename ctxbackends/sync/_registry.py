"""`SyncRegistry` and `open_backend`: backends without async."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Self, Unpack

from ctxbackends._chat.observer import Observer
from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.backend_settings import BackendSettings
from ctxbackends._plugins import Factory
from ctxbackends._profiles.profile import Profile
from ctxbackends._registry import Registry, build_config
from ctxbackends._util.pickling import NotPicklable
from ctxbackends.sync._backend import SyncBackend
from ctxbackends.sync._loop_thread import Closer, close, run, shared


class SyncRegistry(NotPicklable):
    """A :class:`~ctxbackends.Registry` without async. Use it with ``with``, or call ``close()``.

    Any number of threads may use it at once. A registry that is not closed is closed when it and its backends are
    deleted, or at the interpreter's exit.

    Args:
        configs: The configured backends.
        default: The name of the backend that ``default()`` returns.
        airgap: Connect only to loopback and private addresses, see :class:`~ctxbackends.Registry`.
        observers: Get the facts about every request, see :class:`~ctxbackends.Observer`. They are called in the thread
            of the event loop.

    Attributes:
        async_registry: The registry that has the backends. It can be used on other event loops too.

    Raises:
        DuplicateBackendError: Two configurations have the same name.
        UnknownBackendTypeError: The type of a configuration is not registered.
        UnknownBackendError: ``default`` is not configured.
    """

    def __init__(
        self,
        configs: Iterable[BackendConfig] = (),
        *,
        default: str | None = None,
        airgap: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        self._set_registry(Registry(configs, default=default, airgap=airgap, observers=observers))

    def _set_registry(self, registry: Registry) -> None:
        self.async_registry: Registry = registry
        self._backends: dict[int, SyncBackend] = {}
        self._registry_closer = Closer(registry.aclose)
        shared.close_at_exit(registry)

    @classmethod
    def from_ctxrc(
        cls,
        path: str | Path | None = None,
        *,
        types: Mapping[str, Factory | Profile] | None = None,
        airgap: bool | None = None,
        observers: Iterable[Observer] = (),
    ) -> Self:
        """Create a registry from a ``.ctxrc``. Without a file, the registry is empty.

        Args:
            path: The file, None for the first ``.ctxrc`` in the working directory and its parents.
            types: Factories, or profiles, of further backend types, by name.
            airgap: True enables the airgap. It cannot be disabled if the file enables it.
            observers: Get the facts about every request, see :class:`~ctxbackends.Observer`.

        Raises:
            ConfigError: The file cannot be read or is not valid.
        """
        registry = cls.__new__(cls)
        registry._set_registry(Registry.from_ctxrc(path, types=types, airgap=airgap, observers=observers))
        return registry

    def register(self, type_name: str, factory: Factory | Profile) -> None:
        """See :meth:`ctxbackends.Registry.register`."""
        self.async_registry.register(type_name, factory)

    def configure(self, config: BackendConfig) -> None:
        """See :meth:`ctxbackends.Registry.configure`."""
        self.async_registry.configure(config)

    def set_default(self, name: str) -> None:
        """See :meth:`ctxbackends.Registry.set_default`."""
        self.async_registry.set_default(name)

    @property
    def types(self) -> tuple[str, ...]:
        """The registered backend types."""
        return self.async_registry.types

    @property
    def airgap(self) -> bool:
        """Whether only loopback and private addresses are allowed."""
        return self.async_registry.airgap

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the configured backends, in their order."""
        return self.async_registry.names

    def resolve(self, name: str | None = None) -> SyncBackend:
        """Return the backend of a name, the same object each time. See :meth:`ctxbackends.Registry.resolve`."""
        return self._wrap(self.async_registry.resolve(name))

    def config(self, name: str | None = None) -> BackendConfig:
        """Return the configuration of a backend. See :meth:`ctxbackends.Registry.config`."""
        return self.async_registry.config(name)

    def default(self) -> SyncBackend:
        """Return the default backend, or the only one. See :meth:`ctxbackends.Registry.default`."""
        return self._wrap(self.async_registry.default())

    def _wrap(self, backend: Backend) -> SyncBackend:
        wrapped = self._backends.get(id(backend))
        if wrapped is None:
            wrapped = SyncBackend(backend)
            wrapped._registry_closer = self._registry_closer
            wrapped = self._backends.setdefault(id(backend), wrapped)
        return wrapped

    def statuses(self) -> tuple[ServerStatus, ...]:
        """Return the status of every configured backend. See :meth:`ctxbackends.Registry.statuses`."""
        return run(self.async_registry.statuses)

    def drain(self, timeout: float | str | None = None) -> bool:
        """Take no new requests, wait for those in flight, and close. See :meth:`ctxbackends.Registry.drain`.

        Args:
            timeout: Seconds to wait, or a text such as ``30s``; None for as long as it takes.

        Returns:
            Whether all requests ended in time.

        Raises:
            ValueError: ``timeout`` is not a duration.
        """
        return run(partial(self.async_registry.drain, timeout))

    def close(self) -> None:
        """Stop the servers that this registry started, and close its connections. Idempotent."""
        close(self.async_registry.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_backend(
    type: str | BackendConfig,  # noqa: A002  # the name in .ctxrc and BackendConfig
    *,
    name: str | None = None,
    airgap: bool = False,
    observers: Iterable[Observer] = (),
    **settings: Unpack[BackendSettings],
) -> SyncBackend:
    """Open a single backend.

    Use it as ``with open_backend(BackendType.VLLM, endpoint="http://gpu:8000") as backend``. In a worker, which uses a
    backend for longer than a block: ``backend = open_backend(config)``, and ``backend.close()`` at its end.

    Args:
        type: The backend type; or a whole configuration, without ``name`` and ``settings``.
        name: The name of the backend, None for its type.
        airgap: Connect only to loopback and private addresses, see :class:`~ctxbackends.Registry`.
        observers: Get the facts about every request, see :class:`~ctxbackends.Observer`.
        **settings: The other fields of :class:`~ctxbackends.BackendConfig`.

    Raises:
        ConfigError: The configuration is not valid, see its subclasses in :mod:`ctxbackends.errors`.
        TypeError: A setting is unknown.
    """
    config = build_config(type, name, settings)
    registry = SyncRegistry([config], airgap=airgap, observers=observers)
    backend = registry.resolve(config.name)
    backend._close = registry.async_registry.aclose
    return backend
