"""The values that come back: completions, stream events, and what servers tell of themselves. No behaviour beyond
building and printing them.

Knows nothing of servers, wire formats, configuration or I/O. All counts of tokens are those that the server reported;
nothing here is ever estimated.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from ctxbackends.messages import Message, Part, ReasoningPart, TextPart, ToolCall

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
LoadState: TypeAlias = Literal["refused", "loading", "starting", "silent"]

ServerState: TypeAlias = Literal["refused", "unreachable", "loading", "ready", "sleeping", "error"]
Enforcement: TypeAlias = Literal["grammar", "native", "unverified"]
"""How a schema is enforced: ``grammar``, the server allows only tokens that fit (local servers); ``native``, the vendor
promises it; ``unverified``, nobody does."""

FINISH_REASONS: frozenset[str] = frozenset({"stop", "length", "tool_calls", "content_filter"})


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the server reported them.

    ``input_tokens`` includes the tokens that came from a prompt cache, on every backend; ``cached_input_tokens`` says
    how many did, ``cache_write_tokens`` how many were put into it. ``output_tokens`` includes the reasoning, of which
    ``reasoning_tokens`` is the count. ``load_seconds``, ``prompt_seconds`` and ``generation_seconds`` are the server's
    own times for loading the model, reading the prompt and writing the answer. None where the server does not tell.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    generation_seconds: float | None = None


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A token of the answer and its natural log-probability. ``bytes`` are the token's, None where the server does not
    tell; ``top`` are the likeliest tokens at its place, where they were asked for."""

    token: str
    logprob: float
    bytes: builtins.bytes | None = None
    top: tuple[TokenLogprob, ...] = ()


class Completion(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A whole answer: it exists only if the server said that the answer is complete.

    ``requested_model`` is what was asked for, ``served_model`` what the server says answered (None where it does not
    say). ``stop_sequence`` is the one that ended the answer, where the server tells.
    ``response_id`` is the server's name of the answer, ``request_id`` that of the request, from a header, by which its
    operator finds it.
    ``parts`` is the content in the order in which the model wrote it, reasoning with its signatures included;
    :attr:`message` is what the next turn wants of it.
    ``usage`` is None where the server reports none. ``raw`` holds the unmodified bytes of the answer's body (of all
    events, where it was streamed on the wire by ``complete()``; empty for ``stream()``, whose consumer has seen the
    events).
    """

    text: str
    finish_reason: FinishReason
    usage: Usage | None = None
    requested_model: str
    served_model: str | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_sequence: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    parts: tuple[Part, ...] = ()
    raw: bytes = b""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What is shown: no parts and no bytes, which say the same again, and of the log-probabilities how many."""
        shown = dict(zip(_COMPARED_FIELDS, _get_compared(self), strict=True))
        del shown["parts"]
        return [*(shown | {"logprobs": f"<{len(self.logprobs)}>"}).items()]

    def __repr__(self) -> str:
        return f"Completion({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __eq__(self, other: object) -> bool:
        return _get_compared(self) == _get_compared(other) if isinstance(other, Completion) else NotImplemented

    def __hash__(self) -> int:
        return hash(_get_compared(self))

    @property
    def message(self) -> Message:
        """The answer as a message of the conversation, to be sent back in front of the next turn."""
        if self.parts:
            return Message("assistant", self.parts)
        reasoning = (ReasoningPart(self.reasoning),) if self.reasoning else ()
        text = (TextPart(self.text),) if self.text else ()
        parts = (*reasoning, *text, *self.tool_calls)
        return Message("assistant", parts if reasoning or self.tool_calls else self.text)


_COMPARED_FIELDS = tuple(name for name in Completion.__struct_fields__ if name != "raw")
_get_compared = operator.attrgetter(*_COMPARED_FIELDS)


@attrs.frozen(kw_only=True)
class PartialCompletion:
    """What had arrived of an answer that never became whole. Carried by errors; never returned."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    served_model: str | None = None


# --- stream events -------------------------------------------------------------------------------
#
# Frozen structs of msgspec, and not attrs classes: one of them is made for every token, in a sixth of the time, and
# ``gc=False`` keeps them out of the garbage collector's rounds (they hold texts and numbers, so no cycle is possible).


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text. ``logprobs`` are those of its tokens, where they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the model's reasoning, where the server separates it from the answer. A ``signature`` or
    ``redacted`` reasoning (see :class:`ReasoningPart`) ends a block of it."""

    text: str
    signature: str | None = None
    redacted: str | None = None


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the model's refusal, where the server separates it from the answer."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call. ``index`` tells parallel calls apart; ``id`` and ``name`` come with the first piece,
    ``arguments`` in pieces of JSON text."""

    index: int
    id: str
    name: str
    arguments: str


class PromptProgress(msgspec.Struct, frozen=True, gc=False):
    """How far the server is with reading the prompt, in tokens: ``processed`` of ``total``, of which ``cached`` needed
    no work. ``seconds`` is what it took so far."""

    processed: int
    total: int
    cached: int = 0
    seconds: float | None = None

    def __str__(self) -> str:
        return f"reading the prompt ({self.processed} of {self.total} tokens)"


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The last event: the answer is complete. ``usage`` and ``stop_sequence`` as in :class:`Completion`."""

    finish_reason: FinishReason
    usage: Usage | None = None
    stop_sequence: str | None = None


class Loading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One look at a server that is not ready yet. ``elapsed`` and ``budget`` are seconds.

    ``state``: ``refused`` (nothing listens), ``loading`` (it says that the model loads), ``starting`` (a proxy says
    that the server starts),
    ``silent`` (it accepted the connection and said nothing, or closed it).
    """

    endpoint: str
    state: LoadState
    elapsed: float
    budget: float

    def __str__(self) -> str:
        return f"waiting for {self.endpoint} ({self.state}, {self.elapsed:.0f} s of {self.budget:.0f} s)"


OnProgress: TypeAlias = Callable[[Loading], object]
"""Is told what a wait for a cold start sees."""

StreamEvent: TypeAlias = Loading | PromptProgress | ReasoningDelta | TextDelta | RefusalDelta | ToolCallDelta | Finish


# --- what servers tell about themselves -------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ModelInfo:
    """A model that the server lists. ``context_length`` is in tokens, None where the server does not tell."""

    id: str
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    owned_by: str | None = None
    state: str | None = None


@attrs.frozen(kw_only=True)
class ServerStatus:
    """One look at a server, with all that it tells; None for what it does not.

    ``state``: ``refused`` (nothing listens), ``unreachable`` (no connection for another reason, or no answer in time),
    ``loading``, ``ready``, ``sleeping`` (it answers, and would load the model again first), ``error`` (it answers with
    an error). ``problem`` says what is wrong, in words. ``progress`` of loading is from 0 to 1.
    ``models`` are those that are in memory; ``model`` is the one that this backend would ask for, or else the first of
    them. ``context_length`` is in tokens and for one request, ``max_context_length`` what the model was made for.
    ``slots`` is how many requests the server works on at
    once, ``busy_slots`` how many it does now.
    """

    backend: str = ""
    endpoint: str = ""
    state: ServerState
    problem: str | None = None
    progress: float | None = None
    version: str | None = None
    model: str | None = None
    models: tuple[str, ...] = ()
    context_length: int | None = None
    max_context_length: int | None = None
    slots: int | None = None
    busy_slots: int | None = None


@attrs.frozen(kw_only=True)
class Ping:
    """A server that answered: its first model, and the seconds that the waiting took."""

    backend: str
    endpoint: str
    model: str
    elapsed: float


@attrs.frozen(kw_only=True)
class Embeddings:
    """One vector for each input, in the order of the inputs."""

    vectors: tuple[tuple[float, ...], ...] = attrs.field(
        repr=lambda v: f"<{len(v)} vectors of {len(v[0]) if v else 0}>"
    )
    requested_model: str
    served_model: str | None = None
    usage: Usage | None = None
