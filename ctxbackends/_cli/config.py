"""The commands of ``config``: list, show, set, remove, default, path and edit. They open no socket.

The configuration is imported in the functions, so that completing a command is fast.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.completers import complete_configured, complete_removable, complete_settings, complete_value
from ctxbackends._cli.options import json_option
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.terminal import print_json, print_table, printable, say, utf8

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig
    from ctxbackends._config.ctx_config import CtxConfig


@click.group()
def config() -> None:
    """Show and change .ctxrc.

    KEY is the name of a backend, a dot and one of its keys, such as ollama.timeout; or airgap, context_dir,
    default_backend or privacy.redact. Comments and all other text of the file are kept.
    """


@config.command("list")
@json_option
@debug_option
def list_backends(as_json: bool) -> None:
    """List the backends of .ctxrc."""
    from ctxbackends._config.ctxrc_file import no_backend_error
    from ctxbackends._config.summary import summarise
    from ctxbackends._util.secrets import ENVIRONMENT

    file = _load()
    if as_json:
        backends = [summarise(backend, ENVIRONMENT) for backend in file.backends]
        print_json({"path": str(file.path), "default_backend": file.default_backend, "backends": backends})
        return
    if not file.backends:
        raise no_backend_error(file.path)
    print_table([_row(backend, file.default_backend) for backend in file.backends])


def _row(backend: BackendConfig, default: str | None) -> dict[str, str]:
    from ctxbackends._config.summary import find_endpoint, find_key_variable
    from ctxbackends._util.secrets import ENVIRONMENT

    variable = find_key_variable(backend)
    return {
        "name": backend.name,
        "type": backend.type,
        "default": "yes" if backend.name == default else "",
        "endpoint": find_endpoint(backend) or backend.model_path or "",
        "model": backend.default_model or "",
        "key": "" if not variable else variable if ENVIRONMENT.get(variable) else f"{variable} (not set)",
    }


@config.command("show")
@click.argument("name", required=False, callback=utf8, shell_complete=complete_configured)
@json_option
@debug_option
def show_settings(name: str | None, as_json: bool) -> None:
    """Show the settings of a backend, or of the whole .ctxrc.

    API keys and passwords are never shown.
    """
    from ctxbackends._config.summary import format_setting, summarise
    from ctxbackends._util.secrets import ENVIRONMENT
    from ctxbackends.errors import UnknownBackendError

    file = _load()
    names = [backend.name for backend in file.backends]
    if name is not None and name not in names:
        raise UnknownBackendError(name, names, path=str(file.path))
    backends = [summarise(backend, ENVIRONMENT) for backend in file.backends if name in (None, backend.name)]
    top = {} if name is not None else _top_level(file)
    if as_json:
        print_json(backends[0] if name is not None else {**top, "backends": backends})
        return
    blocks = [block for block in (top, *backends) if block]
    for number, block in enumerate(blocks):
        if number:
            click.echo()
        is_set = block.pop("api_key_set", None)
        width = max(map(len, block))
        for field, value in block.items():
            note = " (not set)" if field == "api_key_env" and is_set is False else ""
            click.echo(printable(f"{field:{width}}  {format_setting(field, value)}{note}"))


def _top_level(file: CtxConfig) -> dict[str, Any]:
    from ctxbackends._config.reader import context_dir_of

    assert file.path is not None
    values: dict[str, Any] = {"path": str(file.path)}
    context_dir = context_dir_of(file.path)
    if file.default_backend is not None:
        values["default_backend"] = file.default_backend
    if file.airgap:
        values["airgap"] = True
    if context_dir is not None:
        values["context_dir"] = context_dir
    if file.redact:
        values["privacy.redact"] = list(file.redact)
    return values


@config.command("set")
@click.argument("key", callback=utf8, shell_complete=complete_settings)
@click.argument("value", callback=utf8, shell_complete=complete_value)
@debug_option
def set_value(key: str, value: str) -> None:
    """Set a setting, such as: set ollama.timeout 60s.

    A list is written as [a, b], a mapping as {name: value}. A path is relative to this directory. An invalid value
    leaves the file unchanged.
    """
    from ctxbackends._config.ctxrc_file import find_ctxrc
    from ctxbackends._config.reader import PATH_FIELDS
    from ctxbackends._config.setting_edits import set_setting

    field = key.rpartition(".")[2]
    if field == "model_path":
        from ctxbackends._cli.setup import resolve_model_file

        value = resolve_model_file(os.path.expanduser(value), key)
    path = find_ctxrc() or Path.cwd() / ".ctxrc"
    changed = set_setting(path, key, _relative_to(path, value) if field in PATH_FIELDS else value)
    click.echo(f"{key} {'set in' if changed else 'is unchanged in'} {path}", err=True)


def _relative_to(path: Path, value: str) -> str:
    """Return a path of this directory as one of the file's directory, so that both can be moved together."""
    if not value:
        return value
    absolute, directory = Path(os.path.abspath(os.path.expanduser(value))), path.absolute().parent
    return absolute.relative_to(directory).as_posix() if absolute.is_relative_to(directory) else str(absolute)


@config.command("remove")
@click.argument("key", metavar="NAME|KEY", callback=utf8, shell_complete=complete_removable)
@debug_option
def remove(key: str) -> None:
    """Remove a backend, or a setting.

    Comments above a backend are kept, those inside it are removed.
    """
    from ctxbackends._config.setting_edits import remove_setting

    path = _find()
    removal = remove_setting(path, key)
    click.echo(f'{f"""backend "{key}" """ if removal.backend else f"{key} "}removed from {path}', err=True)
    if removal.was_default or key == "default_backend":
        click.echo(_describe_no_default(removal.names), err=True)


def _describe_no_default(names: Sequence[str]) -> str:
    if not names:
        return "there is no default_backend now, and no backend; add one with ctxbackends setup --backend TYPE"
    if len(names) == 1:
        return f'there is no default_backend now; "{names[0]}" is used, as the only backend'
    return (
        f"there is no default_backend now; choose one of {', '.join(names)} with --backend, or with ctxbackends config "
        "default NAME"
    )


@config.command("default")
@click.argument("name", callback=utf8, shell_complete=complete_configured)
@debug_option
def set_default(name: str) -> None:
    """Set the default backend."""
    from ctxbackends._config.setting_edits import set_setting

    path = _find()
    changed = set_setting(path, "default_backend", name)
    click.echo(f'"{name}" {"is" if changed else "was already"} the default backend in {path}', err=True)


@config.command("path")
@json_option
@debug_option
def show_path(as_json: bool) -> None:
    """Print the path of the .ctxrc that is used."""
    from ctxbackends._config.ctxrc_file import find_ctxrc, no_ctxrc

    path = find_ctxrc()
    if as_json:
        print_json({"path": str(path) if path is not None else None, "searched_from": os.getcwd()})
    elif path is not None:
        click.echo(path)
    if path is None:
        raise click.ClickException(f"{no_ctxrc()}; ctxbackends setup --backend TYPE creates one")


@config.command("edit")
@debug_option
def edit() -> None:
    """Edit .ctxrc in $VISUAL or $EDITOR.

    The result is checked before the file is replaced.
    """
    from ctxbackends._config.ctxrc_file import read_bytes
    from ctxbackends._config.writer import lock_ctxrc, replace_ctxrc
    from ctxbackends.errors import ConfigError

    path = _find()
    target = Path(os.path.realpath(path))
    old = read_bytes(path)
    directory = Path(tempfile.mkdtemp(prefix="ctxrc-"))  # private: the file may be
    copy = directory / "ctxrc.yaml"  # the name tells an editor the language
    keep = False
    try:
        copy.write_bytes(old)
        new = _edit_until_valid(copy, path)
        if new == old:
            click.echo(f"{path} is unchanged", err=True)
            return
        try:
            with lock_ctxrc(path, target):
                replace_ctxrc(path, target, new, expected=old)
        except ConfigError as error:
            keep = True
            error.problem += f"; your text is in {copy}"
            raise
        click.echo(f"{path} is changed", err=True)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _edit_until_valid(copy: Path, path: Path) -> bytes:
    """Open the copy in an editor until it is valid, and return its content. Raises the error if the user gives up."""
    from ctxbackends._config.ctxrc_file import decode_text, read_bytes
    from ctxbackends._config.reader import check_document
    from ctxbackends.errors import ConfigError

    while True:
        click.edit(filename=str(copy))
        try:
            new = read_bytes(copy)
            check_document(decode_text(new, path), path=str(path))
        except ConfigError as error:
            if not (sys.stdin is not None and sys.stdin.isatty()):
                error.problem += "; the file is unchanged"
                raise
            say(str(error))
            if not click.confirm("Edit again?", default=True, err=True):
                raise click.ClickException(f"{path} is unchanged") from None
        else:
            return new


def _find() -> Path:
    from ctxbackends._config.ctxrc_file import find_ctxrc, no_backend_error

    path = find_ctxrc()
    if path is None:
        raise no_backend_error(None)
    return path


def _load() -> CtxConfig:
    from ctxbackends._config.reader import load_ctxrc

    return load_ctxrc(_find())
