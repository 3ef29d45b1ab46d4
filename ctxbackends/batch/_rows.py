"""One row of a batch: what is asked, and its identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Operation: TypeAlias = Literal["chat", "embed"]

encode_deterministic = msgspec.json.Encoder(order="deterministic").encode
"""Encode a value as JSON that does not depend on the order of its keys."""


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a batch.

    Attributes:
        id: The ID of the row, unique in the batch.
        prompt: The prompt: a text, or the messages as dicts in the form of OpenAI's or Anthropic's API. For ``embed``
            a text or several.
        operation: ``chat`` for an answer, ``embed`` for vectors.
        options: The options of the call: those of :class:`~ctxbackends.ChatOptions`, for ``embed`` ``model``,
            ``dimensions`` and ``encoding``, the form of the vectors in the output.
        line: The line of the input, counted from 1; 0 if the row is not from a file.
    """

    id: str
    prompt: str | Sequence[Any]
    operation: Operation = "chat"
    options: Mapping[str, Any] = {}
    line: int = 0

    def digest(self, run: bytes) -> bytes:
        """Return the identity of the row's question in a run: 16 bytes.

        Args:
            run: All that the answer depends on besides the row: the options of the run, and the backends.
        """
        question = encode_deterministic([self.id, self.operation, self.prompt, self.options])
        return hashlib.blake2b(run + question, digest_size=16).digest()
