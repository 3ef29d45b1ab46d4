"""The size of a chunk: the model's context minus the prompt and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from ctxbackends._chat.messages import Message
from ctxbackends._client.backend import Backend
from ctxbackends._util.text import count_bytes
from ctxbackends.errors import ModelNotFoundError, NotFoundError, UnsupportedOperationError
from ctxbackends.knowledge._errors import KnowledgeError
from ctxbackends.knowledge._extract.passes import reserve_tokens

CHUNK_TOKENS = 8192
"""The default size of a chunk, even if the context is larger: models overlook text in the middle of a long prompt, and
a failure costs one chunk."""

ANSWER_TOKENS = 4096
SMALLEST_CHUNK = 128
"""Tokens. A context that leaves less for a chunk is an error."""

_CONTEXT_UNKNOWN = 16384
"""Tokens, if the server does not report its context length: it rejects a longer prompt, and the chunk is split then."""

_MARGIN = 32  # tokens that a chat template adds to a message
BYTES_PER_TOKEN = 3.0
"""For servers that cannot count. English has 4 to 5 bytes of UTF-8 per token, code and numbers 2 to 3, Chinese 3."""

_FILL_TARGET = 0.92
"""Target fill of a chunk. A chunk that is counted as too long is split into two small ones."""

Frame: TypeAlias = Sequence[Message]
"""The messages of a question without the chunk."""


@attrs.define
class Budget:
    """The limits of a chunk.

    Attributes:
        chunk_tokens: The most tokens of text in one request.
        answer_tokens: The most tokens of an answer.
        context_length: The model's context in tokens; None if the server does not report it.
        can_count: Whether the server counts tokens.
        chunk_size: The target size of a chunk in bytes; it follows the token counts.
        overheads: Tokens of the instructions, the task and the chat template of each question.
    """

    chunk_tokens: int
    answer_tokens: int
    context_length: int | None
    can_count: bool
    chunk_size: int
    overheads: tuple[int, ...]

    @property
    def overhead(self) -> int:
        """The overhead of the longest question."""
        return max(self.overheads)

    @property
    def has_room_for_turns(self) -> bool:
        """Whether a prompt with example turns leaves three quarters of the context for the chunk and the answer."""
        return self.overhead <= (self.context_length or _CONTEXT_UNKNOWN) // 4

    @property
    def longest(self) -> int:
        """The index of the longest question."""
        return self.overheads.index(self.overhead)

    def fits(self, tokens: int) -> bool:
        """Return whether the longest prompt of a chunk is within the limit with so many tokens."""
        return tokens - self.overhead <= self.chunk_tokens

    def sum_tokens(self, text: int) -> int:
        """Return the tokens of all prompts of a chunk whose text has so many tokens."""
        return sum(self.overheads) + len(self.overheads) * text

    def update_density(self, size: int, tokens: int) -> None:
        """Adapt ``chunk_size`` to the bytes per token of a counted chunk of ``size`` bytes."""
        per_token = size / max(1, tokens - self.overhead)
        target = int(self.chunk_tokens * per_token * _FILL_TARGET)
        # Only half of the way, since one chunk of numbers does not represent the rest of the file.
        self.chunk_size = max(1, (self.chunk_size + target) // 2)


async def compute_budget(
    backend: Backend,
    frames: Sequence[Frame],
    *,
    model: str | None,
    context_length: int | None,
    chunk_tokens: int | None = None,
    has_passes: bool = False,
) -> Budget:
    """Compute the budget of a run.

    Args:
        backend: The backend, which counts the instructions.
        frames: The questions of the run, without a chunk.
        model: The model; None for the backend's default.
        context_length: The model's context in tokens, if known.
        chunk_tokens: The most tokens of text in one request; ``CHUNK_TOKENS`` by default.
        has_passes: Whether to leave room for the titles that a further pass adds to a prompt.

    Raises:
        KnowledgeError: The context is too small.
        BackendError: The request to count tokens failed.
    """
    context = context_length or _CONTEXT_UNKNOWN
    answer = min(ANSWER_TOKENS, context // 4)
    try:
        overheads = tuple([await backend.count_tokens(frame, model=model) + _MARGIN for frame in frames])
        can_count = True
    except (UnsupportedOperationError, NotFoundError) as error:  # 404: an older server, or a proxy without this route
        if isinstance(error, ModelNotFoundError):
            raise
        overheads = _estimate_overheads(frames)
        can_count = False
    overhead = max(overheads)
    room = context - answer - overhead - (reserve_tokens(answer) if has_passes else 0)
    if room < SMALLEST_CHUNK:
        raise KnowledgeError(
            f"context too small: {context} tokens leave {max(0, room)} for the text, after {overhead} for the "
            f"instructions and {answer} for the answer; configure the server with a larger context",
            backend=backend.name,
            endpoint=backend.endpoint,
        )
    tokens = min(room, chunk_tokens or CHUNK_TOKENS)
    return Budget(
        chunk_tokens=tokens,
        answer_tokens=answer,
        context_length=context_length,
        can_count=can_count,
        chunk_size=int(tokens * BYTES_PER_TOKEN),
        overheads=overheads,
    )


def estimate_budget(frames: Sequence[Frame], *, chunk_tokens: int | None = None) -> Budget:
    """Return the budget of a run without a server. The arguments are those of :func:`compute_budget`."""
    tokens = chunk_tokens or CHUNK_TOKENS
    return Budget(
        chunk_tokens=tokens,
        answer_tokens=ANSWER_TOKENS,
        context_length=None,
        can_count=False,
        chunk_size=int(tokens * BYTES_PER_TOKEN),
        overheads=_estimate_overheads(frames),
    )


def _estimate_overheads(frames: Sequence[Frame]) -> tuple[int, ...]:
    return tuple(
        estimate_tokens("".join(message.text for message in frame)) + _MARGIN * (len(frame) // 2) for frame in frames
    )


def estimate_tokens(text: str) -> int:
    """Return about the number of tokens of a text."""
    return int(count_bytes(text) / BYTES_PER_TOKEN)


def build_messages(instructions: str, text: str) -> list[Message]:
    """Return the messages of a request, as :func:`ctxbackends.extract` builds them."""
    return [Message.system(instructions), Message.user(text)]
