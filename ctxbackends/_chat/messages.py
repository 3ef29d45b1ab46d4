"""Messages: roles, text, images, audio, files, reasoning, tool calls and tool results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart

MESSAGE_VERSION = 1
"""The version of the dicts of :meth:`Message.to_dict`."""

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


# --- parts of a message -----------------------------------------------------------------------------


class OpaquePart(msgspec.Struct, frozen=True, gc=False, tag="opaque", omit_defaults=True, forbid_unknown_fields=True):
    """Data that only the server understands, such as a signature, encrypted reasoning or a search that it ran.

    It goes back unchanged with the next turn, only to a server with the same wire format.

    Attributes:
        wire: The wire format that it came from, such as ``chat_completions``.
        json: The data as JSON text.
    """

    wire: str
    json: str


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text", omit_defaults=True, forbid_unknown_fields=True):
    """Plain text.

    Attributes:
        text: The text.
        opaque: The server's data about the text, such as encrypted citations.
    """

    text: str
    opaque: OpaquePart | None = None


class ReasoningPart(
    msgspec.Struct, frozen=True, gc=False, tag="reasoning", omit_defaults=True, forbid_unknown_fields=True
):
    """A block of the model's reasoning, unmodified, to send back with the next turn.

    Attributes:
        text: The reasoning.
        signature: Anthropic's proof that the model wrote the text.
        redacted: Encrypted reasoning, in which case ``text`` is empty.
        member: The name of the member that it came in on chat completions, ``reasoning`` or ``reasoning_content``;
            None for the one that the server's documentation names.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None
    member: str | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False, tag="tool_call", omit_defaults=True, forbid_unknown_fields=True):
    """A function call that the model requests.

    Attributes:
        id: The ID of the call; the result refers to it.
        name: The name of the tool.
        arguments: The JSON text of the model. It may be invalid; :func:`ctxbackends.arguments_of` validates it.
        opaque: The server's own data about the call, such as Gemini's signature of the thought behind it.
    """

    id: str
    name: str
    arguments: str
    opaque: OpaquePart | None = None


JSONValue: TypeAlias = Mapping[str, Any] | Sequence[Any] | str | float | bool | None


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result", omit_defaults=True, forbid_unknown_fields=True):
    """The result of a tool call.

    Attributes:
        tool_call_id: The ID of the call.
        content: The result: a text, or texts and images in their order. A dict, another list, a number, a bool and None
            become JSON text.
        name: The name of the tool, which Ollama needs.
        is_error: Whether the tool failed.

    Raises:
        TypeError: The content is neither text nor parts nor a JSON value.
    """

    tool_call_id: str
    content: str | tuple[TextPart | ImagePart, ...]
    name: str | None = None
    is_error: bool = False

    def __post_init__(self) -> None:
        if type(self.content) is not str:
            msgspec.structs.force_setattr(self, "content", _normalize_result(self.content))

    @property
    def text(self) -> str:
        """The text of the result without its images."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The images of the result."""
        if isinstance(self.content, str):
            return ()
        return tuple(part for part in self.content if isinstance(part, ImagePart))


def _normalize_result(content: Any) -> str | tuple[TextPart | ImagePart, ...]:
    if isinstance(content, TextPart | ImagePart):
        content = (content,)
    if isinstance(content, list | tuple) and any(isinstance(item, TextPart | ImagePart) for item in content):
        parts = tuple(TextPart(item) if isinstance(item, str) else item for item in content)
        for part in parts:
            if not isinstance(part, TextPart | ImagePart):
                raise TypeError(
                    f"invalid part in the result of a tool: {type(part).__name__}; use str, TextPart or ImagePart"
                )
        return parts
    if isinstance(content, str):
        return str(content)
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"invalid result of a tool: {type(content).__name__} ({error}); pass text, parts (TextPart, ImagePart) or "
            "a JSON value (dict, list, number, bool, None)"
        ) from error


Part: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | ReasoningPart | ToolCall | ToolResult | OpaquePart

_ALLOWED: Mapping[str, tuple[type[Any], ...]] = {
    "system": (TextPart,),
    "user": (TextPart, ImagePart, AudioPart, FilePart),
    "assistant": (TextPart, ReasoningPart, ToolCall, OpaquePart),
    "tool": (ToolResult,),
}


def _normalize_content(content: str | Sequence[str | Part]) -> str | tuple[Part, ...]:
    return content if isinstance(content, str) else _to_parts(content)


def _to_parts(content: Sequence[str | Part]) -> tuple[Part, ...]:
    if isinstance(content, Mapping | bytes) or not isinstance(content, Iterable):
        raise TypeError(f"the content of a message must be a string or a list of parts, not {type(content).__name__}")
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
        ValueError: The role is unknown, or the message needs at least one part.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the message as JSON-compatible values, to store it. Binary data becomes base64 text."""
        values: dict[str, Any] = json.loads(json.dumps(msgspec.to_builtins(self)))  # tuples become lists
        return {"version": MESSAGE_VERSION, **values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Return the message of :meth:`to_dict`, or of a dict in the form of OpenAI's chat or Anthropic's Messages API.

        Args:
            data: The dict. One without the member ``version`` is in a vendor's form.

        Raises:
            TypeError: A member has the wrong type.
            ValueError: A member is unknown, missing or not supported, or the dict is more than one message. The error
                names the place.
        """
        from ctxbackends._chat.message_dicts import parse_message  # noqa: PLC0415  # needed only for dicts

        return parse_message(data)

    @classmethod
    def system(cls, content: str | Sequence[str | TextPart]) -> Message:
        """Build a system message from a text, or from several texts."""
        return cls("system", _normalize_content(content))

    @classmethod
    def user(cls, content: str | Sequence[str | TextPart | ImagePart | AudioPart | FilePart]) -> Message:
        """Build a user message from a text, or from texts, images, recordings and documents in their order."""
        return cls("user", _normalize_content(content))

    @classmethod
    def assistant(
        cls,
        content: str | Sequence[str | TextPart | ReasoningPart | ToolCall | OpaquePart],
        *,
        tool_calls: Sequence[ToolCall] = (),
    ) -> Message:
        """Build a message of the model, which may be empty. The ``tool_calls`` follow the content."""
        if not tool_calls:
            return cls("assistant", _normalize_content(content) or "")
        texts = (content,) if isinstance(content, str) else content
        return cls("assistant", (*(part for part in _to_parts(texts) if part != TextPart("")), *tool_calls))

    @classmethod
    def tool(
        cls,
        content: JSONValue | TextPart | ImagePart | Sequence[str | TextPart | ImagePart],
        *,
        tool_call_id: str,
        name: str | None = None,
        is_error: bool = False,
    ) -> Message:
        """Build the result of a tool call.

        Args:
            content: The result: a text, texts and images in their order, or a JSON value (dict, list, number, bool,
                None), which becomes JSON text.
            tool_call_id: The ID of the call.
            name: The name of the tool, which Ollama needs.
            is_error: Whether the tool failed.

        Raises:
            TypeError: The content is neither text nor parts nor a JSON value.
        """
        result: Any = content  # ToolResult normalizes it
        return cls("tool", (ToolResult(tool_call_id, result, name, is_error),))

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
