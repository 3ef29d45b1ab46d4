"""The bounds of an answer's schema fit its tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._schema.generate import schema_for
from ctxbackends.knowledge._extract.bounds import MAX_ROWS, drop_partial_word
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._extract.run import ingest
from ctxbackends.knowledge._records import Kind
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import scripted_backend

SESSION = (Kind.DECISION, Kind.LEARNING, Kind.TASK, Kind.OPEN_QUESTION)


def longest(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """The longest value that a schema allows."""
    if "$ref" in schema:
        return longest(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return max(schema["enum"], key=len)
    if schema["type"] == "object":
        return {name: longest(value, root) for name, value in schema["properties"].items()}
    if schema["type"] == "array":
        return [longest(schema["items"], root)] * schema["maxItems"]
    return "x" * schema["maxLength"] if schema["type"] == "string" else schema["maximum"]


def longest_answer(kinds: Sequence[Kind], answer_tokens: int) -> str:
    schema = schema_for(Prompt(kinds, answer_tokens=answer_tokens).questions[0].response_type)
    return json.dumps(longest(schema, schema), separators=(",", ":"))


@pytest.mark.parametrize("kinds", [(kind,) for kind in Kind] + [SESSION, tuple(Kind)])
@pytest.mark.parametrize("answer_tokens", [512, 1024, 2048, 4096])
def test_the_longest_answer_fits(kinds: Sequence[Kind], answer_tokens: int) -> None:
    size = len(longest_answer(kinds, answer_tokens))
    assert size <= 3 * answer_tokens
    # The room is used, unless each list has its most rows.
    assert size >= 1.5 * answer_tokens


@given(st.lists(st.sampled_from(list(Kind)), min_size=1, unique=True), st.integers(400, 20_000))
def test_every_longest_answer_fits(kinds: list[Kind], answer_tokens: int) -> None:
    assert len(longest_answer(kinds, answer_tokens)) <= 3 * answer_tokens


def test_more_tokens_give_more_rows_and_then_longer_texts() -> None:
    bounds = [
        Prompt([Kind.DECISION], answer_tokens=tokens).questions[0].bounds for tokens in (600, 1200, 4096, 8192, 60_000)
    ]
    rows = [one.rows for one in bounds]
    assert sorted(rows) == rows
    assert (1, MAX_ROWS) == (rows[0], rows[-1])
    assert (600, 200) == (bounds[-1].length("quote"), bounds[-1].length("title"))
    assert all(one.length("quote") >= 240 for one in bounds)


async def test_the_bounds_follow_the_context_of_the_model() -> None:
    rows = {}
    for context in (6144, 65536):
        async with scripted_backend(context_length=context) as (model, backend):
            async for _ in ingest(backend, [LinesSource("We chose YAML, because people edit it.")], kinds=SESSION):
                raise AssertionError("the model finds nothing")
        (body,) = model.bodies
        lists = body["response_format"]["json_schema"]["schema"]["properties"]
        assert "maxItems" in json.dumps(lists) or "at most" in json.dumps(lists)
        answer_tokens = body.get("max_completion_tokens") or body["max_tokens"]
        rows[context] = Prompt(SESSION, answer_tokens=answer_tokens).questions[0].bounds
        assert str(rows[context].length("quote")) in json.dumps(body["response_format"])
    assert rows[6144].rows < rows[65536].rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We chose YAML beca", "We chose YAML"),  # ended by the bound
        ("We chose YAML as it", "We chose YAML as it"),  # a server that ignores the bound
        ("We chose YAML.", "We chose YAML."),
        ("采用微服务架构采用微服务架构采用微服", "采用微服务架构采用微服务架构采用微服"),
    ],
)
def test_a_quote_that_the_bound_ended_loses_its_last_word(text: str, expected: str) -> None:
    assert expected == drop_partial_word(text, 18)
