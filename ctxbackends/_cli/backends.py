"""The options that select a backend, and the selected backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from ctxbackends._cli import exit_on_interrupt, raise_on_interrupt
from ctxbackends._cli.completers import complete_backends, complete_model_files
from ctxbackends._cli.root import SOURCE, Source, debug_option

P = ParamSpec("P")
R = TypeVar("R")

_LIST_SECONDS = 5.0


class Choice(NamedTuple):
    """The options that select a backend.

    Attributes:
        backend: Name of the backend; a backend type unless the source is ``file``. None for the default.
        endpoint: URL of the server on the command line.
        api_key_env: Environment variable of the API key on the command line.
        no_wait: Whether to fail at once if the server is starting.
        model_path: A model file to serve while the command runs, or the name of a downloaded model.
        source: Where the settings of the backend come from.
        name: Name for a backend with an endpoint on the command line; None for its type.
        in_one_piece: Whether ``complete()`` asks for answers in one piece, unless .ctxrc says otherwise.
    """

    backend: str | None
    endpoint: str | None
    api_key_env: str | None
    no_wait: bool = False
    model_path: str | None = None
    source: Source = "file"
    name: str | None = None
    in_one_piece: bool = False

    @property
    def is_explicit(self) -> bool:
        """Whether the command line selects the server."""
        return self.backend is not None or self.source != "file"


@asynccontextmanager
async def open_choice(choice: Choice, *, airgap: bool = False) -> AsyncIterator[Any]:
    """Open the selected backend; ``airgap`` turns it on even if the file does not."""
    from ctxbackends.errors import NoModelError  # help needs none of it

    async with open_registry(choice, airgap=airgap) as (_, backend):
        try:
            yield backend
        except NoModelError as error:
            await add_models(error, backend)
            raise


@asynccontextmanager
async def open_registry(choice: Choice, *, airgap: bool = False) -> AsyncIterator[tuple[Any, Any]]:
    """Open the registry and the selected backend; ``airgap`` turns it on even if the file does not."""
    async with registry_of(choice, airgap=airgap) as registry:
        yield registry, registry.resolve(choice.backend if choice.source == "file" else None)


async def read_config(choice: Choice, *, airgap: bool = False) -> tuple[Any, bool]:
    """Return the configuration of the selected backend, for worker processes, and whether the airgap is on."""
    async with open_registry(choice, airgap=airgap) as (registry, backend):
        return registry.config(backend.name), registry.airgap


async def add_models(error: Any, backend: Any) -> None:
    """Add the models to choose from to a NoModelError, or a note why the server cannot be asked for them."""
    from ctxbackends._config.request_options import RequestOptions
    from ctxbackends._util.text import one_line
    from ctxbackends.errors import APIStatusError, BackendError

    if error.models or hasattr(error, "__notes__"):
        return
    options = RequestOptions(ready_timeout=0, timeout=_LIST_SECONDS, max_retries=0)
    try:
        error.models = tuple(model.id for model in await backend.models(request_options=options))
    except BackendError as failure:
        problem = f"HTTP {failure.status_code}" if isinstance(failure, APIStatusError) else one_line(str(failure))
        error.add_note(f"the server does not list its models: {problem}")


def registry_of(choice: Choice, *, airgap: bool = False) -> Any:
    """Return a registry with the backends of .ctxrc, or the one on the command line.

    ``airgap`` turns it on even if the file does not.
    """
    from ctxbackends._registry import Registry  # aiohttp is loaded only when a request is made

    if choice.source == "endpoint":
        return _registry_of_endpoint(choice, airgap=airgap)
    if choice.source == "model":
        return Registry([_adapt(_config_of_model(choice), choice)], airgap=airgap)
    if choice.source == "type":
        return Registry([_adapt(require_key(_config_of_type(choice)), choice)], airgap=airgap)
    from ctxbackends._config.ctxrc_file import find_ctxrc
    from ctxbackends._config.reader import load_ctxrc

    path = find_ctxrc()
    settings = load_ctxrc(path) if path is not None else None
    if settings is None or not settings.backends:
        return Registry.from_ctxrc(path, airgap=airgap)  # its error says where a file was looked for
    configs = [
        require_key(_adapt(_without_wait(config) if choice.no_wait else config, choice)) for config in settings.backends
    ]
    return Registry(configs, default=settings.default_backend, airgap=airgap or settings.airgap)


def _without_wait(config: Any) -> Any:
    # A server that the command starts itself is never ready at once.
    import attrs  # not loaded before the first line on the terminal

    return config if config.model_path is not None else attrs.evolve(config, ready_timeout=0.0)


def _adapt(config: Any, choice: Choice) -> Any:
    """Return the configuration with the way of asking that the command chooses, unless the file has chosen another."""
    import attrs

    return (
        attrs.evolve(config, complete_streams=False)
        if choice.in_one_piece and config.complete_streams is None
        else config
    )


def require_key(config: Any) -> Any:
    """Return the configuration with the variable of the vendor's key as a required one: no vendor answers without."""
    import attrs

    from ctxbackends._config.api_key import find_vendor_variable
    from ctxbackends._profiles.builtin import PROFILES

    profile = PROFILES.get(config.type)
    variable = find_vendor_variable(config, profile) if profile is not None else None
    return config if variable is None else attrs.evolve(config, api_key_env=variable)


def _config_of_type(choice: Choice) -> Any:
    """Return the configuration of a type, for its own key and its default endpoint, which it does not wait for."""
    from ctxbackends._config.backend_config import BackendConfig
    from ctxbackends._config.backend_types import ALL_TYPES
    from ctxbackends._profiles.builtin import PROFILES
    from ctxbackends.errors import UnknownBackendTypeError

    name = choice.backend or ""
    if name not in ALL_TYPES:
        raise UnknownBackendTypeError(name, tuple(ALL_TYPES), key="--backend")
    if name in PROFILES and PROFILES[name].default_endpoint is None:
        raise click.UsageError(f"--backend {name} requires --endpoint URL where there is no .ctxrc")
    return BackendConfig(name=name, type=name, api_key_env=choice.api_key_env, ready_timeout=0.0)


def _config_of_model(choice: Choice) -> Any:
    """Return the configuration of a server that the command starts itself."""
    from ctxbackends._config.backend_config import BackendConfig
    from ctxbackends.local._models import find_model_file

    path = find_model_file(choice.model_path or "")
    return BackendConfig(name="llamacpp", type="llamacpp", model_path=str(path))


def _registry_of_endpoint(choice: Choice, *, airgap: bool) -> Any:
    from ctxbackends._config.backend_config import BackendConfig
    from ctxbackends._config.ctxrc_file import find_ctxrc
    from ctxbackends._config.reader import airgap_of
    from ctxbackends._config.request_settings import describe_endpoint
    from ctxbackends._http.addresses import is_loopback
    from ctxbackends._registry import Registry
    from ctxbackends._util.secrets import ENVIRONMENT

    # For an endpoint on the command line, no key is taken from .ctxrc or a default variable: a key is sent only to its
    # own endpoint.
    kind = choice.backend or "openai-compatible"
    config = BackendConfig(
        name=choice.name or kind,
        type=kind,
        endpoint=choice.endpoint,
        api_key_env=choice.api_key_env or "",
        ready_timeout=0.0 if choice.no_wait else None,
    )
    # An option cannot bypass the file's airgap. Loopback is always allowed, so it works with an invalid file too.
    host = urlsplit(describe_endpoint(config, None, ENVIRONMENT)).hostname or ""
    path = None if is_loopback(host) else find_ctxrc()
    registry = Registry([_adapt(config, choice)], airgap=airgap or (path is not None and airgap_of(path)))
    if choice.api_key_env is None:
        _check_no_key_needed(host)
    return registry


def _check_no_key_needed(host: str) -> None:
    """Raise UsageError for the host of a vendor, who answers no request without a key."""
    from ctxbackends._profiles.builtin import PROFILES

    for profile in PROFILES.values():
        url = urlsplit(profile.default_endpoint or "")
        if profile.default_key_variable is not None and url.scheme == "https" and url.hostname == host:
            raise click.UsageError(f"no API key for {host}: use --api-key-env {profile.default_key_variable}")


def backend_options(command: Callable[Concatenate[Choice, P], Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """Add the options that select a backend, and run the command in an event loop."""

    @debug_option
    @click.option(
        "--backend",
        "-b",
        metavar="NAME",
        shell_complete=complete_backends,
        help="Name of a backend in .ctxrc; with --endpoint, or without a .ctxrc, a backend type.",
    )
    @click.option("--endpoint", metavar="URL", help="Use this server instead of a backend in .ctxrc.")
    @click.option(
        "--api-key-env",
        metavar="VARIABLE",
        help="With --endpoint, or without a .ctxrc: environment variable that contains the API key.",
    )
    @click.option(
        "--model-path",
        shell_complete=complete_model_files,
        metavar="FILE",
        help="Serve this GGUF file, or the downloaded model with this name, while the command runs.",
    )
    @click.option("--no-wait", is_flag=True, help="Do not wait for a server that is starting.")
    @wraps(command)
    def run(
        backend: str | None,
        endpoint: str | None,
        api_key_env: str | None,
        model_path: str | None,
        no_wait: bool,
        *args: P.args,
        **options: P.kwargs,
    ) -> R:
        exit_on_interrupt()
        source = find_source(backend, endpoint, api_key_env, model_path)
        choice = Choice(backend, endpoint, api_key_env, no_wait, model_path, source)
        click.get_current_context().find_root().meta[SOURCE] = choice.source
        raise_on_interrupt()
        import asyncio

        return asyncio.run(command(choice, *args, **options))

    return run


def find_source(backend: str | None, endpoint: str | None, api_key_env: str | None, model_path: str | None) -> Source:
    """Return where the settings of the backend come from. Raise UsageError if the options do not fit together."""
    if model_path is not None:
        if any(option is not None for option in (backend, endpoint, api_key_env)):
            raise click.UsageError("--model-path cannot be combined with --backend, --endpoint or --api-key-env")
        return "model"
    if endpoint is not None:
        from ctxbackends._profiles.builtin import PROFILES  # help needs none of it

        if backend is not None and backend not in PROFILES:
            raise click.UsageError(f"with --endpoint, --backend must be a backend type: {', '.join(PROFILES)}")
        return "endpoint"
    from ctxbackends._config.ctxrc_file import find_ctxrc

    if backend is not None and find_ctxrc() is None:
        return "type"
    if api_key_env is not None:
        raise click.UsageError("--api-key-env requires --endpoint; for a backend in .ctxrc, set api_key_env there")
    return "file"
