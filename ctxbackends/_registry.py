"""The registry of backend types and configured backends. Never chooses a backend by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self, Unpack

from ctxbackends._chat.observer import Observer
from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._client.backend_context import BackendContext
from ctxbackends._client.create import create_backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.backend_settings import BackendSettings
from ctxbackends._config.backend_types import BackendTypes
from ctxbackends._config.ctx_config import CtxConfig
from ctxbackends._config.duration import seconds_of
from ctxbackends._config.request_settings import describe_endpoint
from ctxbackends._http.addresses import check_endpoint
from ctxbackends._http.transport import Session, Transport
from ctxbackends._plugins import Factory, load_plugin
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import Profile
from ctxbackends._util.forks import Lock
from ctxbackends._util.pickling import NotPicklable
from ctxbackends._util.secrets import ENVIRONMENT
from ctxbackends.errors import (
    AmbiguousBackendError,
    BackendError,
    ClosedError,
    ConfigError,
    DuplicateBackendError,
    NoBackendConfiguredError,
    UnknownBackendError,
    UnknownBackendTypeError,
)

DRAIN_POLL_SECONDS = 0.02


def http_backend(config: BackendConfig, transport: Transport, *, profile: Profile) -> HTTPBackend:
    """Create a backend of a built-in type, or of your own type from its profile.

    Args:
        config: The configuration of the backend.
        transport: The transport that the registry passes to a factory.
        profile: The profile of the backend type.

    Raises:
        ConfigError: The configuration is not valid, see its subclasses in :mod:`ctxbackends.errors`.
    """
    if config.model_path is not None:
        from ctxbackends.local import managed_backend  # noqa: PLC0415  # needed only to serve a model

        return managed_backend(config, transport)
    return create_backend(config, profile=profile, transport=transport)


def _factory(profile: Profile) -> Factory:
    return lambda config, transport: http_backend(config, transport, profile=profile)


class Registry(NotPicklable):
    """The backends of one application. Use it with ``async with``, or call ``aclose()``.

    Any number of tasks, event loops and threads may use it at once. A configuration can be pickled, a registry cannot.

    Args:
        configs: The configured backends.
        default: The name of the backend that ``default()`` returns.
        session: An aiohttp session to share, which stays open when the registry closes; the registry can then be used
            on the event loop of the session only. None creates sessions for each event loop.
        airgap: Connect only to loopback and private addresses. An address is checked when its backend is resolved, a
            name when it is connected to; both raise AirgapError.
        observers: Get the facts about every request, see :class:`Observer`.

    Raises:
        DuplicateBackendError: Two configurations have the same name.
        UnknownBackendTypeError: The type of a configuration is not registered.
        UnknownBackendError: ``default`` is not configured.
        ConfigError: The session cannot be used.
    """

    def __init__(
        self,
        configs: Iterable[BackendConfig] = (),
        *,
        default: str | None = None,
        session: Session | None = None,
        airgap: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        self._transport = Transport(session=session, airgap=airgap, observers=observers)
        self._factories: dict[str, Factory] = {name: _factory(profile) for name, profile in PROFILES.items()}
        self._configs: dict[str, BackendConfig] = {}
        self._backends: dict[str, Backend] = {}
        self._lock = Lock()  # so that threads get the same backend, with one limit
        self._default: str | None = None
        self._no_backend = "no backend configured; run ctx setup --backend <name>"
        self._closed = False
        for config in configs:
            self.configure(config)
        if default is not None:
            self.set_default(default)

    @classmethod
    def from_ctxrc(
        cls,
        path: str | Path | None = None,
        *,
        types: Mapping[str, Factory | Profile] | None = None,
        session: Session | None = None,
        airgap: bool | None = None,
        observers: Iterable[Observer] = (),
    ) -> Self:
        """Create a registry from a ``.ctxrc``. Without a file, the registry is empty.

        Args:
            path: The file, None for the first ``.ctxrc`` in the working directory and its parents.
            types: Factories, or profiles, of further backend types, by name.
            session: An aiohttp session to share, see :class:`Registry`.
            airgap: True enables the airgap. It cannot be disabled if the file enables it.
            observers: Get the facts about every request, see :class:`Observer`.

        Raises:
            ConfigError: The file cannot be read or is not valid.
        """
        from ctxbackends._config.ctxrc_file import find_ctxrc, no_backend_error  # noqa: PLC0415  # needed only to read a file
        from ctxbackends._config.reader import load_ctxrc  # noqa: PLC0415  # as above

        ctxrc = Path(path) if path is not None else find_ctxrc()
        known = BackendTypes((*PROFILES, *(types or ())))
        config_file = load_ctxrc(ctxrc, types=known) if ctxrc is not None else CtxConfig()
        registry = cls(session=session, airgap=bool(airgap or config_file.airgap), observers=observers)
        registry._no_backend = no_backend_error(ctxrc).problem
        for name, factory in (types or {}).items():
            registry.register(name, factory)
        for config in config_file.backends:
            registry.configure(config)
        if config_file.default_backend is not None:
            registry.set_default(config_file.default_backend)
        return registry

    # --- set up -----------------------------------------------------------------------------------

    def register(self, type_name: str, factory: Factory | Profile) -> None:
        """Register a backend type.

        Args:
            type_name: The name of the type.
            factory: Creates a backend of the type from its configuration and the transport; or the profile of a type
                for :func:`http_backend`.

        Raises:
            DuplicateBackendError: The type is already registered.
            TypeError: ``factory`` is neither a function nor a profile.
        """
        if type_name in self._factories:
            raise DuplicateBackendError(type_name, kind="backend type")
        if not callable(factory) and not isinstance(factory, Profile):
            raise TypeError(f"factory must be a function or a Profile, not {type(factory).__name__}")
        self._factories[type_name] = _factory(factory) if isinstance(factory, Profile) else factory

    def configure(self, config: BackendConfig) -> None:
        """Add a backend.

        Args:
            config: The configuration of the backend.

        Raises:
            DuplicateBackendError: A backend of this name is already configured.
            UnknownBackendTypeError: The type is neither registered nor that of a plug-in.
        """
        if config.name in self._configs:
            raise DuplicateBackendError(config.name)
        known = BackendTypes(self.types)
        if config.type not in known:
            raise UnknownBackendTypeError(config.type, tuple(known))
        self._configs[config.name] = config

    def set_default(self, name: str) -> None:
        """Set the backend that ``default()`` returns.

        Args:
            name: The name of a configured backend.

        Raises:
            UnknownBackendError: The backend is not configured.
        """
        if name not in self._configs:
            raise UnknownBackendError(name, self.names)
        self._default = name

    @property
    def types(self) -> tuple[str, ...]:
        """The registered backend types, and those of plug-ins that are in use."""
        return tuple(str(name) for name in self._factories)

    @property
    def airgap(self) -> bool:
        """Whether only loopback and private addresses are allowed."""
        return self._transport.airgap

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the configured backends, in their order."""
        return tuple(self._configs)

    # --- use --------------------------------------------------------------------------------------

    def resolve(self, name: str | None = None) -> Backend:
        """Return the backend of a name, the same object each time.

        Args:
            name: The name of the backend, None for the default backend.

        Raises:
            UnknownBackendError: The backend is not configured.
            NoBackendConfiguredError: No name is passed, and no backend is configured.
            AmbiguousBackendError: No name is passed, and several backends are configured without a default.
            ConfigError: The configuration is not valid (MissingKeyError, InvalidEndpointError, AirgapError).
            ClosedError: The registry is closed.
        """
        if name is None:
            return self.default()
        with self._lock:
            if self._closed:
                raise ClosedError("this registry is closed")
            if name not in self._configs:
                raise UnknownBackendError(name, self.names)
            if name not in self._backends:
                config = self._configs[name]
                if self.airgap:  # backends of registered types may not check it themselves
                    endpoint = describe_endpoint(config, PROFILES.get(config.type), ENVIRONMENT)
                    check_endpoint(endpoint, trust_env=config.trust_env, backend=name)
                self._backends[name] = self._create(config)
            return self._backends[name]

    def config(self, name: str | None = None) -> BackendConfig:
        """Return the configuration of a backend, from which a worker process can open it.

        Args:
            name: The name of the backend, None for the default backend.

        Raises:
            UnknownBackendError: The backend is not configured.
            BackendError: As of :meth:`resolve`.
        """
        backend = self.resolve(name)  # raises for a configuration that is not valid
        return self._configs[backend.name]

    def _create(self, config: BackendConfig) -> Backend:
        try:
            if config.type not in self._factories:
                self._factories[config.type] = load_plugin(config.type, _factory)
            return self._factories[config.type](config, self._transport)
        except ConfigError as error:
            error.backend = error.backend or config.name
            raise

    def default(self) -> Backend:
        """Return the default backend, or the only one.

        Raises:
            NoBackendConfiguredError: No backend is configured.
            AmbiguousBackendError: Several backends are configured without a default.
            ConfigError: The configuration is not valid.
        """
        if self._default is not None:
            return self.resolve(self._default)
        if not self._configs:
            raise NoBackendConfiguredError(self._no_backend)
        if len(self._configs) > 1:
            raise AmbiguousBackendError(self.names)
        return self.resolve(self.names[0])

    async def statuses(self) -> tuple[ServerStatus, ...]:
        """Return the status of every configured backend, in their order. All are probed at once.

        A failure, or a configuration that is not valid, is in the status and not raised.

        Raises:
            ClosedError: The registry is closed.
        """
        if self._closed:
            raise ClosedError("this registry is closed")
        statuses: dict[str, ServerStatus] = {}

        async def check(name: str) -> None:
            try:
                statuses[name] = await self.resolve(name).status()
            except BackendError as error:
                endpoint = self._configs[name].endpoint or ""
                statuses[name] = ServerStatus(backend=name, endpoint=endpoint, state="error", problem=str(error))

        async with asyncio.TaskGroup() as tasks:
            for name in self.names:
                tasks.create_task(check(name))
        return tuple(statuses[name] for name in self.names)

    async def drain(self, timeout: float | str | None = None) -> bool:  # noqa: ASYNC109  # it raises no error
        """Take no new requests, wait for those in flight, and close.

        From now on, a new call of a backend raises ClosedError; ``status()`` still works until the end. A stream is in
        flight until its whole answer has arrived, whether or not it was read.

        Args:
            timeout: Seconds to wait, or a text such as ``30s``; None for as long as it takes.

        Returns:
            Whether all requests ended in time. The others end with ClosedError, as with :meth:`aclose`.

        Raises:
            ValueError: ``timeout`` is not a duration.
        """
        try:
            seconds = None if timeout is None else seconds_of(timeout, allow_zero=True)
        except ValueError as error:
            raise ValueError(f"timeout: {error}") from None
        self._transport.start_drain()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self._transport.is_busy:
                        await asyncio.sleep(DRAIN_POLL_SECONDS)
            return not self._transport.is_busy
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the sessions of this registry on all event loops, and stop the servers that it started. Idempotent.

        Requests in flight end with ClosedError, those of streams with the part of the answer in ``partial``.
        """
        with self._lock:
            self._closed = True
            backends, self._backends = self._backends, {}
        try:
            await self._transport.aclose()
        finally:
            async with asyncio.TaskGroup() as ending:
                for backend in backends.values():
                    ending.create_task(backend.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def build_config(type: str | BackendConfig, name: str | None, settings: BackendSettings) -> BackendConfig:  # noqa: A002  # public
    """Return the configuration of a single backend, see :func:`open_backend`."""
    if not isinstance(type, BackendConfig):
        return BackendConfig(name=name or str(type), type=type, **settings)
    if name is not None or settings:
        extra = ", ".join([*(["name"] if name is not None else []), *settings])
        raise TypeError(f"not accepted with a BackendConfig: {extra}; set it there, with attrs.evolve()")
    return type


def open_backend(
    type: str | BackendConfig,  # noqa: A002  # the name in .ctxrc and BackendConfig
    *,
    name: str | None = None,
    session: Session | None = None,
    airgap: bool = False,
    observers: Iterable[Observer] = (),
    **settings: Unpack[BackendSettings],
) -> BackendContext[Backend]:
    """Open a single backend.

    Use it as ``async with open_backend(BackendType.VLLM, endpoint="http://gpu:8000") as backend``. In a worker, which
    uses a backend for longer than a block: ``backend = await open_backend(config)``, and ``await backend.aclose()`` at
    its end. That closes the connections, and stops a server that the backend started.

    Args:
        type: The backend type; or a whole configuration, without ``name`` and ``settings``.
        name: The name of the backend, None for its type.
        session: An aiohttp session to share, see :class:`Registry`.
        airgap: Connect only to loopback and private addresses, see :class:`Registry`.
        observers: Get the facts about every request, see :class:`Observer`.
        **settings: The other fields of :class:`BackendConfig`.

    Raises:
        ConfigError: The configuration is not valid, see its subclasses in :mod:`ctxbackends.errors`.
        TypeError: A setting is unknown.
    """

    async def open_it() -> tuple[Backend, Callable[[], Awaitable[None]]]:
        config = build_config(type, name, settings)
        registry = Registry([config], session=session, airgap=airgap, observers=observers)
        registry._transport.closes_with_backend = True
        return registry.resolve(config.name), registry.aclose

    return BackendContext(open_it)
