"""Parse YAML into nodes with positions, and convert scalar nodes to values.

An invalid value is a ValueError without a position; the caller adds the key and the line.
"""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

from ctxbackends._config.display import display_name
from ctxbackends._config.duration import DURATION_HINT, MAX_COUNT, parse_duration
from ctxbackends.errors import ConfigError

_MAX_DEPTH = 64  # of nested collections: ruamel.yaml recurses, and Python limits recursion

_TAG = "tag:yaml.org,2002:"
MERGE = _TAG + "merge"


class Mark(Protocol):
    """A position in the text."""

    index: int
    line: int
    column: int


class Node(Protocol):
    """The part of ruamel.yaml's nodes that is used here.

    Attributes:
        id: ``scalar``, ``sequence`` or ``mapping``.
        value: A string, a list of nodes or a list of pairs.
    """

    id: str
    tag: str
    value: Any
    start_mark: Mark
    end_mark: Mark
    style: str | None
    flow_style: bool | None


Pair = tuple[Node, Node]


def compose(text: str, path: str) -> Node | None:
    """Return the root of the document; None if it is empty. Positions do not count a byte order mark.

    Raises:
        ConfigError: The text is not valid YAML; it has the line if it is known.
    """
    text = text.removeprefix("\ufeff")
    # Composed and not constructed: nodes have positions, nested aliases cost nothing, values of other programs are not
    # turned into objects, and duplicate keys in them are ignored.
    from ruamel.yaml import YAML  # noqa: PLC0415  # imported only to read a file
    from ruamel.yaml.composer import MaxDepthExceededError  # noqa: PLC0415  # as above
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415  # as above
    from ruamel.yaml.reader import ReaderError  # noqa: PLC0415  # as above

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    line: int | None = None
    try:
        root: Node | None = yaml.compose(text)
        return root
    except MaxDepthExceededError as error:
        line, problem = error.problem_mark.line + 1, f"nested too deeply: more than {_MAX_DEPTH} levels"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = mark.line + 1, _problem(text, mark, error.problem, error.context)
    except ReaderError as error:
        line, problem = text.count("\n", 0, error.position) + 1, "invalid YAML: control character"
    except Exception:  # noqa: BLE001  # hostile escapes and directives fail in chr(), int(), an assert or a lookup
        problem = "invalid YAML: unreadable directive or escape"
    # Raised here, so that __context__ is not ruamel.yaml's error, which prints lines of the file.
    raise ConfigError(problem, path=path, line=line)


def _problem(text: str, mark: Mark, problem: str | None, context: str | None) -> str:
    if text[mark.index : mark.index + 1] == "\t":
        return "invalid YAML: tab in the indentation; use spaces"
    # ruamel.yaml quotes text of the file, which must not be shown.
    reasons = [part for part in (context, problem) if part and "'" not in part and '"' not in part]
    return ", ".join([f"invalid YAML at column {mark.column + 1}", *reasons])


def is_text(node: Node) -> bool:
    """Return whether it is a string."""
    return is_a(node, "scalar", "str")


def is_a(node: Node, kind: str, tag: str) -> bool:
    """Return whether it is a scalar, sequence or mapping (``kind``) with this YAML tag."""
    # Both: a tag can precede any value, as in !!map foo.
    return node.id == kind and node.tag == _TAG + tag


def text_of(node: Node) -> str:
    """Return the string. Raises ValueError."""
    if not is_text(node):
        raise ValueError("must be a string; put it in quotes")
    return str(node.value)


def duration_of(node: Node) -> float:
    """Return the duration in seconds. Raises ValueError."""
    # A number is parsed too, since the error about its missing unit helps.
    if node.id != "scalar" or node.tag not in (_TAG + "str", _TAG + "int", _TAG + "float"):
        raise ValueError(f"must be a duration; {DURATION_HINT}")
    return parse_duration(node.value)


def keep_alive_of(node: Node) -> float:
    """Return the duration in seconds; infinity for ``forever``. Raises ValueError."""
    return math.inf if is_text(node) and node.value == "forever" else duration_of(node)


def count_of(node: Node, *, least: int = 1) -> int:
    """Return the integer, from ``least``. Raises ValueError."""
    if not is_a(node, "scalar", "int") or not re.fullmatch("[0-9]{1,10}", node.value):
        raise ValueError(f"must be an integer from {least} to {MAX_COUNT}, without quotes")
    return int(node.value)


def retries_of(node: Node) -> int:
    """Return the integer, from 0. Raises ValueError."""
    return count_of(node, least=0)


def flag_of(node: Node) -> bool:
    """Return the boolean. Raises ValueError."""
    if not is_a(node, "scalar", "bool") or node.value not in ("true", "false"):
        raise ValueError("must be true or false, without quotes")
    return bool(node.value == "true")


def mapping_of(node: Node) -> dict[str, str]:
    """Return the mapping of names to texts. Numbers and dates are texts here. Raises ValueError."""
    if not is_a(node, "mapping", "map"):
        raise ValueError("must be a mapping, such as {name: value}")
    pairs: dict[str, str] = {}
    for key, value in node.value:
        if key.tag == MERGE or key.id != "scalar":
            raise ValueError("the names must be strings; merge keys are not supported here")
        name = str(key.value)
        if name in pairs:
            raise ValueError(f"duplicate name: {display_name(name)}")
        if value.id != "scalar" or value.tag == _TAG + "null":
            raise ValueError(f"{display_name(name)}: must be a string; put it in quotes")
        pairs[name] = str(value.value)
    return pairs


def names_of(node: Node) -> tuple[str, ...]:
    """Return the list of names. Raises ValueError."""
    if not is_a(node, "sequence", "seq") or not all(is_text(item) for item in node.value):
        raise ValueError("must be a list of names, such as [stream_options]")
    return tuple(str(item.value) for item in node.value)


def served_as_of(node: Node) -> list[str] | dict[str, list[str]]:
    """Return the list of names, or the mapping from a name to one name or a list. Raises ValueError."""
    if is_a(node, "mapping", "map"):
        names = {text_of(key): _list_of_names(value) for key, value in node.value}
        if len(names) != len(node.value):
            raise ValueError("has a duplicate key")
        return names
    if not is_a(node, "sequence", "seq"):
        raise ValueError("must be a list of names, such as [name], or a mapping, such as {requested: served}")
    return _list_of_names(node)


def _list_of_names(node: Node) -> list[str]:
    return [text_of(item) for item in node.value] if is_a(node, "sequence", "seq") else [text_of(node)]
