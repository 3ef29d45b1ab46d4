"""The prompt: the questions about each chunk, with the schemas of their answers.

The layout of the only question is ``[stable prefix][task][chunk]``: all requests begin with the same bytes, so a server
with a prefix cache reads only the chunk. The layout of several is ``[stable prefix][chunk][task]``: they are sent one
after the other, so the server reads the chunk once and then only the tasks. Very small models get example turns of the
kind before the chunk: ``[stable prefix][example turns][chunk][task]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Annotated, Any, get_args, get_origin

import msgspec

from ctxbackends._chat.messages import Message
from ctxbackends._schema.generate import schema_for
from ctxbackends._util.text import one_line
from ctxbackends.knowledge._extract import wording
from ctxbackends.knowledge._extract.bounds import Bounds, drop_partial_word, fit_bounds, widen_bounds
from ctxbackends.knowledge._extract.budget import ANSWER_TOKENS, Frame
from ctxbackends.knowledge._extract.example_turns import COPY, EXAMPLES_OF, QUESTIONS
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._own_kinds import AnyKind, OwnKind, plural_of, record_type_of
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._records import Kind

VERSION = 3
"""Version of the prompt. Answers to another version are not taken from a journal."""

MAX_ITEMS = 5
"""The most texts in a list of a row."""

_EXAMPLE_LINE = 7


def field_name(kind: AnyKind) -> str:
    """Return the field of the answer for the rows of a kind."""
    return plural_of(kind).replace("-", "_")


def _build_task(kinds: Sequence[AnyKind], more: str | None) -> str:
    tasks = "\n".join(_describe(kind) for kind in kinds)
    return f"Extract:\n{tasks}\n\n{_add_instructions(more)}{wording.ANSWER}"


def _add_instructions(more: str | None) -> str:
    return "" if more is None else f"{wording.MORE}\n{mask(more.strip())[0]}\n\n"


def _build_short_task(kind: Kind, more: str | None = None) -> str:
    return f"{_add_instructions(more)}{QUESTIONS[kind]} {COPY}"


def _build_turns(kind: Kind) -> tuple[Message, ...]:
    turns: list[Message] = []
    for example in EXAMPLES_OF[kind]:
        row = {"quote": example.quote, "line": example.line, **example.fields}
        turns.append(Message.user(f"{example.text}\n\n{_build_short_task(kind)}"))
        turns.append(Message.assistant(json.dumps({field_name(kind): [row]}, ensure_ascii=False)))
    return tuple(turns)


def _describe(kind: AnyKind) -> str:
    if isinstance(kind, OwnKind):
        line = f"- {field_name(kind)}: {kind.meaning}"
        return line if kind.example is None else f"{line}\n  Example: {json.dumps(kind.example, ensure_ascii=False)}"
    quote, fields = wording.EXAMPLES[kind]
    row = json.dumps({"quote": quote, "line": _EXAMPLE_LINE, **fields}, ensure_ascii=False)
    name = field_name(kind)
    return (
        f'- {name}: {wording.MEANINGS[kind]}\n  Example: for the text "[{_EXAMPLE_LINE}] {quote}" the record is {row}'
    )


class Question:
    """A request for some kinds of records.

    Attributes:
        kinds: The kinds of records.
        label: The kinds for messages: ``decisions, tasks``.
        bounds: The bounds of an answer, which fit its tokens.
        instructions: The system message.
        turns: The example turns between the system message and the chunk.
        response_type: The type of the answer, for :func:`ctxbackends.extract`.
        schema_sha256: Hash of the answer's schema, in hex.
        sha256: Hash of the instructions, the turns, the task and the schema, in hex.
    """

    def __init__(
        self,
        kinds: Sequence[AnyKind],
        *,
        is_only: bool,
        answer_tokens: int,
        more: str | None,
        has_turns: bool = False,
        for_several_sources: bool = False,
    ) -> None:
        self.kinds = tuple(kinds)
        fields = [("quote", *record_type_of(kind).__struct_fields__) for kind in self.kinds]
        self.bounds = fit_bounds(fields, answer_tokens)
        if for_several_sources:
            self.bounds = widen_bounds(self.bounds, answer_tokens)
        self._is_only = is_only
        self._create = partial(Question, answer_tokens=answer_tokens, more=more, has_turns=has_turns)
        self.label = ", ".join(field_name(kind) for kind in self.kinds)
        self.turns: tuple[Message, ...] = ()
        if has_turns and len(self.kinds) == 1 and isinstance(self.kinds[0], Kind):
            self.turns = _build_turns(self.kinds[0])
            task, is_only = _build_short_task(self.kinds[0], more), False
        else:
            task = _build_task(self.kinds, more)
        self.instructions = f"{wording.RULES}\n{task}" if is_only else wording.RULES
        self._task = "" if is_only else f"\n\n{task}"
        self.response_type: type[msgspec.Struct] = msgspec.defstruct(
            "Rows",
            [
                (
                    field_name(kind),
                    Annotated[list[_row_type(kind, self.bounds)], _schema_only(maxItems=self.bounds.rows)],  # type: ignore[misc]
                )
                for kind in self.kinds
            ],
            frozen=True,
        )
        schema = json.dumps(schema_for(self.response_type), sort_keys=True)
        self.schema_sha256 = hashlib.sha256(schema.encode()).hexdigest()
        turns = [message.text for message in self.turns]
        identity = json.dumps([VERSION, self.instructions, turns, self._task, self.schema_sha256])
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()

    @cached_property
    def packed(self) -> Question:
        """The question for a chunk of several sources, whose lists have room for the rows of all."""
        return self._create(self.kinds, is_only=self._is_only, for_several_sources=True)

    def select(self, kind: AnyKind) -> Question:
        """Return the question for one of the kinds alone, whose list has room for more rows."""
        return self._create([kind], is_only=True)

    def build_text(self, chunk: str) -> str:
        """Return the message of the user about a chunk."""
        return chunk + self._task

    def build_messages(self, text: str) -> list[Message]:
        """Return the messages of a request, with a text of :meth:`build_text`."""
        return [Message.system(self.instructions), *self.turns, Message.user(text)]

    def parse_rows(self, answer: msgspec.Struct) -> tuple[ExtractedRow, ...]:
        """Return the rows of an answer, kind by kind."""
        return tuple(
            _to_extracted_row(kind, row, self.bounds)
            for kind in self.kinds
            for row in getattr(answer, field_name(kind))
        )

    def decode(self, answer: bytes | msgspec.Raw) -> msgspec.Struct:
        """Decode an answer from the journal. Raise msgspec.DecodeError if it is invalid."""
        return msgspec.json.decode(answer, type=self.response_type)


class Prompt:
    """The questions of a run, which are asked about each chunk.

    Attributes:
        questions: The questions.
        frames: The questions without a chunk, to count their tokens.
        schema_sha256: Hash of the schema of the answers, in hex.
    """

    def __init__(
        self,
        kinds: Sequence[AnyKind],
        kinds_per_question: int | None = None,
        *,
        answer_tokens: int = ANSWER_TOKENS,
        instructions: str | None = None,
        has_turns: bool = False,
    ) -> None:
        size = kinds_per_question or len(kinds)
        groups = [kinds[at : at + size] for at in range(0, len(kinds), size)]
        create = partial(Question, answer_tokens=answer_tokens, more=instructions, has_turns=has_turns)
        self.questions = tuple(create(group, is_only=len(groups) == 1) for group in groups)
        self.frames: list[Frame] = [question.build_messages(question.build_text("")) for question in self.questions]
        self._parameters = (tuple(kinds), kinds_per_question, answer_tokens, instructions, has_turns)
        hashes = [question.schema_sha256 for question in self.questions]
        self.schema_sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # The types of the answers are created at run time.
        return _create_prompt, self._parameters


def _create_prompt(
    kinds: Sequence[AnyKind],
    kinds_per_question: int | None,
    answer_tokens: int,
    instructions: str | None,
    has_turns: bool,
) -> Prompt:
    return Prompt(
        kinds, kinds_per_question, answer_tokens=answer_tokens, instructions=instructions, has_turns=has_turns
    )


def _row_type(kind: AnyKind, bounds: Bounds) -> type[msgspec.Struct]:
    # The quote comes first, so the model finds the evidence before it writes the row.
    fields: list[tuple[str, Any]] = [
        ("quote", _text_type("quote", bounds)),
        ("line", Annotated[int, _schema_only(minimum=0, maximum=2**31 - 1)]),
    ]
    record = record_type_of(kind)
    fields += [(field.name, _bound(field.name, field.type, bounds)) for field in msgspec.structs.fields(record)]
    return msgspec.defstruct(record.__name__, fields, frozen=True)


def _bound(name: str, kind: Any, bounds: Bounds) -> Any:
    """Return the type of a field with the bounds of its texts."""
    if kind is str:
        return _text_type(name, bounds)
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        length = _schema_only(maxLength=max(1, bounds.length(name) // MAX_ITEMS))
        items = list[Annotated[str, length] if item is str else item]  # type: ignore[misc, valid-type]  # at run time
        return Annotated[items, _schema_only(maxItems=MAX_ITEMS)]
    return kind


def _text_type(name: str, bounds: Bounds) -> Any:
    return Annotated[str, _schema_only(maxLength=bounds.length(name))]


def _schema_only(**constraints: int) -> msgspec.Meta:
    """Return constraints that are sent in the schema and not validated here."""
    return msgspec.Meta(extra_json_schema=constraints)


def _to_extracted_row(kind: AnyKind, row: Any, bounds: Bounds) -> ExtractedRow:
    record: Any = record_type_of(kind)
    fields = {name: _tidy(getattr(row, name)) for name in record.__struct_fields__}
    return ExtractedRow(record(**fields), row.line, drop_partial_word(row.quote, bounds.length("quote")))


def _tidy(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    return [one_line(item) for item in value] if isinstance(value, list) else value
