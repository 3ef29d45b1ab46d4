"""The values that pass between a codec and the transport, and the protocols that each wire format implements. No
aiohttp, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import attrs
import msgspec

from ctxbackends.errors import BackendError, MalformedResponseError, ResponseTooLargeError
from ctxbackends.messages import ChatRequest
from ctxbackends.types import Completion, StreamEvent

T = TypeVar("T")

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The largest body that is read whole; also the largest event of a stream."""


class HTTPRequest(msgspec.Struct, frozen=True):
    """One request, without the endpoint and the authorisation, which the backend adds. ``path`` begins with a slash."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}


class HTTPResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, read whole. ``headers`` are looked up by lower-case names; ``received_at`` is Unix time in seconds,
    for a ``Retry-After`` that is a date. A repr shows none of it, since servers repeat keys."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float = 0.0

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("status", self.status), ("received_at", self.received_at)]

    def __repr__(self) -> str:
        return f"HTTPResponse(status={self.status}, received_at={self.received_at})"


class StreamDecoder(Protocol):
    """Bytes of a streamed answer to events. Neither method raises: what goes wrong is put in ``failure``, after the
    events that came before it.

    ``finished``: the terminal marker was seen and nothing more is awaited. After :meth:`close`, exactly one of
    ``finished`` and ``failure`` is set.
    ``failure`` is a StreamInterruptedError without ``partial`` (the stream knows what it has handed on), or another
    BackendError that says more.
    """

    served_model: str | None
    response_id: str | None
    failure: BackendError | None
    finished: bool

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Events that ``data`` completes, in order, however the bytes were cut."""
        ...

    def close(self) -> list[StreamEvent]:
        """The body ended: the last events, or the failure."""
        ...


class BaseDecoder:
    """What decoders share: how they end. Pieces are what the framing gives: lines or events."""

    __slots__ = ("failure", "finished", "response_id", "served_model")

    def __init__(self) -> None:
        self.served_model: str | None = None
        self.response_id: str | None = None
        self.failure: BackendError | None = None
        self.finished = False

    def ended(self) -> bool:
        return self.finished or self.failure is not None

    def each(
        self, pieces: Callable[[], Sequence[T]], read: Callable[[Sequence[T], list[StreamEvent]], None]
    ) -> list[StreamEvent]:
        """The events that ``read`` makes of the pieces, which it reads until the answer has ended."""
        events: list[StreamEvent] = []
        if self.ended():
            return events
        try:
            read(pieces(), events)
        except ResponseTooLargeError as error:
            self.failure = error
        return events


class Codec(Protocol):
    """One wire format of generation. ``encode_chat`` is pure and raises before anything is sent; ``decode_chat`` takes
    a 2xx answer and raises only BackendError."""

    def auth_headers(self, api_key: str) -> Mapping[str, str]: ...

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest: ...

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion: ...

    def stream_decoder(self) -> StreamDecoder: ...


Operation: TypeAlias = Generator[HTTPRequest, HTTPResponse, T]
"""An operation of one or more requests without I/O: it yields a request and is sent the answer, a 2xx, or has the error
of any other thrown into it; it returns the result. Everything beside generation is written so."""


@attrs.frozen(kw_only=True)
class WireSettings:
    """What the configuration of a backend says to its codec. ``context_length`` in tokens, ``keep_alive`` in seconds
    (infinity: never unload); None is the server's default."""

    context_length: int | None = None
    keep_alive: float | None = None


def bearer_header(api_key: str) -> Mapping[str, str]:
    """The key as most servers take it (RFC 6750)."""
    return {"Authorization": f"Bearer {api_key}"}


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes, *, api: str) -> T:
    """``body`` as ``decoder`` knows it. Raises MalformedResponseError; ``api`` names whose answer it should be."""
    # UnicodeDecodeError and RecursionError come through msgspec as they are.
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedResponseError(f"the answer is not what {api} answers with: {error}", body=body) from error


_encoder = msgspec.json.Encoder()


def encode_json(value: Any) -> bytes:
    """``value`` as the body of a request. Raises ValueError where it holds what JSON cannot."""
    try:
        return _encoder.encode(value)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


def encode_arguments(arguments: str | Mapping[str, Any] | None) -> str:
    """A tool call's arguments as JSON text: some servers send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else _encoder.encode(arguments).decode()
