"""Example turns for very small models: three short conversations for each kind, before the chunk.

A model of 135 million parameters repeats a single example. With three of the same kind, it does so less often.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.wording import EXAMPLES
from ctxbackends.knowledge._records import Kind
from ctxbackends.knowledge._sources.base import Segment

QUESTIONS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.DECISION: "Which sentences of the text above say what was decided, and not only proposed or rejected?",
        Kind.LEARNING: "Which sentences of the text above say what was found out?",
        Kind.TASK: "Which sentences of the text above say what somebody still has to do, and has not done yet?",
        Kind.OPEN_QUESTION: "Which sentences of the text above ask what the text does not answer?",
        Kind.RISK: "Which sentences of the text above say what may go wrong?",
        Kind.TERM: "Which sentences of the text above explain a word?",
    }
)

COPY = 'Copy each of them exactly into "quote". If there are none, the list is empty.'


@attrs.frozen
class Example:
    """A passage between two others, and the record that is in it.

    Attributes:
        quote: The passage, which is the quote of the record.
        fields: The fields of the record.
        line: The line of the passage.
        before: The passage before it.
        after: The passage after it.
    """

    quote: str
    fields: Mapping[str, Any]
    line: int
    before: str
    after: str

    @property
    def text(self) -> str:
        """The text as a chunk is rendered."""
        texts = {self.line - 2: self.before, self.line: self.quote, self.line + 2: self.after}
        segments = tuple(Segment(text=text, first=line, last=line) for line, text in texts.items())
        return Chunk(source="notes.md", unit="line", segments=segments).render()


def _decision(title: str, rationale: str = "") -> dict[str, str]:
    return {"title": title, "context": "", "rationale": rationale, "consequence": ""}


def _learning(title: str) -> dict[str, str]:
    return {"title": title, "context": "", "lesson": f"{title}.", "application": ""}


_OTHERS: Mapping[Kind, tuple[tuple[str, Mapping[str, Any]], tuple[str, Mapping[str, Any]]]] = {
    Kind.DECISION: (
        (
            "The hall in Elm Street was chosen over the church, since it has heating.",
            _decision("Sing in the hall in Elm Street", "It has heating."),
        ),
        (
            "It was agreed that children may keep books for six weeks.",
            _decision("Children may keep books for six weeks"),
        ),
    ),
    Kind.LEARNING: (
        ("We noticed that the choir sings lower in cold rooms.", _learning("The choir sings lower in cold rooms")),
        ("It took us a year to see that ivy damages the library wall.", _learning("Ivy damages the library wall")),
    ),
    Kind.TASK: (
        ("Mira still needs to copy the scores for the tenors.", {"summary": "Copy the scores", "priority": "medium"}),
        ("The broken shelf must be mended at once.", {"summary": "Mend the broken shelf", "priority": "high"}),
    ),
    Kind.OPEN_QUESTION: (
        ("Who will play the organ at Easter?", {"question": "Who will play the organ at Easter?", "context": ""}),
        (
            "It is unclear where the old newspapers can go.",
            {"question": "Where can the old newspapers go?", "context": ""},
        ),
    ),
    Kind.RISK: (
        (
            "The soprano could fall ill before the concert.",
            {"title": "The soprano falls ill", "impact": "", "mitigation": ""},
        ),
        (
            "Heavy rain might flood the cellar with the maps.",
            {"title": "Rain floods the cellar", "impact": "The maps are in it.", "mitigation": ""},
        ),
    ),
    Kind.TERM: (
        (
            "A descant is a melody above the main one.",
            {"term": "descant", "definition": "A melody above the main one."},
        ),
        (
            "By incunable we mean a book printed before 1501.",
            {"term": "incunable", "definition": "A book printed before 1501."},
        ),
    ),
}


def _build(kind: Kind) -> tuple[Example, ...]:
    choir, library = _OTHERS[kind]
    return (
        Example(*EXAMPLES[kind], 7, "Every Monday, we sell white bread.", "The shop opens at seven."),
        Example(*choir, 3, "# Choir", "Tea was served."),
        Example(*library, 14, "The reading room has forty seats.", "The library is closed on Sunday."),
    )


EXAMPLES_OF: Mapping[Kind, tuple[Example, ...]] = MappingProxyType({kind: _build(kind) for kind in Kind})
"""The examples of each kind. The first is that of the longer prompt."""
