"""Find the model servers on this machine, at the default port of each type.

Only GET requests are sent, without a key, to loopback addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import attrs

from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._http.addresses import is_loopback
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType
from ctxbackends._registry import Registry
from ctxbackends.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    EmptyModelListError,
    ModelLoadingError,
)

_SECONDS = 3.0
"""For all questions to one port."""

ASKED_TYPES = (BackendType.OLLAMA, BackendType.LMSTUDIO, BackendType.LLAMACPP, BackendType.VLLM)
"""The types whose servers say what they are."""


@attrs.frozen(kw_only=True)
class FoundServer:
    """A server on a port of this machine.

    Attributes:
        endpoint: Its URL.
        type: The backend type that it says it is, ``openai-compatible`` for an unknown one with OpenAI's API; None if
            it does not say.
        state: ``ready``, ``loading``, ``sleeping``, or ``error`` if it does not answer like a model server.
        problem: Why the state is not ``ready``.
        version: Its version, None if it reports none.
        models: The models that it lists.
        loaded: Those in memory, None if it does not say.
    """

    endpoint: str
    type: str | None = None
    state: str = "ready"
    problem: str | None = None
    version: str | None = None
    models: tuple[str, ...] = ()
    loaded: tuple[str, ...] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it answers requests, as far as it says."""
        return self.type is not None and self.state == "ready" and bool(self.models)


def local_endpoints() -> dict[str, tuple[str, ...]]:
    """Return the default endpoints on this machine, each with its types."""
    types: dict[str, tuple[str, ...]] = {}
    for name, profile in PROFILES.items():
        endpoint = profile.default_endpoint
        if endpoint is not None and is_loopback(urlsplit(endpoint).hostname or ""):
            types[endpoint] = (*types.get(endpoint, ()), name)
    return types


async def find_servers(endpoints: Collection[str]) -> tuple[FoundServer, ...]:
    """Ask all endpoints at once, and return those where something listens, in their order."""
    configs = [
        BackendConfig(
            name=f"{type_} {endpoint}",
            type=type_,
            endpoint=endpoint,
            api_key_env="",
            connect_timeout=_SECONDS,
            ready_timeout=0,
            max_retries=0,
            timeout=_SECONDS,
        )
        for endpoint in endpoints
        for type_ in (*ASKED_TYPES, BackendType.OPENAI_COMPATIBLE)
    ]
    async with Registry(configs, airgap=True) as registry:
        servers = await asyncio.gather(*(_ask(registry, endpoint) for endpoint in endpoints))
    return tuple(server for server in servers if server is not None)


async def _ask(registry: Registry, endpoint: str) -> FoundServer | None:
    try:
        async with asyncio.timeout(_SECONDS):
            return await _identify(registry, endpoint)
    except TimeoutError:
        return FoundServer(endpoint=endpoint, state="error", problem=f"no complete response within {_SECONDS:g} s")


async def _identify(registry: Registry, endpoint: str) -> FoundServer | None:
    def backend(type_: str) -> Any:
        return registry.resolve(f"{type_} {endpoint}")

    models: tuple[ModelInfo, ...] = ()
    failure: BackendError | None = None
    try:
        models = await backend(BackendType.OPENAI_COMPATIBLE).models()
    except APIConnectionError as error:
        if error.refused:
            return None
        failure = error
    except ModelLoadingError:
        return FoundServer(endpoint=endpoint, state="loading", problem="it is loading a model")
    except AuthenticationError:
        return FoundServer(endpoint=endpoint, state="error", problem="it requires an API key")
    except EmptyModelListError:
        pass
    except APITimeoutError:
        return FoundServer(endpoint=endpoint, state="error", problem=f"no response within {_SECONDS:g} s")
    except BackendError as error:
        failure = error
    names = tuple(model.id for model in models)
    owners = {model.owned_by for model in models} & set(local_types())
    if len(owners) == 1:
        type_ = str(owners.pop())
        # A preset reports no status.
        status = await backend(type_).status() if type_ in ASKED_TYPES else None
        return _describe(endpoint, type_, status, names)
    status = await backend(BackendType.OLLAMA).status()
    if status.state == "ready" and status.version is not None:
        return _describe(endpoint, BackendType.OLLAMA, status, names)
    try:
        listed = await backend(BackendType.LMSTUDIO).models()
    except BackendError:
        listed = ()
    if listed and all(model.state in ("loaded", "unloaded") for model in listed):
        loaded = tuple(model.id for model in listed if model.state == "loaded")
        return FoundServer(
            endpoint=endpoint, type=BackendType.LMSTUDIO, models=tuple(model.id for model in listed), loaded=loaded
        )
    status = await backend(BackendType.LLAMACPP).status()
    if status.version is not None:
        return _describe(endpoint, BackendType.LLAMACPP, status, names)
    if failure is not None:
        return FoundServer(endpoint=endpoint, state="error", problem="it does not answer like a model server")
    return FoundServer(endpoint=endpoint, type=BackendType.OPENAI_COMPATIBLE, models=names)


def local_types() -> tuple[str, ...]:
    """Return the types whose servers run on the user's machine."""
    return tuple(name for names in local_endpoints().values() for name in names)


def _describe(endpoint: str, type_: str, status: ServerStatus | None, models: tuple[str, ...]) -> FoundServer:
    if status is None:
        return FoundServer(endpoint=endpoint, type=type_, models=models)
    return FoundServer(
        endpoint=endpoint,
        type=type_,
        state=status.state,
        problem=status.problem,
        version=status.version,
        models=models or status.models,
        loaded=status.models,
    )
