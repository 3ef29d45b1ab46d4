"""The setting `served_as` in code and in `.ctxrc`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from ctxbackends import BackendConfig, ConfigError
from ctxbackends._config.reader import parse_ctxrc


def read(text: str) -> BackendConfig:
    return parse_ctxrc(f"backends:\n- name: vllm\n  served_as: {text}\n", path=".ctxrc").backends[0]


@pytest.mark.parametrize(
    ("text", "value", "names"),
    [
        ("[a, b]", ["a", "b"], {"*": ("a", "b")}),
        ("[a/b:c]", ("a/b:c",), {"*": ("a/b:c",)}),
        ("{m: a}", {"m": "a"}, {"m": ("a",)}),
        ("{m: [a, b], n: c}", {"m": ["a", "b"], "n": "c"}, {"m": ("a", "b"), "n": ("c",)}),
        ("{'*': a}", {"*": "a"}, {"*": ("a",)}),
    ],
)
def test_a_list_or_a_mapping(text: str, value: Any, names: dict[str, tuple[str, ...]]) -> None:
    config = BackendConfig(name="vllm", served_as=value)
    assert names == config.served_as
    assert config == read(text)
    assert hash(config) == hash(read(text))
    assert config == pickle.loads(pickle.dumps(config)) == copy.deepcopy(config)  # noqa: S301  # our own bytes


def test_the_value_is_a_copy() -> None:
    value = {"m": ["a"]}
    config = BackendConfig(name="vllm", served_as=value)
    value["m"].append("b")
    value["n"] = ["c"]
    assert {"m": ("a",)} == config.served_as


SHAPE = "must be a list of model names, or a mapping from a requested name to one name or a list of them"
NAMES = "must contain model names without leading or trailing white space"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a", SHAPE),
        ([], SHAPE),
        ({}, SHAPE),
        ({"m": []}, SHAPE),
        ({"m": None}, SHAPE),
        (5, SHAPE),
        (True, SHAPE),
        ([""], NAMES),
        ([" a"], NAMES),
        ([5], NAMES),
        ({"m": [5]}, NAMES),
        ({5: "a"}, NAMES),
        ({"": "a"}, NAMES),
        (["a\x1b"], "must not contain control characters"),
        ({"m\x07": "a"}, "must not contain control characters"),
    ],
)
def test_other_values_are_errors(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BackendConfig(name="vllm", served_as=value)
    assert ("served_as", problem) == (caught.value.key, caught.value.problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "must be a list of names, such as [name], or a mapping, such as {requested: served}"),
        ("5", "must be a list of names, such as [name], or a mapping, such as {requested: served}"),
        ("", "must be a list of names, such as [name], or a mapping, such as {requested: served}"),
        ("[5]", "must be a string; put it in quotes"),
        ("{m: 5}", "must be a string; put it in quotes"),
        ("{5: m}", "must be a string; put it in quotes"),
        ("{m: a, m: b}", "has a duplicate key"),
        ("{m: {a: b}}", "must be a string; put it in quotes"),
        ("[]", SHAPE),
        ("['']", NAMES),
    ],
)
def test_errors_in_the_file_have_line_and_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    error = caught.value
    assert (".ctxrc", "backends[0].served_as", problem) == (error.path, error.key, error.problem)
    assert error.line in (2, 3)
