"""The command doctor: one page that says what is configured, what runs, and what to do next."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import attrs
import click

from ctxbackends._cli.live_line import can_redraw, window_size
from ctxbackends._cli.options import json_option
from ctxbackends._cli.root import debug_option
from ctxbackends._cli.terminal import print_json, printable, waiting
from ctxbackends._util.text import format_size, one_line, pluralize

if TYPE_CHECKING:
    from ctxbackends._chat.servers import ServerStatus
    from ctxbackends._cli.diagnosis import Diagnosis

GOOD, BAD, NEUTRAL, PLAIN = "ok", "!!", "--", "  "
_COLOURS = {GOOD: "green", BAD: "red"}
_INDENT = 6
_MIN_COLUMNS = 20
_MAX_NAMES = 5


@click.command()
@json_option
@debug_option
def doctor(as_json: bool) -> None:
    """Show what is configured and what is running, and what to do next.

    The servers of .ctxrc and the usual ports of this machine are asked; nothing is generated. The exit code is 1 if no
    server and no downloaded model can be used.
    """
    with waiting() as line:
        line.show("asking the servers ...")
        found = _diagnose()
    if as_json:
        print_json(attrs.asdict(found, value_serializer=_serialize) | {"usable": found.is_usable})
    else:
        _print_page(found)
    if not found.is_usable:
        raise click.exceptions.Exit(1)


def _diagnose() -> Diagnosis:
    import asyncio  # after the first output, and help needs none of it

    from ctxbackends._cli.diagnosis import diagnose

    return asyncio.run(diagnose())


def _serialize(_: object, __: object, value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _print_page(found: Diagnosis) -> None:
    columns = max(_MIN_COLUMNS, window_size(sys.stdout)[0]) if sys.stdout.isatty() else None
    color = None if can_redraw(sys.stdout) else False  # TERM=dumb
    for title, lines in _build_sections(found):
        click.secho(title, bold=True, color=color)
        for mark, first, *details in lines:
            label = click.style(f"  {mark}  ", fg=_COLOURS.get(mark))
            click.echo(label + _wrap(first, columns), color=color)
            for detail in details:
                click.echo(" " * _INDENT + _wrap(detail, columns))
    click.secho("Next", bold=True, color=color)
    for advice in found.next:
        click.echo(f"  {printable(advice.command)}")  # never wrapped, so that it can be copied
        click.echo(" " * _INDENT + _wrap(advice.reason, columns))


def _wrap(text: str, columns: int | None) -> str:
    line = printable(one_line(text))
    if columns is None:
        return line
    lines = textwrap.wrap(line, columns - _INDENT, break_on_hyphens=False)
    return ("\n" + " " * _INDENT).join(lines)


_Lines: TypeAlias = Iterator[tuple[str, ...]]


def _build_sections(found: Diagnosis) -> Iterator[tuple[str, _Lines]]:
    yield "Configuration", _describe_configuration(found)
    if found.backends:
        yield "Backends", _describe_backends(found)
    yield "Other servers on this machine" if found.backends else "Servers on this machine", _describe_servers(found)
    yield "API keys", _describe_keys(found)
    yield "Models on this machine", _describe_models(found)
    yield "Log", _describe_log(found)
    yield "Versions", _describe_versions(found)


def _describe_configuration(found: Diagnosis) -> _Lines:
    if found.ctxrc is None:
        yield NEUTRAL, "no .ctxrc in this directory or above it"
        return
    if found.ctxrc_problem is not None:
        yield BAD, found.ctxrc_problem
    else:
        airgap = ["airgap: only loopback and private addresses are connected to"] if found.airgap else []
        yield GOOD, str(found.ctxrc), *airgap
    for path in found.hidden_ctxrcs:
        yield NEUTRAL, f"{path} is not read: the nearest file wins"


def _describe_backends(found: Diagnosis) -> _Lines:
    for backend in found.backends:
        status = backend.status
        name = f"{backend.name} (default)" if backend.is_default else backend.name
        type_ = "" if backend.type == backend.name else f"{backend.type} at "
        mark = GOOD if backend.is_usable else BAD
        details = [] if backend.other_type is None else [f"it says that it is {backend.other_type}: correct the type"]
        yield mark, f"{name}: {type_}{status.endpoint}", _describe_status(status), *details


def _describe_status(status: ServerStatus) -> str:
    details = [
        status.state,
        status.model,
        f"{status.context_length} tokens of context" if status.context_length else None,
        f"{pluralize(status.slots, 'slot')}" if status.slots else None,
        f"version {status.version}" if status.version else None,
    ]
    text = ", ".join(detail for detail in details if detail)
    return f"{text}: {status.problem}" if status.problem else text


def _describe_servers(found: Diagnosis) -> _Lines:
    for server in found.servers:
        mark = GOOD if server.is_usable else NEUTRAL
        version = f" {server.version}" if server.version else ""
        name = f"{server.type or 'unknown'}{version} at {server.endpoint}"
        if server.problem is not None:
            yield mark, name, server.problem
        elif not server.models:
            yield mark, name, "it has no models"
        else:
            loaded = f"; loaded: {', '.join(server.loaded)}" if server.loaded else ""
            yield mark, name, f"{_list_some(server.models)}{loaded}"
    if found.silent:
        ports = ", ".join(str(urlsplit(endpoint).port) for endpoint in found.silent)
        yield NEUTRAL, f"nothing listens on {'the ports' if len(found.silent) > 1 else 'port'} {ports}"


def _list_some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"


def _describe_keys(found: Diagnosis) -> _Lines:
    for name in found.set_keys:
        yield GOOD, f"{name} is set"
    for name in found.unset_keys:
        yield BAD, f"{name} is not set"
    if not found.set_keys and not found.unset_keys:
        yield NEUTRAL, "none is set"


def _describe_models(found: Diagnosis) -> _Lines:
    if found.cache_problem is not None:
        yield BAD, found.cache_problem
    for name, size in found.cached_models.items():
        yield GOOD, f"{name} ({format_size(size)})"
    if not found.cached_models and found.cache_problem is None:
        yield NEUTRAL, "none is downloaded"


def _describe_log(found: Diagnosis) -> _Lines:
    state = "on" if found.log_is_on else "off"
    if found.log_problem is not None:
        yield BAD, state, found.log_problem
    else:
        yield GOOD if found.log_is_on else NEUTRAL, state, str(found.log)


def _describe_versions(found: Diagnosis) -> _Lines:
    versions = found.versions
    yield PLAIN, f"ctxbackends {versions['ctxbackends']}, Python {versions['python']}, {versions['system']}"
    xllamacpp, server = versions["xllamacpp"], versions["llama-server"]
    engines = [f"xllamacpp {xllamacpp}" if xllamacpp else None, server]
    yield PLAIN, f"llama.cpp: {', '.join(one for one in engines if one) or 'not installed (extra llamacpp)'}"
    yield PLAIN, f"extras: {', '.join(name for name, is_there in found.extras.items() if is_there)}"
    if found.other_ctx is not None:
        yield PLAIN, f"ctx passes other commands to {found.other_ctx}"
