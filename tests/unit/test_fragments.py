"""The fragments of the changelog, and the check of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.release.fragments import DIRECTORY, TYPES, check, find_problem

ROOT = Path(__file__).parents[2]


def test_every_fragment_is_a_sentence() -> None:
    assert [] == check(DIRECTORY)


def test_the_types_are_those_of_towncrier() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
    assert TYPES == tuple(type_["directory"] for type_ in config["type"])
    assert DIRECTORY == ROOT / config["directory"]


@pytest.mark.parametrize(
    "name", ["19.added.md", "19.added.1.md", "19.fixed.120.md", "+name.changed.md", "+two-words.removed.2.md"]
)
def test_valid_names(name: str) -> None:
    assert None is find_problem(name, "A sentence.\n")


@pytest.mark.parametrize(
    "name",
    [
        "19.md",
        "19.new.md",
        "19.added.txt",
        "19.added",
        "19.added.a.md",
        "19.added.0.md",
        "0.added.md",
        "name.added.md",
        "+.added.md",
        "19.Added.md",
        "x19.added.md",
        "README.md",
    ],
)
def test_names_that_towncrier_ignores_or_misreads(name: str) -> None:
    assert (find_problem(name, "A sentence.\n") or "").startswith("not a valid name; use <issue>.<type>.md")


@pytest.mark.parametrize(
    "text",
    [
        "One sentence.",
        "One sentence\nin two lines.\n",
        "Version 0.2 of `a.b. C` takes 0.5 s, e.g. here.",
        "Is it?",
        "The page 'How?' has it (and more).",
        "`x. Y.` is code.",
        "It ends with `code.md`.",
    ],
)
def test_one_sentence(text: str) -> None:
    assert None is find_problem("19.added.md", text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty; write a sentence"),
        (" \n\n", "empty; write a sentence"),
        ("One.\n\nTwo.", "more than a paragraph; write a file for each change"),
        ("One\n  \ntwo.", "more than a paragraph; write a file for each change"),
        ("- One.\n- Two.", "more than a paragraph; write a file for each change"),
        ("Changes:\n* one", "more than a paragraph; write a file for each change"),
        ("# Heading", "more than a paragraph; write a file for each change"),
        ("1. One.", "more than a paragraph; write a file for each change"),
        ("No end", "no period at the end"),
        ("Ends. With no period", "no period at the end"),
        ("Ends with `code.`", "no period at the end"),
        ("One. Two.", "2 sentences; write a file for each change"),
        ("One `code`. `code` two! Three?", "3 sentences; write a file for each change"),
        ("One.\nTwo.", "2 sentences; write a file for each change"),
    ],
)
def test_anything_else(text: str, problem: str) -> None:
    assert problem == find_problem("19.added.md", text)


def test_the_lines_of_the_check(tmp_path: Path) -> None:
    for name, text in ((".gitkeep", ""), ("1.added.md", "One."), ("2.fixed.md", ""), ("3.md", "Three.")):
        (tmp_path / name).write_text(text)
    expected = ["docs/changes/2.fixed.md: empty; write a sentence"]
    assert expected == check(tmp_path)[:1]
    assert ["docs/changes/3.md"] == [line.partition(":")[0] for line in check(tmp_path)[1:]]
