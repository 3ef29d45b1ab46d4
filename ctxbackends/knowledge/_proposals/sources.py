"""Open the sources of a proposal again. Only the bytes that the run read are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctxbackends.knowledge._errors import ProposalError, SourceError
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._sources.base import Input, Source
from ctxbackends.knowledge._sources.files import begins_with, open_file
from ctxbackends.knowledge._sources.formats import source_of


def find_input(proposal: Proposal, place: str) -> Input:
    """Return the input that a place such as ``notes.md:12-40`` is in.

    Raises:
        ProposalError: The proposal has no such input.
    """
    matches = [one for one in proposal.facts.inputs if place.startswith((f"{one.name}:", f"{one.name}, "))]
    if not matches:
        raise ProposalError(f"source of the row not found in the proposal: {place}; restore the proposal")
    return max(matches, key=lambda one: len(one.name))


def find_roots(proposal_path: Path) -> tuple[Path, ...]:
    """Return the directories that the names of sources may be relative to: the working directory, and the project."""
    return Path(), proposal_path.absolute().parent.parent.parent


def find_file(name: str, roots: Sequence[Path]) -> Path | None:
    """Return the file of a source in the first of the directories that has it, or None."""
    return next((root / name for root in roots if (root / name).is_file()), None)


def open_source(input_: Input, path: Path) -> Source:
    """Return the prepared source of an input.

    Raises:
        SourceError: It cannot be read, or it does not begin with the bytes of the run; a transcript may have grown.
    """
    with open_file(input_.name, path) as file:
        if not begins_with(input_, file):
            raise SourceError(input_.name, "changed since the run")
    source = source_of(path, name=input_.name)
    source.prepare()
    return source
