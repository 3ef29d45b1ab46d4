"""The options of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import attrs

from ctxbackends.knowledge._own_kinds import AnyKind, OwnKind, name_of, plural_of
from ctxbackends.knowledge._records import Kind, Speaker, speakers_of

MAX_OWN_KINDS = 10

MAX_INSTRUCTIONS = 8_000
"""Characters. The instructions are in each request."""


class RunKeywords(TypedDict, total=False):
    """The fields of :class:`RunOptions` as keyword arguments."""

    kinds: Sequence[AnyKind]
    kinds_per_question: int | None
    instructions: str | None
    model: str | None
    max_concurrency: int | None
    chunk_tokens: int | None
    speakers: Sequence[Speaker] | None
    pack: bool
    context_lines: int
    passes: int
    allow_unenforced: bool
    skip_failed: bool
    second_look: bool


def _kinds(kinds: Sequence[AnyKind]) -> tuple[AnyKind, ...]:
    if not kinds:
        raise ValueError(f"no kinds; the kinds are {', '.join(Kind)}")
    plurals = [plural_of(kind) for kind in kinds]  # lists of an answer and sections of a proposal
    for index, kind in enumerate(kinds):
        if plurals[index] in plurals[:index]:
            raise ValueError(f"duplicate kind: {name_of(kind)}; remove one")
    own_count = sum(isinstance(kind, OwnKind) for kind in kinds)
    if own_count > MAX_OWN_KINDS:
        raise ValueError(f"too many own kinds: {own_count}; use at most {MAX_OWN_KINDS}")
    return tuple(kinds)


def _check_instructions(_: RunOptions, __: attrs.Attribute[Any], value: str | None) -> None:
    if value is None:
        return
    if not value.strip():
        raise ValueError("empty instructions; write some, or leave them out")
    if len(value) > MAX_INSTRUCTIONS:
        raise ValueError(
            f"instructions too long: {len(value):,} characters; shorten them to at most {MAX_INSTRUCTIONS:,}"
        )


def _speakers(speakers: Sequence[Speaker] | None) -> tuple[Speaker, ...] | None:
    if speakers is None:
        return None
    if not speakers:
        raise ValueError("no speakers; use None for all")
    return speakers_of(speakers)


def _check_count(_: RunOptions, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"invalid {attribute.name}: {value}; it must be at least 1")


def _check_not_negative(_: RunOptions, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < 0:
        raise ValueError(f"invalid {attribute.name}: {value}; it must be at least 0")


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of a run. Raise ValueError for an invalid value.

    Attributes:
        kinds: The kinds of records to extract, also own ones (:class:`OwnKind`); all built-in ones by default.
        kinds_per_question: The most kinds in one request; a chunk is sent once for each group of kinds. None for one
            kind if the model is small (less than 4 billion parameters, or a context of at most 4,096 tokens if its size
            is unknown), else all.
        instructions: Additional instructions to the model, at most 8,000 characters; None for none.
        model: The model; None for the backend's default model.
        max_concurrency: The most requests in flight; None for the number of the server's slots, or 4.
        chunk_tokens: The most tokens of text in one request; None for 8,192. The model's context is always a limit.
        speakers: Read only what these speakers say in transcripts; None for all. Other sources are not affected.
        pack: Whether to send small consecutive sources in one request.
        context_lines: The lines of the chunk before that are sent with each chunk as context.
        passes: How often the model is asked about each chunk; after the first time, for the rows that are missing.
        allow_unenforced: Whether to use a server that does not enforce the schema.
        skip_failed: Whether to continue when the model gives no usable answer to a chunk, and report the chunk.
        second_look: Whether to ask the model once more for the quote of a row that would be quarantined.
    """

    kinds: tuple[AnyKind, ...] = attrs.field(default=tuple(Kind), converter=_kinds)
    kinds_per_question: int | None = attrs.field(default=None, validator=_check_count)
    instructions: str | None = attrs.field(default=None, validator=_check_instructions)
    model: str | None = None
    max_concurrency: int | None = attrs.field(default=None, validator=_check_count)
    chunk_tokens: int | None = attrs.field(default=None, validator=_check_count)
    speakers: tuple[Speaker, ...] | None = attrs.field(default=None, converter=_speakers)
    pack: bool = True
    context_lines: int = attrs.field(default=0, validator=_check_not_negative)
    passes: int = attrs.field(default=1, validator=_check_count)
    allow_unenforced: bool = False
    skip_failed: bool = False
    second_look: bool = False
