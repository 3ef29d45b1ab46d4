"""The command serve: serve a GGUF file with llama.cpp until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from typing import Any

import click

from ctxbackends._cli.completers import complete_model_files
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.root import SOURCE, debug_option
from ctxbackends._cli.terminal import Waiting, print_json, waiting

DEFAULT_PORT = 8080
KEY_VARIABLE = "CTX_SERVE_KEY"
COUNT = Integer(1, 2**31 - 1)  # llama.cpp keeps these numbers in a C int
_CHECK_SECONDS = 0.2


@click.command()
@click.argument("model", shell_complete=complete_model_files)
@click.option("--port", type=Integer(1, 65535), default=DEFAULT_PORT, show_default=True, help="Port on 127.0.0.1.")
@click.option(
    "--ctx-size",
    type=COUNT,
    help="Context of all slots together, in tokens; the model's context by default.",
)
@click.option("--parallel", type=COUNT, help="Number of slots, one for each concurrent request.")
@click.option("--threads", type=COUNT, help="Number of CPU threads.")
@click.option("--alias", help="Name of the model; the file's name by default.")
@click.option(
    "--api-key-env",
    metavar="VARIABLE",
    help="Require the API key in this environment variable; by default, a new key, which is printed.",
)
@click.option(
    "--no-key", is_flag=True, help="Require no API key: web pages and other users of this machine can use the server."
)
@click.option("--embeddings", is_flag=True, help="Also serve embeddings.")
@click.option("--show-log", is_flag=True, help="Show the log of llama.cpp.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object when the server is ready.")
@debug_option
def serve(
    model: str,
    api_key_env: str | None,
    no_key: bool,
    show_log: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Serve a GGUF model with llama.cpp on this machine, until Ctrl-C.

    MODEL is a .gguf file, or the name of a downloaded model.
    """
    if no_key and api_key_env is not None:
        raise click.UsageError("--no-key and --api-key-env are mutually exclusive")
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise click.ClickException(
                f"environment variable not set: {api_key_env}; set it to the API key that clients must send"
            )
    click.get_current_context().find_root().meta[SOURCE] = "model"
    with waiting() as line:
        line.show(f"starting {model}")
        from ctxbackends.local import LocalServer  # after the first line on the terminal
        from ctxbackends.local._models import find_model_file
        from ctxbackends.local._serve import fresh_key

        path = find_model_file(model)
        if key is None and not no_key:
            key = fresh_key()
        server = LocalServer(path, api_key=key, inherit_log=show_log, **options)
        try:
            asyncio.run(_serve(server, line, ctx_size=options["ctx_size"], api_key_env=api_key_env, as_json=as_json))
        except asyncio.CancelledError:  # SIGTERM; asyncio.run raises KeyboardInterrupt for a Ctrl-C by itself
            raise KeyboardInterrupt from None


async def _serve(
    server: object, line: Waiting, *, ctx_size: int | None, api_key_env: str | None, as_json: bool
) -> None:
    from ctxbackends._config.backend_config import BackendConfig
    from ctxbackends._http.transport import Transport
    from ctxbackends._profiles.profile import BackendType
    from ctxbackends.local import LocalServer, managed_backend
    from ctxbackends.local._gguf import read_header
    from ctxbackends.local._memory import describe_context

    assert isinstance(server, LocalServer)
    task = asyncio.current_task()
    assert task is not None
    if sys.platform != "win32":  # a terminated process ends at once there; the server notices it and ends too
        # A terminated `ctxbackends serve` ends its server like an interrupted one.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    transport = Transport()
    config = BackendConfig(name="serve", type=BackendType.LLAMACPP, model_path=str(server.model_path))
    backend = managed_backend(config, transport, server=server)
    try:
        await backend.wait_ready(on_progress=line)
        line.stop()
        limit = describe_context(await backend.status(), read_header(server.model_path), ctx_size=ctx_size)
        new_key = server.api_key if api_key_env is None else None
        if as_json:
            print_json(
                {"endpoint": backend.endpoint, "model": server.alias, "pid": server.pid}
                | ({"api_key": new_key} if new_key is not None else {})
            )
        else:
            click.echo(f"{server.alias} is ready at {backend.endpoint} (press Ctrl-C to stop)", err=True)
            if limit is not None:
                click.echo(limit, err=True)
            if new_key is not None:
                click.echo("clients need this API key; in another terminal, run:", err=True)
                click.echo(set_variable_line(KEY_VARIABLE, new_key), err=True)
            variable = api_key_env or (KEY_VARIABLE if new_key is not None else None)
            key_option = f" --api-key-env {variable}" if variable is not None else ""
            click.echo(
                f"try: ctxbackends chat --backend llamacpp --endpoint {backend.endpoint}{key_option} "
                f"--model {shlex.quote(server.alias)} 'Hello'",
                err=True,
            )
        while (failure := server.failure()) is None:
            await asyncio.sleep(_CHECK_SECONDS)
        raise failure
    finally:
        try:
            await server.aclose()
        finally:
            await transport.aclose()


def set_variable_line(name: str, value: str) -> str:
    """Return the line that sets an environment variable in the platform's shell."""
    return f"$env:{name} = '{value}'" if sys.platform == "win32" else f"export {name}={value}"
