"""Set and remove a setting of a `.ctxrc` by its name, such as `ollama.timeout`, or a whole backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from ctxbackends._config.display import display_name
from ctxbackends._config.reader import (
    FIELDS,
    NO_KEYS,
    OTHER_TOP_LEVEL,
    PATH_FIELDS,
    Document,
    Entry,
    check_document,
    field_problem,
    resolve_path,
)
from ctxbackends._config.writer import EditableFile, open_to_edit, written_endpoint
from ctxbackends._config.yaml_edits import Literal, as_scalar
from ctxbackends._config.yaml_nodes import Node, compose, text_of
from ctxbackends._suggestions import suggest
from ctxbackends._util.api_key_shapes import mask_keys
from ctxbackends.errors import ConfigError, DuplicateBackendError, UnknownBackendError

TOP_LEVEL_SETTINGS = ("default_backend", "airgap", "context_dir", "privacy.redact")
"""The settings that belong to no backend."""


@attrs.frozen(kw_only=True)
class Removal:
    """The result of :func:`remove_setting`.

    Attributes:
        backend: Whether the whole backend was removed.
        was_default: Whether it was the default backend.
        names: Names of the backends that are left.
        default: The default backend now.
    """

    backend: bool
    was_default: bool = False
    names: tuple[str, ...] = ()
    default: str | None = None


def set_setting(path: Path, key: str, value: str) -> bool:
    """Set a setting in the file ``path``, and keep everything else.

    Args:
        path: The ``.ctxrc``.
        key: The name of a backend, a dot and a key of it; or one of ``TOP_LEVEL_SETTINGS``.
        value: The value, as in the file; lists and mappings as ``[a, b]`` and ``{name: value}``.

    Returns:
        Whether the file was written. It is not if the setting has this value already.

    Raises:
        ConfigError: The key or the value is not valid, or the file cannot be read or written. It is unchanged then.
    """
    with open_to_edit(path) as file:
        entry, field = find_setting(file.document, key)
        if mask_keys(value)[1]:
            raise ConfigError(f"the value looks like an API key (not shown); {NO_KEYS}", key=key)
        try:
            return _set_top_level(file, field, value) if entry is None else _set_field(file, entry, field, value)
        except ConfigError as error:
            error.key = key if error.key == field else error.key
            raise


def remove_setting(path: Path, key: str) -> Removal:
    """Remove a backend or a setting from the file ``path``, and keep everything else.

    Args:
        path: The ``.ctxrc``.
        key: The name of a backend, or a key as in :func:`set_setting`.

    Raises:
        ConfigError: There is no such backend or setting, the rest would not be valid, or the file cannot be written.
            It is unchanged then.
    """
    with open_to_edit(path) as file:
        document = file.document
        default = document.config.default_backend
        whole = next((entry for entry in document.entries if entry.config.name == key), None)
        if whole is not None:
            return _remove_backend(file, whole)
        entry, field = find_setting(document, key)
        configs = [one.config for one in document.entries]
        if entry is not None:
            if field not in entry.fields:
                raise ConfigError("is not set", key=key)
            if field == "name":
                raise ConfigError(f"every backend needs a name; remove the backend with its name {key[:-5]}", key=key)
            config = file.build({name: value for name, value in entry.fields.items() if name != field})
            file.edit.update(entry, {}, removed=[field])
            configs[document.entries.index(entry)] = config
            file.write(configs, default=default, key="backends")
            return Removal(backend=False, default=default)
        top = field.partition(".")[0]
        if top not in document.keys:
            raise ConfigError("is not set", key=key)
        file.edit.remove_key(top)
        default = None if top == "default_backend" else default
        file.write(configs, default=default, key=top)
        return Removal(backend=False, names=tuple(document_names(document)), default=default)


def find_setting(document: Document, key: str) -> tuple[Entry | None, str]:
    """Return the backend of a setting (None for one that belongs to none) and its key.

    Raises:
        ConfigError: There is no such setting; the message has a suggestion.
    """
    if key in TOP_LEVEL_SETTINGS:
        return None, key
    names = document_names(document)
    # Names of backends may have dots, keys have none.
    name, dot, field = key.rpartition(".")
    entry = next((entry for entry in document.entries if entry.config.name == name), None)
    if entry is not None:
        problem = field_problem(field)
        if problem is not None:
            raise ConfigError(problem, key=display_name(key))
        return entry, field
    shown = display_name(key)
    if key in names:
        raise ConfigError(f"is a backend; write {shown}.KEY, such as {shown}.timeout", key=shown)
    if key in OTHER_TOP_LEVEL:
        raise ConfigError("belongs to the Go tool ctx; change it there, or in an editor", key=shown)
    if key == "backends":
        raise ConfigError("add backends with ctxbackends setup --backend TYPE, or use an editor", key=shown)
    if dot and field_problem(field) is None:
        raise UnknownBackendError(display_name(name), names)
    if field_problem(key) is None:
        raise ConfigError(
            f"is a key of a backend; write BACKEND.{key}; backends: {', '.join(names) or 'none'}", key=key
        )
    raise ConfigError(f"unknown setting; {suggest(key, (*names, *TOP_LEVEL_SETTINGS, 'BACKEND.KEY'))}", key=shown)


def document_names(document: Document) -> list[str]:
    """Return the names of the backends, in their order."""
    return [entry.config.name for entry in document.entries]


def _set_field(file: EditableFile, entry: Entry, field: str, text: str) -> bool:
    value, written = _convert(field, text)
    if field in PATH_FIELDS and value:
        value = resolve_path(value, str(file.path))
    names = document_names(file.document)
    if field == "name" and value in names:
        raise DuplicateBackendError(display_name(value), key=field)
    config = file.build({**entry.fields, field: value})
    if field in entry.fields and config == entry.config:
        return False
    if field == "endpoint" and config.endpoint is not None:
        written = written_endpoint(config, config.endpoint)
    default = file.document.config.default_backend
    if field == "name" and default == entry.config.name:
        default = config.name
        file.edit.set_key("default_backend", config.name)
    file.edit.update(entry, {field: written}, removed=())
    configs = [config if one is entry else one.config for one in file.document.entries]
    file.write(configs, default=default, key="backends")
    return True


def _convert(field: str, text: str) -> tuple[Any, str]:
    """Return the value of a field of a backend, and how it is written."""
    read = FIELDS[field]
    if read is text_of:
        return text, text
    node = _parse(text, field)
    try:
        value = read(node)
    except ValueError as error:
        raise ConfigError(str(error), key=field) from None
    if node.id != "scalar":
        return value, Literal(json.dumps(value, ensure_ascii=False))
    return value, Literal(node.value) if isinstance(value, int) else node.value


def _parse(text: str, key: str) -> Node:
    """Return the value on the command line as YAML. Raises ConfigError."""
    try:
        node = compose(text, "")
    except ConfigError:
        node = None
    if node is None:
        raise ConfigError("not a value; write a list as [a, b] and a mapping as {name: value}", key=key)
    return node


def _set_top_level(file: EditableFile, key: str, text: str) -> bool:
    document = file.document
    configs = [entry.config for entry in document.entries]
    if key == "default_backend":
        if text not in document_names(document):
            raise UnknownBackendError(display_name(text), document_names(document), key=key)
        if text == document.config.default_backend:
            return False
        file.edit.set_key(key, text)
        file.write(configs, default=text, key=key)
        return True
    top, _, member = key.partition(".")
    written = text if key == "context_dir" else _convert_top_level(text, key)
    new = f'{{"{member}": {written}}}' if member else as_scalar(written)
    try:
        check_document(f"{top}: {new}", path=str(file.path))
    except ConfigError as error:
        error.line = None
        raise
    if file.has_value(top, new):
        return False
    if member:
        file.edit.set_member(top, member, written)
    else:
        file.edit.set_key(top, written)
    file.write(configs, default=document.config.default_backend, key=top, new=new)
    return True


def _convert_top_level(text: str, key: str) -> str:
    """Return a flag or a list as it is written."""
    node = _parse(text, key)
    if node.id == "scalar":
        return Literal(node.value)
    if node.id != "sequence" or any(item.id != "scalar" for item in node.value):
        raise ConfigError("must be true, false or a list such as [a, b]", key=key)
    return Literal(json.dumps([item.value for item in node.value], ensure_ascii=False))


def _remove_backend(file: EditableFile, entry: Entry) -> Removal:
    document = file.document
    default = document.config.default_backend
    was_default = entry.config.name == default
    file.edit.remove(entry)
    if was_default:
        file.edit.remove_key("default_backend")
        default = None
    left = [one.config for one in document.entries if one is not entry]
    file.write(left, default=default, key="backends")
    return Removal(backend=True, was_default=was_default, names=tuple(config.name for config in left), default=default)
