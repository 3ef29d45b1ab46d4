"""Edit the text of a `.ctxrc` at the positions of its YAML nodes, and leave every other byte as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from ctxbackends._config.reader import Document, Entry
from ctxbackends._config.yaml_nodes import Node, Pair, is_text
from ctxbackends.errors import ConfigError

EXCLUSIVE = {"endpoint": "model_path", "model_path": "endpoint"}
"""Settings that replace each other, on the same line."""


class Literal(str):
    """A value that is YAML and JSON already, such as ``true`` or ``["a"]``, and not a string to quote."""

    __slots__ = ()


_EOL = re.compile(r"\r\n|\n|\r")
_COMMENT = re.compile(r"(?<!\S)#")
_ALIAS = re.compile(r"\*[^\s,\[\]{}]+")
# Strings that every YAML parser reads as strings: names, paths, URLs, and durations. In YAML 1.1, yes, no, y and n are
# booleans.
_PLAIN = re.compile(
    r"[A-Za-z/][A-Za-z0-9/._+@~-]*(:[A-Za-z0-9/._+@~-]+)*|([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+", re.ASCII
)
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def as_scalar(value: str, *, style: str | None = None, flow: bool = False) -> str:
    """Return ``value`` as a YAML scalar; as JSON in a flow collection, since the file may be JSON."""
    if isinstance(value, Literal):
        return str(value)
    if style == "'" and not flow:
        return "'" + value.replace("'", "''") + "'"
    if style == '"' or flow or not _PLAIN.fullmatch(value) or value.lower() in _WORDS:
        return json.dumps(value, ensure_ascii=False)
    return value


def _pair(field: str, value: str, *, flow: bool) -> str:
    return f"{json.dumps(field)}: {as_scalar(value, flow=True)}" if flow else f"{field}: {as_scalar(value)}"


class YamlEdit:
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
        """Return the new text."""
        if self._head:
            self._insert_lines(len(self._text), self._head)
        for end, members in self._appended.items():
            before = self._text[: end - 1].rstrip()
            glue = "" if before[-1] in "[{" else " " if before[-1] == "," else ", "
            self._edits.append((len(before), len(before), glue + ", ".join(members)))
        text = self._text
        for start, end, new in sorted(self._edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # --- operations

    def set_key(self, field: str, value: str) -> None:
        """Set a top-level key; must be called before :meth:`add`."""
        if field in self._keys:
            self._replace(*self._keys[field], value, flow=self._flow_root is not None)
        elif self._flow_root is not None:
            self._append_flow(self._flow_root, _pair(field, value, flow=True))
        elif self._root is not None and (field != "default_backend" or "backends" in self._keys):
            # Before the backends, or else before the first key
            key = self._keys["backends"][0] if "backends" in self._keys else self._root.value[0][0]
            line = _pair(field, value, flow=False) + self._eol + " " * key.start_mark.column
            self._put(key.start_mark.index, key.start_mark.index, line)
        else:
            self._head = [_pair(field, value, flow=False)]

    def remove_key(self, field: str) -> None:
        """Remove a top-level key."""
        pairs = list(self._root.value) if self._root is not None else []
        if self._keys[field] in pairs:  # and not from a merge key
            self._remove(pairs, pairs.index(self._keys[field]), flow=self._flow_root is not None)

    def set_member(self, field: str, member: str, value: str) -> None:
        """Set a member of a top-level mapping."""
        if field in self._keys:
            mapping = self._keys[field][1]
            for key, old in mapping.value:
                if key.value == member:
                    self._replace(key, old, value, flow=bool(mapping.flow_style))
                    return
        self.set_key(field, Literal(f'{{"{member}": {value}}}'))

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
            self._head = []
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
                self._replace(*own[field], value, flow=flow)
            elif EXCLUSIVE.get(field) in removals:  # on the same line, so that its comment stays
                key, old = own[EXCLUSIVE[field]]
                self._put(key.start_mark.index, self._span(key, old)[1], _pair(field, value, flow=flow))
                removals.remove(EXCLUSIVE[field])
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
            self._insert_lines(self._next_line(self._value_span(*remaining[-1])[1]), [pad + line for line in added])

    def remove(self, entry: Entry) -> None:
        """Remove an entry with the comments in it. Comments above it stay."""
        sequence = self._keys["backends"][1]
        index = sequence.value.index(entry.node)
        if sequence.flow_style:
            self._remove_member([(node.start_mark.index, node.end_mark.index) for node in sequence.value], index)
            return
        column = self._dash_column(sequence)
        begin = self._line_start(entry.node.start_mark.index)
        while begin and not self._text.startswith(" " * column + "-", begin):  # the dash may have a line to itself
            begin = self._line_start(begin - 1)
        end = self._past_comments(self._content_end(entry.node), column)
        # With the empty lines that separate it from the next entry, or else from the one before.
        if index < len(sequence.value) - 1:
            end = next((start for start, line in self._starts(end) if line), end)
        else:
            begin = self._before_empty_lines(begin)
        self._put(begin, end, "")

    def _remove_member(self, spans: list[tuple[int, int]], index: int) -> None:
        """Remove a member of a flow collection with one of its commas."""
        start, end = spans[index]
        if index:
            start = spans[index - 1][1]
        elif len(spans) > 1:
            end = spans[1][0]
        self._put(start, end, "")

    def _remove(self, pairs: list[Pair], index: int, *, flow: bool) -> None:
        if flow:
            self._remove_member([(pair[0].start_mark.index, self._value_span(*pair)[1]) for pair in pairs], index)
            return
        start, end = pairs[index][0].start_mark.index, self._value_span(*pairs[index])[1]
        begin = self._line_start(start)
        if self._text[begin:start].strip(" "):  # after "- ": move the next member up
            after = self._next_line(end)
            self._put(start, after + len(self._text[after:]) - len(self._text[after:].lstrip(" ")), "")
        else:
            self._put(begin, self._next_line(end), "")

    # --- changes

    def _replace(self, key: Node, value: Node, new: str, *, flow: bool) -> None:
        start, end = self._value_span(key, value)
        if value.id != "scalar" and _COMMENT.search(self._text, start, end):
            problem = "cannot be changed without losing the comments inside; edit the file by hand"
            raise ConfigError(problem, key=str(key.value))
        space = " " if self._text[start - 1] == ":" else ""
        self._put(start, end, space + as_scalar(new, style=value.style if value.id == "scalar" else None, flow=flow))

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

    def _value_span(self, key: Node, value: Node) -> tuple[int, int]:
        """Return the span of the value without comments below it; of a block collection from the colon on."""
        if value.id == "scalar" or value.flow_style or value.start_mark.index < key.start_mark.index:
            return self._span(key, value)
        return self._text.find(":", key.end_mark.index) + 1, len(self._text[: self._content_end(value)].rstrip())

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

    def _starts(self, at: int) -> Iterator[tuple[int, str]]:
        """Yield the start and the text of each line from ``at``."""
        for after, line, _ in self._lines(at, len(self._text)):
            yield at, line
            at = after

    def _before_empty_lines(self, at: int) -> int:
        while at and not self._text[self._line_start(at - 1) : at].strip():
            at = self._line_start(at - 1)
        return at

    def _limit(self, node: Node) -> int:
        """Return the end of a block collection: the line of the next token, or the end of the text."""
        end = node.end_mark.index
        return end if end == len(self._text) else self._line_start(end)

    def _content_end(self, node: Node) -> int:
        """Return the end of the last line of the node that is not a comment."""
        if node.flow_style:
            return self._next_line(node.end_mark.index)
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
