"""The command pull: download a small model, and the list of the models on this machine."""

from __future__ import annotations

import signal
from collections.abc import Callable

import attrs
import click

from ctxbackends._cli.completers import complete_known_models
from ctxbackends._cli.options import json_option
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.terminal import PlainInterval, Waiting, print_json, print_table, waiting


@click.command()
@click.argument("name", shell_complete=complete_known_models)
@json_option
@debug_option
def pull(name: str, as_json: bool) -> None:
    """Download a model to this machine, to serve it by name.

    NAME is one of the models that ctxbackends models --local lists.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, it leaves nothing in the cache
    try:
        with waiting() as line:
            line.show(f"checking {name}")
            from ctxbackends._util.text import format_size  # after the first line on the terminal
            from ctxbackends.local import pull_model
            from ctxbackends.local._models import CHAT_ARGUMENTS, find_cached, find_known, has_server, install_command

            model = find_known(name)
            was_cached = find_cached(name) is not None
            path = pull_model(name, on_progress=show_download(line, name, format_size(model.size)))
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json({"name": name, "path": str(path), "size": model.size, "license": model.license})
        return
    verb = "is already at" if was_cached else "was downloaded to"
    click.echo(f"{name} ({format_size(model.size)}, {model.license}) {verb} {path}", err=True)
    if not has_server():
        click.echo(f"to serve it, run: {install_command()}", err=True)
    click.echo(f"try: ctxbackends chat --model-path {name} {CHAT_ARGUMENTS}", err=True)


def show_download(line: Waiting, name: str, size: str) -> Callable[[int, int], None]:
    """Return a callback that shows the progress of a download: on one live line, or on plain lines."""
    interval = PlainInterval()

    def show(done: int, total: int) -> None:
        text = f"downloading {name} ({100 * done // total}% of {size})"  # the bytes are those of the smaller package
        if line.is_live:
            line.show(text)
        elif interval.is_due():
            click.echo(text, err=True)

    return show


def print_local_models(*, as_json: bool) -> None:
    """Print the models in the cache, and those that can be downloaded to it."""
    from ctxbackends._util.text import format_size
    from ctxbackends.local import list_models

    models = list_models()
    if as_json:
        print_json([attrs.asdict(model) | {"path": str(model.path)} for model in models])
        return
    print_table(
        [
            {
                "model": model.name,
                "state": model.state,
                "size": format_size(model.size),
                "license": model.license or "",
                "description": model.description or str(model.path),
            }
            for model in models
        ]
    )
    if all(model.state != "cached" for model in models):
        click.echo(f"download one with ctxbackends pull {models[0].name}", err=True)
