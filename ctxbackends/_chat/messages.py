"""Messages: roles, text, images, reasoning, tool calls and tool results."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


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
