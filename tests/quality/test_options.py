"""How packing, context and passes change the figures of the labelled set, with stand-in models."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxbackends import open_backend
from tests.knowledge.scripted_model import MODEL, ScriptedModel
from tests.quality.cases import load_cases
from tests.quality.label_model import answer_with, choose_labels
from tests.quality.report import scores_of
from tests.quality.runs import Meter, run_cases
from tests.quality.scoring import Score

CASES = load_cases()


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


async def measure(model: ScriptedModel, *, together: bool = True, **options: Any) -> Score:
    meter = Meter()
    settings: Any = {"endpoint": model.url, "api_key": "test-key", "default_model": MODEL}
    async with open_backend("openai", observers=[meter], **settings) as backend:
        results = await run_cases(backend, CASES, meter=meter, options=options, together=together)
    return scores_of(results)["total"]


def forget(model: ScriptedModel, *, reads_titles: bool) -> None:
    """Let the model answer with at most one row of each kind, those first that the prompt does not name."""
    answer_with(model, choose_labels)
    everything = model.script

    def answer(prompt: str) -> str:
        named = {*re.findall(r"^- (.+)$", prompt.partition("These records are extracted already:")[2], re.MULTILINE)}
        lists: dict[str, list[dict[str, Any]]] = json.loads(str(everything(prompt)))
        return json.dumps({name: [row for row in rows if not {*row.values()} & (named if reads_titles else set())][:1]
                           for name, rows in lists.items()})  # fmt: skip

    model.script = answer


async def test_packing_changes_no_figure(model: ScriptedModel) -> None:
    """The model always names line 1, so every row is found by its quote alone."""
    answer_with(model, choose_labels)
    together = await measure(model)
    apart = await measure(model, pack=False)
    assert (1.0, 1.0, 0) == (together.precision, together.recall, together.quarantined)
    assert (apart.precision, apart.recall, apart.rows) == (together.precision, together.recall, together.rows)
    assert 3 == together.cost.requests
    assert apart.cost.requests >= 30


@pytest.mark.slow
async def test_passes_find_what_a_model_forgets(model: ScriptedModel) -> None:
    """The figures in docs/knowledge: a recall of 76, 94 and 98 %."""
    forget(model, reads_titles=True)
    scores = [await measure(model, pack=False, passes=passes) for passes in (1, 2, 3)]
    assert [106, 131, 136] == [score.right for score in scores]
    assert {139} == {score.labels for score in scores}
    assert {1.0} == {score.precision for score in scores}


@pytest.mark.slow
async def test_passes_do_not_help_a_model_that_repeats_itself(model: ScriptedModel) -> None:
    """They cost one more request for each chunk, however many are allowed."""
    forget(model, reads_titles=False)
    scores = [await measure(model, pack=False, passes=passes) for passes in (1, 2, 9)]
    assert [106, 106, 106] == [score.right for score in scores]
    assert [30, 60, 60] == [score.cost.requests for score in scores]


@pytest.mark.slow
async def test_context_changes_no_figure(model: ScriptedModel) -> None:
    """The model answers every chunk with all rows of its text, so each quote of the context comes twice."""
    answer_with(model, choose_labels)
    plain = await measure(model, pack=False, chunk_tokens=200)
    context = await measure(model, pack=False, chunk_tokens=200, context_lines=3)
    assert (plain.right, plain.rows, plain.labels) == (context.right, context.rows, context.labels)
    assert plain.cost.requests < context.cost.requests < 1.2 * plain.cost.requests
