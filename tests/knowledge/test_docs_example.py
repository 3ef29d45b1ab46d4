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
from tests.knowledge.model import ScriptedModel, line_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def said(shown: str, quote: str, **fields: str) -> dict[str, Any]:
    return {"line": line_of(shown, quote), "quote": quote, **fields}


def answer(shown: str) -> dict[str, Any]:
    return {
        "decisions": [
            said(
                shown,
                "Then YAML, because people need comments in it.",
                title="The configuration file is YAML",
                context="The tool needs a configuration file that people edit by hand.",
                rationale="People need comments, which JSON does not have.",
                consequence="Surprises of YAML, such as no being false, have to be handled.",
            ),
            said(
                shown,
                "a key that is given twice has to be an error",
                title="A key that is given twice is an error",
                context="YAML readers differ in what they do with duplicate keys.",
                rationale="",
                consequence="The reader must refuse duplicate keys.",
            ),
        ],
        "learnings": [
            said(
                shown,
                "PyYAML takes the last of two equal keys and says nothing.",
                title="PyYAML hides duplicate keys",
                context="Tried with a file of two equal keys.",
                lesson="PyYAML takes the last one without a word; ruamel.yaml refuses both.",
                application="Read configuration with ruamel.yaml.",
            )
        ],
        "tasks": [
            said(
                shown,
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
            said(
                shown,
                "I do not know yet whether anybody has files that large.",
                question="Does anybody have configuration files of several megabytes?",
                context="ruamel.yaml needs about half a minute for a megabyte.",
            )
        ],
    }


def test_the_proposal_is_the_one_that_the_run_writes(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    directory = project(tmp_path, serve(answer).url)
    (directory / ".context" / "DECISIONS.md").write_text(
        "# Decisions\n\n## [2026-11-18] Errors name the line\n\n## [2026-11-19] A key that is given twice is an error\n"
    )
    shutil.copy(EXAMPLES / "session.jsonl", directory)
    done = ctx(directory, "compact", "session.jsonl")
    assert 0 == done.code, done.err
    written = (directory / done.proposal).read_text()
    made = read_proposal(directory / done.proposal)
    assert (5, 1) == (len(made.rows), len(made.quarantined))
    # What differs from run to run.
    text = written.replace(made.facts.id, "20261123T140000Z-session").replace(
        made.facts.created, "2026-11-23T14:00:00Z"
    )
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://localhost:8000", text).replace(
        made.facts.created[:10], "2026-11-23"
    )
    if os.environ.get("CTXBACKENDS_WRITE_EXAMPLE"):
        (EXAMPLES / "20261123T140000Z-session.md").write_text(text)
    assert (EXAMPLES / "20261123T140000Z-session.md").read_text() == text
