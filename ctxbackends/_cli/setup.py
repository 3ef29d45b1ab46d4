"""The command setup: add or update a backend in ``.ctxrc``, and keep the rest of the file."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctxbackends._cli.completers import complete_model_files
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.terminal import print_json
from ctxbackends._config.display import display_name
from ctxbackends._config.variables import find_variables
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig

# The variable in which other programs look for the same server; this package does not read it.
_BASE_URL_VARIABLES = {BackendType.ANTHROPIC: "ANTHROPIC_BASE_URL"}


class _BackendTypeChoice(click.Choice[str]):
    """A backend type; another name gets a suggestion."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the type. Raise BadParameter if there is none of that name."""
        if value not in self.choices:
            from ctxbackends.errors import UnknownBackendTypeError  # needed only after a mistake

            self.fail(UnknownBackendTypeError(display_name(value), self.choices).problem, param, ctx)
        return value


@click.command()
@click.option(
    "--backend",
    "backend",
    metavar="TYPE",
    required=True,
    type=_BackendTypeChoice([str(name) for name in PROFILES]),
    help=f"The backend type: {', '.join(PROFILES)}.",
)
@click.option("--name", help="Name of the backend; its type by default.")
@click.option("--endpoint", metavar="URL", help="Base URL of the server; the type's default if omitted.")
@click.option(
    "--api-key-env",
    metavar="VARIABLE",
    help="Environment variable that contains the API key. The key itself is never written.",
)
@click.option("--model", metavar="NAME", help="The default model.")
@click.option(
    "--model-path",
    metavar="FILE",
    shell_complete=complete_model_files,
    help="GGUF file, or name of a downloaded model, to serve on first use, instead of an endpoint (type llamacpp).",
)
@click.option("--default", "make_default", is_flag=True, help="Make it the default backend.")
@click.option("--check", is_flag=True, help="Afterwards, ask the server for its models, without waiting.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def setup(
    *,
    backend: str,
    name: str | None,
    endpoint: str | None,
    api_key_env: str | None,
    model: str | None,
    model_path: str | None,
    make_default: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Add or update a backend in the nearest .ctxrc.

    The file is searched from this directory upwards, and created here if there is none. No server is asked, except with
    --check: then the exit code is 1 if it does not answer, and the file is written all the same.
    """
    from ctxbackends._config.ctxrc_file import find_ctxrc
    from ctxbackends._config.reader import load_ctxrc
    from ctxbackends._config.writer import setup_backend
    from ctxbackends.errors import ConfigError

    path = find_ctxrc() or Path.cwd() / ".ctxrc"
    options = {"name": name, "endpoint": endpoint, "api_key_env": api_key_env, "default_model": model}
    try:
        result = setup_backend(
            path,
            type=backend,
            name=name,
            endpoint=endpoint,
            api_key_env=api_key_env,
            default_model=model,
            model_path=resolve_model_file(model_path, "--model-path") if model_path is not None else None,
            set_default=make_default,
        )
    except ConfigError as error:
        if options.get(error.key or "") is not None:  # the value is not in the file
            option = "model" if error.key == "default_model" else error.key
            error.path, error.key = None, f"--{option}".replace("_", "-")
        raise
    config = next(config for config in load_ctxrc(path).backends if config.name == result.name)
    _warn_of_other_base_url(backend, config.endpoint)
    if as_json:
        print_json(
            {"path": str(result.path), "name": result.name, "created": result.created, "changed": result.changed}
        )
    else:
        verb = "added to" if result.created else "updated in" if result.changed else "is unchanged in"
        click.echo(f'backend "{result.name}" {verb} {result.path}', err=True)
    _warn_of_unset_key(config)
    if check:
        # Not an import statement: setup itself imports no backend.
        import_module("ctxbackends._cli.setup_check").check_backend(result.name, as_json=as_json)
    elif not as_json:
        click.echo(f"try: ctxbackends ping --backend {result.name}", err=True)


def resolve_model_file(name: str, key: str) -> str:
    """Return the absolute path of a model file, or of the downloaded model with this name.

    Raises:
        ConfigError: There is no such file or model, or it is not a GGUF file. The message has ``key``.
    """
    from ctxbackends.local._models import find_model_file  # only for this option

    return str(find_model_file(name, key=key).resolve())


def _warn_of_unset_key(config: BackendConfig) -> None:
    from ctxbackends._config.summary import find_key_variable  # only after a change

    variable = find_key_variable(config)
    # The default variable of a server without TLS, such as a proxy on this machine, may not be needed.
    is_needed = config.api_key_env is not None or (config.endpoint or "").startswith("https://")
    if variable and is_needed and not os.environ.get(variable):
        click.echo(f"{variable} is not set; set it to the API key before the first request", err=True)


def _warn_of_other_base_url(backend: str, endpoint: str | None) -> None:
    variable = _BASE_URL_VARIABLES.get(BackendType(backend), "OPENAI_BASE_URL")
    other_url = os.environ.get(variable)
    if endpoint is None or not other_url or find_variables(endpoint):
        return
    from ctxbackends._config.endpoint import normalise_endpoint
    from ctxbackends.errors import InvalidEndpointError

    try:
        same = normalise_endpoint(other_url) == endpoint
    except InvalidEndpointError:
        same = False
    if not same:
        click.echo(
            f"warning: {variable} is set to another server; ctxbackends does not use it and connects to {endpoint}",
            err=True,
        )
