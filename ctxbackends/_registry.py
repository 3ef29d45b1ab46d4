"""Types to factories and names to backends, over one shared session. Never picks a backend that nobody chose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig, CtxConfig
from ctxbackends._http.addresses import check_endpoint
from ctxbackends._http.transport import Session, Transport
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import Profile
from ctxbackends.errors import (
    AmbiguousBackendError,
    BackendError,
    ClosedError,
    DuplicateBackendError,
    NoBackendConfiguredError,
    UnknownBackendError,
    UnknownBackendTypeError,
)

Factory: TypeAlias = Callable[[BackendConfig, Transport], Backend]
"""Makes a backend of one type. Called once for each configured backend, on first use."""


def http_backend(config: BackendConfig, transport: Transport, *, profile: Profile) -> HTTPBackend:
    """The factory of every built-in type. Own types are made the same way from a profile of their own."""
    if config.model_path is not None:
        from ctxbackends.local import managed_backend  # noqa: PLC0415  # only who serves a model pays for it

        return managed_backend(config, transport)
    return HTTPBackend(config, profile=profile, transport=transport)


def _factory(profile: Profile) -> Factory:
    return lambda config, transport: http_backend(config, transport, profile=profile)


class Registry:
    """The backends of one application. Use it with ``async with``, or call ``aclose()``.

    ``configs``: the backends. ``default``: the name of the one that ``default()`` gives. ``session``: an aiohttp
    session to share; it stays open when the registry closes. Without it, the registry makes one for each event loop
    that it is used on. ``airgap``: endpoints that are neither loopback nor in a private network are refused
    (AirgapError): an address when its backend is resolved, a name by what it leads to when it is connected to.
    """

    def __init__(
        self,
        configs: Iterable[BackendConfig] = (),
        *,
        default: str | None = None,
        session: Session | None = None,
        airgap: bool = False,
    ) -> None:
        self._transport = Transport(session=session, airgap=airgap)
        self._factories: dict[str, Factory] = {name: _factory(profile) for name, profile in PROFILES.items()}
        self._configs: dict[str, BackendConfig] = {}
        self._backends: dict[str, Backend] = {}
        self._default: str | None = None
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
        types: Mapping[str, Factory] | None = None,
        session: Session | None = None,
        airgap: bool | None = None,
    ) -> Self:
        """The backends of a ``.ctxrc``: of ``path``, or of the first one found from the working directory upwards.
        ``types``: further backend types. ``airgap``: True sets it whatever the file says; nothing takes back what the
        file says.

        Raises ConfigError where the file cannot be used; without any file the registry is empty.
        """
        from ctxbackends._config.reader import find_ctxrc, load_ctxrc  # noqa: PLC0415  # only who reads a file pays for it

        ctxrc = Path(path) if path is not None else find_ctxrc()
        names = tuple(dict.fromkeys((*(str(name) for name in PROFILES), *(types or ()))))
        config_file = load_ctxrc(ctxrc, types=names) if ctxrc is not None else CtxConfig()
        registry = cls(session=session, airgap=bool(airgap or config_file.airgap))
        for name, factory in (types or {}).items():
            registry.register(name, factory)
        for config in config_file.backends:
            registry.configure(config)
        if config_file.default_backend is not None:
            registry.set_default(config_file.default_backend)
        return registry

    # --- set up -----------------------------------------------------------------------------------

    def register(self, type_name: str, factory: Factory) -> None:
        """Add a backend type. Raises DuplicateBackendError where there is one of this name."""
        if type_name in self._factories:
            raise DuplicateBackendError(type_name, what="backend type")
        self._factories[type_name] = factory

    def configure(self, config: BackendConfig) -> None:
        """Add a backend. Raises DuplicateBackendError, UnknownBackendTypeError."""
        if config.name in self._configs:
            raise DuplicateBackendError(config.name)
        if config.type not in self._factories:
            raise UnknownBackendTypeError(config.type, self.types)
        self._configs[config.name] = config

    def set_default(self, name: str) -> None:
        """Choose what ``default()`` gives. Raises UnknownBackendError."""
        if name not in self._configs:
            raise UnknownBackendError(name, self.names)
        self._default = name

    @property
    def types(self) -> tuple[str, ...]:
        """The registered backend types."""
        return tuple(str(name) for name in self._factories)

    @property
    def airgap(self) -> bool:
        """Whether endpoints that are neither loopback nor in a private network are refused."""
        return self._transport.airgap

    @property
    def names(self) -> tuple[str, ...]:
        """The configured backends, in their order."""
        return tuple(self._configs)

    # --- use --------------------------------------------------------------------------------------

    def resolve(self, name: str | None = None) -> Backend:
        """The backend of this name, the same object every time; without a name, the default one.

        Raises UnknownBackendError, and what its configuration raises (MissingKeyError, InvalidEndpointError,
        AirgapError).
        """
        if self._closed:
            raise ClosedError("this registry is closed")
        if name is None:
            return self.default()
        if name not in self._configs:
            raise UnknownBackendError(name, self.names)
        if name not in self._backends:
            config = self._configs[name]
            if self.airgap:  # looked at here and not by the backend alone: those of own types may not ask
                check_endpoint(config.endpoint, trust_env=config.trust_env, backend=name)
            self._backends[name] = self._factories[config.type](config, self._transport)
        return self._backends[name]

    def default(self) -> Backend:
        """The one that was set as default, or the only one. Raises NoBackendConfiguredError, AmbiguousBackendError: it
        never picks one."""
        if self._default is not None:
            return self.resolve(self._default)
        if not self._configs:
            raise NoBackendConfiguredError("no backend configured; run ctx setup --backend <name>")
        if len(self._configs) > 1:
            raise AmbiguousBackendError(self.names)
        return self.resolve(self.names[0])

    async def statuses(self) -> tuple[ServerStatus, ...]:
        """One look at every configured backend, all at once, in their order. What is wrong with one, its configuration
        included, is in its status and not raised."""
        if self._closed:
            raise ClosedError("this registry is closed")
        statuses: dict[str, ServerStatus] = {}

        async def check(name: str) -> None:
            try:
                statuses[name] = await self.resolve(name).status()
            except BackendError as error:
                endpoint = self._configs[name].endpoint or ""
                statuses[name] = ServerStatus(backend=name, endpoint=endpoint, state="error", problem=str(error))

        async with anyio.create_task_group() as tasks:
            for name in self.names:
                tasks.start_soon(check, name)
        return tuple(statuses[name] for name in self.names)

    async def aclose(self) -> None:
        """End the servers that were started, and close the own session. Idempotent."""
        self._closed = True
        backends, self._backends = self._backends, {}
        try:
            async with anyio.create_task_group() as ending:
                for backend in backends.values():
                    ending.start_soon(backend.aclose)
        finally:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@asynccontextmanager
async def open_backend(
    type: str,  # noqa: A002  # the name that .ctxrc and BackendConfig give it
    *,
    name: str | None = None,
    session: Session | None = None,
    airgap: bool = False,
    **settings: Any,
) -> AsyncIterator[Backend]:
    """One backend alone: ``async with open_backend(BackendType.VLLM, endpoint="http://gpu:8000") as backend``.
    ``airgap`` as in :class:`Registry`, ``settings`` as in BackendConfig."""
    config = BackendConfig(name=name or str(type), type=type, **settings)
    async with Registry([config], session=session, airgap=airgap) as registry:
        yield registry.resolve(config.name)
