"""A proposal as one HTML page that loads nothing, with each quote marked in its source."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files

from ctxbackends._util.text import escape_for_review, pluralize
from ctxbackends.knowledge._proposals.model import name_section
from ctxbackends.knowledge._proposals.passages import Line, Passage, Passages, label_lines, split_marks
from ctxbackends.knowledge._proposals.review import Review, Verdict
from ctxbackends.knowledge._records import (
    ONLY_FROM_SUMMARY,
    Evidence,
    QuarantinedRow,
    Record,
    Row,
    describe_place,
    fields_of,
    kind_of,
    title_of,
)

LINES = 12
"""Lines of the source before and after a quote."""

_NEAR = 3
"""Those that are shown at once; the others are folded, if they are more than as many."""

_LONG = 24
"""A quote of more lines is folded too."""

_STATES = ("undecided", "accepted", "rejected", "quarantined")


def render_page(review: Review, rows: Mapping[str, Row], passages: Passages, *, quarantined: bool = True) -> str:
    """Return the page.

    Args:
        review: The review of the proposal.
        rows: The rows by name.
        passages: The passages of the proposal, with ``LINES`` lines around a quote.
        quarantined: Whether to show the quarantined rows and the input that was not read.
    """
    return "\n".join([*_Page(review, rows, passages, quarantined=quarantined).build(), ""])


class _Page:
    def __init__(self, review: Review, rows: Mapping[str, Row], passages: Passages, *, quarantined: bool) -> None:
        self._review = review
        self._passages = passages
        self._proposal = review.proposal
        self._rows = rows
        self._quarantined = review.quarantined() if quarantined else {}
        self._skipped = review.proposal.skipped if quarantined else ()

    def build(self) -> Iterator[str]:
        folder = files("ctxbackends.knowledge._proposals")
        style = folder.joinpath("page.css").read_text(encoding="utf-8")
        script = folder.joinpath("page.js").read_text(encoding="utf-8")
        sources = [one.name for one in self._proposal.facts.inputs]
        origin = sources[0] if len(sources) == 1 else pluralize(len(sources), "input")
        title = f"{pluralize(len(self._rows), 'row')} from {_text(origin)}"
        policy = (
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'"
        )
        yield "<!doctype html>"
        yield '<html lang="en">'
        yield "<head>"
        yield '<meta charset="utf-8">'
        yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield '<meta name="referrer" content="no-referrer">'
        yield f"<title>{title}</title>"
        yield f"<style>{style}</style>"
        yield "</head>"
        yield "<body>"
        yield '<a class="skip" href="#rows">Skip to the rows</a>'
        yield from self._build_header(title)
        yield '<main id="rows">'
        yield from self._build_rows()
        yield from self._build_quarantined()
        yield from self._build_skipped()
        yield "</main>"
        yield (
            f"<footer><p>{_text(self._proposal.facts.id)}. Decide with "
            f"<code>ctxbackends proposals review {_text(self._proposal.facts.id)}</code>.</p></footer>"
        )
        yield f"<script>{script}</script>"
        yield "</body>"
        yield "</html>"

    def _build_header(self, title: str) -> Iterator[str]:
        facts = self._proposal.facts
        states = [self._review.verdict(name).state for name in self._rows]
        counts = [f"{states.count(state)} {state}" for state in ("accepted", "rejected", "undecided")]
        if self._quarantined:
            counts.append(f"{len(self._quarantined)} quarantined")
        model = f"{_text(facts.served_model or facts.requested_model)} ({_text(facts.backend_type)})"
        masked = f" {pluralize(facts.masked, 'secret')} masked." if facts.masked else ""
        yield "<header>"
        yield f"<h1>{title}</h1>"
        yield f'<p class="muted">Proposed by {model} on {_text(facts.created[:10])}.{masked}</p>'
        yield f"<p>{', '.join(counts)}</p>"
        kinds = list(dict.fromkeys(str(row.kind) for row in self._rows.values()))
        links = [(f"kind-{kind}", name_section(kind)) for kind in kinds]
        links += [("quarantined", "Quarantined")] if self._quarantined else []
        links += [("not-read", "Not read")] if self._skipped else []
        yield '<nav aria-label="Sections"><ul>'
        yield from (f'<li><a href="#{_text(target)}">{_text(name)}</a></li>' for target, name in links)
        yield "</ul></nav>"
        kinds = list(dict.fromkeys([*kinds, *(str(kind_of(row.record)) for row in self._quarantined.values())]))
        yield '<form id="filter" role="search" hidden>'
        yield '<label>Search<input type="search" name="text" autocomplete="off"></label>'
        yield f"<label>Kind{_build_select('kind', kinds)}</label>"
        yield f"<label>State{_build_select('state', _STATES)}</label>"
        yield '<output name="count" aria-live="polite"></output>'
        yield "</form>"
        yield "</header>"

    # --- rows -------------------------------------------------------------------------------------

    def _build_rows(self) -> Iterator[str]:
        groups: dict[str, dict[str, Row]] = {}  # rows that were quarantined come after all others, of any kind
        for name, row in self._rows.items():
            groups.setdefault(str(row.kind), {})[name] = row
        for kind, group in groups.items():
            yield f'<section class="rows" aria-labelledby="kind-{_text(kind)}">'
            yield f'<h2 id="kind-{_text(kind)}">{_text(name_section(kind))}</h2>'
            for name, row in group.items():
                verdict = self._review.verdict(name)
                yield from _open_article(name, row.record, verdict.state, verdict.reason)
                yield "<dl>"
                yield from self._build_fields(name, row, verdict)
                yield "</dl>"
                for evidence in row.evidence:
                    yield from self._build_evidence(evidence)
                yield "</article>"
            yield "</section>"

    def _build_fields(self, name: str, row: Row, verdict: Verdict) -> Iterator[str]:
        original = fields_of(self._review.original_rows()[name].record) if verdict.fields else {}
        for number, (field, value) in enumerate(fields_of(row.record).items()):
            if number:
                yield _build_field(field, value)
            if field in verdict.fields:
                yield _build_field(f"{field} before the edit", original[field])
        if row.is_only_from_summary:
            yield _build_field("only evidence", ONLY_FROM_SUMMARY, style="warning")
        if row.known_at is not None:
            yield _build_field("already in", row.known_at, style="warning")

    def _build_evidence(self, evidence: Evidence) -> Iterator[str]:
        passage = self._passages.find(evidence)
        yield f"<figure><figcaption>{_text(describe_place(evidence))}</figcaption>"
        if isinstance(passage, str):
            yield f'<blockquote dir="auto"><mark>{_text(evidence.quote)}</mark></blockquote>'
            yield f'<p class="muted">Source: {_text(passage)}.</p>'
        else:
            yield from _build_passage(passage)
        yield "</figure>"

    def _build_quarantined(self) -> Iterator[str]:
        if not self._quarantined:
            return
        yield '<section class="rows" aria-labelledby="quarantined">'
        yield '<h2 id="quarantined">Quarantined</h2>'
        yield "<p>These rows have no valid evidence.</p>"
        for name, row in self._quarantined.items():
            verdict = self._review.verdict(name)
            state = "quarantined" if verdict.state == "undecided" else verdict.state
            yield from _open_article(name, row.record, state, verdict.reason)
            yield "<dl>"
            yield _build_field("kind", str(kind_of(row.record)))
            for number, (field, value) in enumerate(fields_of(row.record).items()):
                if number:
                    yield _build_field(field, value)
            yield _build_field("reason", row.reason, style="warning")
            yield _build_field("part of the source", row.where)
            yield "</dl>"
            yield "<figure><figcaption>quote of the model</figcaption>"
            yield f'<blockquote dir="auto">{_text(row.quote) or "(none)"}</blockquote></figure>'
            yield from self._build_nearest(row)
            yield "</article>"
        yield "</section>"

    def _build_nearest(self, row: QuarantinedRow) -> Iterator[str]:
        passage = self._passages.find_nearest(row)
        if isinstance(passage, str):
            yield f'<p class="muted">Source: {_text(passage)}.</p>'
        else:
            yield f"<figure><figcaption>the nearest words, in {_text(passage.source)}</figcaption>"
            yield from _build_passage(passage)
            yield "</figure>"

    def _build_skipped(self) -> Iterator[str]:
        if self._skipped:
            yield '<section aria-labelledby="not-read">'
            yield '<h2 id="not-read">Not read</h2>'
            yield "<ul>"
            yield from (f"<li>{_text(str(skipped))}</li>" for skipped in self._skipped)
            yield "</ul>"
            yield "</section>"


# --- parts ----------------------------------------------------------------------------------------------


def _open_article(name: str, record: Record, state: str, reason: str) -> Iterator[str]:
    kind, title = _text(str(kind_of(record))), _text(title_of(record)) or "(no title)"
    label = f"{state}: {_text(reason)}" if reason else state
    yield f'<article id="{_text(name)}" data-kind="{kind}" data-state="{state}" aria-labelledby="{_text(name)}-title">'
    yield (
        f'<h3 id="{_text(name)}-title"><span class="muted">{_text(name)}</span> <bdi>{title}</bdi> '
        f'<span class="state {state}">{label}</span></h3>'
    )


def _build_field(label: str, value: str, *, style: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    content = _text(value) or '<span class="muted">(empty)</span>'
    return f'<dt>{_text(label)}</dt><dd dir="auto"{attribute}>{content}</dd>'


def _build_select(name: str, values: Iterable[str]) -> str:
    options = "".join(f'<option value="{_text(value)}">{_text(value)}</option>' for value in values)
    return f'<select name="{name}"><option value="">all</option>{options}</select>'


def _build_passage(passage: Passage) -> Iterator[str]:
    first, last = passage.first - _NEAR, passage.last + _NEAR + 1
    first = first if first > _NEAR else 0
    last = last if len(passage.lines) - last > _NEAR else len(passage.lines)
    yield '<div class="passage">'
    yield from _build_part(passage.lines[:first], "before")
    quote = passage.lines[first:last]
    if passage.last - passage.first < _LONG:
        yield from _build_lines(quote)
    else:
        yield from _build_part(quote, "with the quote")
    yield from _build_part(passage.lines[last:], "after")
    yield "</div>"


def _build_part(lines: Sequence[Line], label: str) -> Iterator[str]:
    """Fold some lines, so that the quote is seen first."""
    if lines:
        yield f"<details><summary>{pluralize(len(lines), 'line')} {label}</summary>"
        yield from _build_lines(lines)
        yield "</details>"


def _build_lines(lines: Sequence[Line]) -> Iterator[str]:
    for speaker, number, line in label_lines(lines):
        if speaker:
            yield f'<div class="speaker">{_text(speaker)}</div>'
        yield f'<div class="line"><span class="number">{number}</span><code dir="auto">{_mark(line)}</code></div>'


def _mark(line: Line) -> str:
    return "".join(f"<mark>{_text(part)}</mark>" if is_quote else _text(part) for part, is_quote in split_marks(line))


def _text(value: str) -> str:
    """Return a text for HTML and for attributes in double quotes."""
    return escape(escape_for_review(value))


def _hash(content: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows this content alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
