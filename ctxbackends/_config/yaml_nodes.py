"""The text of a `.ctxrc` -> YAML's nodes with their places, and their scalars -> values; knows no key and no backend.

Faults of a value are ValueErrors without a place: who looks for the value knows its key.
"""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

from ctxbackends._config.duration import DURATION_HINT, MAX_COUNT, parse_duration
from ctxbackends.errors import ConfigError

_MAX_DEPTH = 64  # of nested YAML collections: keeps recursion away from the interpreter's limit

_TAG = "tag:yaml.org,2002:"
MERGE = _TAG + "merge"


class Mark(Protocol):
    index: int
    line: int
    column: int


class Node(Protocol):
    """What is used of ruamel.yaml's nodes. ``id``: scalar, sequence or mapping; ``value``: str, list, list of pairs."""

    id: str
    tag: str
    value: Any
    start_mark: Mark
    end_mark: Mark
    style: str | None
    flow_style: bool | None


Pair = tuple[Node, Node]


def compose(text: str, path: str) -> Node | None:
    """The root of the document, None where it is empty; places are those in ``text`` less a byte order mark. Raises
    ConfigError with the line."""
    text = text.removeprefix("\ufeff")
    # Composed, not constructed: nodes know their places, an alias costs nothing however often it is nested, foreign
    # values are never turned into objects, and a duplicate key in a foreign value stays that program's business.
    from ruamel.yaml import YAML  # noqa: PLC0415  # only who reads a file pays for it
    from ruamel.yaml.composer import MaxDepthExceededError  # noqa: PLC0415
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415
    from ruamel.yaml.reader import ReaderError  # noqa: PLC0415

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    line: int | None = None
    try:
        root: Node | None = yaml.compose(text)
        return root
    except MaxDepthExceededError as error:
        line, problem = error.problem_mark.line + 1, f"more than {_MAX_DEPTH} levels of nesting"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = mark.line + 1, _problem(text, mark, error.problem, error.context)
    except ReaderError as error:
        line, problem = text.count("\n", 0, error.position) + 1, "not valid YAML: a control character"
    except Exception:
        # Hostile escapes and directives end in chr(), int(), assert or a missing key in ruamel.yaml, without a place.
        problem = "not valid YAML: a directive or an escape that cannot be read"
    # Raised out here: ruamel.yaml's error prints lines of the file, so it does not travel along as __context__.
    raise ConfigError(problem, path=path, line=line)


def _problem(text: str, mark: Mark, problem: str | None, context: str | None) -> str:
    if text[mark.index : mark.index + 1] == "\t":
        return "not valid YAML: a tab where only spaces may stand"
    # ruamel.yaml quotes what it took from the file, and nothing else in these sentences comes from there.
    said = [part for part in (context, problem) if part and "'" not in part and '"' not in part]
    return ", ".join([f"not valid YAML, column {mark.column + 1}", *said])


def is_text(node: Node) -> bool:
    return is_a(node, "scalar", "str")


def is_a(node: Node, kind: str, tag: str) -> bool:
    """Whether it is a scalar, sequence or mapping (``kind``) of this tag of YAML."""
    # Both, since a tag can be written in front of anything: !!map foo
    return node.id == kind and node.tag == _TAG + tag


def text_of(node: Node) -> str:
    if not is_text(node):
        raise ValueError("must be a text; write it in quotes if it looks like something else")
    return str(node.value)


def duration_of(node: Node) -> float:
    # A number goes the same way as a text: the sentence about its missing unit is the one that helps.
    if node.id != "scalar" or node.tag not in (_TAG + "str", _TAG + "int", _TAG + "float"):
        raise ValueError(f"must be a duration; {DURATION_HINT}")
    return parse_duration(node.value)


def keep_alive_of(node: Node) -> float:
    return math.inf if is_text(node) and node.value == "forever" else duration_of(node)


def count_of(node: Node) -> int:
    if not is_a(node, "scalar", "int") or not re.fullmatch("[0-9]{1,10}", node.value):
        raise ValueError(f"must be a whole number from 1 to {MAX_COUNT}, without quotes")
    return int(node.value)


def flag_of(node: Node) -> bool:
    if not is_a(node, "scalar", "bool") or node.value not in ("true", "false"):
        raise ValueError("must be true or false, without quotes")
    return bool(node.value == "true")
