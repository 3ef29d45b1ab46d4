"""The options of a run that select the kinds of rows and instruct the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ctxbackends._cli.chat.schema_option import is_schema_file, parse_schema
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.options import parse_kinds
from ctxbackends._cli.text_inputs import decode_utf8
from ctxbackends.knowledge._records import PLURALS

if TYPE_CHECKING:
    from ctxbackends.knowledge._own_kinds import OwnKind


def kind_options(flag: str, kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options; ``flag`` is the option for the built-in kinds, whose default is ``kinds``."""
    options = (
        click.option(
            flag,
            "kinds",
            metavar="KINDS",
            default=kinds,
            show_default=True,
            callback=parse_kinds,
            help=f"Kinds to extract: any of {', '.join(PLURALS)}.",
        ),
        click.option(
            "--kind",
            "own_kinds",
            metavar="NAME=SCHEMA",
            multiple=True,
            callback=_parse_own_kinds,
            help="A kind of your own: a JSON Schema, a file with one, or a list of fields such as 'title, cost int'. "
            f"May be repeated. Without {flag}, only these kinds are extracted.",
        ),
        click.option(
            "--kinds-per-question",
            type=Integer(min=1),
            help="Maximum number of kinds per request; each chunk is sent once for each group of kinds. 1 for small "
            "models by default.",
        ),
        click.option(
            "--instructions",
            metavar="FILE",
            type=click.Path(path_type=Path),
            callback=_read_instructions,
            help="A text file with additional instructions to the model.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def select_kinds(kinds: Sequence[Any], own_kinds: Sequence[Any]) -> tuple[Any, ...]:
    """Return the kinds of a run: with own kinds, the built-in ones only if the option for them was used."""
    source = click.get_current_context().get_parameter_source("kinds")
    return (*kinds, *own_kinds) if not own_kinds or source is not ParameterSource.DEFAULT else tuple(own_kinds)


_PROMPT_FILES = f"{__name__}.prompt_files"


def get_prompt_files() -> tuple[Path, ...]:
    """Return the files of the instructions and of own kinds."""
    return tuple(click.get_current_context().meta.get(_PROMPT_FILES, ()))


def _add_prompt_file(context: click.Context, path: Path) -> None:
    context.meta.setdefault(_PROMPT_FILES, []).append(path)


def _parse_own_kinds(context: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[OwnKind, ...]:
    from ctxbackends.knowledge._own_kinds import OwnKind  # most runs have none

    kinds = []
    for value in values:
        name, equals, schema = value.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.BadParameter(f"not NAME=SCHEMA: {value!r}; write it as in incident=schema.json")
        try:
            kinds.append(OwnKind(name, parse_schema(schema, f"--kind {name}")))
        except ValueError as error:
            raise click.ClickException(f"--kind {name}: {error}") from None
        if is_schema_file(schema):
            _add_prompt_file(context, Path(schema.strip()))
    return tuple(kinds)


def _read_instructions(context: click.Context, __: click.Parameter, path: Path | None) -> str | None:
    from ctxbackends.knowledge._extract.options import RunOptions

    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read the instructions: {path}: {error.strerror}") from None
    text = decode_utf8(data, str(path), encoding="utf-8-sig")
    try:
        RunOptions(instructions=text)
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
    _add_prompt_file(context, path)
    return text
