"""The options that select the backends of a batch: one, or several with the same model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.backends import Choice, find_source, open_choice, read_config
from ctxbackends._cli.completers import complete_backends, complete_model_files
from ctxbackends._cli.root import SOURCE, debug_option

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig


def backends_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the backends. :func:`choose_backends` reads them."""
    options = (
        debug_option,
        click.option(
            "--backend",
            "-b",
            "backends",
            metavar="NAME",
            multiple=True,
            shell_complete=complete_backends,
            help="Name of a backend in .ctxrc; with --endpoint, or without a .ctxrc, a backend type. Repeat it for "
            "several backends with the same model.",
        ),
        click.option(
            "--endpoint",
            "endpoints",
            metavar="URL",
            multiple=True,
            help="Use this server instead of a backend in .ctxrc. Repeat it for several servers with the same model.",
        ),
        click.option(
            "--api-key-env",
            metavar="VARIABLE",
            help="With --endpoint, or without a .ctxrc: environment variable that contains the API key.",
        ),
        click.option(
            "--model-path",
            shell_complete=complete_model_files,
            metavar="FILE",
            help="Serve this GGUF file, or the downloaded model with this name, while the command runs.",
        ),
        click.option("--no-wait", is_flag=True, help="Do not wait for a server that is starting."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def choose_backends(
    *,
    backends: Sequence[str],
    endpoints: Sequence[str],
    api_key_env: str | None,
    model_path: str | None,
    no_wait: bool,
) -> list[Choice]:
    """Return a choice for each backend.

    Raises:
        UsageError: The options do not fit together, or name a backend twice.
    """
    for option, values in (("--backend", backends), ("--endpoint", endpoints)):
        for at, value in enumerate(values):
            if value in values[:at]:
                raise click.UsageError(f"{option} names a backend twice: {value}")
    if endpoints and len(backends) > 1:
        raise click.UsageError("with --endpoint, --backend is the type of all servers, so give it once")
    pairs: list[tuple[str | None, str | None]] = (
        [(next(iter(backends), None), endpoint) for endpoint in endpoints]
        or [(name, None) for name in backends]
        or [(None, None)]
    )
    choices = [
        Choice(
            backend=backend,
            endpoint=endpoint,
            api_key_env=api_key_env,
            no_wait=no_wait,
            model_path=model_path,
            source=find_source(backend, endpoint, api_key_env, model_path),
            name=_short_name(endpoint) if endpoint is not None and len(endpoints) > 1 else None,
            in_one_piece=True,
        )
        for backend, endpoint in pairs
    ]
    click.get_current_context().find_root().meta[SOURCE] = choices[0].source
    return choices


def _short_name(endpoint: str) -> str:
    """Return the address without its scheme: several servers of one type need names that tell them apart."""
    return endpoint.partition("://")[2].rstrip("/") or endpoint


@asynccontextmanager
async def open_choices(choices: Sequence[Choice], *, private: Sequence[Path] = ()) -> AsyncIterator[list[Any]]:
    """Open the backends.

    Args:
        choices: The backends.
        private: The files of the batch that match ``privacy.redact``.

    Raises:
        ClickException: An endpoint is not private, and a file is.
    """
    if private:
        # Opened only for the endpoints. The airgap is on for the run: a host name could resolve to another address
        # later, and a proxy could send the rows elsewhere.
        async with _open_all(choices, airgap=False) as candidates:
            await _check_private(candidates, private[0])
    async with _open_all(choices, airgap=bool(private)) as backends:
        yield backends


@asynccontextmanager
async def read_configs(
    choices: Sequence[Choice], *, private: Sequence[Path] = ()
) -> AsyncIterator[tuple[list[BackendConfig], bool]]:
    """Yield the configurations for worker processes, and whether the airgap is on."""
    async with open_choices(choices, private=private):  # adds the models to the error of a missing one
        found = [await read_config(choice, airgap=bool(private)) for choice in choices]
        yield [config for config, _ in found], any(airgap for _, airgap in found)


@asynccontextmanager
async def _open_all(choices: Sequence[Choice], *, airgap: bool) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_choice(choice, airgap=airgap)) for choice in choices]


async def _check_private(backends: Sequence[Any], file: Path) -> None:
    from ctxbackends.knowledge._privacy.rules import is_private  # needed only for private files

    for backend in backends:
        if not await is_private(backend.endpoint):
            raise click.ClickException(
                f"{file}: not sent to {backend.endpoint}: matches privacy.redact of .ctxrc; choose a backend on this "
                "machine or in a private network"
            )
