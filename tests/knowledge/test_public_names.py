"""The public names of ``ctxbackends.knowledge`` are the same for type checkers and at run time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ctxbackends import knowledge

ROOT = Path(__file__).parents[2]


def names_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(knowledge.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(statement.module)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name == alias.asname
    }


def test_type_checkers_see_the_same_names() -> None:
    assert sorted(names_for_type_checkers()) == knowledge.__all__
    assert knowledge.__all__ == dir(knowledge)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'wishes'"):
        getattr(knowledge, "wishes")  # noqa: B009  # checkers know that it does not exist


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "api" / "knowledge.md").read_text()
    documented = set(re.findall(r"(?:\.\. auto\w+:: |`)ctxbackends\.knowledge\.(\w+)", text))
    assert set(knowledge.__all__) == documented
