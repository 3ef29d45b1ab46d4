"""The passages of a transcript: text with its speaker, tool calls and results, and omissions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.split import split_to_fit
from ctxbackends.knowledge._sources.text import MAX_SEGMENT_BYTES

Object: TypeAlias = dict[str, Any]

MAX_RESULT_TEXT = 4_000
"""Characters. A longer result of a tool is shortened to its first 3,000 and last 1,000 characters."""

MAX_CALL_TEXT = 40_000
"""Characters of a tool call, which has whole documents and plans."""

_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_NUMBERED = re.compile(r"^ *([0-9]{1,7})(?:→|\t)", re.MULTILINE)


class InvalidRecordError(Exception):
    """A record of a transcript cannot be read; the message is the reason."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of passages.

    Attributes:
        line: The line.
        timestamp: As in :class:`ctxbackends.knowledge.Evidence`.
        session_id: As in :class:`ctxbackends.knowledge.Evidence`.
        branch: As in :class:`ctxbackends.knowledge.Evidence`.
        is_sub_agent: Whether it belongs to a sub-agent, whose user is the agent.
    """

    line: int
    timestamp: str | None = None
    session_id: str | None = None
    branch: str | None = None
    is_sub_agent: bool = False


class Passages:
    """Builds the pieces of one transcript, and counts what is left out."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tools: dict[str, str] = {}
        self._left_out: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def say(self, turn: Turn, speaker: Speaker, text: str, label: str | None = None) -> Iterator[Piece]:
        """Yield the text as said by the speaker. The default label is the speaker."""
        label = label or speaker
        if turn.is_sub_agent:
            speaker = "assistant" if speaker == "user" else speaker
            label = f"{label} (sub-agent)" if label != "user" else "prompt to a sub-agent"
        boundary = 2 if speaker == "user" else 1
        yield from self._build(turn, speaker, label, clean(text), boundary)

    def call(self, turn: Turn, name: str, arguments: Any, *, call_id: object = None) -> Iterator[Piece]:
        """Yield a tool call, with its arguments as text."""
        if call_id is not None:
            self._tools[str(call_id)] = name
        yield from self._shorten(turn, f"{name} call", format_arguments(arguments), MAX_CALL_TEXT)

    def result(
        self, turn: Turn, text: str, *, call_id: object = None, name: str | None = None, failed: bool = False
    ) -> Iterator[Piece]:
        """Yield the result of a tool call."""
        label = f"{name or self.tool_name(call_id)} result{' (failed)' if failed else ''}"
        yield from self._shorten(turn, label, text, MAX_RESULT_TEXT)

    def tool_name(self, call_id: object) -> str:
        """Return the name of the tool of an earlier call, or ``tool``."""
        return self._tools.get(str(call_id), "tool")

    def leave_out(self, thing: str, count: int = 1) -> None:
        """Count something that is not read, by its singular: ``image``."""
        if count:
            self._left_out[thing] += count

    def leave_unread(self, kind: object) -> None:
        """Count a record of an unknown kind."""
        self._unread[str(kind)[:40]] += 1

    def skip(self, line: int, reason: str) -> SkippedInput:
        """Return a skipped line."""
        return SkippedInput(source=self.name, line=line, reason=reason)

    def summarize(self) -> Iterator[SkippedInput]:
        """Yield one line with the counts, at the end."""
        if self._left_out:
            counts = ", ".join(pluralize(count, thing) for thing, count in sorted(self._left_out.items()))
            yield SkippedInput(source=self.name, reason=f"left out: {counts}")
        if self._unread:
            most = ", ".join(f"{kind} ({count})" for kind, count in self._unread.most_common(5))
            more = f" and {len(self._unread) - 5} more" if len(self._unread) > 5 else ""
            yield SkippedInput(source=self.name, reason=f"records of unknown kinds were left out: {most}{more}")

    def _shorten(self, turn: Turn, label: str, text: str, limit: int) -> Iterator[Piece]:
        label = f"{label} (sub-agent)" if turn.is_sub_agent else label
        text = clean(text)
        if len(text) > limit:
            dropped = len(text) - limit
            head, tail = limit * 3 // 4, limit // 4
            yield self.skip(turn.line, f"{dropped:,} of {len(text):,} characters of a {label} were left out")
            text = f"{text[:head]}\n[... {dropped} characters ...]\n{text[-tail:]}"
        yield from self._build(turn, "tool", label, text, 1)

    def _build(self, turn: Turn, speaker: Speaker, label: str, text: str, boundary: int) -> Iterator[Piece]:
        if not text:
            return
        segment = Segment(
            text=text,
            first=turn.line,
            last=turn.line,
            boundary=boundary,
            label=label,
            speaker=speaker,
            timestamp=turn.timestamp,
            session_id=turn.session_id,
            branch=turn.branch,
        )
        yield from split_to_fit(segment, MAX_SEGMENT_BYTES)


class Twins:
    """Finds the second of two records of one message, which agents write in two places."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[str, int]] = {}

    def is_first(self, place: str, text: str) -> bool:
        """Return whether no record of another place with this text waits for its twin."""
        key = hash(text.strip())
        waiting_place, count = self._waiting.get(key, (place, 0))
        if waiting_place == place:
            self._waiting[key] = (place, count + 1)
            return True
        if count == 1:
            del self._waiting[key]
        else:
            self._waiting[key] = (waiting_place, count - 1)
        return False


def clean(text: str) -> str:
    """Return the text without terminal codes and surrounding white space. Raise InvalidRecordError for a surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRecordError("has a lone surrogate, which is not valid Unicode") from None
    if "\x1b" in text:
        text = _TERMINAL_CODES.sub("", text).replace("\x1b", "")
    return text.replace("\r\n", "\n").strip()


def format_arguments(value: Any) -> str:
    """Return the arguments of a tool as text that can be quoted: strings as they read, not as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(_format_argument(str(name), format_arguments(one)) for name, one in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(format_arguments(one) for one in value)
    return msgspec.json.encode(value).decode("utf-8", "replace")


def _format_argument(name: str, text: str) -> str:
    return f"{name}:\n{text}" if "\n" in text else f"{name}: {text}"


def decode_arguments(arguments: Any) -> Any:
    """Return arguments that are written as a string of JSON, decoded; other text as it is."""
    if isinstance(arguments, str) and arguments.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            return arguments
    return arguments


def strip_line_numbers(text: str) -> str:
    """Return the result of a tool that reads files without the line numbers, which count up from its first line."""
    if _NUMBERED.match(text) is None:
        return text
    numbers = [int(number) for number in _NUMBERED.findall(text)]
    if numbers == list(range(numbers[0], numbers[0] + text.count("\n") + 1)):
        return _NUMBERED.sub("", text)
    lines = text.split("\n")  # some have no number, such as a notice at the end
    expected = numbers[0]
    for index, line in enumerate(lines):
        match = _NUMBERED.match(line)
        if match is not None and int(match[1]) == expected:
            expected += 1
            lines[index] = line[match.end() :]
    return "\n".join(lines)


def cut_tag(text: str, tag: str) -> tuple[str, list[str]]:
    """Return the text outside of ``<tag>...</tag>``, and the texts inside."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    outside, inside, at = [], [], 0
    while (start := text.find(opening, at)) >= 0 and (end := text.find(closing, start)) >= 0:
        outside.append(text[at:start])
        inside.append(text[start + len(opening) : end])
        at = end + len(closing)
    return "".join([*outside, text[at:]]), inside


def short_text(record: Mapping[str, Any], member: str) -> str | None:
    """Return a short printable string of a record, or None."""
    text = record.get(member)
    return text if isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable() else None


def as_object(value: Any) -> Object:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    """Return the value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def objects_in(value: Any) -> Iterator[Object]:
    """Yield the objects of a list."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        yield from (one for one in value if isinstance(one, dict))
