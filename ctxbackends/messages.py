"""The values that are sent: messages and their parts, tools, answer formats, requests. No behaviour beyond building
them.

Knows nothing of servers, wire formats, configuration or I/O. One vocabulary for every backend: what a server cannot
take is refused by its codec, never left out.
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
    raise ValueError("the image is neither PNG, JPEG, GIF nor WebP; say what it is with media_type=")


@attrs.frozen
class ImagePart:
    """An image: its bytes in ``data`` with their ``media_type`` (``image/png``), or a ``url`` that the *server*
    fetches. Build it with :meth:`from_bytes` or :meth:`from_url`."""

    data: bytes | None = attrs.field(default=None, repr=lambda data: f"<{len(data)} bytes>" if data else "None")
    media_type: str | None = None
    url: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an image is either data or a url")
        if self.data is not None and not self.media_type:
            raise ValueError("the data of an image needs a media_type, such as image/png")

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> ImagePart:
        """The content of an image file. PNG, JPEG, GIF and WebP are recognised; ValueError for others without
        ``media_type``."""
        return cls(bytes(data), media_type or _detect_media_type(bytes(data)))

    @classmethod
    def from_url(cls, url: str) -> ImagePart:
        """An image that the server fetches by itself, where it does that."""
        return cls(url=url)

    @property
    def base64(self) -> str:
        """The data as base64 text."""
        return base64.b64encode(self.data or b"").decode("ascii")

    @property
    def data_url(self) -> str:
        """The data as a ``data:`` URL, or the URL as it was given."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.base64}"


class ReasoningPart(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's reasoning, as it came, for the next turn.

    ``signature`` proves to Anthropic that the text is the model's own; ``redacted`` is reasoning that came encrypted,
    in the place of a text. Neither has a meaning here.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call of a function that the model asked for.

    ``arguments`` is the JSON text as the model wrote it: it is not parsed here, because a model can write text that is
    no JSON. :func:`ctxbackends.arguments_of` checks it.
    """

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, gc=False):
    """What a tool call gave, under the id of that call. ``name`` is the tool's, which Ollama wants; ``is_error`` says
    that the tool failed."""

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
    """One turn of a conversation. ``content`` is a text, or parts in their order; build it with :meth:`system`,
    :meth:`user`, :meth:`assistant`, :meth:`tool`. The answer of a model is :attr:`ctxbackends.Completion.message`.

    TypeError for a part that has no place in a message of this role (an image in a system message).
    """

    role: Role
    content: str | tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in _ALLOWED:
            raise ValueError(f"the role {self.role!r} is none of {', '.join(_ALLOWED)}")
        if not isinstance(self.content, str):
            msgspec.structs.force_setattr(
                self, "content", _normalize_content(self.content)
            )  # texts among the parts, and lists
        elif self.role != "tool":
            return
        allowed = _ALLOWED[self.role]
        for part in self.content:
            if not isinstance(part, allowed):
                names = " or ".join(kind.__name__ for kind in allowed)
                raise TypeError(f"a {self.role} message holds {names}, and not {type(part).__name__}")
        if not self.content:
            raise ValueError(f"a {self.role} message has no part")

    @classmethod
    def system(cls, content: str | Sequence[str | TextPart]) -> Message:
        return cls("system", _normalize_content(content))

    @classmethod
    def user(cls, content: str | Sequence[str | TextPart | ImagePart]) -> Message:
        """What the user says: a text, or texts and images in their order."""
        return cls("user", _normalize_content(content))

    @classmethod
    def assistant(
        cls, content: str | Sequence[str | TextPart | ReasoningPart | ToolCall], *, tool_calls: Sequence[ToolCall] = ()
    ) -> Message:
        """What the model said. ``tool_calls`` follow the content."""
        if not tool_calls:
            return cls("assistant", _normalize_content(content))
        texts = (content,) if isinstance(content, str) else content
        return cls("assistant", (*(part for part in _to_parts(texts) if part != TextPart("")), *tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str, name: str | None = None, is_error: bool = False) -> Message:
        """The result of a tool call, answered under the id of that call."""
        return cls("tool", (ToolResult(tool_call_id, content, name, is_error),))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts; none for an empty text."""
        if isinstance(self.content, str):
            return (TextPart(self.content),) if self.content else ()
        return self.content

    @property
    def text(self) -> str:
        """The text of the message, without its other parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


# --- tools ------------------------------------------------------------------------------------------


@attrs.frozen
class Tool:
    """A function that the model may call: its ``name``, what it does, and the JSON Schema of its arguments (an object).

    ``strict`` asks the server to hold the arguments to the schema, where it can; the schema must then require every
    property and allow no others. :func:`ctxbackends.tool_of` makes a tool out of a typed Python function, which is then
    ``function``.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False
    function: Callable[..., Any] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class NamedTool:
    """``tool_choice``: this tool has to be called."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


# --- formats of the answer ----------------------------------------------------------------------------


@attrs.frozen
class JSONObjectFormat:
    """Ask for any JSON object."""


@attrs.frozen
class JSONSchemaFormat:
    """Ask for JSON that satisfies ``schema`` (JSON Schema, 2020-12). ``name`` labels it for the server.

    ``checked`` says that the answer is validated here as well, as :func:`ctxbackends.extract` does. A constraint that a
    vendor refuses (Anthropic: ``minimum``, ``maxLength`` and the like) is then put into words for the model instead.
    """

    name: str
    schema: Mapping[str, Any]
    checked: bool = False


@attrs.frozen
class RegexFormat:
    """Ask for text that matches ``pattern`` as a whole."""

    pattern: str


def _to_strings(values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"one text ({values!r}) was given where several belong; put it into a list")
    return tuple(values)


@attrs.frozen
class ChoiceFormat:
    """Ask for exactly one of ``choices``."""

    choices: tuple[str, ...] = attrs.field(converter=_to_strings)

    def __attrs_post_init__(self) -> None:
        if not self.choices or not all(self.choices):
            raise ValueError("a ChoiceFormat needs at least one text, and none of them empty")


@attrs.frozen
class GrammarFormat:
    """Ask for text that ``grammar`` derives, in the notation of the server (GBNF)."""

    grammar: str


ResponseFormat: TypeAlias = JSONObjectFormat | JSONSchemaFormat | RegexFormat | ChoiceFormat | GrammarFormat


# --- requests -----------------------------------------------------------------------------------------


class ChatOptions(TypedDict, total=False):
    """The keyword options of ``complete()`` and ``stream()``. What is left out is not sent, so that the server's own
    default holds. What a server would ignore raises UnsupportedOptionError before anything is sent.

    ``model``: the model's name; left out, the backend's ``default_model``.
    ``max_tokens``: upper bound of generated tokens, at least 1.
    ``temperature``, ``top_p``, ``top_k``, ``min_p``: sampling, as the server defines them.
    ``seed``: for repeatable sampling where the server supports it.
    ``frequency_penalty``, ``presence_penalty``: from -2 to 2, 0 for none. ``repetition_penalty``: a factor, 1 for none.
    ``stop_sequences``: texts that end the answer; they are not part of it.
    ``logprobs``: the log-probability of each token of the answer; ``top_logprobs``: and of so many likely others.
    ``reasoning_effort``: how much the model is to reason, ``"none"`` for not at all. ``reasoning_budget``: the upper
    bound of reasoning tokens. Models differ in what they make of them.
    ``response_format``: :class:`JSONObjectFormat`, :class:`JSONSchemaFormat`, :class:`RegexFormat`,
    :class:`ChoiceFormat` or :class:`GrammarFormat`.
    ``tools``: :class:`Tool` values, or typed Python functions. ``tool_choice``: ``"auto"``, ``"none"``, ``"required"``
    or :class:`NamedTool`. ``parallel_tool_calls``: False for at most one call in an answer.
    ``extra_body``: further top-level members of the request body, sent as they are; the marked way out for what has no
    option here.
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
    """Those that are not None, with their names: all in C, since it is done for every request."""
    return list(itertools.compress(zip(names, values, strict=True), map(_is_set, values)))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a model, before any wire format. See :class:`ChatOptions` for the meaning of each field.

    ValueError for a value that no server could take: it says which.
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
            msgspec.structs.force_setattr(self, "stop_sequences", _to_strings(self.stop_sequences))
        # One look for all, since most are not given: a validator for each would be called for every request.
        for name, value in set_fields(_NUMBERS, _get_numbers(self)):
            self._check_number(name, value)
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes together with logprobs=True")
        if self.tools or self.tool_choice is not None or self.parallel_tool_calls is not None:
            self._check_tools()

    def _check_number(self, name: str, value: float) -> None:
        least = _MINIMUMS.get(name)
        if least is None and not abs(value) < math.inf:
            raise ValueError(f"{name} is {value}; it must be a finite number")
        if least is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"two tools have the same name: {', '.join(names)}")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in names:
            raise ValueError(f"tool_choice names the tool {self.tool_choice.name!r}, which is not among the tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        choice: object = self.tool_choice
        if not isinstance(choice, NamedTool) and not (
            choice is None or (isinstance(choice, str) and choice in _CHOICES)
        ):
            raise ValueError(f"tool_choice is {self.tool_choice!r}; it is auto, none, required or a NamedTool")
        if self.parallel_tool_calls is not None and not names:
            raise ValueError("parallel_tool_calls is given, and there are no tools")
