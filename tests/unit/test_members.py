"""The finished members of a JSON text that comes in pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._schema import members as members_module
from ctxbackends._schema.members import Member, MemberScanner

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS | TEXTS | st.sampled_from(['"', "\\", '\\"', "{", "}]", ":,", "```"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CONTAINERS = st.lists(VALUES, max_size=5) | st.dictionaries(TEXTS, VALUES, max_size=5)


def members_of(value: Any) -> list[Member]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [Member(key, item) for key, item in items]


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(ends)]


def feed(pieces: Sequence[str], **options: Any) -> list[Member]:
    scanner = MemberScanner(**options)
    return [member for piece in pieces for member in scanner.feed(piece)]


@given(CONTAINERS, st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.sampled_from([None, 2]))
def test_any_chunking_gives_the_same_members(value: Any, places: list[int], ascii_: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    assert members_of(value) == feed(cut(text, places))
    assert members_of(value) == feed([*text])
    assert members_of(value) == feed([f" \n{text}\n```"])


@given(CONTAINERS, st.lists(st.integers(0, 10_000), max_size=30))
def test_members_of_a_wrapped_value(value: Any, places: list[int]) -> None:
    assert members_of(value) == feed(cut(json.dumps({"value": value}), places), wrapper="value")


@given(CONTAINERS, st.integers(0, 10_000))
def test_a_member_comes_only_when_it_is_complete(value: Any, place: int) -> None:
    text = json.dumps(value)
    begun = text[: place % (len(text) + 1)]
    members = feed([begun])
    assert members == members_of(value)[: len(members)]
    for member in members:
        assert json.dumps(member.value) in begun


@given(st.text('{}[]",:\\ 1an'), st.lists(st.integers(0, 100), max_size=8))
def test_text_that_is_not_json_never_fails(text: str, places: list[int]) -> None:
    assert feed([text]) == feed(cut(text, places))


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ('{"a": 1, "b": tru', [Member("a", 1)]),
        ('{"a": 1, "a": 2}', [Member("a", 1), Member("a", 2)]),
        ('{"a": 1, oops, "b": 2}', [Member("a", 1)]),
        ('{"a": 1] "b": 2}', []),
        ('Here it is: {"a": 1}', []),
        ('{"a": 1} {"b": 2}', [Member("a", 1)]),
        ("[1, [2, 3], 4", [Member(0, 1), Member(1, [2, 3])]),
        ('"{\\"a\\": 1}"', []),
        ("12", []),
        ("", []),
    ],
)
def test_other_texts(text: str, members: list[Member]) -> None:
    assert members == feed([text])
    assert members == feed([*text])


@pytest.mark.parametrize("text", ['{"other": {"a": 1}}', '[{"a": 1}]', '{"value": 1}', '{"value" {"a": 1}}'])
def test_a_wrapper_of_another_form(text: str) -> None:
    assert [] == feed([text], wrapper="value")


def test_each_member_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole prefix is not decoded again for each piece."""
    lengths: list[int] = []

    def decode(text: str, **options: Any) -> Any:
        lengths.append(len(text))
        return msgspec.json.decode(text, **options)

    monkeypatch.setattr(members_module, "msgspec", SimpleNamespace(json=SimpleNamespace(decode=decode)))
    text = json.dumps({f"name {index}": ["x" * 50] * 3 for index in range(500)})
    scanner = MemberScanner()
    members = [member for start in range(0, len(text), 3) for member in scanner.feed(text[start : start + 3])]

    assert 500 == len(members)
    assert 1000 == len(lengths)  # keys and values
    assert sum(lengths) < len(text)
