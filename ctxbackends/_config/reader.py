"""Read a `.ctxrc` into the values of `backend_config`; errors have the line and the key.

Reading is strict: a misspelt key, a duplicate or a wrong type is an error, never a silent default. Other top-level keys
belong to other programs and are ignored, unless they look like one of this package. Messages never show
a value that could be an API key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ctxbackends._config.backend_config import (
    DURATION_FIELDS,
    LOCAL_COUNT_FIELDS,
    TLS_FIELDS,
    BackendConfig,
    unknown_type,
)
from ctxbackends._config.backend_settings import OTHER_NAMES
from ctxbackends._config.backend_types import ALL_TYPES
from ctxbackends._config.ctx_config import CtxConfig
from ctxbackends._config.ctxrc_file import read_text
from ctxbackends._config.display import display_name, has_unsafe_characters
from ctxbackends._config.request_settings import MAPPING_FIELDS
from ctxbackends._config.yaml_nodes import (
    MERGE,
    Node,
    Pair,
    compose,
    count_of,
    duration_of,
    flag_of,
    is_a,
    is_text,
    keep_alive_of,
    mapping_of,
    names_of,
    retries_of,
    served_as_of,
    text_of,
)
from ctxbackends._suggestions import find_similar
from ctxbackends.errors import ConfigError, DuplicateBackendError, UnknownBackendError

_MAX_MERGED = 100  # mappings per entry; otherwise a small file could merge thousands into each of thousands


def load_ctxrc(path: Path, *, types: Collection[str] = ALL_TYPES) -> CtxConfig:
    """Read ``path``.

    Args:
        path: The file.
        types: The backend types that it may use.

    Raises:
        ConfigError: The file cannot be read, or a setting is invalid.
    """
    return parse_ctxrc(read_text(path), path=str(path), types=types)


def parse_ctxrc(text: str, *, path: str, types: Collection[str] = ALL_TYPES) -> CtxConfig:
    """Parse ``text`` as the content of ``path``; relative paths in it are relative to the directory of ``path``."""
    return read_document(text, path=path, types=types).config


def airgap_of(path: Path) -> bool:
    """Return whether the file allows only loopback and private endpoints. Its backends are not read."""
    return _Reader(str(path), ()).airgap(read_text(path))


def redact_of(path: Path) -> tuple[str, ...]:
    """Return the globs of ``privacy.redact`` in the file. Its backends are not read."""
    return _Reader(str(path), ()).redact(read_text(path))


def context_dir_of(path: Path) -> str | None:
    """Return the absolute path of ``context_dir``, which is relative to the file; None if it is not set.

    Its backends are not read.
    """
    return _Reader(str(path), ()).context_dir(read_text(path))


@attrs.frozen(kw_only=True)
class Entry:
    """An item of ``backends``: its node, its fields with merge keys resolved, and the resulting configuration."""

    node: Node
    fields: Mapping[str, Any]
    config: BackendConfig


@attrs.frozen(kw_only=True)
class Document:
    """A parsed file: its values and nodes. Positions of nodes do not count a byte order mark."""

    config: CtxConfig
    root: Node | None
    keys: Mapping[str, Pair]
    entries: tuple[Entry, ...]


def check_document(text: str, *, path: str) -> None:
    """Raise ConfigError if any setting of ``text`` is invalid, also those that only one command reads."""
    reader = _Reader(path, ALL_TYPES)
    reader.document(text)
    reader.context_dir(text)


def read_document(text: str, *, path: str, types: Collection[str]) -> Document:
    """Parse ``text`` as the content of ``path``, and keep its nodes for an edit."""
    return _Reader(path, types).document(text)


FIELDS: Mapping[str, Callable[[Node], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("name", "type", "endpoint", "api_key_env"), text_of),
        **dict.fromkeys(("default_model", "model_mismatch", "wire_api"), text_of),
        "served_as": served_as_of,
        **dict.fromkeys(DURATION_FIELDS, duration_of),
        "max_retries": retries_of,
        **dict.fromkeys(("context_length", "max_concurrency"), count_of),
        "keep_alive": keep_alive_of,
        **dict.fromkeys(("organization", "project", "model_path"), text_of),
        **dict.fromkeys(LOCAL_COUNT_FIELDS, count_of),
        **dict.fromkeys(("complete_streams", "embeddings", "trust_env"), flag_of),
        **dict.fromkeys((*TLS_FIELDS, "api_path", "basic_auth_env", "unix_socket"), text_of),
        **dict.fromkeys(MAPPING_FIELDS, mapping_of),
        "omit": names_of,
        **dict.fromkeys(("json_mode", "allow_missing_finish_reason"), flag_of),
    }
)
TOP_LEVEL = ("airgap", "backends", "context_dir", "default_backend", "privacy")
OTHER_TOP_LEVEL = frozenset(
    {
        *("token_budget", "priority_order", "auto_archive", "archive_after_days", "scratchpad_encrypt"),
        *("allow_outside_cwd", "event_log", "entry_count_learnings", "entry_count_decisions", "convention_line_count"),
        *("injection_token_warn", "context_window", "billing_token_warn", "key_rotation_days", "freshness_files"),
        "notify",
    }
)
"""The keys of the Go program ``ctx``, which reads the same file."""
_MAX_TYPOS = 2
_SECRET_MEMBERS = frozenset({"apikey", "key", "token", "apitoken", "accesstoken", "authtoken", "secret", "password"})


PATH_FIELDS = ("model_path", "unix_socket", *TLS_FIELDS)
NO_KEYS = "API keys aren't allowed in .ctxrc; set an environment variable and name it in api_key_env"


def field_problem(name: str) -> str | None:
    """Return the problem of ``name`` as a key of a backend, with a suggestion; None if there is such a key."""
    if name in FIELDS:
        return None
    if name.lower().replace("-", "").replace("_", "") in _SECRET_MEMBERS:
        return NO_KEYS
    meant = find_similar(name, FIELDS, OTHER_NAMES)
    return (
        f"unknown key; did you mean {meant}?" if meant in FIELDS else f"unknown key; the keys are {', '.join(FIELDS)}"
    )


class _Reader:
    """Converts the nodes of one text; its errors have path, line and key."""

    def __init__(self, path: str, types: Collection[str]) -> None:
        self._path = path
        self._types = types

    def document(self, text: str) -> Document:
        root = compose(text, self._path)
        keys = self._keys(root)
        entries = self._entries(*keys["backends"]) if "backends" in keys else ()
        backends = tuple(entry.config for entry in entries)
        default = self._default(*keys["default_backend"], backends) if "default_backend" in keys else None
        config = CtxConfig(
            path=Path(self._path),
            backends=backends,
            default_backend=default,
            airgap=self._airgap(keys),
            redact=self._redact(keys),
        )
        return Document(config=config, root=root, keys=keys, entries=entries)

    def airgap(self, text: str) -> bool:
        return self._airgap(self._keys(compose(text, self._path)))

    def _airgap(self, keys: Mapping[str, Pair]) -> bool:
        if "airgap" not in keys:
            return False
        try:
            return flag_of(keys["airgap"][1])
        except ValueError as error:
            raise self._error(str(error), "airgap", *keys["airgap"]) from None

    def context_dir(self, text: str) -> str | None:
        keys = self._keys(compose(text, self._path))
        if "context_dir" not in keys:
            return None
        key, value = keys["context_dir"]
        if not is_text(value) or not value.value or has_unsafe_characters(value.value):
            raise self._error("must be the path of a directory, such as docs/context", "context_dir", key, value)
        return resolve_path(value.value, self._path)

    def redact(self, text: str) -> tuple[str, ...]:
        return self._redact(self._keys(compose(text, self._path)))

    def _redact(self, keys: Mapping[str, Pair]) -> tuple[str, ...]:
        if "privacy" not in keys:
            return ()
        top, node = keys["privacy"]
        if not is_a(node, "mapping", "map"):
            raise self._error('must be a mapping, such as redact: ["*.pem"]', "privacy", top, node)
        pairs: dict[str, Pair] = {}
        for key, value in node.value:
            # Strict: a misspelt key would let the files be sent.
            if not is_text(key) or key.value != "redact":
                name = display_name(key.value) if is_text(key) else "a key"
                raise self._error("unknown key; the only key is redact", f"privacy.{name}", key)
            if "redact" in pairs:
                raise self._error("duplicate key", "privacy.redact", key)
            pairs["redact"] = (key, value)
        return self._globs(*pairs["redact"]) if pairs else ()

    def _globs(self, key: Node, value: Node) -> tuple[str, ...]:
        if not is_a(value, "sequence", "seq"):
            raise self._error('must be a list of globs, such as ["*.pem", "secrets/**"]', "privacy.redact", key, value)
        globs = []
        for index, node in enumerate(value.value):
            if not is_text(node) or not node.value.strip("/ ") or has_unsafe_characters(node.value):
                raise self._error("must be a glob, such as secrets/** or *.pem", f"privacy.redact[{index}]", key, node)
            if node.value.startswith("!"):
                raise self._error("negation (!) is not supported", f"privacy.redact[{index}]", node)
            globs.append(str(node.value))
        return tuple(globs)

    def _keys(self, root: Node | None) -> dict[str, Pair]:
        """Return the top-level keys."""
        if root is None or is_a(root, "scalar", "null"):
            return {}
        if not is_a(root, "mapping", "map"):
            raise self._error("the file must be a mapping with keys such as backends:", None, root)
        keys: dict[str, Pair] = {}
        for mapping in self._mappings(root, None):
            for key, value in mapping.value:
                if not is_text(key):
                    continue
                self._check_spelling(key)
                if mapping is root:
                    if key.value in keys:
                        raise self._error("duplicate key", display_name(key.value), key)
                    keys[key.value] = (key, value)
                elif key.value in TOP_LEVEL:
                    keys.setdefault(key.value, (key, value))
        return keys

    def _check_spelling(self, key: Node) -> None:
        """Reject a key that looks like one of this package: ``airgpa: true`` must not leave the airgap open."""
        if key.value in TOP_LEVEL or key.value in OTHER_TOP_LEVEL:
            return
        distances = {name: _edit_distance(key.value.lower(), name) for name in TOP_LEVEL}
        near = min(distances, key=distances.__getitem__)
        if distances[near] <= _MAX_TYPOS:
            raise self._error(f"unknown key; did you mean {near}?", display_name(key.value), key)

    def _entries(self, key: Node, value: Node) -> tuple[Entry, ...]:
        if is_a(value, "scalar", "null"):
            return ()
        if not is_a(value, "sequence", "seq"):
            raise self._error('must be a list; begin each item with "- name:"', "backends", key, value)
        entries: dict[str, Entry] = {}
        for index, node in enumerate(value.value):
            where = f"backends[{index}]"
            if not is_a(node, "mapping", "map"):
                raise self._error("must be a mapping with keys such as name: and type:", where, key, node)
            pairs = self._pairs(node, where)
            entry = self._entry(node, pairs, where)
            name = entry.config.name
            if name in entries:
                line = _line(*pairs["name"])
                raise DuplicateBackendError(display_name(name), path=self._path, line=line, key=f"{where}.name")
            entries[name] = entry
        return tuple(entries.values())

    def _pairs(self, node: Node, where: str) -> dict[str, Pair]:
        """Return the members of an entry; its own override merged ones."""
        pairs: dict[str, Pair] = {}
        for mapping in self._mappings(node, where):
            names: set[str] = set()
            for key, value in mapping.value:
                name = "<<" if key.tag == MERGE else self._field(key, where)
                if name in names:
                    raise self._error("duplicate key", f"{where}.{name}", key)
                names.add(name)
                if name != "<<":
                    pairs.setdefault(name, (key, value))
        return pairs

    def _mappings(self, node: Node, where: str | None) -> Iterator[Node]:
        """Yield the mapping and those of its merge keys, once each, in the order of https://yaml.org/type/merge.html.

        ``where`` is the key of an entry; None for the whole file, whose other keys are not checked.
        """
        pending, visited = [node], set[int]()
        while pending:
            mapping = pending.pop()
            if id(mapping) in visited:
                continue
            visited.add(id(mapping))
            yield mapping
            sources: list[Node] = []
            for key, value in mapping.value:
                if key.tag == MERGE:
                    for source in value.value if value.id == "sequence" else [value]:
                        if is_a(source, "mapping", "map"):
                            sources.append(source)
                        elif where is not None:
                            raise self._error("must be a mapping or a list of mappings", f"{where}.<<", key, source)
            pending += reversed(sources)
            if len(visited) + len(pending) > _MAX_MERGED:
                raise self._error(f"merges more than {_MAX_MERGED} mappings", where, node)

    def _field(self, key: Node, where: str) -> str:
        if not is_text(key):
            raise self._error("keys must be plain names, such as name: and type:", where, key)
        name = str(key.value)
        problem = field_problem(name)
        if problem is None:
            return name
        if name != display_name(name):
            raise self._error("contains an unknown key (not shown)", where, key)
        raise self._error(problem, f"{where}.{name}", key)

    def _entry(self, node: Node, pairs: Mapping[str, Pair], where: str) -> Entry:
        fields: dict[str, Any] = {}
        for field, pair in pairs.items():
            try:
                fields[field] = FIELDS[field](pair[1])
            except ValueError as error:
                raise self._error(str(error), f"{where}.{field}", *pair) from None
        if "name" not in fields:
            raise self._error("required; every backend needs a name", f"{where}.name", node)
        source = "type" if "type" in fields else "name"
        if fields[source] and fields[source] not in self._types:
            unknown = unknown_type(fields[source], self._types, implied=source == "name")
            unknown.path, unknown.line, unknown.key = self._path, _line(*pairs[source]), f"{where}.{source}"
            raise unknown
        for field in PATH_FIELDS:
            if fields.get(field):
                fields[field] = resolve_path(fields[field], self._path)
        try:
            config = BackendConfig(**{"type": fields["name"], **fields})
        except ConfigError as error:
            nodes = pairs.get(error.key or "", (node,))
            error.path, error.line, error.key = self._path, _line(*nodes), f"{where}.{error.key}"
            raise
        return Entry(node=node, fields=fields, config=config)

    def _default(self, key: Node, value: Node, backends: tuple[BackendConfig, ...]) -> str:
        if not is_text(value) or not value.value:
            raise self._error("must be the name of a backend; omit it for none", "default_backend", key, value)
        names = [config.name for config in backends]
        if value.value not in names:
            name = display_name(value.value)
            raise UnknownBackendError(name, names, path=self._path, line=_line(key, value), key="default_backend")
        return str(value.value)

    def _error(self, problem: str, key: str | None, *pair: Node) -> ConfigError:
        return ConfigError(problem, path=self._path, line=_line(*pair), key=key)


def _edit_distance(written: str, name: str) -> int:
    """Return the Levenshtein distance; only a lower bound if the lengths differ by more than ``_MAX_TYPOS``."""
    if abs(len(written) - len(name)) > _MAX_TYPOS:
        return abs(len(written) - len(name))
    row = list(range(len(name) + 1))
    for count, letter in enumerate(written, 1):
        above, row = row, [count]
        for index, other in enumerate(name):
            row.append(min(row[index] + 1, above[index + 1] + 1, above[index] + (letter != other)))
    return row[-1]


def _line(key: Node, value: Node | None = None) -> int:
    # An empty value has the position of the next token, which may be lines further down.
    node = key if value is None or value.start_mark.index == value.end_mark.index else value
    return node.start_mark.line + 1


def resolve_path(written: str, path: str) -> str:
    """Return ``written`` as an absolute path: ``~`` is expanded, and it is relative to the directory of ``path``."""
    if has_unsafe_characters(written):  # rejected by BackendConfig; Python's path functions cut at NUL
        return written
    return os.path.abspath(os.path.join(os.path.dirname(path), os.path.expanduser(written)))
