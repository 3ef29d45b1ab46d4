"""The values that users hold: messages, requests, completions, stream events. No behaviour beyond building and printing
them.

Knows nothing of servers, wire formats, configuration or I/O. All counts of tokens are those that the server reported;
nothing here is ever estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import attrs

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
LoadState: TypeAlias = Literal["refused", "loading", "starting", "silent"]

FINISH_REASONS: frozenset[str] = frozenset({"stop", "length", "tool_calls", "content_filter"})


@attrs.frozen
class ToolCall:
    """A call of a function that the model asked for.

    ``arguments`` is the JSON text as the model wrote it: it is not parsed here, because a model can write text that is
    no JSON.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen
class Message:
    """One turn of a conversation. ``content`` is plain text; build it with :meth:`system`, :meth:`user`,
    :meth:`assistant`, :meth:`tool`."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @classmethod
    def system(cls, content: str) -> Message:
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Message:
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str, *, tool_calls: Sequence[ToolCall] = ()) -> Message:
        return cls("assistant", content, tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str) -> Message:
        """The result of a tool call, answered under the id of that call."""
        return cls("tool", content, (), tool_call_id)


@attrs.frozen
class JSONObjectFormat:
    """Ask for any JSON object."""


@attrs.frozen
class JSONSchemaFormat:
    """Ask for JSON that satisfies ``schema`` (JSON Schema, 2020-12). ``name`` labels it for the server."""

    name: str
    schema: Mapping[str, Any]


ResponseFormat: TypeAlias = JSONObjectFormat | JSONSchemaFormat


class ChatOptions(TypedDict, total=False):
    """The keyword options of ``complete()`` and ``stream()``. What is left out is not sent, so that the server's own
    default holds.

    ``model``: the model's name; left out, the backend's ``default_model``.
    ``max_tokens``: upper bound of generated tokens, at least 1.
    ``temperature``, ``top_p``: sampling, as the server defines them.
    ``seed``: for repeatable sampling where the server supports it.
    ``stop_sequences``: texts that end the answer; they are not part of it.
    ``response_format``: :class:`JSONObjectFormat` or :class:`JSONSchemaFormat`.
    ``extra_body``: further top-level members of the request body, sent as they are; the marked way out for what has no
    option here.
    """

    model: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop_sequences: Sequence[str]
    response_format: ResponseFormat | None
    extra_body: Mapping[str, Any] | None


@attrs.frozen(kw_only=True)
class ChatRequest:
    """What is asked of a model, before any wire format. See :class:`ChatOptions` for the meaning of each field."""

    messages: tuple[Message, ...]
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    extra_body: Mapping[str, Any] | None = None


@attrs.frozen
class Usage:
    """Token counts as the server reported them.

    ``input_tokens`` includes the tokens that came from a prompt cache, on every backend; ``cached_input_tokens`` says
    how many did, None where the server does not tell.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None


@attrs.frozen(kw_only=True)
class Completion:
    """A whole answer: it exists only if the server said that the answer is complete.

    ``requested_model`` is what was asked for, ``served_model`` what the server says answered (None where it does not
    say).
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
    response_id: str | None = None
    raw: bytes = attrs.field(default=b"", repr=False, eq=False)


@attrs.frozen(kw_only=True)
class PartialCompletion:
    """What had arrived of an answer that never became whole. Carried by errors; never returned."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    served_model: str | None = None


# --- stream events -------------------------------------------------------------------------------


@attrs.frozen
class TextDelta:
    """The next piece of the answer's text."""

    text: str


@attrs.frozen
class ReasoningDelta:
    """The next piece of the model's reasoning, where the server separates it from the answer."""

    text: str


@attrs.frozen
class RefusalDelta:
    """The next piece of the model's refusal, where the server separates it from the answer."""

    text: str


@attrs.frozen
class ToolCallDelta:
    """A piece of a tool call. ``index`` tells parallel calls apart; ``id`` and ``name`` come with the first piece,
    ``arguments`` in pieces of JSON text."""

    index: int
    id: str
    name: str
    arguments: str


@attrs.frozen
class Finish:
    """The last event: the answer is complete. ``usage`` as in :class:`Completion`."""

    finish_reason: FinishReason
    usage: Usage | None = None


StreamEvent: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finish


@attrs.frozen(kw_only=True)
class Loading:
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
