"""Add or update one backend in a `.ctxrc`, and keep every other byte of the file.

Loading and dumping the file would rewrap strings and move comments of other programs. So the text is edited at the
positions of its YAML nodes, and the result is parsed again: unless it contains the change and nothing else differs,
nothing is written. An unusual layout ends in an error, never in a damaged file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ctxbackends._config.backend_config import LOCAL_ONLY, BackendConfig, unknown_type
from ctxbackends._config.backend_types import ALL_TYPES
from ctxbackends._config.ctxrc_file import MAX_FILE_SIZE, read_text
from ctxbackends._config.endpoint import normalise_endpoint
from ctxbackends._config.reader import Document, Entry, read_document, resolve_path
from ctxbackends._config.request_settings import path_to_remove
from ctxbackends._config.yaml_nodes import Node, Pair, is_text
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._util.files import replace_file
from ctxbackends.errors import ConfigError

_BOM = "\ufeff"
_EXCLUSIVE = {"endpoint": "model_path", "model_path": "endpoint"}


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
    target = Path(os.path.realpath(path))  # a symbolic link is not replaced
    text = read_text(path) if os.path.lexists(target) else ""
    document = read_document(text, path=str(path), types=types)
    old = next((entry for entry in document.entries if entry.config.name == name), None)
    fields: dict[str, Any] = {**_merge_fields(old, changes, path), "name": name, "type": type}
    try:
        config = BackendConfig(**fields)
    except ConfigError as error:
        error.path = str(path)
        raise
    default = name if set_default else document.config.default_backend
    result = SetupResult(path=path, name=name, created=old is None, changed=True)
    if old is not None and old.config == config and default == document.config.default_backend:
        return attrs.evolve(result, changed=False)

    edit = _Edit(text.removeprefix(_BOM), document)
    if default is not None and default != document.config.default_backend:
        edit.set_default(default)
    values = {"type": type, **changes}
    if config.endpoint is not None and (old is None or endpoint is not None):
        values["endpoint"] = _written_endpoint(config, config.endpoint)
    values = {field: values[field] for field in ("type", *optional) if field in values}
    if old is None:
        edit.add({"name": name, **values})
    else:
        new = {field: value for field, value in values.items() if getattr(config, field) != getattr(old.config, field)}
        edit.update(old, new, removed=[field for field in old.fields if field not in fields])
    written = edit.result()
    _check(written, document, path=path, types=types, config=config, default=default)
    data = ((_BOM if text.startswith(_BOM) else "") + written).encode()
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"would become too large: more than {MAX_FILE_SIZE} bytes", path=str(path))
    try:
        replace_file(target, data, mode=0o644)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=str(path)) from error
    return result


def _written_endpoint(config: BackendConfig, endpoint: str) -> str:
    """Return the endpoint as it is read again: a path that ends in the path of the API gets another."""
    suffix = path_to_remove(config.api_path, PROFILES.get(config.type))
    return endpoint if normalise_endpoint(endpoint, api_path=suffix) == endpoint else endpoint + suffix


def _merge_fields(old: Entry | None, changes: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the fields of the new entry: the old ones without those that are replaced, and the changes."""
    fields = {} if old is None else dict(old.fields)
    if len(changes.keys() & _EXCLUSIVE) == 1:
        removed = ("endpoint",) if "model_path" in changes else ("model_path", *LOCAL_ONLY)
        fields = {field: value for field, value in fields.items() if field not in removed}
    fields |= changes
    if "model_path" in changes:
        fields["model_path"] = resolve_path(changes["model_path"], str(path))
    return fields


# --- the text -----------------------------------------------------------------------------------------

_EOL = re.compile(r"\r\n|\n|\r")
_ALIAS = re.compile(r"\*[^\s,\[\]{}]+")
# Strings that every YAML parser reads as strings. In YAML 1.1, yes, no, y and n are booleans.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._+@~-]*(:[A-Za-z0-9/._+@~-]+)*", re.ASCII)
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def _scalar(value: str, *, style: str | None = None, flow: bool = False) -> str:
    """Return ``value`` as a YAML scalar; as JSON in a flow collection, since the file may be JSON."""
    if style == "'" and not flow:
        return "'" + value.replace("'", "''") + "'"
    if style == '"' or flow or not _PLAIN.fullmatch(value) or value.lower() in _WORDS:
        return json.dumps(value, ensure_ascii=False)
    return value


def _pair(field: str, value: str, *, flow: bool) -> str:
    return f"{json.dumps(field)}: {_scalar(value, flow=True)}" if flow else f"{field}: {_scalar(value)}"


class _Edit:
    """Collects replacements by their positions in the text, and applies them together."""

    def __init__(self, text: str, document: Document) -> None:
        self._text = text
        # Without a mapping, the file is empty or only "---".
        self._root = document.root if document.root is not None and document.root.id == "mapping" else None
        self._flow_root = self._root if self._root is not None and self._root.flow_style else None
        self._keys = document.keys
        self._entries = document.entries
        self._edits: list[tuple[int, int, str]] = []
        self._appended: dict[int, list[str]] = {}  # end of a flow collection -> new members
        self._head: list[str] = []  # lines for the front of a new `backends:`
        first = _EOL.search(text)
        self._eol = first.group() if first else "\n"

    def result(self) -> str:
        for end, members in self._appended.items():
            before = self._text[: end - 1].rstrip()
            glue = "" if before[-1] in "[{" else " " if before[-1] == "," else ", "
            self._edits.append((len(before), len(before), glue + ", ".join(members)))
        text = self._text
        for start, end, new in sorted(self._edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # --- operations

    def set_default(self, name: str) -> None:
        """Set ``default_backend``; must be called before :meth:`add`."""
        if "default_backend" in self._keys:
            key, value = self._keys["default_backend"]
            self._put(*self._span(key, value), _scalar(name, style=value.style, flow=self._flow_root is not None))
        elif self._flow_root is not None:
            self._append_flow(self._flow_root, _pair("default_backend", name, flow=True))
        elif "backends" in self._keys:
            key = self._keys["backends"][0]
            line = _pair("default_backend", name, flow=False) + self._eol + " " * key.start_mark.column
            self._put(key.start_mark.index, key.start_mark.index, line)
        else:
            self._head = [_pair("default_backend", name, flow=False)]

    def add(self, values: Mapping[str, str]) -> None:
        """Append a new entry."""
        root = self._root
        entry = "{" + ", ".join(_pair(field, value, flow=True) for field, value in values.items()) + "}"
        if "backends" not in self._keys:
            if self._flow_root is not None:
                self._append_flow(self._flow_root, f'"backends": [{entry}]')
                return
            # To the end of the text or to the line of "...", behind the last comment.
            end = len(self._text) if root is None else self._limit(root)
            column = root.value[0][0].start_mark.column if root is not None else 0
            head = [" " * column + line for line in (*self._head, "backends:")]
            self._insert_lines(end, [*head, *_block(values, column + self._dash_indent(), 2)])
            return
        key, value = self._keys["backends"]
        if value.id == "sequence" and value.flow_style and (value.value or self._flow_root is not None):
            self._append_flow(value, entry)
        elif value.id == "sequence" and not value.flow_style:
            column = self._dash_column(value)
            self._insert_lines(
                self._past_comments(self._content_end(value), column),
                _block(values, column, self._key_offset(column)),
            )
        elif self._flow_root is not None:
            self._put(*self._span(key, value), f" [{entry}]")
        else:  # no value, null, or [] in a text of lines
            start, end = self._span(key, value)
            self._put(len(self._text[:start].rstrip(" ")), end, "")
            column = key.start_mark.column
            after = self._past_comments(self._next_line(end), column)
            self._insert_lines(after, _block(values, column + self._dash_indent(), 2))

    def update(self, entry: Entry, new: Mapping[str, str], *, removed: Iterable[str]) -> None:
        """Change an entry. Values from a merge key can be overridden, and not removed."""
        own: dict[str, Pair] = {key.value: (key, value) for key, value in entry.node.value if is_text(key)}
        flow = bool(entry.node.flow_style)
        removals = [field for field in removed if field in own]
        added: list[str] = []
        for field, value in new.items():
            if field in own:
                self._put(*self._span(*own[field]), _scalar(value, style=own[field][1].style, flow=flow))
            elif _EXCLUSIVE.get(field) in removals:  # on the same line, so that its comment stays
                key, old = own[_EXCLUSIVE[field]]
                self._put(key.start_mark.index, self._span(key, old)[1], _pair(field, value, flow=flow))
                removals.remove(_EXCLUSIVE[field])
            else:
                added.append(_pair(field, value, flow=flow))
        pairs = list(own.values())
        for field in removals:
            self._remove(pairs, pairs.index(own[field]), flow=flow)
        remaining = [pair for field, pair in own.items() if field not in removals]
        if added and flow:
            self._append_flow(entry.node, ", ".join(added))
        elif added and remaining:
            pad = " " * remaining[0][0].start_mark.column
            self._insert_lines(self._next_line(self._span(*remaining[-1])[1]), [pad + line for line in added])

    def _remove(self, pairs: list[Pair], index: int, *, flow: bool) -> None:
        start, end = pairs[index][0].start_mark.index, self._span(*pairs[index])[1]
        begin = self._line_start(start)
        if flow:  # with one of the commas
            if index:
                start = self._span(*pairs[index - 1])[1]
            elif len(pairs) > 1:
                end = pairs[1][0].start_mark.index
            self._put(start, end, "")
        elif self._text[begin:start].strip(" "):  # after "- ": move the next member up
            after = self._next_line(end)
            self._put(start, after + len(self._text[after:]) - len(self._text[after:].lstrip(" ")), "")
        else:
            self._put(begin, self._next_line(end), "")

    # --- changes

    def _put(self, start: int, end: int, new: str) -> None:
        self._edits.append((start, end, new))

    def _append_flow(self, node: Node, member: str) -> None:
        self._appended.setdefault(node.end_mark.index, []).append(member)

    def _insert_lines(self, at: int, lines: list[str]) -> None:
        unfinished = at == len(self._text) and at and self._text[at - 1] not in "\r\n"
        self._put(at, at, (self._eol if unfinished else "") + "".join(line + self._eol for line in lines))

    # --- positions

    def _span(self, key: Node, value: Node) -> tuple[int, int]:
        """Return the span of the value. The node of an alias has the position of its anchor, which is further up."""
        start, end = value.start_mark.index, value.end_mark.index
        if start < key.start_mark.index:
            alias = _ALIAS.search(self._text, key.end_mark.index)
            return alias.span() if alias else (end, end)
        if start == end:  # an empty value has the position of the next token
            colon = self._text.find(":", key.end_mark.index) + 1
            return colon, colon
        return start, len(self._text[:end].rstrip())  # a block scalar ends at the next line

    def _line_start(self, at: int) -> int:
        return max(self._text.rfind("\n", 0, at), self._text.rfind("\r", 0, at)) + 1

    def _next_line(self, at: int) -> int:
        eol = _EOL.search(self._text, at)
        return eol.end() if eol else len(self._text)

    def _lines(self, start: int, end: int) -> Iterator[tuple[int, str, int]]:
        """Yield the end, the text without indentation, and the indentation of each line."""
        while start < end:
            after = self._next_line(start)
            line = self._text[start:after]
            yield after, line.strip(), len(line) - len(line.lstrip(" "))
            start = after

    def _limit(self, node: Node) -> int:
        """Return the end of a block collection: the line of the next token, or the end of the text."""
        end = node.end_mark.index
        return end if end == len(self._text) else self._line_start(end)

    def _content_end(self, node: Node) -> int:
        end = begin = self._line_start(node.start_mark.index)
        for after, line, _ in self._lines(begin, self._limit(node)):
            end = after if line and not line.startswith("#") else end
        return end

    def _past_comments(self, at: int, column: int) -> int:
        """Return the position after comments indented deeper than ``column``; they belong to the lines above."""
        for after, line, indentation in self._lines(at, len(self._text)):
            if line.startswith("#") and indentation > column:
                at = after
            elif line:
                break
        return at

    def _dash_column(self, node: Node) -> int:
        lines = self._lines(self._line_start(node.start_mark.index), self._limit(node))
        return next((indentation for _, line, indentation in lines if line.startswith("-")), 0)

    def _dash_indent(self) -> int:
        """Return the indentation of lists in this file, relative to their keys."""
        for key, value in self._keys.values():
            if value.id == "sequence" and not value.flow_style:
                return max(self._dash_column(value) - key.start_mark.column, 0)
        return 2

    def _key_offset(self, column: int) -> int:
        """Return the indentation of keys in other entries, relative to their dash."""
        for entry in self._entries:
            key = entry.node.value[0][0].start_mark
            if self._text[self._line_start(key.index) : key.index].strip(" ") == "-":
                return int(key.column - column)
        return 2


def _block(values: Mapping[str, str], column: int, offset: int) -> list[str]:
    lines = [_pair(field, value, flow=False) for field, value in values.items()]
    first = " " * column + "-" + " " * (offset - 1)
    return [first + lines[0], *(" " * (column + offset) + line for line in lines[1:])]


# --- the check of the result --------------------------------------------------------------------------


def _check(
    written: str, old: Document, *, path: Path, types: Collection[str], config: BackendConfig, default: str | None
) -> None:
    """Raise ConfigError unless ``written`` differs from ``old`` only by ``config`` and ``default``."""
    backends = [config if entry.config.name == config.name else entry.config for entry in old.entries]
    if config not in backends:
        backends.append(config)
    try:
        new = read_document(written, path=str(path), types=types)
    except ConfigError:
        new = None
    if (
        new is None
        or (*new.config.backends,) != (*backends,)
        or new.config.default_backend != default
        or not _same(_other_keys(old), _other_keys(new))
    ):
        problem = (
            "cannot be edited without changing something else (an anchor, an alias, a merge "
            "key, a tag or an unusual layout); edit the file by hand"
        )
        raise ConfigError(problem, path=str(path), key="backends", backend=config.name)


def _other_keys(document: Document) -> list[Node]:
    root = document.root
    if root is None or root.id != "mapping":
        return []
    ours = {id(document.keys[name][0]) for name in ("backends", "default_backend") if name in document.keys}
    return [node for key, value in root.value if id(key) not in ours for node in (key, value)]


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
