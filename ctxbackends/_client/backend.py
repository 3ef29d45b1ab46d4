"""What a backend is: the protocol, and the forms in which it is asked. Knows no HTTP and no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, Unpack, runtime_checkable

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, ChatRequest, Tool
from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._chat.servers import Enforcement, ModelInfo, Ping, ServerStatus
from ctxbackends._client.stream import ChatStream
from ctxbackends._tools import build_tools
from ctxbackends._wire.operations.openai import VectorEncoding

Prompt: TypeAlias = str | Message | Sequence[Message] | ChatRequest
"""A user's text, one message, a conversation, or a whole request."""


@runtime_checkable
class Backend(Protocol):
    """One model server, whatever it is. Implementations are safe for any number of tasks at once."""

    name: str
    type: str
    default_model: str | None

    @property
    def endpoint(self) -> str: ...

    @property
    def schema_enforcement(self) -> Enforcement:
        """How the server holds an answer to a schema."""
        ...

    async def wait_ready(self, *, on_progress: OnProgress | None = None) -> None:
        """Return when the server can answer. Waits through a cold start where the type has one; raises the last error
        when its budget ends."""
        ...

    async def ping(self, *, wait: bool = True, on_progress: OnProgress | None = None) -> Ping:
        """The first model that the server lists. ``wait=False`` does not wait for a cold start."""
        ...

    async def status(self) -> ServerStatus:
        """One look at the server, now. What is wrong with it is in the status and not raised; nothing is waited for,
        started or loaded."""
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server lists, at least one (EmptyModelListError)."""
        ...

    async def complete(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> Completion:
        """One whole answer, or an error; never a part of one. ``on_progress`` is told what a wait for a cold start
        sees."""
        ...

    def stream(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> ChatStream:
        """One answer as it is written. Nothing is sent before the ``async with``."""
        ...

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        encoding: VectorEncoding | None = None,
        batch_size: int | None = None,
    ) -> Embeddings:
        """One vector for each text, in their order. ``dimensions``: the length of the vectors, for models that can
        shorten them. ``encoding``: the form in which they cross the wire; ``base64`` is shorter and exact to 32 bits.
        ``batch_size``: how many texts go into one request, one request after the other."""
        ...

    async def count_tokens(
        self,
        prompt: str | Message | Sequence[Message],
        *,
        model: str | None = None,
        tools: Sequence[Tool | Callable[..., object]] = (),
    ) -> int:
        """How many tokens the prompt has, by the server's own counter. UnsupportedOperationError where it has none: it
        is never guessed."""
        ...

    async def load(
        self,
        model: str | None = None,
        *,
        context_length: int | None = None,
        keep_alive: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Put ``model`` (else ``default_model``) into memory, with a context of ``context_length`` tokens, to stay
        there ``keep_alive`` seconds after its last use (``math.inf``: for ever). UnsupportedOperationError where the
        server cannot."""
        ...

    async def unload(self, model: str | None = None) -> None:
        """Take ``model`` (else ``default_model``) out of memory. UnsupportedOperationError where the server cannot."""
        ...

    async def aclose(self) -> None:
        """Release what belongs to this backend alone (a server that it started). The session belongs to the
        registry."""
        ...


def build_messages(prompt: str | Message | Sequence[Message]) -> tuple[Message, ...]:
    """The conversation that ``prompt`` stands for. Raises TypeError."""
    if isinstance(prompt, str):
        return (Message.user(prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    messages = tuple(prompt)
    if not messages or not all(isinstance(message, Message) for message in messages):
        raise TypeError("a prompt is a text, a Message, or a non-empty sequence of Message")
    return messages


def build_chat_request(prompt: Prompt, model: str, options: ChatOptions) -> ChatRequest:
    """The request that ``prompt`` and ``options`` make. Raises TypeError and ValueError for what no server could
    take."""
    if isinstance(prompt, ChatRequest):
        if options:
            raise TypeError("a ChatRequest holds its options; pass no others")
        return prompt
    fields: dict[str, Any] = {**options, "model": model}
    fields["stop_sequences"] = fields.get("stop_sequences") or ()
    fields["tools"] = build_tools(fields.get("tools") or ())
    # ChatOptions and ChatRequest have the same fields; a test holds them together. What is no option, and what is given
    # twice, is a TypeError here.
    return ChatRequest(messages=build_messages(prompt), **fields)
