"""Responses: completions, usage, log probabilities and embeddings."""

from __future__ import annotations

import builtins
import operator
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from ctxbackends._chat.messages import Message, Part, ReasoningPart, TextPart, ToolCall

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]

FINISH_REASONS: frozenset[str] = frozenset({"stop", "length", "tool_calls", "content_filter"})


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the server reported them. None where the server does not report a value.

    Attributes:
        input_tokens: Prompt tokens, including those read from a prompt cache, on every backend.
        output_tokens: Generated tokens, including reasoning.
        cached_input_tokens: Prompt tokens read from a cache.
        cache_write_tokens: Prompt tokens written to a cache.
        reasoning_tokens: Generated tokens that are reasoning.
        load_seconds: The server's time to load the model, in seconds.
        prompt_seconds: The server's time to process the prompt, in seconds.
        generation_seconds: The server's time to generate, in seconds.
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
    """A generated token and its natural log-probability.

    Attributes:
        token: The token as text.
        logprob: The natural log-probability.
        bytes: The bytes of the token, None if the server does not report them.
        top: The most likely tokens at this position, if requested.
    """

    token: str
    logprob: float
    bytes: builtins.bytes | None = None
    top: tuple[TokenLogprob, ...] = ()


class Citation(msgspec.Struct, frozen=True, gc=False):
    """A source of the answer, as the server reports it.

    Attributes:
        url: The URL of the source, None for a document of the request.
        title: The title of the source, None if the server reports none.
        span: The first character of the answer's text that the source supports, and the one after the last; None if the
            server reports none.
        text: The cited text of the source, None if the server reports none.
    """

    url: str | None = None
    title: str | None = None
    span: tuple[int, int] | None = None
    text: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A complete response. It exists only if the server marked the response as complete.

    Attributes:
        text: The text of the answer.
        finish_reason: Why the generation ended.
        usage: Token counts, None if the server reports none.
        requested_model: The model that was requested.
        served_model: The model that the server names in its response, None if it names none.
        reasoning: The model's reasoning, if the server separates it from the text.
        refusal: The model's refusal, if the server separates it from the text.
        tool_calls: The tool calls in their order.
        logprobs: One value per token, if requested.
        stop_sequence: The stop sequence that ended the answer, if the server reports it.
        response_id: The server's ID of the response.
        request_id: The server's ID of the request, from a header.
        parts: The content in the order of generation, including signed reasoning and the server's opaque data.
        citations: The sources of the answer, in the order in which they arrived.
        raw_finish_reason: The server's own word for the finish reason. Anthropic's ``pause_turn``, which is a ``stop``,
            means that the server continues if you send :attr:`message` back. It is neither compared nor shown in the
            repr.
        raw: The unmodified response body; all events if `complete()` streamed the request, empty for `stream()`. It is
            neither compared nor shown in the repr.
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
    citations: tuple[Citation, ...] = ()
    raw_finish_reason: str | None = None
    raw: bytes = b""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields to show: no parts or raw, which repeat the others, and only the number of logprobs."""
        shown = dict(zip(_COMPARED_FIELDS, _get_compared(self), strict=True))
        del shown["parts"]
        if not self.citations:
            del shown["citations"]
        return [*(shown | {"logprobs": f"<{len(self.logprobs)}>"}).items()]

    def __repr__(self) -> str:
        return f"Completion({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __eq__(self, other: object) -> bool:
        return _get_compared(self) == _get_compared(other) if isinstance(other, Completion) else NotImplemented

    def __ne__(self, other: object) -> bool:  # msgspec's __ne__ compares identity with eq=False
        return not self == other

    def __hash__(self) -> int:
        return hash(_get_compared(self))

    @property
    def message(self) -> Message:
        """The response as an assistant message, to send back with the next turn."""
        if self.parts:
            return Message("assistant", self.parts)
        reasoning = (ReasoningPart(self.reasoning),) if self.reasoning else ()
        text = (TextPart(self.text),) if self.text else ()
        parts = (*reasoning, *text, *self.tool_calls)
        return Message("assistant", parts if reasoning or self.tool_calls else self.text)

    def to_openai_dict(self) -> dict[str, Any]:
        """Return the completion as the body of an OpenAI chat completion, for programs that read that form.

        The values are JSON-compatible. Reasoning is ``reasoning_content``, as llama-server and others write it.
        ``created`` is 0. Citations, the stop sequence, durations, signed reasoning and the server's opaque data have no
        place there and are left out; send :attr:`message` back to continue the conversation.
        """
        from ctxbackends._chat.openai_dicts import build_openai_dict  # noqa: PLC0415  # needed only for dicts

        return build_openai_dict(self)


_COMPARED_FIELDS = tuple(name for name in Completion.__struct_fields__ if name not in ("raw", "raw_finish_reason"))
_get_compared = operator.attrgetter(*_COMPARED_FIELDS)


@attrs.frozen(kw_only=True)
class PartialCompletion:
    """The part of an incomplete response that arrived. Errors carry it; it is never returned.

    Attributes:
        text: The text that arrived.
        reasoning: The reasoning that arrived.
        tool_calls: The tool calls that arrived; their arguments may be cut off.
        usage: Token counts, None if they did not arrive.
        served_model: The model that the server names, None if it did not arrive.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    served_model: str | None = None


@attrs.frozen(kw_only=True)
class Embeddings:
    """One vector for each input, in the order of the inputs.

    Attributes:
        vectors: The vectors.
        requested_model: The model that was requested.
        served_model: The model that the server names, None if it names none.
        usage: Token counts, None if the server reports none.
    """

    vectors: tuple[tuple[float, ...], ...] = attrs.field(
        repr=lambda v: f"<{len(v)} vectors of {len(v[0]) if v else 0}>"
    )
    requested_model: str
    served_model: str | None = None
    usage: Usage | None = None
