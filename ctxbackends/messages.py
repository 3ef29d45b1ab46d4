"""Request values: messages and their parts, tools, response formats and chat requests.

Imports no servers, wire formats, configuration or I/O. All backends share these values; a codec raises for an option
that its server does not support and never drops it.
"""

from __future__ import annotations

import base64
import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import attrs
import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


# --- parts of a message -----------------------------------------------------------------------------


class TextPart(msgspec.Struct, frozen=True, gc=False):
    """Plain text."""

    text: str


_IMAGE_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


def _detect_media_type(data: bytes) -> str:
    for signature, media_type in _IMAGE_SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("unknown image format: not PNG, JPEG, GIF or WebP; pass media_type=")


@attrs.frozen
class ImagePart:
    """An image, as bytes or as a URL that the *server* fetches.

    Build it with :meth:`from_bytes` or :meth:`from_url`.

    Attributes:
        data: The bytes of the image, None for a URL.
        media_type: The media type of ``data``, such as ``image/png``.
        url: The URL, None for bytes.
    """

    data: bytes | None = attrs.field(default=None, repr=lambda data: f"<{len(data)} bytes>" if data else "None")
    media_type: str | None = None
    url: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImagePart takes either data or url")
        if self.data is not None and not self.media_type:
            raise ValueError("image data needs a media_type, such as image/png")

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> ImagePart:
        """Build a part from the content of an image file.

        Args:
            data: The content of the file.
            media_type: Required if the format is not PNG, JPEG, GIF or WebP.

        Raises:
            ValueError: The format is unknown and ``media_type`` is missing.
        """
        return cls(bytes(data), media_type or _detect_media_type(bytes(data)))

    @classmethod
    def from_url(cls, url: str) -> ImagePart:
        """Build a part from a URL that the server fetches, if it supports that."""
        return cls(url=url)

    @property
    def base64(self) -> str:
        """The data as base64 text."""
        return base64.b64encode(self.data or b"").decode("ascii")

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL, or the URL itself."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.base64}"


class ReasoningPart(msgspec.Struct, frozen=True, gc=False):
    """A block of the model's reasoning, unmodified, to send back with the next turn.

    Attributes:
        text: The reasoning.
        signature: Anthropic's proof that the model wrote the text.
        redacted: Encrypted reasoning, in which case ``text`` is empty.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A function call that the model requests.

    Attributes:
        id: The ID of the call; the result refers to it.
        name: The name of the tool.
        arguments: The JSON text of the model. It may be invalid; :func:`ctxbackends.arguments_of` validates it.
    """

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a tool call.

    Attributes:
        tool_call_id: The ID of the call.
        content: The result as text.
        name: The name of the tool, which Ollama needs.
        is_error: Whether the tool failed.
    """

    tool_call_id: str
    content: str
    name: str | None = None
    is_error: bool = False


Part: TypeAlias = TextPart | ImagePart | ReasoningPart | ToolCall | ToolResult

_ALLOWED: Mapping[str, tuple[type[Any], ...]] = {
    "system": (TextPart,),
    "user": (TextPart, ImagePart),
    "assistant": (TextPart, ReasoningPart, ToolCall),
    "tool": (ToolResult,),
}


def _normalize_content(content: str | Sequence[str | Part]) -> str | tuple[Part, ...]:
    return content if isinstance(content, str) else _to_parts(content)


def _to_parts(content: Sequence[str | Part]) -> tuple[Part, ...]:
    return tuple(TextPart(part) if isinstance(part, str) else part for part in content)


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation.

    Build it with :meth:`system`, :meth:`user`, :meth:`assistant` or :meth:`tool`. For a model's response, use
    :attr:`ctxbackends.Completion.message`.

    Attributes:
        role: The author of the message.
        content: A text, or parts in their order.

    Raises:
        TypeError: A part is not allowed in a message of this role, such as an image in a system message.
        ValueError: The role is unknown, or the message needs at least one parts.
    """

    role: Role
    content: str | tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in _ALLOWED:
            raise ValueError(f"unknown role: {self.role!r}; use one of {', '.join(_ALLOWED)}")
        if not isinstance(self.content, str):
            msgspec.structs.force_setattr(
                self, "content", _normalize_content(self.content)
            )  # lists, and strings among the parts
        elif self.role != "tool":
            return
        allowed = _ALLOWED[self.role]
        for part in self.content:
            if not isinstance(part, allowed):
                names = " or ".join(kind.__name__ for kind in allowed)
                raise TypeError(f"invalid part in a {self.role} message: {type(part).__name__}; use {names}")
        if not self.content:
            raise ValueError(f"a {self.role} message needs at least one part")

    @classmethod
    def system(cls, content: str | Sequence[str | TextPart]) -> Message:
        """Build a system message from a text, or from several texts."""
        return cls("system", _normalize_content(content))

    @classmethod
    def user(cls, content: str | Sequence[str | TextPart | ImagePart]) -> Message:
        """Build a user message from a text, or from texts and images in their order."""
        return cls("user", _normalize_content(content))

    @classmethod
    def assistant(
        cls, content: str | Sequence[str | TextPart | ReasoningPart | ToolCall], *, tool_calls: Sequence[ToolCall] = ()
    ) -> Message:
        """Build a message of the model. The ``tool_calls`` follow the content."""
        if not tool_calls:
            return cls("assistant", _normalize_content(content))
        texts = (content,) if isinstance(content, str) else content
        return cls("assistant", (*(part for part in _to_parts(texts) if part != TextPart("")), *tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str, name: str | None = None, is_error: bool = False) -> Message:
        """Build the result of a tool call.

        Args:
            content: The result as text.
            tool_call_id: The ID of the call.
            name: The name of the tool, which Ollama needs.
            is_error: Whether the tool failed.
        """
        return cls("tool", (ToolResult(tool_call_id, content, name, is_error),))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts; empty for an empty text."""
        if isinstance(self.content, str):
            return (TextPart(self.content),) if self.content else ()
        return self.content

    @property
    def text(self) -> str:
        """The text of the message without its other parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls in the message."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


# --- tools ------------------------------------------------------------------------------------------


@attrs.frozen
class Tool:
    """A function that the model may call.

    Attributes:
        name: The name of the function.
        description: What the function does, for the model.
        parameters: The JSON Schema of the arguments, an object.
        strict: Ask the server to enforce the schema, which must then require every property and allow no others.
        function: The Python function, if :func:`ctxbackends.tool_of` built the tool.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False
    function: Callable[..., Any] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class NamedTool:
    """A ``tool_choice``: the model must call the tool of this name."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


# --- formats of the answer ----------------------------------------------------------------------------


@attrs.frozen
class JSONObjectFormat:
    """Ask for any JSON object."""


@attrs.frozen
class JSONSchemaFormat:
    """Ask for JSON that matches a JSON Schema (2020-12).

    Attributes:
        name: A label for the server.
        schema: The JSON Schema.
        checked: Whether the SDK validates the response too, as :func:`ctxbackends.extract` does. Constraints that a
            server does not support (Anthropic: ``minimum``, ``maxLength`` and others) move to the description.
    """

    name: str
    schema: Mapping[str, Any]
    checked: bool = False


@attrs.frozen
class RegexFormat:
    """Ask for text that fully matches ``pattern``."""

    pattern: str


def _to_strings(values: Sequence[str], name: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings: [{values!r}]")
    return tuple(values)


def _to_choices(values: Sequence[str]) -> tuple[str, ...]:
    return _to_strings(values, "choices")


@attrs.frozen
class ChoiceFormat:
    """Ask for exactly one of ``choices``."""

    choices: tuple[str, ...] = attrs.field(converter=_to_choices)

    def __attrs_post_init__(self) -> None:
        if not self.choices or not all(self.choices):
            raise ValueError("choices must be one or more non-empty strings")


@attrs.frozen
class GrammarFormat:
    """Ask for text that matches ``grammar``, in the server's notation (GBNF)."""

    grammar: str


ResponseFormat: TypeAlias = JSONObjectFormat | JSONSchemaFormat | RegexFormat | ChoiceFormat | GrammarFormat


# --- requests -----------------------------------------------------------------------------------------


class ChatOptions(TypedDict, total=False):
    """The keyword options of ``complete()`` and ``stream()``.

    Options that are left out are not sent, so the server's default applies. An option that the server would ignore
    raises UnsupportedOptionError before the request is sent.

    Attributes:
        model: The name of the model; the backend's ``default_model`` if left out.
        max_tokens: The maximum of generated tokens, at least 1.
        temperature: The sampling temperature, as the server defines it.
        top_p: Nucleus sampling, as the server defines it.
        top_k: Top-k sampling, as the server defines it.
        min_p: Min-p sampling, as the server defines it.
        seed: A seed for repeatable sampling, if the server supports it.
        frequency_penalty: From -2 to 2, 0 for none.
        presence_penalty: From -2 to 2, 0 for none.
        repetition_penalty: A factor, 1 for none.
        stop_sequences: Texts that end the answer and are not part of it.
        logprobs: Return the log-probability of each generated token.
        top_logprobs: The number of likely alternatives to return for each token; requires ``logprobs``.
        reasoning_effort: How much the model should reason, ``"none"`` for not at all. Models differ in its effect.
        reasoning_budget: The maximum of reasoning tokens. Models differ in its effect.
        response_format: A :class:`JSONObjectFormat`, :class:`JSONSchemaFormat`, :class:`RegexFormat`,
            :class:`ChoiceFormat` or :class:`GrammarFormat`.
        tools: :class:`Tool` values or typed Python functions.
        tool_choice: ``"auto"``, ``"none"``, ``"required"`` or a :class:`NamedTool`.
        parallel_tool_calls: False for at most one call per response.
        extra_body: More top-level members of the request body, sent unchanged, for options that are not listed here.
    """

    model: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    stop_sequences: Sequence[str]
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: ReasoningEffort | None
    reasoning_budget: int | None
    response_format: ResponseFormat | None
    tools: Sequence[Tool | Callable[..., Any]]
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    extra_body: Mapping[str, Any] | None


_FINITE = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_MINIMUMS = {"max_tokens": 1, "top_k": 0, "top_logprobs": 0, "reasoning_budget": 0}
_NUMBERS = (*_FINITE, *_MINIMUMS)
_get_numbers = operator.attrgetter(*_NUMBERS)
_is_set = functools.partial(operator.is_not, None)
_CHOICES = frozenset({"auto", "none", "required"})


def set_fields(names: Sequence[str], values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the pairs of name and value whose value is not None. Runs in C, because every request needs it."""
    return list(itertools.compress(zip(names, values, strict=True), map(_is_set, values)))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, independent of any wire format. The fields are those of :class:`ChatOptions`.

    Raises:
        ValueError: A value is invalid on every server.
        TypeError: ``stop_sequences`` is a string.
    """

    messages: tuple[Message, ...]
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop_sequences: tuple[str, ...] = ()
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    reasoning_budget: int | None = None
    response_format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    extra_body: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.stop_sequences) is not tuple:
            msgspec.structs.force_setattr(self, "stop_sequences", _to_strings(self.stop_sequences, "stop_sequences"))
        # One pass over the fields that are set: a validator per field would run for every request.
        for name, value in set_fields(_NUMBERS, _get_numbers(self)):
            self._check_number(name, value)
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs=True")
        if self.tools or self.tool_choice is not None or self.parallel_tool_calls is not None:
            self._check_tools()

    def _check_number(self, name: str, value: float) -> None:
        minimum = _MINIMUMS.get(name)
        if minimum is None and not abs(value) < math.inf:
            raise ValueError(f"{name} must be a finite number: {value}")
        if minimum is not None and value < minimum:
            raise ValueError(f"{name} must be at least {minimum}: {value}")

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"duplicate tool name: {', '.join(names)}")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in names:
            raise ValueError(f"unknown tool in tool_choice: {self.tool_choice.name!r}; pass it in tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required; pass tools")
        choice: object = self.tool_choice
        if not isinstance(choice, NamedTool) and not (
            choice is None or (isinstance(choice, str) and choice in _CHOICES)
        ):
            raise ValueError(f"invalid tool_choice: {self.tool_choice!r}; use auto, none, required or a NamedTool")
        if self.parallel_tool_calls is not None and not names:
            raise ValueError("parallel_tool_calls requires tools")
