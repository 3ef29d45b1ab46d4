"""The options of a run. Knows no backend and no command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import attrs

from ctxbackends.knowledge._records import Kind


class RunKeywords(TypedDict, total=False):
    """The fields of :class:`RunOptions` as keyword arguments."""

    kinds: Sequence[Kind]
    model: str | None
    max_concurrency: int | None
    chunk_tokens: int | None
    allow_unenforced: bool
    skip_failed: bool


def _kinds(kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    if not kinds:
        raise ValueError(f"no kinds are named; there are {', '.join(Kind)}")
    return tuple(kinds)


def _check_count(_: RunOptions, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{attribute.name} is {value}; it must be 1 or more")


@attrs.frozen(kw_only=True)
class RunOptions:
    """How a run asks the model. Raises ValueError for a value that cannot be used.

    ``kinds``: what is extracted. ``max_concurrency``: requests at once; by default as many as the server says that it
    works on, or 4. ``chunk_tokens``: the most that one request shows of a source; at most what the model's context
    leaves. ``allow_unenforced``: ask a server as well that does not enforce a schema. ``skip_failed``: go on without a
    chunk that the model gives no usable answer to, and report it.
    """

    kinds: tuple[Kind, ...] = attrs.field(default=tuple(Kind), converter=_kinds)
    model: str | None = None
    max_concurrency: int | None = attrs.field(default=None, validator=_check_count)
    chunk_tokens: int | None = attrs.field(default=None, validator=_check_count)
    allow_unenforced: bool = False
    skip_failed: bool = False
