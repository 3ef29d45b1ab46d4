"""The answers of the stub, made once: bytes as they go out, and what a client must have read of them.

Standard library alone: the stub runs without any package. What is answered is chosen by the name of the model, on every
wire. Knows no socket.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

WIRES = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
"""The wire formats, and the path of a generation in each."""

WRITE = 32 * 1024  # bytes that are written at once, where many events go into a segment
_WORDS = (
    " the",
    " model",
    " writes",
    " a",
    " token",
    " and",
    " then",
    " naïve",
    " one",
    ",",
    ' "so"',
    " it",
    " is",
    ".\n",
)
"""As tokens are: short, some that JSON escapes, and one that is not ASCII."""


@dataclass(frozen=True)
class Model:
    """The response of the stub to a name.

    ``words`` or ``characters`` is its length. ``burst`` events are written together, 0 for as many as fit into WRITE.
    ``own_chunk``: each event is an HTTP chunk, as uvicorn writes it. ``pause``: seconds between writes. ``hangs``: the
    stream stops after the first event.
    """

    words: int = 0
    characters: int = 0
    burst: int = 0
    own_chunk: bool = True
    pause: float = 0.0
    hangs: bool = False

    def pieces(self) -> list[str]:
        if self.words:
            return list(islice(_endless(), self.words))
        pieces_: list[str] = []
        remaining = self.characters
        for word in _endless():
            pieces_.append(word[:remaining])
            remaining -= len(pieces_[-1])
            if not remaining:
                return pieces_
        raise AssertionError("the words do not end")


MODELS = {
    "c1k": Model(characters=1_000),
    "c20k": Model(characters=20_000),
    "s1000-many": Model(words=1_000, own_chunk=False),
    "s1000-own": Model(words=1_000),
    "s1000-one": Model(words=1_000, burst=1, pause=0.001),
    "s50-burst": Model(words=50, burst=10, pause=0.002),
    "first": Model(words=8, burst=1, pause=0.001),
    "idle": Model(words=2, hangs=True, burst=1),
    "tiny": Model(words=2),
}


@dataclass(frozen=True)
class Answer:
    """``writes``: what is written, one after the other with ``pause`` seconds between; the first holds the head."""

    writes: tuple[bytes, ...]
    pause: float = 0.0
    hangs: bool = False


def _endless() -> Iterator[str]:
    while True:
        yield from _WORDS


def head(status: str, content_type: str, *, length: int | None) -> bytes:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return (
        f"HTTP/1.1 {status}\r\ndate: Mon, 02 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
        f"content-type: {content_type}\r\n{framing}\r\n\r\n"
    ).encode()


def json_response(body: object, status: str = "200 OK") -> bytes:
    """An answer in one piece."""
    data = compact(body)
    return head(status, "application/json", length=len(data)) + data


def compact(value: object) -> bytes:
    """JSON as these servers write it: without blanks, and in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


LOADING = json_response(
    {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, "503 Service Unavailable"
)
NOT_FOUND = json_response({"error": {"message": "not found", "type": "not_found_error", "code": 404}}, "404 Not Found")
LIST = json_response(
    {"object": "list", "data": [{"id": name, "object": "model", "created": 1, "owned_by": "s"} for name in MODELS]}
)


def all_answers(models: Collection[str] = MODELS) -> dict[tuple[bytes, bytes, bool], Answer]:
    """By path, model and whether it is streamed."""
    answers = {}
    for wire, path in WIRES.items():
        for name in models:
            model = MODELS[name]
            key = path.encode(), name.encode()
            pieces = model.pieces()
            answers[*key, False] = Answer((json_response(_COMPLETIONS[wire](name, "".join(pieces), len(pieces))),))
            answers[*key, True] = streamed_answer(wire, name, model)
    return answers


def streamed_answer(wire: str, name: str, model: Model) -> Answer:
    opening, deltas, ending = _EVENTS[wire](name, model.pieces())
    # What opens and what ends an answer goes with a delta: each write holds at least one.
    deltas = [opening + deltas[0], *deltas[1:-1], deltas[-1] + ending]
    groups: list[Sequence[bytes]] = []
    if model.burst:
        groups = [deltas[at : at + model.burst] for at in range(0, len(deltas), model.burst)]
    else:
        groups = list(_by_size(deltas))
    bodies = [b"".join(map(_chunk, group)) if model.own_chunk else _chunk(b"".join(group)) for group in groups]
    kind = "application/x-ndjson" if wire == "ollama" else "text/event-stream; charset=utf-8"
    bodies[0] = head("200 OK", kind, length=None) + bodies[0]
    bodies[-1] += b"0\r\n\r\n"
    return Answer(tuple(bodies), pause=model.pause, hangs=model.hangs)


def streamed_body(wire: str, name: str) -> bytes:
    """All events of a stream, as they are without HTTP around them."""
    opening, deltas, ending = _EVENTS[wire](name, MODELS[name].pieces())
    return b"".join([opening, *deltas, ending])


def _by_size(deltas: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for delta in deltas:
        group.append(delta)
        size += len(delta)
        if size >= WRITE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# --- the wires: an answer in one piece; what opens a stream, its deltas, what ends it ----------------


def _openai_completion(model: str, text: str, count: int) -> dict[str, object]:
    return {
        "id": "chatcmpl-0a1b2c3d4e5f",
        "object": "chat.completion",
        "created": 1_793_613_600,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, "tool_calls": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 12, "total_tokens": 12 + count, "completion_tokens": count},
    }


def _openai_events(model: str, pieces: Sequence[str]) -> tuple[bytes, list[bytes], bytes]:
    def event(choices: list[object], **more: object) -> bytes:
        chunk = {
            "id": "chatcmpl-0a1b2c3d4e5f",
            "object": "chat.completion.chunk",
            "created": 1_793_613_600,
            "model": model,
            "choices": choices,
        }
        return b"data: " + compact({**chunk, **more}) + b"\n\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    count = len(pieces)
    usage = {"prompt_tokens": 12, "total_tokens": 12 + count, "completion_tokens": count}
    ending = event(choice({}, "stop")) + event([], usage=usage) + b"data: [DONE]\n\n"
    opening = event(choice({"role": "assistant", "content": ""}))
    return opening, [event(choice({"content": piece})) for piece in pieces], ending


def _anthropic_message(model: str, content: list[object], reason: str | None, count: int) -> dict[str, object]:
    return {
        "id": "msg_0a1b2c3d4e5f",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": count},
    }


def _anthropic_completion(model: str, text: str, count: int) -> dict[str, object]:
    return _anthropic_message(model, [{"type": "text", "text": text}], "end_turn", count)


def _anthropic_events(model: str, pieces: Sequence[str]) -> tuple[bytes, list[bytes], bytes]:
    def event(kind: str, **members: object) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), compact({"type": kind, **members}))

    opening = event("message_start", message=_anthropic_message(model, [], None, 1))
    opening += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    opening += event("ping")
    deltas = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces]
    ending = event("content_block_stop", index=0)
    ending += event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": len(pieces)},
    )
    return opening, deltas, ending + event("message_stop")


def _ollama_line(model: str, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {"model": model, "created_at": "2026-11-02T10:00:00.123456789Z", "message": message, "done": False}


def _ollama_completion(model: str, text: str, count: int) -> dict[str, object]:
    return {
        **_ollama_line(model, text),
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 1_000,
        "prompt_eval_count": 12,
        "prompt_eval_duration": 1_000,
        "eval_count": count,
        "eval_duration": 900_000,
    }


def _ollama_events(model: str, pieces: Sequence[str]) -> tuple[bytes, list[bytes], bytes]:
    deltas = [compact(_ollama_line(model, piece)) + b"\n" for piece in pieces]
    return b"", deltas, compact(_ollama_completion(model, "", len(pieces))) + b"\n"


_COMPLETIONS = {"openai": _openai_completion, "anthropic": _anthropic_completion, "ollama": _ollama_completion}
_EVENTS = {"openai": _openai_events, "anthropic": _anthropic_events, "ollama": _ollama_events}
