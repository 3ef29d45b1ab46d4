"""How much of a source goes into one request: the model's context, less the question and the answer, counted by the
server's own counter where it has one. Knows no source.
"""

from __future__ import annotations

import attrs

from ctxbackends._chat.messages import Message
from ctxbackends._client.backend import Backend
from ctxbackends.errors import UnsupportedOperationError
from ctxbackends.knowledge._errors import KnowledgeError
from ctxbackends.knowledge._extract.chunker import Chunk

CHUNK_TOKENS = 8192
"""The most that a chunk has by default, however large the context is: what stands in the middle of a long prompt is
found less often, and a failure costs one chunk."""

ANSWER_TOKENS = 4096
SMALLEST_CHUNK = 128
"""Tokens. A context that leaves less is too small to work with."""

_CONTEXT_UNKNOWN = 16384
"""Tokens that are assumed where the server does not tell its context: it refuses a prompt that is too long, and the
chunk is halved then."""

_MARGIN = 32  # what chat templates put around a message
_BYTES_PER_TOKEN = 3.0
"""English has 4 to 5 bytes of UTF-8 in a token, code and numbers 2 to 3, Chinese about 3. Only where nobody counts."""

_FILL_TARGET = 0.92
"""How full chunks are meant to be: what the counter finds to be too long is halved, which makes two small ones."""


@attrs.define
class Budget:
    """What one chunk may hold. ``chunk_tokens`` and ``answer_tokens`` are limits in tokens; ``counts``: whether the
    server counts; ``overhead``: tokens of the question. ``size`` is the bytes that a chunk is gathered to; it follows
    what the counter says."""

    chunk_tokens: int
    answer_tokens: int
    context_length: int | None
    counts: bool
    size: int
    overhead: int

    def fits(self, tokens: int) -> bool:
        """Whether a prompt of so many tokens, the question included, leaves room for the answer."""
        return tokens - self.overhead <= self.chunk_tokens

    def learn(self, chunk: Chunk, tokens: int) -> None:
        """Take the density of the text from a chunk that was counted."""
        per_token = chunk.size / max(1, tokens - self.overhead)
        wanted = int(self.chunk_tokens * per_token * _FILL_TARGET)
        # Half of the way: one chunk of numbers is not the rest of the file.
        self.size = max(1, (self.size + wanted) // 2)


async def compute_budget(
    backend: Backend,
    instructions: str,
    *,
    model: str | None,
    context_length: int | None,
    chunk_tokens: int | None = None,
) -> Budget:
    """The budget of a run. Raises KnowledgeError where the context is too small, and what counting raises."""
    context = context_length or _CONTEXT_UNKNOWN
    answer = min(ANSWER_TOKENS, context // 4)
    try:
        overhead = await backend.count_tokens(build_messages(instructions, ""), model=model) + _MARGIN
        counts = True
    except UnsupportedOperationError:
        overhead = int(len(instructions.encode()) / _BYTES_PER_TOKEN) + _MARGIN
        counts = False
    room = context - answer - overhead
    if room < SMALLEST_CHUNK:
        raise KnowledgeError(
            f"the context of {context} tokens leaves {max(0, room)} for the text, besides {overhead} for the question "
            f"and {answer} for the answer; give the server a larger context",
            backend=backend.name,
            endpoint=backend.endpoint,
        )
    tokens = min(room, chunk_tokens or CHUNK_TOKENS)
    return Budget(
        chunk_tokens=tokens,
        answer_tokens=answer,
        context_length=context_length,
        counts=counts,
        size=int(tokens * _BYTES_PER_TOKEN),
        overhead=overhead,
    )


def build_messages(instructions: str, text: str) -> list[Message]:
    """The messages of one request, as :func:`ctxbackends.extract` makes them."""
    return [Message.system(instructions), Message.user(text)]
