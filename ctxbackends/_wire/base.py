"""The values between a codec and the transport, and the protocols of the wire formats. Sans-I/O."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import attrs
import msgspec

from ctxbackends._chat.events import StreamEvent
from ctxbackends._chat.messages import OpaquePart, ToolCall
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.responses import Completion
from ctxbackends.errors import BackendError, ResponseTooLargeError, UnsupportedOptionError

T = TypeVar("T")

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The largest response body, and the largest event of a stream, in bytes."""


class HTTPRequest(msgspec.Struct, frozen=True):
    """A request without endpoint and authorization, which the backend adds. ``path`` starts with a slash."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}


class HTTPResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response with its whole body.

    The repr shows neither headers nor body, since servers may echo API keys.

    Attributes:
        status: The HTTP status code.
        headers: The headers, with lower-case names.
        body: The whole body.
        received_at: Unix time in seconds, for a ``Retry-After`` that is a date.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float = 0.0

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("status", self.status), ("received_at", self.received_at)]

    def __repr__(self) -> str:
        return f"HTTPResponse(status={self.status}, received_at={self.received_at})"


class StreamDecoder(ABC):
    """Decodes the bytes of a stream to events.

    Its methods do not raise: a failure is set in ``failure``, after the events before it. After :meth:`close`, exactly
    one of ``finished`` and ``failure`` is set.

    Attributes:
        served_model: The model that the server names.
        response_id: The server's ID of the response.
        raw_finish_reason: The server's word for the finish reason.
        reasoning_member: The name of the member with the reasoning, see :class:`ReasoningPart`.
        failure: A StreamInterruptedError without ``partial``, which the stream adds, or a more specific BackendError.
        finished: The terminal marker arrived.
    """

    __slots__ = ("failure", "finished", "raw_finish_reason", "reasoning_member", "response_id", "served_model")

    def __init__(self) -> None:
        self.served_model: str | None = None
        self.response_id: str | None = None
        self.raw_finish_reason: str | None = None
        self.reasoning_member: str | None = None
        self.failure: BackendError | None = None
        self.finished: bool = False

    @abstractmethod
    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that ``data`` completes, in order, however the bytes are split."""

    @abstractmethod
    def close(self) -> list[StreamEvent]:
        """Return the last events after the end of the body, or set ``failure``."""

    def is_ended(self) -> bool:
        return self.finished or self.failure is not None

    def decode_each(
        self, decode: Callable[[Sequence[T], list[StreamEvent]], None], split: Callable[..., Sequence[T]], *data: bytes
    ) -> list[StreamEvent]:
        """Return the events of the lines or frames that ``split`` returns, up to the end of the response."""
        events: list[StreamEvent] = []
        if self.finished or self.failure is not None:
            return events
        try:
            decode(split(*data), events)
        except ResponseTooLargeError as error:
            self.failure = error
        return events


class Codec(Protocol):
    """The chat format of one wire API.

    ``encode_chat`` is pure and raises before a request is sent. ``decode_chat`` takes a 2xx response and raises only
    BackendError.
    """

    def auth_headers(self, api_key: str) -> Mapping[str, str]: ...

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest: ...

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion: ...

    def stream_decoder(self) -> StreamDecoder: ...


Operation: TypeAlias = Generator[HTTPRequest, HTTPResponse, T]
"""An operation of one or more requests, without I/O. It yields a request and receives the 2xx response, or the error of
any other response as an exception; it returns the result. All operations except chat use it."""


@attrs.frozen(kw_only=True)
class WireSettings:
    """The settings of a backend that its codec needs. None means the server's default.

    Attributes:
        context_length: In tokens.
        keep_alive: In seconds; infinity to never unload.
        omit: Members of the body that are not sent.
        rename: Members of the body with the server's own name.
        json_mode: A JSON schema is sent as JSON mode, and described in the prompt.
        allow_missing_finish_reason: Whether a response without a finish reason is complete if the end of the stream and
            its usage arrived, or if it came in one piece.
    """

    context_length: int | None = None
    keep_alive: float | None = None
    omit: frozenset[str] = frozenset()
    rename: Mapping[str, str] = attrs.field(factory=dict)
    json_mode: bool = False
    allow_missing_finish_reason: bool = False


def bearer_header(api_key: str) -> Mapping[str, str]:
    """Return the Authorization header that most servers accept (RFC 6750)."""
    return {"Authorization": f"Bearer {api_key}"}


_encoder = msgspec.json.Encoder()


def encode_json(value: Any) -> bytes:
    """Encode ``value`` as a request body.

    Raises:
        ValueError: JSON cannot represent the value.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


_object_decoder = msgspec.json.Decoder(dict[str, Any])


def normalize_arguments(call: ToolCall) -> str:
    """Return the arguments of a tool call of an earlier turn as the JSON text of an object.

    Servers reject anything else in every later turn: llama-server answers 500. Models leave the arguments of a tool
    without parameters empty, or write null.

    Raises:
        UnsupportedOptionError: The arguments are not a JSON object, such as those of a call that was cut.
    """
    arguments = call.arguments.strip()
    if arguments in ("", "null"):
        return "{}"
    _decode_object(call)
    return call.arguments


def decode_arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a tool call as an object, for servers that do not take JSON text.

    Raises:
        UnsupportedOptionError: The arguments are not a JSON object.
    """
    return {} if call.arguments.strip() in ("", "null") else _decode_object(call)


def _decode_object(call: ToolCall) -> dict[str, Any]:
    try:
        return _object_decoder.decode(call.arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UnsupportedOptionError(
            "message: tool call", f"the arguments of {call.name} must be a JSON object: {error}"
        ) from error


def decode_opaque(part: OpaquePart | None, wire: str) -> dict[str, Any]:
    """Return the members of an opaque part that came from the wire format ``wire``; none from another one."""
    if part is None or part.wire != wire:
        return {}
    value = json.loads(part.json)
    return value if isinstance(value, dict) else {}


def encode_arguments(arguments: str | Mapping[str, Any] | None) -> str:
    """Return the arguments of a tool call as JSON text: some servers send an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else _encoder.encode(arguments).decode()
