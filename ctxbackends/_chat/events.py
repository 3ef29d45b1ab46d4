"""Stream events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from ctxbackends._chat.messages import OpaquePart
from ctxbackends._chat.responses import Citation, FinishReason, TokenLogprob, Usage
from ctxbackends._chat.servers import LoadState

# --- stream events -------------------------------------------------------------------------------
#
# msgspec structs, not attrs classes: one is created for every token, in a sixth of the time. ``gc=False`` exempts them
# from garbage collection; they contain only strings and numbers, so they cannot form cycles.


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text.

    Attributes:
        text: The piece of text.
        logprobs: The log-probabilities of its tokens, if requested.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the model's reasoning, if the server separates it from the answer.

    A signature or redacted reasoning ends a block.

    Attributes:
        text: The piece of text.
        signature: The signature of the block, see :class:`ReasoningPart`.
        redacted: Encrypted reasoning, see :class:`ReasoningPart`.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the model's refusal, if the server separates it from the answer."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call.

    Attributes:
        index: Distinguishes parallel calls.
        id: The ID of the call in its first piece, empty in the others.
        name: The name of the tool in the first piece, empty in the others.
        arguments: The next piece of the JSON text.
        opaque: The server's own data about the call, see :class:`ToolCall`.
    """

    index: int
    id: str
    name: str
    arguments: str
    opaque: OpaquePart | None = None


class CitationDelta(msgspec.Struct, frozen=True, gc=False):
    """A source of the answer, which is in ``Completion.citations`` too.

    Attributes:
        citation: The source.
        opaque: The cited block of text, see :class:`TextPart`, with its last citation.
    """

    citation: Citation
    opaque: OpaquePart | None = None


class PromptProgress(msgspec.Struct, frozen=True, gc=False):
    """The progress of prompt processing, in tokens.

    Attributes:
        processed: Tokens processed so far.
        total: Tokens of the prompt.
        cached: Processed tokens that came from a cache.
        seconds: Time so far in seconds, None if the server does not report it.
    """

    processed: int
    total: int
    cached: int = 0
    seconds: float | None = None

    def __str__(self) -> str:
        return f"reading the prompt ({self.processed} of {self.total} tokens)"


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The last event: the response is complete. The attributes are those of :class:`Completion`."""

    finish_reason: FinishReason
    usage: Usage | None = None
    stop_sequence: str | None = None


class Loading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One probe of a server that is not ready.

    Attributes:
        endpoint: The URL of the server.
        state: ``refused`` (connection refused), ``loading`` (the server reports that the model loads), ``starting`` (a
            proxy reports that the server starts, or the SDK has started it), or ``silent`` (it accepted the connection
            and sent nothing, or closed it).
        elapsed: Seconds since the wait began.
        budget: Seconds that the wait may take.
    """

    endpoint: str
    state: LoadState
    elapsed: float
    budget: float

    def __str__(self) -> str:
        return f"waiting for {self.endpoint} ({self.state}, {self.elapsed:.0f} s of {self.budget:.0f} s)"


OnProgress: TypeAlias = Callable[[Loading], object]
"""Called with a `Loading` for each probe of a starting server."""

StreamEvent: TypeAlias = (
    Loading
    | PromptProgress
    | ReasoningDelta
    | TextDelta
    | RefusalDelta
    | ToolCallDelta
    | CitationDelta
    | OpaquePart
    | Finish
)
