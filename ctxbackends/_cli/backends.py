"""The options that select a backend, and the selected backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

import attrs
import click

from ctxbackends._cli.root import debug_option

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class Choice:
    """The options that select a backend."""

    backend: str | None
    endpoint: str | None
    api_key_env: str | None


@asynccontextmanager
async def open_choice(choice: Choice, *, airgap: bool = False) -> AsyncIterator[Any]:
    """Open the selected backend; ``airgap`` turns it on even if the file does not."""
    async with registry_of(choice, airgap=airgap) as registry:
        yield registry.resolve(choice.backend if choice.endpoint is None else None)


def registry_of(choice: Choice, *, airgap: bool = False) -> Any:
    """Return a registry with the backends of .ctxrc, or the one on the command line.

    ``airgap`` turns it on even if the file does not.
    """
    from ctxbackends._config.backend_config import BackendConfig  # noqa: PLC0415  # aiohttp is loaded only when a request is made
    from ctxbackends._config.ctxrc_file import find_ctxrc  # noqa: PLC0415
    from ctxbackends._config.reader import airgap_of  # noqa: PLC0415
    from ctxbackends._config.request_settings import describe_endpoint  # noqa: PLC0415
    from ctxbackends._http.addresses import is_loopback  # noqa: PLC0415
    from ctxbackends._registry import Registry  # noqa: PLC0415
    from ctxbackends._util.secrets import ENVIRONMENT  # noqa: PLC0415

    if choice.endpoint is None:
        return Registry.from_ctxrc(airgap=airgap)
    # For an endpoint on the command line, no key is taken from .ctxrc or a default variable: a key is sent only to its
    # own endpoint.
    kind = choice.backend or "openai-compatible"
    config = BackendConfig(name=kind, type=kind, endpoint=choice.endpoint, api_key_env=choice.api_key_env or "")
    # An option cannot bypass the file's airgap. Loopback is always allowed, so it works with an invalid file too.
    endpoint = describe_endpoint(config, None, ENVIRONMENT)
    path = None if is_loopback(urlsplit(endpoint).hostname or "") else find_ctxrc()
    return Registry([config], airgap=airgap or (path is not None and airgap_of(path)))


def backend_options(command: Callable[Concatenate[Choice, P], Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """Add the options that select a backend, and run the command in an event loop."""

    @debug_option
    @click.option(
        "--backend", "-b", metavar="NAME", help="Name of a backend in .ctxrc; with --endpoint, a backend type."
    )
    @click.option("--endpoint", metavar="URL", help="Use this server instead of a backend in .ctxrc.")
    @click.option(
        "--api-key-env", metavar="VARIABLE", help="With --endpoint: environment variable that contains the API key."
    )
    @wraps(command)
    def run(
        backend: str | None, endpoint: str | None, api_key_env: str | None, *args: P.args, **options: P.kwargs
    ) -> R:
        if endpoint is None and api_key_env is not None:
            raise click.UsageError("--api-key-env requires --endpoint; for a backend in .ctxrc, set api_key_env there")
        from ctxbackends._profiles.builtin import PROFILES  # noqa: PLC0415  # help needs none of it

        if endpoint is not None and backend is not None and backend not in PROFILES:
            raise click.UsageError(f"with --endpoint, --backend must be a backend type: {', '.join(PROFILES)}")
        return asyncio.run(command(Choice(backend, endpoint, api_key_env), *args, **options))

    return run
