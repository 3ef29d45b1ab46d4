"""A model that answers from the labels: a script for :class:`tests.knowledge.scripted_model.ScriptedModel`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ctxbackends.knowledge import Kind
from ctxbackends.knowledge._extract.prompt import field_name
from tests.knowledge.scripted_model import ScriptedModel
from tests.quality.cases import Case, Label, load_cases

Choose: TypeAlias = Callable[[Case], Sequence[tuple[Kind, str, Label | None]]]
"""Maps a case to the rows to answer: kind, quote, and the label whose words and priority the fields have."""


def choose_labels(case: Case) -> list[tuple[Kind, str, Label | None]]:
    return [(label.kind, label.quote, label) for label in case.labels]


def choose_traps(case: Case) -> list[tuple[Kind, str, Label | None]]:
    return [(trap.kind, trap.passage, None) for trap in case.traps]


def answer_with(model: ScriptedModel, choose: Choose) -> None:
    """Let the model answer each question with the rows of the cases that are in its prompt."""
    cases = load_cases()

    def answer(prompt: str) -> str:
        schema = model.bodies[-1]["response_format"]["json_schema"]["schema"]
        rows: dict[str, list[Any]] = {name: [] for name in schema["properties"]}
        for case in cases:
            if re.search(rf"^Source: {re.escape(case.name)}", prompt, re.MULTILINE):
                for kind, quote, label in choose(case):
                    if (name := field_name(kind)) in rows:
                        rows[name].append(_fill(schema, name, quote, label))
        return json.dumps(rows)

    model.script = answer


def _fill(schema: Mapping[str, Any], name: str, quote: str, label: Label | None) -> dict[str, Any]:
    """Return a row of the list with this name, with a value for each property of the schema."""
    items = schema["properties"][name]["items"]
    if "$ref" in items:
        items = schema["$defs"][items["$ref"].rpartition("/")[2]]
    words = " ".join(label.words) if label is not None else quote
    values = {"quote": quote, "line": 1, "priority": (label.priority if label is not None else None) or "medium"}
    return {name: values.get(name, words) for name in items["properties"]}
