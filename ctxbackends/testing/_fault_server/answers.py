"""The correct response to a request, in parts that a fault can leave out or change.

The responses have the shape that the vendors' servers use, reduced to the members that clients need: chat completions
and chunks (OpenAI), messages and events (Anthropic), lines of JSON (Ollama), and embeddings. Does no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends.testing._fault_server.steps import RecordedRequest, Step

WireName: TypeAlias = Literal["chat_completions", "messages", "ollama"]
Kind: TypeAlias = Literal["stream", "plain", "embed", "probe"]

WIRES: tuple[WireName, ...] = ("chat_completions", "messages", "ollama")
KINDS: tuple[Kind, ...] = ("stream", "plain", "embed", "probe")
PIECES = ("Hel", "lo, ", "wor", "ld.")
MODEL = "m"
VECTOR = (0.25, -0.5, 1.0)
_ROUTES: Mapping[str, tuple[WireName, bool]] = {
    "/v1/chat/completions": ("chat_completions", False),
    "/v1/messages": ("messages", False),
    "/api/chat": ("ollama", False),
    "/v1/embeddings": ("chat_completions", True),
    "/api/embed": ("ollama", True),
}
_PROBE_ROUTES = ("/api/tags", "/v1/models", "/api/version", "/health", "/props")


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    """A part of a tool call in a stream. None leaves a member out.

    Attributes:
        index: The position of the call (OpenAI, Ollama) or of the content block (Anthropic).
        id: The ID of the call.
        name: The name of the tool.
        arguments: A part of the arguments, as JSON text.
    """

    index: int | None
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


@attrs.frozen
class ResponseBuilder:
    """The correct response to a request, in parts: the argument of a script.

    Attributes:
        request: The request.
        pieces: The texts that a stream sends one by one. A response in one body has them joined.
        model: The model that the response names.
    """

    request: RecordedRequest
    pieces: Sequence[str] = PIECES
    model: str = MODEL

    @property
    def wire(self) -> WireName:
        """The wire format: ``chat_completions``, ``messages`` or ``ollama``."""
        return _ROUTES.get(self.route, ("chat_completions", False))[0]

    @property
    def kind(self) -> Kind:
        """The kind of response.

        ``stream`` and ``plain`` (one JSON body) are generations, ``embed`` is for embeddings and ``probe`` for anything
        else, such as the list of models.
        """
        if self.route not in _ROUTES or self.request.method != "POST":
            return "probe"
        if _ROUTES[self.route][1]:
            return "embed"
        body = self.request.json
        stream = body.get("stream", self.wire == "ollama") if isinstance(body, dict) else False
        return "stream" if stream else "plain"

    @property
    def route(self) -> str:
        """The path of the request without its query."""
        return self.request.path.partition("?")[0]

    @property
    def is_known_route(self) -> bool:
        """Whether the fault server has a correct response for this route."""
        return self.kind != "probe" or (self.request.method in ("GET", "HEAD") and self.route in _PROBE_ROUTES)

    @property
    def is_stream(self) -> bool:
        """Whether the request asks for a stream."""
        return self.kind == "stream"

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    # --- HTTP -------------------------------------------------------------------------------------

    @property
    def content_type(self) -> str:
        """The value of the ``Content-Type`` header."""
        if not self.is_stream:
            return "application/json"
        return "application/x-ndjson" if self.wire == "ollama" else "text/event-stream"

    def head(self, status: int = 200, **headers: str) -> bytes:
        """Build the status line and the headers. Streams use chunked transfer coding.

        Args:
            status: The status code.
            **headers: More headers. ``_`` in a name is sent as ``-``; an empty value leaves the header out.
        """
        framing = {"transfer-encoding": "chunked"} if self.is_stream else {"content-length": str(len(self.body))}
        overrides = {name.replace("_", "-"): value for name, value in headers.items()}
        if overrides.get("content-length"):
            framing = {}
        return head(status, {"content-type": self.content_type, **framing, **overrides})

    def frame(self, data: bytes) -> bytes:
        """Return ``data`` as it is sent in the body: as a chunk if the response is a stream."""
        return chunk(data) if self.is_stream and data else data  # an empty chunk would end the body

    @property
    def last_chunk(self) -> bytes:
        """The last chunk of the body; empty if the response is not a stream."""
        return b"0\r\n\r\n" if self.is_stream else b""

    # --- a stream ---------------------------------------------------------------------------------

    @property
    def stream_start(self) -> bytes:
        """The events before the first text."""
        if self.wire == "chat_completions":
            return self._chunk({"role": "assistant", "content": ""})
        if self.wire == "messages":
            message = {**self._message(), "content": [], "stop_reason": None, "stop_sequence": None}
            message["usage"] = {"input_tokens": 3, "output_tokens": 1}
            start: dict[str, Any] = {"type": "message_start", "message": message}
            block: dict[str, Any] = {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            }
            return self.event(start) + self.event(block)
        return b""

    def text_event(self, text: str) -> bytes:
        """Build an event with a part of the text."""
        if self.wire == "chat_completions":
            return self._chunk({"content": text})
        if self.wire == "messages":
            delta = {"type": "text_delta", "text": text}
            return self.event({"type": "content_block_delta", "index": 0, "delta": delta})
        return self._line(text, done=False)

    @property
    def text_events(self) -> list[bytes]:
        """One event for each text; the first includes ``stream_start``."""
        first, *others = [self.text_event(piece) for piece in self.pieces]
        return [self.stream_start + first, *others]

    def finish_event(self, finish_reason: str = "stop") -> bytes:
        """Build the event with the finish reason and the token counts. On Ollama it also ends the stream.

        Args:
            finish_reason: The reason in OpenAI's terms, such as ``stop`` or ``length``.
        """
        if self.wire == "chat_completions":
            return self._chunk({}, finish_reason=finish_reason, usage=_OPENAI_USAGE)
        if self.wire == "messages":
            stop = self.event({"type": "content_block_stop", "index": 0})
            delta = {"stop_reason": _ANTHROPIC_REASONS.get(finish_reason, finish_reason), "stop_sequence": None}
            return stop + self.event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}})
        reason = "stop" if finish_reason == "tool_calls" else finish_reason  # Ollama has no separate reason for calls
        return self._line("", done=True, done_reason=reason, prompt_eval_count=3, eval_count=2)

    @property
    def terminal_marker(self) -> bytes:
        """The end marker after the finish reason: ``[DONE]`` or ``message_stop``. Empty on Ollama."""
        if self.wire == "chat_completions":
            return b"data: [DONE]\n\n"
        return self.event({"type": "message_stop"}) if self.wire == "messages" else b""

    def event(self, value: Mapping[str, Any], *, name: str | None = None) -> bytes:
        """Build an event in the format of the stream.

        Args:
            value: The value that is sent as JSON.
            name: The name of a server-sent event; by default the ``type`` of the value on Anthropic's wire, else none.
        """
        if self.wire == "ollama":
            return dump(value) + b"\n"
        kind = name if name is not None else value.get("type") if self.wire == "messages" else None
        return (b"event: %s\n" % str(kind).encode() if kind else b"") + b"data: " + dump(value) + b"\n\n"

    def tool_event(self, delta: ToolCallDelta) -> bytes:
        """Build an event with a part of a tool call. Ollama sends each call in one delta."""
        if self.wire == "chat_completions":
            function = _without_none(name=delta.name, arguments=delta.arguments)
            call = _without_none(
                index=delta.index, id=delta.id, type="function" if delta.id else None, function=function
            )
            return self._chunk({"tool_calls": [call]})
        if self.wire == "messages":
            tool_use: dict[str, Any] = {"type": "tool_use", "id": delta.id, "name": delta.name, "input": {}}
            start = {"type": "content_block_start", "index": delta.index, "content_block": tool_use}
            json_delta = {"type": "input_json_delta", "partial_json": delta.arguments}
            fragment = {"type": "content_block_delta", "index": delta.index, "delta": json_delta}
            start_event = self.event(start) if delta.name is not None else b""
            return start_event + (self.event(fragment) if delta.arguments is not None else b"")
        arguments = json.loads(delta.arguments or "{}")
        call = {"function": {"index": delta.index, "name": delta.name, "arguments": arguments}}
        return self._line("", done=False, tool_calls=[call])

    def _chunk(self, delta: Mapping[str, Any], *, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.model}
        return self.event({**value, "choices": [choice], **more})

    def _line(self, text: str, *, done: bool, tool_calls: Sequence[Any] = (), **more: Any) -> bytes:
        message = {"role": "assistant", "content": text, **({"tool_calls": tool_calls} if tool_calls else {})}
        value = {"model": self.model, "created_at": "2026-11-23T00:00:00Z", "message": message, "done": done}
        return dump({**value, **more}) + b"\n"

    # --- in one piece -----------------------------------------------------------------------------

    def _message(self) -> dict[str, Any]:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": self.model}

    def build_body(self, finish_reason: str | None) -> bytes:
        """Build a response that is not streamed.

        Args:
            finish_reason: The reason in OpenAI's terms; None leaves the response unfinished.
        """
        if self.wire == "ollama":
            counts = {"prompt_eval_count": 3, "eval_count": 2}
            finish = {"done": finish_reason is not None, "done_reason": finish_reason, **counts}
            message = {"role": "assistant", "content": self.text}
            return dump({"model": self.model, "created_at": "2026-11-23T00:00:00Z", "message": message, **finish})
        if self.wire == "messages":
            reason = None if finish_reason is None else _ANTHROPIC_REASONS.get(finish_reason, finish_reason)
            content = [{"type": "text", "text": self.text}]
            usage = {"input_tokens": 3, "output_tokens": 2}
            return dump(
                {**self._message(), "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}
            )
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        value = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": self.model}
        return dump({**value, "choices": [choice], "usage": _OPENAI_USAGE})

    @property
    def body(self) -> bytes:
        """The complete body of a response that is not streamed."""
        if self.kind == "embed":
            return self._build_embeddings()
        if self.kind == "probe":
            return self._build_probe_response()
        return self.build_body("stop")

    def _build_embeddings(self) -> bytes:
        body = self.request.json
        inputs = body.get("input") if isinstance(body, dict) else None
        count = len(inputs) if isinstance(inputs, list) else 1
        if self.wire == "ollama":
            return dump({"model": self.model, "embeddings": [VECTOR] * count, "prompt_eval_count": 3})
        data = [{"object": "embedding", "index": index, "embedding": VECTOR} for index in range(count)]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return dump({"object": "list", "model": self.model, "data": data, "usage": usage})

    def _build_probe_response(self) -> bytes:
        bodies = {
            "/api/tags": {"models": [{"name": self.model, "model": self.model}]},
            "/v1/models": {"object": "list", "data": [{"id": self.model, "object": "model"}]},
            "/api/version": {"version": "0.0.0"},
            "/health": {"status": "ok"},
            "/props": {},
        }
        return dump(bodies.get(self.route, {}))


_OPENAI_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_ANTHROPIC_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    """Build a chunk of a body with chunked transfer coding (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Build a status line and headers. An empty value leaves a header out."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def plain(status: int, body: bytes, **headers: str) -> bytes:
    """Build a complete response that is not streamed. ``_`` in the name of a header is sent as ``-``."""
    overrides = {name.replace("_", "-"): value for name, value in headers.items()}
    return head(status, {"content-type": "application/json", "content-length": str(len(body)), **overrides}) + body


_PHRASES = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


Script: TypeAlias = Callable[[ResponseBuilder], Iterable[Step]]
"""A function that gets the correct response to a request and returns the steps to take instead."""


@attrs.frozen
class Fault:
    """A script with a name. Calling it runs the script, or returns status 400 where the fault does not apply.

    Attributes:
        name: The name in the catalogue and in messages.
        script: The script.
        duration: Seconds for which the fault is played to every request, from its first request on. 0 plays it once.
        downtime: Seconds for which nothing listens, instead of a script for a request.
        kinds: The kinds of response that it applies to.
        wires: The wire formats that it applies to.
    """

    name: str
    script: Script
    duration: float = 0.0
    downtime: float = 0.0
    kinds: Collection[Kind] = KINDS
    wires: Collection[WireName] = WIRES

    def applies_to(self, kind: Kind, wire: WireName) -> bool:
        """Return whether the fault can happen to such a response."""
        return kind in self.kinds and wire in self.wires

    def __call__(self, response: ResponseBuilder) -> Iterable[Step]:
        """Return the steps for a request.

        Args:
            response: The correct response to the request.
        """
        if self.applies_to(response.kind, response.wire):
            return self.script(response)
        message = f"FaultServer: {self.name} does not apply to this request: {response.kind} in {response.wire}"
        return (plain(400, dump({"error": {"message": message, "type": "fault_server_error", "code": 400}})),)


def respond(response: ResponseBuilder) -> Iterator[Step]:
    """Send the correct response, or 404 on an unknown route. The script that is played without a fault."""
    if not response.is_known_route:
        yield plain(404, dump({"error": {"message": "no such route", "type": "not_found_error", "code": 404}}))
    elif not response.is_stream:
        yield response.head() + response.body
    else:
        yield response.head()
        for event in response.text_events:
            yield response.frame(event)
        yield response.frame(response.finish_event() + response.terminal_marker) + response.last_chunk
