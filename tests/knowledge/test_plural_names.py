"""Plurals of kinds: in the answer, the proposal, the page and the exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctxbackends._util.text import plural, pluralize
from ctxbackends.knowledge import OwnKind, RunOptions
from ctxbackends.knowledge._records import PLURALS
from tests.knowledge.commands import ctx, project
from tests.knowledge.scripted_model import ScriptedModel

TEXT = "Each patch needs two reviews.\n"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("row", "rows"),
        ("policy", "policies"),
        ("delay", "delays"),
        ("y", "ys"),
        ("fix", "fixes"),
        ("process", "processes"),
        ("branch", "branches"),
        ("wish", "wishes"),
        ("open-question", "open-questions"),
        ("api-policy", "api-policies"),
    ],
)
def test_plurals(noun: str, expected: str) -> None:
    assert expected == plural(noun)
    assert f"2 {expected}" == pluralize(2, noun)
    assert f"1 {noun}" == pluralize(1, noun)


def test_built_in_kinds_have_the_same_plurals() -> None:
    assert [*PLURALS] == [plural(kind) for kind in PLURALS.values()]


def test_kinds_with_one_plural_are_duplicates() -> None:
    schema = {"properties": {"title": {"type": "string"}}}
    with pytest.raises(ValueError, match=r"^duplicate kind: fixe; remove one$"):
        RunOptions(kinds=(OwnKind("fix", schema), OwnKind("fixe", schema)))


def test_a_kind_from_the_request_to_the_exports(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    model = serve(lambda _: {"policies": [{"quote": TEXT.strip(), "line": 1, "title": "Two reviews"}]})
    directory = project(tmp_path, model.url)
    (directory / "rules.md").write_text(TEXT)
    result = ctx(directory, "ingest", "rules.md", "--kind", "policy=title,")
    assert 0 == result.code, result.err
    assert ["policies"] == list(model.bodies[-1]["response_format"]["json_schema"]["schema"]["properties"])
    assert "\n## Policies\n" in (directory / result.proposal).read_text()
    assert ": 1 row from rules.md" in ctx(directory, "proposals", "show").out
    assert 0 == ctx(directory, "proposals", "accept", "--all").code
    assert "## Policies" in ctx(directory, "proposals", "export", "--format", "markdown").out
    assert "Two reviews" in ctx(directory, "proposals", "export", "--kind", "policies").out
    page = directory / "page.html"
    assert 0 == ctx(directory, "proposals", "show", "--html", "-o", str(page)).code
    assert "Policies" in page.read_text()
