"""The values that pass between a codec and the transport, and the protocols that each wire format implements. No
aiohttp, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from ctxbackends.errors import BackendError
from ctxbackends.types import ChatRequest, Completion, Embeddings, ModelInfo, StreamEvent

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The largest body that is read whole; also the largest event of a stream."""


@attrs.frozen
class HTTPRequest:
    """One request, without the endpoint and the authorisation, which the backend adds. ``path`` begins with a slash."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class HTTPResponse:
    """One answer, read whole. ``headers`` have lower-case names; ``received_at`` is Unix time in seconds, for a
    ``Retry-After`` that is a date."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float = 0.0


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


class Codec(Protocol):
    """One wire format. Each ``encode_*`` is pure and raises before anything is sent; each ``decode_*`` takes a 2xx
    answer and raises only BackendError."""

    def auth_headers(self, api_key: str) -> Mapping[str, str]: ...

    def encode_chat(self, request: ChatRequest, *, stream: bool) -> HTTPRequest: ...

    def decode_chat(self, response: HTTPResponse, *, requested_model: str) -> Completion: ...

    def stream_decoder(self) -> StreamDecoder: ...

    def encode_models(self) -> HTTPRequest: ...

    def decode_models(self, response: HTTPResponse) -> tuple[ModelInfo, ...]: ...

    def encode_embeddings(self, inputs: Sequence[str], *, model: str, dimensions: int | None) -> HTTPRequest: ...

    def decode_embeddings(self, response: HTTPResponse, *, requested_model: str, count: int) -> Embeddings: ...
