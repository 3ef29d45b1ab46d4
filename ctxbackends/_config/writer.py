"""Change a `.ctxrc`, add or update one of its backends, and keep every other byte of the file.

Loading and dumping the file would rewrap strings and move comments of other programs. So the text is edited at the
positions of its YAML nodes, and the result is parsed again: unless it contains the change and nothing else differs,
nothing is written. An unusual layout ends in an error, never in a damaged file.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from ctxbackends._config.backend_config import LOCAL_ONLY, BackendConfig, unknown_type
from ctxbackends._config.backend_types import ALL_TYPES
from ctxbackends._config.ctxrc_file import MAX_FILE_SIZE, decode_text, read_bytes
from ctxbackends._config.endpoint import normalise_endpoint
from ctxbackends._config.reader import Document, Entry, read_document, resolve_path
from ctxbackends._config.request_settings import path_to_remove
from ctxbackends._config.yaml_edits import EXCLUSIVE, YamlEdit
from ctxbackends._config.yaml_nodes import Node
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._util.files import lock_directory, replace_file
from ctxbackends.errors import ConfigError


@attrs.frozen(kw_only=True)
class SetupResult:
    """The result of :func:`setup_backend`.

    Attributes:
        path: The file.
        name: Name of the backend.
        created: Whether the entry is new.
        changed: Whether the file was written.
    """

    path: Path
    name: str
    created: bool
    changed: bool


def setup_backend(
    path: Path,
    *,
    type: str,  # noqa: A002  # the key's name in the file
    name: str | None = None,
    endpoint: str | None = None,
    api_key_env: str | None = None,
    default_model: str | None = None,
    model_path: str | None = None,
    set_default: bool = False,
    types: Collection[str] = ALL_TYPES,
) -> SetupResult:
    """Add a backend to the file ``path``, or change fields of it.

    Args:
        path: The ``.ctxrc``; created if it does not exist.
        type: Backend type.
        name: Name of the backend; None for the type's name.
        endpoint: New endpoint; replaces ``model_path``. None to keep it.
        api_key_env: Name of an environment variable, ``""`` for no key; None to keep it.
        default_model: New default model; None to keep it.
        model_path: GGUF file, relative to the directory of ``path``; replaces ``endpoint``. None to keep it.
        set_default: Whether to set ``default_backend`` to it too.
        types: The backend types that the file may use.

    Raises:
        ConfigError: The file or a value is invalid, or the file cannot be written. The file is unchanged.
    """
    if type not in types:
        raise unknown_type(type, types, implied=False)
    name = str(type) if name is None else name
    optional = {
        "endpoint": endpoint,
        "model_path": model_path,
        "api_key_env": api_key_env,
        "default_model": default_model,
    }
    changes = {field: value for field, value in optional.items() if value is not None}
    with open_to_edit(path, types) as file:
        document = file.document
        old = next((entry for entry in document.entries if entry.config.name == name), None)
        fields: dict[str, Any] = {**_merge_fields(old, changes, path), "name": name, "type": type}
        config = file.build(fields)
        default = name if set_default else document.config.default_backend
        result = SetupResult(path=path, name=name, created=old is None, changed=True)
        if old is not None and old.config == config and default == document.config.default_backend:
            return attrs.evolve(result, changed=False)
        if default is not None and default != document.config.default_backend:
            file.edit.set_key("default_backend", default)
        values = {"type": type, **changes}
        if config.endpoint is not None and (old is None or endpoint is not None):
            values["endpoint"] = written_endpoint(config, config.endpoint)
        values = {field: values[field] for field in ("type", *optional) if field in values}
        if old is None:
            file.edit.add({"name": name, **values})
        else:
            new = {
                field: value for field, value in values.items() if getattr(config, field) != getattr(old.config, field)
            }
            file.edit.update(old, new, removed=[field for field in old.fields if field not in fields])
        configs = [config if entry is old else entry.config for entry in document.entries]
        file.write(configs if old is not None else [*configs, config], default=default, key="backends")
        return result


@attrs.define
class EditableFile:
    """A `.ctxrc` that is changed: what was read, and the edit of its text."""

    path: Path
    document: Document
    edit: YamlEdit
    _target: Path
    _data: bytes | None
    _types: Collection[str]

    def build(self, fields: Mapping[str, Any]) -> BackendConfig:
        """Return the configuration with these fields. Raises ConfigError with the path."""
        implied = "type" not in fields
        kind = fields["name" if implied else "type"]
        if kind not in self._types:
            raise unknown_type(kind, self._types, implied=implied)
        try:
            return BackendConfig(**{"type": fields["name"], **fields})
        except ConfigError as error:
            error.path = str(self.path)
            raise

    def has_value(self, key: str, new: str) -> bool:
        """Return whether a top-level key has the value ``new``, which is YAML."""
        document = read_document(f"{key}: {new}", path=str(self.path), types=self._types)
        return _same(_values(document, key), _values(self.document, key))

    def write(
        self, backends: Sequence[BackendConfig], *, default: str | None, key: str, new: str | None = None
    ) -> None:
        """Replace the file by the edited text, if it says what it must say.

        Args:
            backends: The backends that it must have now.
            default: The ``default_backend`` that it must have now.
            key: The top-level key that changes.
            new: The new value of ``key`` as YAML, unless it is ``backends`` or ``default_backend``; None to remove it.

        Raises:
            ConfigError: It would change something else, or it cannot be written. The file is unchanged.
        """
        text = self.edit.result()
        self._check(text, backends, default=default, key=key, new=new)
        bom = codecs.BOM_UTF8 if (self._data or b"").startswith(codecs.BOM_UTF8) else b""
        replace_ctxrc(self.path, self._target, bom + text.encode(), expected=self._data)

    def _check(
        self, text: str, backends: Sequence[BackendConfig], *, default: str | None, key: str, new: str | None
    ) -> None:
        path = str(self.path)
        ours = {"backends", "default_backend", key}
        result: Document | None
        try:
            result = read_document(text, path=path, types=self._types)
            expected = read_document(f"{key}: {new}", path=path, types=self._types) if new is not None else None
        except ConfigError:
            result = expected = None
        if (
            result is None
            or (*result.config.backends,) != (*backends,)
            or result.config.default_backend != default
            or not _same(_other_keys(self.document, ours), _other_keys(result, ours))
            or (key not in ("backends", "default_backend") and not _same(_values(expected, key), _values(result, key)))
        ):
            problem = (
                "cannot be edited without changing something else (an anchor, an alias, a merge "
                "key, a tag or an unusual layout); edit the file by hand"
            )
            raise ConfigError(problem, path=path, key=key)


@contextmanager
def open_to_edit(path: Path, types: Collection[str] = ALL_TYPES) -> Iterator[EditableFile]:
    """Read the file ``path`` to change it; one that does not exist is empty. Other processes wait until the end.

    Raises:
        ConfigError: The file cannot be read or is not valid, or another process is changing it for too long.
    """
    target = Path(os.path.realpath(path))  # a symbolic link is not replaced
    with lock_ctxrc(path, target):
        data = read_bytes(path) if os.path.lexists(target) else None
        text = decode_text(data or b"", path)
        document = read_document(text, path=str(path), types=types)
        edit = YamlEdit(text.removeprefix("\ufeff"), document)
        try:
            yield EditableFile(path, document, edit, target, data, types)
        except ConfigError as error:
            error.path = error.path or str(path)
            raise


@contextmanager
def lock_ctxrc(path: Path, target: Path) -> Iterator[None]:
    """Keep other processes from changing the file. Raises ConfigError if one does so for too long."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_directory(target.parent))
        except TimeoutError as error:
            raise ConfigError("is being changed by another process; try again", path=str(path)) from error
        yield


def replace_ctxrc(path: Path, target: Path, data: bytes, *, expected: bytes | None) -> None:
    """Write the file ``target``, which must have the content ``expected``; None if it must not exist.

    Raises:
        ConfigError: It is too large, cannot be written, or was changed by another program. The file is unchanged.
    """
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"would become too large: more than {MAX_FILE_SIZE} bytes", path=str(path))
    # An editor does not know of the lock.
    if (read_bytes(target) if os.path.lexists(target) else None) != expected:
        raise ConfigError("was changed by another program in the meantime; try again", path=str(path))
    try:
        replace_file(target, data, mode=0o644)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=str(path)) from error


def written_endpoint(config: BackendConfig, endpoint: str) -> str:
    """Return the endpoint as it is read again: a path that ends in the path of the API gets another."""
    suffix = path_to_remove(config.api_path, PROFILES.get(config.type))
    return endpoint if normalise_endpoint(endpoint, api_path=suffix) == endpoint else endpoint + suffix


def _merge_fields(old: Entry | None, changes: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the fields of the new entry: the old ones without those that are replaced, and the changes."""
    fields = {} if old is None else dict(old.fields)
    if len(changes.keys() & EXCLUSIVE) == 1:
        removed = ("endpoint",) if "model_path" in changes else ("model_path", *LOCAL_ONLY)
        fields = {field: value for field, value in fields.items() if field not in removed}
    fields |= changes
    if "model_path" in changes:
        fields["model_path"] = resolve_path(changes["model_path"], str(path))
    return fields


# --- the comparison of two documents ------------------------------------------------------------------


def _other_keys(document: Document, ours: Collection[str]) -> list[Node]:
    root = document.root
    if root is None or root.id != "mapping":
        return []
    keys = {id(document.keys[name][0]) for name in ours if name in document.keys}
    return [node for key, value in root.value if id(key) not in keys for node in (key, value)]


def _values(document: Document | None, key: str) -> list[Node]:
    return [document.keys[key][1]] if document is not None and key in document.keys else []


def _same(old: list[Node], new: list[Node]) -> bool:
    """Return whether two lists of nodes are equal. Each pair is compared once, since aliases make graphs of them."""
    pending = list(zip(old, new, strict=False))
    compared: set[tuple[int, int]] = set()
    while pending:
        one, other = pending.pop()
        if (id(one), id(other)) in compared:
            continue
        compared.add((id(one), id(other)))
        if (one.id, one.tag) != (other.id, other.tag) or len(one.value) != len(other.value):
            return False
        if one.id == "scalar":
            if one.value != other.value:
                return False
        elif one.id == "sequence":
            pending += zip(one.value, other.value, strict=True)
        else:
            for pair, pair_ in zip(one.value, other.value, strict=True):
                pending += zip(pair, pair_, strict=True)
    return len(old) == len(new)
