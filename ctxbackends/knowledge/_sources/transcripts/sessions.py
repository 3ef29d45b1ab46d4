"""Find the sessions that coding agents keep of a directory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from ctxbackends.knowledge._sources.transcripts.feed import find_object

_MAX_HEAD_LINES = 60
_MAX_HEAD_BYTES = 1 << 20
_MAX_FILES = 5_000  # the newest ones; each is opened until one is of the directory


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session of an agent.

    Attributes:
        path: Its file.
        agent: The name of the agent.
        changed: The time of its last change, in seconds since the epoch.
    """

    path: Path
    agent: str
    changed: float


class _Places(msgspec.Struct, frozen=True):
    """The directories of one project and the settings of the agents."""

    directories: tuple[str, ...]
    home: Path
    environ: Mapping[str, str]

    def configured(self, variable: str, default: str) -> Path:
        """Return the directory in a variable, else the one below the home directory."""
        value = self.environ.get(variable, "").strip()
        return Path(value) if value else self.home / default


def find_newest_session(
    directory: Path, *, home: Path | None = None, environ: Mapping[str, str] | None = None
) -> Session | None:
    """Return the newest session that an agent had in a directory or above it in the same git repository.

    Sessions of sub-agents do not count.

    Args:
        directory: The directory.
        home: The home directory of the user.
        environ: The environment, which may name the directories of the agents.
    """
    places = _Places(
        _project_directories(directory),
        home if home is not None else Path.home(),
        environ if environ is not None else os.environ,
    )
    sessions = [session for find in _FINDERS for session in find(places)]
    return max(sessions, key=lambda session: session.changed, default=None)


def find_sub_agents(path: Path) -> tuple[Path, ...]:
    """Return the transcripts of the sub-agents of a session of Claude Code, in ``<session>/subagents/``."""
    folder = path.with_suffix("") / "subagents"
    try:
        return tuple(sorted(one for one in folder.glob("**/agent-*.jsonl") if one.is_file()))
    except OSError:
        return ()


def _project_directories(directory: Path) -> tuple[str, ...]:
    """Return the directory and those above it, up to the root of its git repository."""
    path = Path(os.path.abspath(directory))
    chain = [path]
    for parent in (path, *path.parents):
        if (parent / ".git").exists():
            chain += [one for one in path.parents if one.is_relative_to(parent)]
            break
    names = dict.fromkeys(str(one) for one in chain)
    names.update(dict.fromkeys(os.path.realpath(one) for one in chain))  # some agents resolve links
    return tuple(names)


# --- the agents -----------------------------------------------------------------------------------------


def _find_claude_code(places: _Places) -> Iterator[Session]:
    configured = places.environ.get("CLAUDE_CONFIG_DIR", "").strip()
    bases = [Path(configured)] if configured else [places.home / ".claude", places.home / ".config" / "claude"]
    for base in bases:
        for name in places.directories:
            # A long name is cut, and ends with a hash.
            folder = re.sub(r"[^a-zA-Z0-9]", "-", name)
            projects = base / "projects"
            folders = [projects / folder] if len(folder) <= 200 else projects.glob(f"{folder[:200]}*")
            files = [file for one in folders for file in _files(one, "*.jsonl") if not file.name.startswith("agent-")]
            # Different directories can have the same folder.
            yield from _newest(files, "Claude Code", lambda file: _cwd_matches(file, places, ("cwd",), default=True))


def _find_codex(places: _Places) -> Iterator[Session]:
    base = places.configured("CODEX_HOME", ".codex")
    files = [*_files(base / "sessions", "**/rollout-*.jsonl"), *_files(base / "archived_sessions", "rollout-*.jsonl")]
    yield from _newest(files, "Codex", lambda file: _codex_matches(file, places))


def _find_gemini(places: _Places) -> Iterator[Session]:
    configured = places.environ.get("GEMINI_CLI_HOME", "").strip()
    base = (Path(configured) if configured else places.home) / ".gemini"
    registry = _read_object(base / "projects.json").get("projects")
    slugs = registry if isinstance(registry, dict) else {}
    folders = {hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest() for name in places.directories}
    folders |= {str(slugs[name]) for name in places.directories if name in slugs}
    files = [file for folder in folders for file in _files(base / "tmp" / folder / "chats", "session-*.json*")]
    yield from _newest(files, "Gemini CLI", lambda _: True)


def _find_copilot(places: _Places) -> Iterator[Session]:
    base = places.configured("COPILOT_HOME", ".copilot") / "session-state"
    files = [*_files(base, "*.jsonl"), *_files(base, "*/events.jsonl")]
    members = ("data.context.cwd", "data.cwd", "data.context.gitRoot")
    yield from _newest(files, "Copilot CLI", lambda file: _cwd_matches(file, places, members, default=False))


def _find_cursor(places: _Places) -> Iterator[Session]:
    base = places.configured("CURSOR_CONFIG_DIR", ".cursor") / "projects"
    for name in places.directories:
        folder = base / re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-") / "agent-transcripts"
        files = [file for suffix in ("jsonl", "txt") for file in _files(folder, f"**/*.{suffix}")]
        yield from _newest((file for file in files if "subagents" not in file.parts), "Cursor", lambda _: True)


def _find_aider(places: _Places) -> Iterator[Session]:
    files = [Path(name) / ".aider.chat.history.md" for name in places.directories]
    yield from _newest((file for file in files if file.is_file()), "aider", lambda _: True)


_FINDERS: tuple[Callable[[_Places], Iterator[Session]], ...] = (
    _find_claude_code,
    _find_codex,
    _find_copilot,
    _find_cursor,
    _find_gemini,
    _find_aider,
)


# --- files ----------------------------------------------------------------------------------------------


def _files(folder: Path, pattern: str) -> list[Path]:
    try:
        return [file for file in folder.glob(pattern) if file.is_file()]
    except OSError:
        return []


def _newest(files: Iterable[Path], agent: str, matches: Callable[[Path], bool]) -> Iterator[Session]:
    """Yield the newest of the files that match."""
    times: list[tuple[float, Path]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        if status.st_size:
            times.append((status.st_mtime, file))
    for changed, file in sorted(times, reverse=True)[:_MAX_FILES]:
        if matches(file):
            yield Session(path=file, agent=agent, changed=changed)
            return


def _head_records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(file, "rb") as lines:
            for line in islice(iter(lambda: lines.readline(_MAX_HEAD_BYTES), b""), _MAX_HEAD_LINES):
                record = find_object(line)
                if record is not None:
                    yield record
    except OSError:
        return


def _cwd_matches(file: Path, places: _Places, members: tuple[str, ...], *, default: bool) -> bool:
    """Return whether a record names a directory of the project; the default if none names a directory."""
    named = False
    for record in _head_records(file):
        for member in members:
            value = _member(record, member)
            if isinstance(value, str) and value:
                if value in places.directories:
                    return True
                named = True
    return default and not named


def _codex_matches(file: Path, places: _Places) -> bool:
    for record in _head_records(file):
        if record.get("type") == "session_meta":
            source = _member(record, "payload.source")
            is_sub_agent = isinstance(source, dict) and "subagent" in source
            return not is_sub_agent and _member(record, "payload.cwd") in places.directories
        # Early versions name the directory in the first message.
        for part in record["content"] if isinstance(record.get("content"), list) else ():
            text = part.get("text") if isinstance(part, dict) else None
            match = re.search(r"<cwd>(.*?)</cwd>", text) if isinstance(text, str) else None
            if match is not None:
                return match[1] in places.directories
    return False


def _member(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return find_object(path.read_bytes()) or {}
    except OSError:
        return {}
