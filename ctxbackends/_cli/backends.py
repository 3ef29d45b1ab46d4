"""The options that choose a backend, and the backend that they choose."""

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
    """Which backend a command is for, as the options say."""

    backend: str | None
    endpoint: str | None
    api_key_env: str | None


@asynccontextmanager
async def opened(choice: Choice, *, airgap: bool = False) -> AsyncIterator[Any]:
    """The chosen backend, in a registry of its own. ``airgap`` adds to what the file says."""
    async with registry_of(choice, airgap=airgap) as registry:
        yield registry.resolve(choice.backend if choice.endpoint is None else None)


def registry_of(choice: Choice, *, airgap: bool = False) -> Any:
    """The backends that ``choice`` is made among: those of .ctxrc, or the one of the command line. ``airgap`` adds to
    what the file says."""
    from ctxbackends._config.backend_config import BackendConfig  # noqa: PLC0415  # aiohttp is loaded only when a request is made
    from ctxbackends._config.reader import airgap_of, find_ctxrc  # noqa: PLC0415
    from ctxbackends._http.addresses import is_loopback  # noqa: PLC0415
    from ctxbackends._registry import Registry  # noqa: PLC0415

    if choice.endpoint is None:
        return Registry.from_ctxrc(airgap=airgap)
    # An endpoint on the command line takes no key from .ctxrc or a default variable: a key goes to its own endpoint
    # alone.
    kind = choice.backend or "openai-compatible"
    config = BackendConfig(name=kind, type=kind, endpoint=choice.endpoint, api_key_env=choice.api_key_env or "")
    # An option is no way out of what the file forbids. Loopback needs no look: it works with a file that is broken.
    path = None if is_loopback(urlsplit(config.endpoint or "").hostname or "") else find_ctxrc()
    return Registry([config], airgap=airgap or (path is not None and airgap_of(path)))


def backend_options(command: Callable[Concatenate[Choice, P], Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """The options that choose a backend, and the event loop under the command."""

    @debug_option
    @click.option("--backend", "-b", metavar="NAME", help="A backend of .ctxrc; with --endpoint, a backend type.")
    @click.option("--endpoint", metavar="URL", help="Talk to this server, without .ctxrc.")
    @click.option(
        "--api-key-env", metavar="VARIABLE", help="With --endpoint: the environment variable that holds the API key."
    )
    @wraps(command)
    def run(
        backend: str | None, endpoint: str | None, api_key_env: str | None, *args: P.args, **options: P.kwargs
    ) -> R:
        if endpoint is None and api_key_env is not None:
            raise click.UsageError("--api-key-env goes with --endpoint; in .ctxrc it is the backend's api_key_env")
        from ctxbackends._profiles.builtin import PROFILES  # noqa: PLC0415  # help needs none of it

        if endpoint is not None and backend is not None and backend not in PROFILES:
            raise click.UsageError(f"with --endpoint, --backend is a backend type: {', '.join(PROFILES)}")
        return asyncio.run(command(Choice(backend, endpoint, api_key_env), *args, **options))

    return run
