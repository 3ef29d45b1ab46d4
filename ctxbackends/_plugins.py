"""Backend types of other distributions. A plug-in that is broken is an error only if its type is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ctxbackends._client.backend import Backend, is_backend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.backend_types import BackendTypes, find_plugins
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.profile import Profile
from ctxbackends.errors import BackendError, ConfigError, UnknownBackendTypeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Factory: TypeAlias = Callable[[BackendConfig, Transport], Backend]
"""Creates a backend of one type. Called once for each configured backend, on first use."""


def load_plugin(type_name: str, from_profile: Callable[[Profile], Factory]) -> Factory:
    """Return the factory of a backend type of another distribution.

    Args:
        type_name: The name of the type.
        from_profile: Returns the factory for a plug-in that is only a profile.

    Raises:
        UnknownBackendTypeError: No distribution has the type.
        ConfigError: Two distributions have the type, or the plug-in cannot be used. The distribution is named.
    """
    plugins = [plugin for plugin in find_plugins() if plugin.name == type_name]
    if not plugins:
        raise UnknownBackendTypeError(type_name, tuple(BackendTypes()))
    if len(plugins) > 1:
        distributions = ", ".join(map(_describe_distribution, plugins))
        raise ConfigError(
            f'several distributions have the backend type "{type_name}": {distributions}; uninstall all but one',
            key="type",
        )
    plugin = plugins[0]
    try:
        loaded: Any = plugin.load()
    except Exception as error:
        raise _broken(plugin, f"cannot import {plugin.value}: {_describe_error(error)}") from error
    if isinstance(loaded, Profile):
        return from_profile(loaded)
    if not callable(loaded):
        raise _broken(plugin, f"{plugin.value} is neither a Profile nor a factory: {type(loaded).__name__}")
    factory: Callable[..., object] = loaded

    def create(config: BackendConfig, transport: Transport) -> Backend:
        try:
            backend = factory(config, transport)
        except BackendError:
            raise
        except Exception as error:
            raise _broken(plugin, f"{plugin.value} raised {_describe_error(error)}") from error
        if not is_backend(backend):
            raise _broken(plugin, f"{plugin.value} returned {type(backend).__name__} instead of a Backend")
        return backend

    return create


def _broken(plugin: EntryPoint, problem: str) -> ConfigError:
    return ConfigError(
        f'cannot use the backend type "{plugin.name}" of {_describe_distribution(plugin)}: {problem}; '
        "update or uninstall the distribution",
        key="type",
    )


def _describe_distribution(plugin: EntryPoint) -> str:
    return f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist is not None else "an unknown distribution"


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
