"""The good answer to a request in the wire format of its route, in parts, so that a fault can leave out, cut or change
one of them. Pure: knows no socket.

What is written here is what the vendors' servers write, no more of it than a client needs: a chat completion or a
stream of chunks (OpenAI), a message or its events (Anthropic), lines of JSON (Ollama), and embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends.testing.faults.scripts import Received, Step

WireName: TypeAlias = Literal["chat_completions", "messages", "ollama"]
Kind: TypeAlias = Literal["stream", "plain", "embed", "look"]

WIRES: tuple[WireName, ...] = ("chat_completions", "messages", "ollama")
KINDS: tuple[Kind, ...] = ("stream", "plain", "embed", "look")
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
_LOOKS = ("/api/tags", "/v1/models", "/api/version", "/health", "/props")


@attrs.frozen(kw_only=True)
class ToolPiece:
    """A piece of a tool call as a stream holds it. None leaves a member out."""

    index: int | None
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


@attrs.frozen
class Answer:
    """The good answer to ``request``. ``pieces`` are the texts that a stream is made of, ``model`` the model that
    answers."""

    request: Received
    pieces: Sequence[str] = PIECES
    model: str = MODEL

    @property
    def wire(self) -> WireName:
        return _ROUTES.get(self.route, ("chat_completions", False))[0]

    @property
    def kind(self) -> Kind:
        if self.route not in _ROUTES or self.request.method != "POST":
            return "look"
        if _ROUTES[self.route][1]:
            return "embed"
        asked = self.request.json
        wanted = asked.get("stream", self.wire == "ollama") if isinstance(asked, dict) else False
        return "stream" if wanted else "plain"

    @property
    def route(self) -> str:
        return self.request.path.partition("?")[0]

    @property
    def known(self) -> bool:
        """Whether a model server has this route."""
        return self.kind != "look" or (self.request.method in ("GET", "HEAD") and self.route in _LOOKS)

    @property
    def streams(self) -> bool:
        return self.kind == "stream"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    # --- HTTP -------------------------------------------------------------------------------------

    @property
    def content_type(self) -> str:
        if not self.streams:
            return "application/json"
        return "application/x-ndjson" if self.wire == "ollama" else "text/event-stream"

    def head(self, status: int = 200, **headers: str) -> bytes:
        """The status line and the headers. ``_`` in the name of a header is a ``-``; an empty value leaves it out.
        Streams are sent in chunks."""
        framing = {"transfer-encoding": "chunked"} if self.streams else {"content-length": str(len(self.body))}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if given.get("content-length"):
            framing = {}
        return head(status, {"content-type": self.content_type, **framing, **given})

    def part(self, data: bytes) -> bytes:
        """Bytes of the body as the framing of this answer has them."""
        return chunk(data) if self.streams and data else data  # an empty chunk would end the body

    @property
    def end(self) -> bytes:
        """What ends the body."""
        return b"0\r\n\r\n" if self.streams else b""

    # --- a stream ---------------------------------------------------------------------------------

    @property
    def opening(self) -> bytes:
        """What comes before the first piece of text."""
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

    def piece(self, text: str) -> bytes:
        """One event with a piece of text."""
        if self.wire == "chat_completions":
            return self._chunk({"content": text})
        if self.wire == "messages":
            delta = {"type": "text_delta", "text": text}
            return self.event({"type": "content_block_delta", "index": 0, "delta": delta})
        return self._line(text, done=False)

    @property
    def texts(self) -> list[bytes]:
        """An event for each piece of text, what opens the stream with the first."""
        pieces = [self.piece(piece) for piece in self.pieces]
        return [self.opening + pieces[0], *pieces[1:]]

    def reason(self, finish_reason: str = "stop") -> bytes:
        """The event that says why the answer ended, with the counts. On Ollama it ends the stream as well."""
        if self.wire == "chat_completions":
            return self._chunk({}, finish_reason=finish_reason, usage=_OPENAI_USAGE)
        if self.wire == "messages":
            stop = self.event({"type": "content_block_stop", "index": 0})
            delta = {"stop_reason": _ANTHROPIC_REASONS.get(finish_reason, finish_reason), "stop_sequence": None}
            return stop + self.event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}})
        said = "stop" if finish_reason == "tool_calls" else finish_reason  # Ollama has no reason of its own for calls
        return self._line("", done=True, done_reason=said, prompt_eval_count=3, eval_count=2)

    @property
    def marker(self) -> bytes:
        """What ends the stream after the reason, where there is more."""
        if self.wire == "chat_completions":
            return b"data: [DONE]\n\n"
        return self.event({"type": "message_stop"}) if self.wire == "messages" else b""

    def event(self, value: Mapping[str, Any], *, name: str | None = None) -> bytes:
        """Any event of this stream."""
        if self.wire == "ollama":
            return dump(value) + b"\n"
        kind = name if name is not None else value.get("type") if self.wire == "messages" else None
        return (b"event: %s\n" % str(kind).encode() if kind else b"") + b"data: " + dump(value) + b"\n\n"

    def tool_piece(self, piece: ToolPiece) -> bytes:
        """An event with a piece of a tool call. Ollama sends calls whole."""
        if self.wire == "chat_completions":
            function = _given(name=piece.name, arguments=piece.arguments)
            call = _given(index=piece.index, id=piece.id, type="function" if piece.id else None, function=function)
            return self._chunk({"tool_calls": [call]})
        if self.wire == "messages":
            used: dict[str, Any] = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
            start = {"type": "content_block_start", "index": piece.index, "content_block": used}
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            more = {"type": "content_block_delta", "index": piece.index, "delta": delta}
            begun = self.event(start) if piece.name is not None else b""
            return begun + (self.event(more) if piece.arguments is not None else b"")
        arguments = json.loads(piece.arguments or "{}")
        whole_call = {"function": {"index": piece.index, "name": piece.name, "arguments": arguments}}
        return self._line("", done=False, tool_calls=[whole_call])

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

    def body_with(self, finish_reason: str | None) -> bytes:
        """The answer in one piece, ended for this reason."""
        if self.wire == "ollama":
            counts = {"prompt_eval_count": 3, "eval_count": 2}
            ended = {"done": finish_reason is not None, "done_reason": finish_reason, **counts}
            message = {"role": "assistant", "content": self.text}
            return dump({"model": self.model, "created_at": "2026-11-23T00:00:00Z", "message": message, **ended})
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
        """The whole answer in one piece: of a generation, of embeddings, or of a look at the server."""
        if self.kind == "embed":
            return self._embeddings()
        if self.kind == "look":
            return self._look()
        return self.body_with("stop")

    def _embeddings(self) -> bytes:
        asked = self.request.json
        inputs = asked.get("input") if isinstance(asked, dict) else None
        count = len(inputs) if isinstance(inputs, list) else 1
        if self.wire == "ollama":
            return dump({"model": self.model, "embeddings": [VECTOR] * count, "prompt_eval_count": 3})
        data = [{"object": "embedding", "index": place, "embedding": VECTOR} for place in range(count)]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return dump({"object": "list", "model": self.model, "data": data, "usage": usage})

    def _look(self) -> bytes:
        looks = {
            "/api/tags": {"models": [{"name": self.model, "model": self.model}]},
            "/v1/models": {"object": "list", "data": [{"id": self.model, "object": "model"}]},
            "/api/version": {"version": "0.0.0"},
            "/health": {"status": "ok"},
            "/props": {},
        }
        return dump(looks.get(self.route, {}))


_OPENAI_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_ANTHROPIC_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a body that is sent in chunks (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """A status line and headers. An empty value leaves a header out."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def plain(status: int, body: bytes, **headers: str) -> bytes:
    """A whole answer in one piece. ``_`` in the name of a header is a ``-``."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return head(status, {"content-type": "application/json", "content-length": str(len(body)), **given}) + body


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


Script: TypeAlias = Callable[[Answer], Iterable[Step]]
"""What is done to a request: given the good answer to it, the steps."""


@attrs.frozen
class Fault:
    """A script with a name.

    ``seconds``: it is played to every request until that much time has passed since its first one, and not to one
    alone. ``refuses``: nothing listens for so many seconds. ``kinds`` and ``wires``: the answers that it can happen to;
    to any other request, the server says so with status 400, which no client sends again.
    """

    name: str
    script: Script
    seconds: float = 0.0
    refuses: float = 0.0
    kinds: Collection[Kind] = KINDS
    wires: Collection[WireName] = WIRES

    def concerns(self, kind: Kind, wire: WireName) -> bool:
        return kind in self.kinds and wire in self.wires

    def __call__(self, answer: Answer) -> Iterable[Step]:
        if self.concerns(answer.kind, answer.wire):
            return self.script(answer)
        said = f"FaultServer: {self.name} can not happen to this request, {answer.kind} in {answer.wire}"
        return (plain(400, dump({"error": {"message": said, "type": "fault_server_error", "code": 400}})),)


def whole(answer: Answer) -> Iterator[Step]:
    """The answer as it should be; 404 on a route that no model server has."""
    if not answer.known:
        yield plain(404, dump({"error": {"message": "no such route", "type": "not_found_error", "code": 404}}))
    elif not answer.streams:
        yield answer.head() + answer.body
    else:
        yield answer.head()
        for event in answer.texts:
            yield answer.part(event)
        yield answer.part(answer.reason() + answer.marker) + answer.end
