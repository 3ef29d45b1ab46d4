"""The proposal in the documentation is the one that the command writes for the transcript beside it.

The rows come from a scripted model, since no model that understands a text fits into a test; the rest is the run's own.
CTXBACKENDS_WRITE_EXAMPLE=1 writes the file anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxbackends.knowledge import read_proposal
from tests.knowledge.commands import ctx, project
from tests.knowledge.scripted_model import ScriptedModel, line_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def quoted_row(prompt: str, quote: str, **fields: str) -> dict[str, Any]:
    return {"line": line_of(prompt, quote), "quote": quote, **fields}


def answer(prompt: str) -> dict[str, Any]:
    return {
        "decisions": [
            quoted_row(
                prompt,
                "Then YAML, because people need comments in it.",
                title="The configuration file is YAML",
                context="The tool needs a configuration file that people edit by hand.",
                rationale="People need comments, which JSON does not have.",
                consequence="Surprises of YAML, such as no being false, have to be handled.",
            ),
            quoted_row(
                prompt,
                "a key that is given twice has to be an error",
                title="A key that is given twice is an error",
                context="YAML readers differ in what they do with duplicate keys.",
                rationale="",
                consequence="The reader must refuse duplicate keys.",
            ),
        ],
        "learnings": [
            quoted_row(
                prompt,
                "PyYAML takes the last of two equal keys and says nothing.",
                title="PyYAML hides duplicate keys",
                context="Tried with a file of two equal keys.",
                lesson="PyYAML takes the last one without a word; ruamel.yaml refuses both.",
                application="Read configuration with ruamel.yaml.",
            )
        ],
        "tasks": [
            quoted_row(
                prompt,
                "Write the reader with ruamel.yaml first, that blocks the release.",
                summary="Write the configuration reader with ruamel.yaml",
                priority="high",
            ),
            {
                "line": 8,
                "quote": "Add a schema for the configuration file.",
                "summary": "Add a schema for the configuration file",
                "priority": "medium",
            },
        ],
        "open_questions": [
            quoted_row(
                prompt,
                "I do not know yet whether anybody has files that large.",
                question="Does anybody have configuration files of several megabytes?",
                context="ruamel.yaml needs about half a minute for a megabyte.",
            )
        ],
    }


def test_the_example_matches_the_run(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    directory = project(tmp_path, serve(answer).url)
    (directory / ".context" / "DECISIONS.md").write_text(
        "# Decisions\n\n## [2026-11-18] Errors name the line\n\n## [2026-11-19] A key that is given twice is an error\n"
    )
    shutil.copy(EXAMPLES / "session.jsonl", directory)
    result = ctx(directory, "compact", "session.jsonl")
    assert 0 == result.code, result.err
    text_of_run = (directory / result.proposal).read_text()
    proposal = read_proposal(directory / result.proposal)
    assert (5, 1) == (len(proposal.rows), len(proposal.quarantined))
    # What differs from run to run.
    text = text_of_run.replace(proposal.facts.id, "20261123T140000Z-session").replace(
        proposal.facts.created, "2026-11-23T14:00:00Z"
    )
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://localhost:8000", text).replace(
        proposal.facts.created[:10], "2026-11-23"
    )
    if os.environ.get("CTXBACKENDS_WRITE_EXAMPLE"):
        (EXAMPLES / "20261123T140000Z-session.md").write_text(text)
    assert (EXAMPLES / "20261123T140000Z-session.md").read_text() == text
