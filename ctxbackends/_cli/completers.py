"""Completions of values from `.ctxrc`: backends, models and settings. They open no socket.

Pass one as ``shell_complete`` of an option or an argument. The file is read without a check of its values: completion
must be fast, and useful while a file is being written. A file that is not YAML is an error, which
:mod:`ctxbackends._cli.completion` drops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ctxbackends._config.yaml_nodes import Node


def complete_backends(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backends of ``.ctxrc``; the backend types with ``--endpoint`` or without a file."""
    backends = None if context.params.get("endpoint") else _read_backends()
    if backends is not None:
        return _match(_describe(backends), incomplete)
    from ctxbackends._config.backend_types import ALL_TYPES  # reads the installed plug-ins

    return _match(((name, "") for name in ALL_TYPES), incomplete)


def complete_configured(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backends of ``.ctxrc``."""
    return _match(_describe(_read_backends() or {}), incomplete)


def complete_models(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models of ``.ctxrc``: those of the selected backend, or of all."""
    selected = context.params.get("backend") or ()
    selected = (selected,) if isinstance(selected, str) else selected
    models: dict[str, str] = {}
    for name, fields in (_read_backends() or {}).items():
        if (not selected or name in selected) and fields.get("default_model"):
            models.setdefault(fields["default_model"], name)
    return _match(models.items(), incomplete)


def complete_model_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the cached models, and files."""
    from ctxbackends.local._models import list_models  # reads the cache

    cached = ((model.name, model.description) for model in list_models() if model.state == "cached")
    return [*_match(cached, incomplete), _file(incomplete)]


def complete_known_models(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the models that can be downloaded."""
    from ctxbackends.local._known_models import KNOWN_MODELS

    return _match(((model.name, "") for model in KNOWN_MODELS), incomplete)


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return files."""
    return [_file(incomplete)]


def complete_settings(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the settings of ``.ctxrc`` as ``config set`` names them."""
    from ctxbackends._config.reader import FIELDS  # imports the backend types
    from ctxbackends._config.setting_edits import TOP_LEVEL_SETTINGS

    backends = _read_backends() or {}
    keys = [f"{name}.{field}" for name in backends if incomplete.startswith(f"{name}.") for field in FIELDS]
    return _match(((key, "") for key in (*keys, *(f"{name}." for name in backends), *TOP_LEVEL_SETTINGS)), incomplete)


def complete_removable(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backends and the settings of ``.ctxrc``."""
    return [
        *complete_configured(context, parameter, incomplete),
        *complete_settings(context, parameter, incomplete),
    ]


def complete_value(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the values of the setting ``key`` that can be listed; files for a path."""
    from ctxbackends._config.backend_types import ALL_TYPES  # imports the backend types
    from ctxbackends._config.reader import FIELDS, PATH_FIELDS
    from ctxbackends._config.yaml_nodes import flag_of

    key = context.params.get("key") or ""
    field = key.rpartition(".")[2]
    if field in PATH_FIELDS or key == "context_dir":
        return [_file(incomplete)]
    values: Iterable[str] = ()
    if key == "default_backend":
        values = _read_backends() or ()
    elif key == "airgap" or FIELDS.get(field) is flag_of:
        values = ("true", "false")
    elif field == "model_mismatch":
        values = ("error", "warn", "ignore")
    elif field == "type":
        values = ALL_TYPES
    return _match(((value, "") for value in values), incomplete)


def _read_backends() -> dict[str, dict[str, str]] | None:
    """Return the texts in the entries of the nearest ``.ctxrc`` by name; None without a file."""
    from ctxbackends._config.ctxrc_file import find_ctxrc, read_text  # not for commands and options
    from ctxbackends._config.yaml_nodes import compose

    path = find_ctxrc()
    if path is None:
        return None
    root = compose(read_text(path), str(path))
    lists = [value for key, value in _pairs(root) if key.value == "backends" and value.id == "sequence"]
    entries = [
        {str(key.value): str(value.value) for key, value in _pairs(node) if value.id == key.id == "scalar"}
        for sequence in lists
        for node in sequence.value
    ]
    return {entry["name"]: entry for entry in entries if "name" in entry}


def _pairs(node: Node | None) -> list[tuple[Node, Node]]:
    return node.value if node is not None and node.id == "mapping" else []


def _describe(backends: Mapping[str, Mapping[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name, fields.get("type", name)) for name, fields in backends.items())


def _match(values: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # this module is imported by every command

    return [CompletionItem(value, help=text or None) for value, text in values if value.startswith(incomplete)]


def _file(incomplete: str) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(incomplete, type="file")
