"""No second look at rows that repeat an example of the prompt, as small models do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends.knowledge import Kind, ingest
from ctxbackends.knowledge._extract import wording
from ctxbackends.knowledge._extract.prompt import field_name
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import decision, scripted_backend

TEXT = "We decided to store potassium chloride in the pharmacy only."


@pytest.mark.parametrize("kind", [*Kind])
async def test_an_example_stays_in_quarantine(kind: Kind) -> None:
    """Else the model would find a quote for it, and the row would be proposed with a quote that proves nothing."""
    quote, fields = wording.EXAMPLES[kind]

    def repeat(prompt: str) -> Any:
        if prompt.startswith("Passage:"):
            return json.dumps({"quote": TEXT})
        return {field_name(kind): [{"quote": quote, "line": 1, **fields}]}

    async with scripted_backend(repeat) as (model, backend):
        run = ingest(backend, [LinesSource(TEXT)], kinds=[kind], second_look=True)
        assert [] == [row async for row in run]
    assert [quote] == [row.quote for row in run.quarantined]
    assert (0, 1) == (run.report.second_looks, len(model.prompts))


@pytest.mark.parametrize(
    ("quote", "looks"),
    [
        ("We will bake rye bread only on Fridays, because the oven is free on Fridays.", 0),
        ("we will bake “rye bread” only on Fridays", 0),
        ("We will store potassium chloride only in the pharmacy, because it is dangerous.", 1),
    ],
)
async def test_a_few_other_words_make_no_difference(quote: str, looks: int) -> None:
    def answer(prompt: str) -> Any:
        return json.dumps({"quote": ""}) if prompt.startswith("Passage:") else {"decisions": [decision("It", quote)]}

    async with scripted_backend(answer) as (_, backend):
        run = ingest(backend, [LinesSource(TEXT)], kinds=[Kind.DECISION], second_look=True)
        assert [] == [row async for row in run]
    assert looks == run.report.second_looks


async def test_an_example_that_is_in_the_text_is_a_row() -> None:
    quote, fields = wording.EXAMPLES[Kind.TASK]

    async with scripted_backend(lambda _: {"tasks": [{"quote": quote, "line": 1, **fields}]}) as (_, backend):
        run = ingest(backend, [LinesSource(quote)], kinds=[Kind.TASK], second_look=True)
        assert [quote] == [row.evidence[0].quote async for row in run]
