"""The directory of proposals: one file for each run, written atomically and found by name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from ctxbackends._config.ctxrc_file import find_ctxrc
from ctxbackends._config.reader import context_dir_of
from ctxbackends._util.files import create_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.markdown import InvalidProposalError, parse, render
from ctxbackends.knowledge._proposals.model import Proposal

CONTEXT = ".context"
CONTEXT_VARIABLE = "CTX_DIR"
"""Environment variable with the context directory."""
DIRECTORY = "proposals"
LATEST = "latest"

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9-]+")
_MAX_SLUG = 40


def proposal_id(when: datetime, slug: str) -> str:
    """Return an id from a time in UTC and a slug: ``20261123T130500Z-notes``."""
    return f"{when:%Y%m%dT%H%M%SZ}-{slug}"


def slugify(text: str) -> str:
    """Return the text as part of a file name: lower-case ASCII words, 1 to 40 characters."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    return words[:_MAX_SLUG].rstrip("-") or "input"


def find_context(start: Path | None = None) -> Path | None:
    """Return :func:`context_directory`, or None if there is none."""
    configured = _configured_context(start)
    if configured is not None:
        return configured[0] if configured[0].is_dir() else None
    folder = Path(os.path.abspath(start if start is not None else os.curdir))
    nearest = (candidate / CONTEXT for candidate in (folder, *folder.parents))
    return next((one for one in nearest if one.is_dir()), None)


def context_directory(start: Path | None = None) -> Path:
    """Return the context directory: ``CTX_DIR``, else ``context_dir`` of ``.ctxrc``, else the nearest ``.context``.

    Args:
        start: The directory to search from, upwards; the working directory by default.

    Raises:
        ProposalError: There is none.
        ConfigError: The ``.ctxrc`` is malformed.
    """
    context = find_context(start)
    if context is not None:
        return context
    configured = _configured_context(start)
    if configured is not None:
        path, setting = configured
        raise ProposalError(f"{setting} is not a directory: {path}; create it, or use --out")
    raise ProposalError(
        f"no {CONTEXT} directory in this directory or its parents; create one (mkdir {CONTEXT}), or use --out"
    )


def _configured_context(start: Path | None) -> tuple[Path, str] | None:
    """Return the directory that a setting names, and the name of the setting."""
    from_environment = os.environ.get(CONTEXT_VARIABLE)
    if from_environment:
        return Path(os.path.abspath(os.path.expanduser(from_environment))), CONTEXT_VARIABLE
    ctxrc = find_ctxrc(start)
    from_file = context_dir_of(ctxrc) if ctxrc is not None else None
    return (Path(from_file), f"context_dir of {ctxrc}") if from_file is not None else None


def check_not_context(directory: Path, *, context: Path | None = None) -> None:
    """Verify that files may be written to a directory: it is not the context directory, whose files are never written.

    Args:
        directory: The directory for files.
        context: The context directory, if it is not called ``.context``.

    Raises:
        ProposalError: It is the context directory.
    """
    real = os.path.realpath(directory)
    if os.path.basename(real) == CONTEXT or (context is not None and real == os.path.realpath(context)):
        raise ProposalError(
            f"cannot write proposals to the context directory itself: {directory}; use a subdirectory such as "
            f"{directory}/{DIRECTORY}"
        )


def prepare_directory(directory: Path, *, context: Path | None = None) -> None:
    """Create the directory if it does not exist (but not its parents), and verify that it is writable.

    Args:
        directory: The directory for files.
        context: The context directory, if it is not called ``.context``.

    Raises:
        ProposalError: It cannot be created or written to, or it is the context directory.
    """
    check_not_context(directory, context=context)
    try:
        directory.mkdir(exist_ok=True)
    except FileExistsError:
        raise ProposalError(f"not a directory: {directory}; name a directory for the proposals") from None
    except OSError as error:
        raise ProposalError(f"cannot create {directory}: {error.strerror}") from error
    probe = directory / f".{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ProposalError(f"cannot write to {directory}: {error.strerror}") from error


def write_proposal(directory: Path, proposal: Proposal) -> Path:
    """Write a proposal to a new file, atomically.

    Args:
        directory: The directory for proposals.
        proposal: The proposal. If its id exists already, the file gets another one (``-2``).

    Returns:
        The path of the file.

    Raises:
        ProposalError: The file cannot be written; nothing was changed.
    """
    base_id = proposal.facts.id
    for number in range(1, 1000):
        name = base_id if number == 1 else f"{base_id}-{number}"
        renamed = msgspec.structs.replace(proposal, facts=msgspec.structs.replace(proposal.facts, id=name))
        path = directory / f"{name}.md"
        with wrap_write_errors(path):
            if create_file(path, render(renamed).encode()):
                return path
    raise ProposalError(f"too many proposals with the id {base_id} in {directory}; remove some")


def read_proposal(path: Path) -> Proposal:
    """Read a proposal from its file.

    Raises:
        ProposalError: It cannot be read, or it was changed; the message has the line.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ProposalError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ProposalError(f"not UTF-8: {path}; restore the file") from None
    try:
        proposal = parse(text)
    except InvalidProposalError as error:
        raise ProposalError(
            f"invalid proposal: {path}:{error.line}: {error.problem}; restore the file, and edit rows with "
            "ctxbackends proposals edit"
        ) from None
    if proposal.facts.id != path.stem:
        raise ProposalError(
            f"id does not match the file name: {path} has the id {proposal.facts.id}; rename the file back"
        )
    return proposal


def list_proposals(directory: Path) -> tuple[Path, ...]:
    """Return the files of proposals, oldest first; none if the directory does not exist."""
    try:
        names = sorted(entry for entry in os.listdir(directory) if entry.endswith(".md") and _ID.fullmatch(entry[:-3]))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ProposalError(f"cannot read {directory}: {error.strerror}") from error
    return tuple(directory / name for name in names)


def find_proposal(directory: Path, name: str = LATEST) -> Path:
    """Find the file of a proposal.

    Args:
        directory: The directory of proposals.
        name: An id, the beginning of an id, a slug (the part after the time), or ``latest``.

    Raises:
        ProposalError: No proposal matches, or several do; the message lists them.
    """
    paths = list_proposals(directory)
    if not paths:
        raise ProposalError(f"no proposals in {directory}; create one with ctxbackends ingest or ctxbackends compact")
    if name == LATEST:
        return paths[-1]
    stem = name.removesuffix(".md")
    exact = [path for path in paths if path.stem == stem]
    matches = exact or [path for path in paths if path.stem.startswith(stem) or path.stem.partition("-")[2] == stem]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ProposalError(f"several proposals match {name!r}: {_format_ids(matches)}; name one of them")
    raise ProposalError(f"no proposal matches {name!r}; the proposals are {_format_ids(paths)}")


def _format_ids(paths: Sequence[Path]) -> str:
    newest = ", ".join(path.stem for path in paths[-5:])
    return newest if len(paths) <= 5 else f"{len(paths)}, the newest {newest}"
