"""Truncated answers: their complete rows, and whether another request about the text can give more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn, TypeVar

import msgspec

from ctxbackends._schema.answers import AnswerUnwrapper
from ctxbackends._schema.validate import decode_as
from ctxbackends.errors import StructuredOutputError
from ctxbackends.knowledge._extract.budget import BYTES_PER_TOKEN
from ctxbackends.knowledge._extract.citations import CitedRow
from ctxbackends.knowledge._extract.packing import AnyChunk
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._records import QuarantinedRow, kind_of

T = TypeVar("T", bound=msgspec.Struct)

MAX_CUTS = 2
"""How often a chunk is split whose answer is truncated: at most 7 requests."""

_LAST_ROWS = 3
"""The rows at the end of an answer that show whether it repeats itself."""

_WHITE_SPACE = " \t\r\n"


def parse_cut_answer(target: type[T], text: str) -> T | None:
    """Return the answer up to its last complete row, or None if it has none.

    The complete rows must be valid, as those of a complete answer must be.

    Args:
        target: The type of the answer; its fields are lists of rows.
        text: The text of the answer.
    """
    lists = _find_rows(AnswerUnwrapper().feed(text))
    if not any(lists.values()):
        return None
    names = (field.encode_name for field in msgspec.structs.fields(target))
    complete = {**dict.fromkeys(names, ()), **lists}
    members = (f"{json.dumps(name)}:[{','.join(rows)}]" for name, rows in complete.items())
    try:
        return decode_as(target, f"{{{','.join(members)}}}")
    except StructuredOutputError:
        return None


def is_repeating(rows: Sequence[ExtractedRow]) -> bool:
    """Return whether an answer ends in repetition: its last row, or the quotes of its last three rows, came before."""
    if not rows:
        return False
    quotes = [(kind_of(row.record), row.quote) for row in rows]
    start = len(rows) - _LAST_ROWS
    return rows[-1] in rows[:-1] or (
        start > 0 and all(quote in quotes[:at] for at, quote in enumerate(quotes[start:], start))
    )


def is_worth_asking(rows: Sequence[ExtractedRow], checked: Sequence[CitedRow | QuarantinedRow]) -> bool:
    """Return whether the rows of an answer that was ended early show that there are more.

    They do not if the answer repeats itself, or if most of its quotes are not in the text: the model fills its list.
    """
    return not is_repeating(rows) and 2 * sum(isinstance(row, CitedRow) for row in checked) >= len(rows)


def can_be_too_long(chunk: AnyChunk, answer_tokens: int) -> bool:
    """Return whether a text is long enough for an answer that does not fit into its tokens.

    An answer to a shorter text is truncated because the model repeats itself, and is so for half of the text too.
    """
    return 2 * chunk.size >= answer_tokens * BYTES_PER_TOKEN


def has_other_cause(text: str, answer_tokens: int) -> bool:
    """Return whether an answer without a complete row is so short that its text is not the reason for its end.

    The prompt has filled the context, or the tokens went into reasoning. Both are less for half of the text.
    """
    return 4 * len(text) < answer_tokens * BYTES_PER_TOKEN


# --- the JSON text ----------------------------------------------------------------------------------------


def _refuse(_: str) -> NoReturn:
    raise ValueError("not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _find_rows(text: str) -> dict[str, list[str]]:
    """Return the texts of the complete rows in each list of an object, up to where the text ends or is not JSON."""
    lists: dict[str, list[str]] = {}
    at = _skip_space(text, 0)
    if not text.startswith("{", at):
        return lists
    try:
        while True:
            at = _skip_space(text, at + 1)  # behind the brace or the comma
            name, at = _DECODER.raw_decode(text, at)
            at = _skip_space(text, at)
            if not isinstance(name, str) or name in lists or not text.startswith(":", at):
                return lists
            at = _skip_space(text, at + 1)
            if not text.startswith("[", at):
                return lists
            rows = lists[name] = []
            at = _read_list(text, at, rows)
            if not text.startswith(",", at):
                return lists
    except (ValueError, RecursionError):  # the row that the end of the text cuts
        return lists


def _read_list(text: str, at: int, rows: list[str]) -> int:
    """Add the rows of the list that begins at ``at``; return the position behind it and its white space."""
    at = _skip_space(text, at + 1)
    while not text.startswith("]", at):
        row, end = _DECODER.raw_decode(text, at)
        if not isinstance(row, dict):
            raise ValueError("not a row")
        rows.append(text[at:end])
        at = _skip_space(text, end)
        if text.startswith(",", at):
            at = _skip_space(text, at + 1)
        elif not text.startswith("]", at):
            raise ValueError("not a list")
    return _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE_SPACE:
        at += 1
    return at
