"""The directory of proposals: one file for each run, written whole or not at all, found by name. Knows no backend."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from ctxbackends._config.reader import context_dir_of, find_ctxrc
from ctxbackends._util.files import create_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.markdown import InvalidProposalError, parse, render
from ctxbackends.knowledge._proposals.model import Proposal

CONTEXT = ".context"
CONTEXT_VARIABLE = "CTX_DIR"
"""Environment variable: the directory that is meant by ``.context``."""
DIRECTORY = "proposals"
LATEST = "latest"

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9-]+")
_MAX_SLUG = 40


def proposal_id(when: datetime, slug: str) -> str:
    """``20261123T130500Z-notes``: the time, which is UTC, and the slug."""
    return f"{when:%Y%m%dT%H%M%SZ}-{slug}"


def slugify(text: str) -> str:
    """``text`` as a part of a file's name: lower-case ASCII words, 40 characters at most, never nothing."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    return words[:_MAX_SLUG].rstrip("-") or "input"


def find_context(start: Path | None = None) -> Path | None:
    """As :func:`context_directory`, and None where there is none."""
    configured = _configured_context(start)
    if configured is not None:
        return configured[0] if configured[0].is_dir() else None
    folder = Path(os.path.abspath(start if start is not None else os.curdir))
    nearest = (candidate / CONTEXT for candidate in (folder, *folder.parents))
    return next((one for one in nearest if one.is_dir()), None)


def context_directory(start: Path | None = None) -> Path:
    """The directory that ``CTX_DIR`` names, else ``context_dir`` of ``.ctxrc``, else the nearest ``.context`` from
    ``start`` (the working directory) upwards. Raises ProposalError for none, ConfigError for a malformed ``.ctxrc``."""
    context = find_context(start)
    if context is not None:
        return context
    configured = _configured_context(start)
    if configured is not None:
        path, setting = configured
        raise ProposalError(f"{setting} is not a directory: {path}; make it, or name a directory with --out")
    raise ProposalError(
        f"there is no {CONTEXT} directory here or above; make one (mkdir {CONTEXT}), or name a directory with --out"
    )


def _configured_context(start: Path | None) -> tuple[Path, str] | None:
    """The directory that a setting names, and the setting."""
    from_environment = os.environ.get(CONTEXT_VARIABLE)
    if from_environment:
        return Path(os.path.abspath(os.path.expanduser(from_environment))), CONTEXT_VARIABLE
    ctxrc = find_ctxrc(start)
    from_file = context_dir_of(ctxrc) if ctxrc is not None else None
    return (Path(from_file), f"context_dir of {ctxrc}") if from_file is not None else None


def prepare_directory(directory: Path, *, context: Path | None = None) -> None:
    """Make ``directory`` where it is missing (not what is above it), and hold that files can be written there. Raises
    ProposalError, also for a ``.context`` itself or ``context``, whose files are people's own."""
    real = os.path.realpath(directory)
    if os.path.basename(real) == CONTEXT or (context is not None and real == os.path.realpath(context)):
        raise ProposalError(
            f"{directory} holds what people wrote; name another directory, such as {directory}/{DIRECTORY}"
        )
    try:
        directory.mkdir(exist_ok=True)
    except FileExistsError:
        raise ProposalError(f"{directory} is no directory; proposals are written there") from None
    except OSError as error:
        raise ProposalError(f"{directory} cannot be made: {error.strerror}") from error
    probe = directory / f".{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ProposalError(f"{directory} cannot be written to: {error.strerror}") from error


def write_proposal(directory: Path, proposal: Proposal) -> Path:
    """Write a new file, whole, and return its path. Where there is one of its id already, it gets another (``-2``).
    Raises ProposalError; nothing is written then."""
    first = proposal.facts.id
    for number in range(1, 1000):
        name = first if number == 1 else f"{first}-{number}"
        named = msgspec.structs.replace(proposal, facts=msgspec.structs.replace(proposal.facts, id=name))
        path = directory / f"{name}.md"
        with wrap_write_errors(path):
            if create_file(path, render(named).encode()):
                return path
    raise ProposalError(f"{directory} holds a thousand proposals of the name {first}")


def read_proposal(path: Path) -> Proposal:
    """Read one back. Raises ProposalError with the place of the fault."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ProposalError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ProposalError(f"{path} is not UTF-8 text") from None
    try:
        proposal = parse(text)
    except InvalidProposalError as error:
        raise ProposalError(
            f"{path}:{error.line}: {error.problem}; a proposal is not edited by hand, use ctxbackends proposals edit"
        ) from None
    if proposal.facts.id != path.stem:
        raise ProposalError(f"{path} says that its name is {proposal.facts.id}.md")
    return proposal


def list_proposals(directory: Path) -> tuple[Path, ...]:
    """The files of proposals, the oldest first; none where there is no such directory."""
    try:
        names = sorted(entry for entry in os.listdir(directory) if entry.endswith(".md") and _ID.fullmatch(entry[:-3]))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ProposalError(f"{directory} cannot be read: {error.strerror}") from error
    return tuple(directory / name for name in names)


def find_proposal(directory: Path, name: str = LATEST) -> Path:
    """The proposal of this id, or the only one whose id begins with ``name`` or has it as its slug; ``latest`` is the
    newest. Raises ProposalError that lists what there is."""
    paths = list_proposals(directory)
    if not paths:
        raise ProposalError(f"there are no proposals in {directory}; ctxbackends ingest and compact make them")
    if name == LATEST:
        return paths[-1]
    wanted = name.removesuffix(".md")
    exact = [path for path in paths if path.stem == wanted]
    near = exact or [path for path in paths if path.stem.startswith(wanted) or path.stem.partition("-")[2] == wanted]
    if len(near) == 1:
        return near[0]
    if near:
        raise ProposalError(f"several proposals are meant by {name!r}: {_listed(near)}")
    raise ProposalError(f"no proposal is named {name!r}; there are {_listed(paths)}")


def _listed(paths: Sequence[Path]) -> str:
    shown = [path.stem for path in paths[-5:]]
    return ", ".join(shown) if len(paths) <= 5 else f"{len(paths)}, the newest {', '.join(shown)}"
