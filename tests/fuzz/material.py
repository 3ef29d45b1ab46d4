"""What the fuzz tests are made of: recorded answers and how they are damaged, JSON of the formats' own words, and what
an answer must hold to count as whole. Knows no test."""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

import ctxbackends._wire
from ctxbackends._profiles.builtin import SERVERS
from ctxbackends._wire.base import Codec, StreamDecoder

T = TypeVar("T")

fuzz_settings = settings(max_examples=30) if settings.get_current_profile_name() == "house" else settings()
"""What every test here runs with: few examples among the other tests, many in the nox session `fuzz`."""

RECORDINGS = Path(__file__).parents[1] / "unit" / "recordings"


def _codecs() -> dict[str, Codec]:
    """One codec for each stream decoder that any profile uses: a new wire format is fuzzed by being in a profile."""
    every = (profile.codec(api) for profile in SERVERS.values() for api in profile.wire_apis)
    return {type(codec.stream_decoder()).__name__: codec for codec in every}


CODECS: Mapping[str, Codec] = _codecs()


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- what servers answered ----------------------------------------------------------------------------

_OLLAMA_HEADER = {"model": "llama3.2", "created_at": "2026-03-01T10:00:00.5Z"}
_OLLAMA_COUNTS = {"load_duration": 5_000_000, "prompt_eval_count": 26, "eval_count": 3, "eval_duration": 70_000_000}
# Ollama has no recording; these are the examples of https://docs.ollama.com/api/chat.
_OLLAMA_LINES: tuple[dict[str, Any], ...] = (
    {**_OLLAMA_HEADER, "message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
    {**_OLLAMA_HEADER, "message": {"role": "assistant", "content": "The sky"}, "done": False},
    {
        **_OLLAMA_HEADER,
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}],
        },
        "logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1}]}],
        "done": False,
    },
    {**_OLLAMA_HEADER, "message": {"content": ""}, "done": True, "done_reason": "stop", **_OLLAMA_COUNTS},
)
STREAMS: Mapping[str, bytes] = {
    **{path.name: path.read_bytes() for path in sorted(RECORDINGS.rglob("*.sse"))},
    "ollama.ndjson": b"".join(dump(line) + b"\n" for line in _OLLAMA_LINES),
}

_RESPONSES: tuple[object, ...] = (
    # llama-server
    {"status": "ok"},
    {"default_generation_settings": {"n_ctx": 2048}, "total_slots": 2, "build_info": "b1", "is_sleeping": False},
    [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}],
    {"data": [{"id": "m", "aliases": ["n"], "status": {"value": "loading", "failed": False}}]},
    {"prompt": "<|im_start|>"},
    {"tokens": [1, 2, {"id": 3, "piece": "x"}]},
    {"success": True},
    # vLLM
    {"version": "0.32.0"},
    {"is_sleeping": True},
    {"count": 7, "max_model_len": 2048, "tokens": [1]},
    # OpenAI and Anthropic
    {"input_tokens": 12},
    {"data": [{"index": 0, "embedding": [0.1, -1]}, {"index": 1, "embedding": "AACAPwAAAEA="}], "model": "m"},
    # Ollama
    {"models": [{"name": "m:latest", "context_length": 4096}, {"name": "n"}]},
    {"model_info": {"llama.context_length": 8192, "general.architecture": "llama"}},
    {"embeddings": [[0.1, 2], [1, 2]], "model": "m", "prompt_eval_count": 3, "load_duration": 12},
    # LM Studio
    {
        "models": [
            {"key": "m", "type": "llm", "loaded_instances": [{"id": "m", "config": {"context_length": 4096}}]},
            {"key": "n", "publisher": "p", "max_context_length": 9, "loaded_instances": []},
        ]
    },
    # refusals
    {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}},
    {"error": "model 'm' not found"},
    {"detail": [{"loc": ["body"], "msg": "x"}]},
    {"object": "error", "message": "This model's maximum context length is 10 tokens", "code": 400},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"},
    {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4, "message": "too large"}},
    {"error": '{"error":{"code":400,"message":"exceeds the context length"}}'},
)
BODIES: tuple[bytes, ...] = (
    *(path.read_bytes() for path in sorted(RECORDINGS.rglob("*.json"))),
    *(dump(value) for value in _RESPONSES),
    dump(_OLLAMA_LINES[-1]),
)


def _pieces(data: bytes) -> Iterator[Any]:
    """The JSON values of a stream, whatever its framing."""
    for line in data.splitlines():
        try:
            yield json.loads(line.removeprefix(b"data:"))
        except (ValueError, RecursionError):
            continue


VALUES: tuple[Any, ...] = tuple(
    value for data in (*STREAMS.values(), *BODIES) for value in _pieces(data) if isinstance(value, dict | list)
)

# --- when is an answer whole? -------------------------------------------------------------------------


def _objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in ``value``."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield current
            pending += current.values()
        elif isinstance(current, list):
            pending += current


_END_REASONS = frozenset(
    {
        *(
            "stop",
            "stop_sequence",
            "eos",
            "eos_token",
            "end_turn",
            "complete",
            "end",
            "completed",
            "finished",
            "normal",
        ),
        *("pause_turn", "length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "token_limit"),
        *("model_length", "model_context_window_exceeded", "tool_calls", "tool_call", "tool_use", "function_call"),
        *("function_calls", "content_filter", "content_filtered", "refusal", "safety", "recitation", "blocklist"),
        *("prohibited_content", "spii", "image_safety", "error_toxic", "sensitive", "guardrail_intervened"),
    }
)


def _is_end_reason(word: Any) -> bool:
    return isinstance(word, str) and word.casefold() in _END_REASONS


# By hand, and apart from the decoders, which are held against it. A new wire format is given its own line here.
TERMINAL: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "OpenAIStreamDecoder": lambda value: _is_end_reason(value.get("finish_reason")),
    # The second is a message in one piece, for a server that ignores that a stream was requested.
    "AnthropicStreamDecoder": lambda value: (
        value.get("type") == "message_stop" or ("content" in value and _is_end_reason(value.get("stop_reason")))
    ),
    "OllamaStreamDecoder": lambda value: value.get("done") in (True, None) and _is_end_reason(value.get("done_reason")),
}


def _terminal(name: str, value: Any) -> bool:
    try:
        return any(TERMINAL[name](object_) for object_ in _objects_in(value))
    except TypeError:  # a list where the reason should be cannot be looked up
        return False


def has_terminal(name: str, data: bytes) -> bool:
    """Whether anything in ``data`` could be the end of a whole answer. Generous: framing, places and order are not
    looked at, and an event may go over several lines of data."""
    lines = [line.removeprefix(b"data:") for line in data.replace(b"\r", b"\n").split(b"\n")]
    if any(_terminal(name, value) for value in _pieces(b"\n".join(lines))):
        return True
    # Put together of several lines, or too odd for Python's reader: then the words must be there at least.
    words = {"OpenAIStreamDecoder": b"finish_reason", "AnthropicStreamDecoder": b"stop"}
    several = any(json_fault(line) for line in lines)
    return several and words.get(name, b"done_reason") in data


def json_fault(line: bytes) -> bool:
    try:
        json.loads(line or b"null")
    except (ValueError, RecursionError):
        return True
    return False


def end_of_terminal(name: str, data: bytes) -> int | None:
    """Where the first event that ends the answer is complete."""
    at = 0
    for line in data.splitlines(keepends=True):
        if any(_terminal(name, value) for value in _pieces(line)):
            return at + len(line.rstrip())
        at += len(line)
    return None


def own_streams(name: str) -> tuple[bytes, ...]:
    """The recordings that this decoder reads to a whole answer."""
    return tuple(stream for stream in STREAMS.values() if end_of_terminal(name, stream) is not None)


def own_values(name: str) -> tuple[dict[str, Any], ...]:
    """What stands in those, and answers of the same wire in one piece."""
    bodies = (body for body in BODIES if end_of_terminal(name, body + b"\n") is not None)
    every = (value for data in (*own_streams(name), *bodies) for value in _pieces(data))
    return tuple(value for value in every if isinstance(value, dict))


def replace_members(values: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """Every kind of value in the place of every member of ``values``, each place of the same name once."""
    visited: set[str] = set()
    for value in values:
        for path in _paths(value, ()):
            name = f"{value.get('type', '')} {[part if isinstance(part, str) else 0 for part in path]}"
            if name in visited:
                continue
            visited.add(name)
            text = dump(_mark(value, path)).decode()
            for leaf in LEAVES:
                yield text.replace('"@@"', leaf).encode("utf-8", "surrogatepass")


def _paths(value: Any, before: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from _paths(inner, (*before, key))


def _mark(value: Any, path: tuple[str | int, ...]) -> Any:
    """A copy of ``value`` with a mark at ``path``."""
    if not path:
        return "@@"
    copy = value.copy()
    copy[path[0]] = _mark(copy[path[0]], path[1:])
    return copy


# --- the strategies -----------------------------------------------------------------------------------


def _words() -> tuple[str, ...]:
    """Every member that the formats know, and every text that a server sent as the name of something."""
    names: set[str] = set()
    for module in pkgutil.iter_modules(ctxbackends._wire.__path__):
        for value in vars(importlib.import_module(f"ctxbackends._wire.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                names.update(value.__struct_fields__)
    for value in VALUES:
        for object_ in _objects_in(value):
            names.update(object_)
            names.update(text for text in object_.values() if isinstance(text, str) and text.isidentifier())
    return tuple(sorted(names))


_TEXTS = tuple(dump(value) for value in VALUES if len(dump(value)) < 4000)
_NESTED_LOGPROBS = '{"token":"a","logprob":0,"top_logprobs":['
_DEEP = ("[" * 90 + "]" * 90, '{"a":' * 400 + "1" + "}" * 400, "[" * 2000 + "]" * 2000, "[" * 1500)
LEAVES = (
    *("null", "true", "false", "0", "1", "-1", "200", "1e400", "-0.0", "1.5", "9" * 25, "-" + "9" * 25, "1" * 5000),
    *("NaN", "Infinity", "[]", "{}"),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', '"\u2028\x85"', '"\\uD83D\\uDE00"'),
    *(" ", "nul", '"', "}", "\n", "\r", *_DEEP),
    _NESTED_LOGPROBS * 480 + "]}" * 480,
)


def among(items: Sequence[T]) -> st.SearchStrategy[T]:
    """One of them. Not ``sampled_from``, whose representation, which Hypothesis writes down again and again, holds
    them all: here that is megabytes."""
    return st.integers(0, len(items) - 1).map(lambda index: items[index])


words = among(_words())
leaves = among(LEAVES) | words.map(lambda word: f'"{word}"')


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"


soup = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(words, inner), max_size=4).map(_object)
    ),
    max_leaves=6,
)
"""JSON text of the formats' own members with values of any kind: duplicate members, wrong types, too large, deep."""


def _members(value: Any) -> list[tuple[Any, Any]]:
    """Each container with each of its keys."""
    members: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        for key in (
            container if isinstance(container, dict) else range(len(container)) if isinstance(container, list) else ()
        ):
            members.append((container, key))
            pending.append(container[key])
    return members


@st.composite
def mutations(draw: st.DrawFn, texts: Sequence[bytes]) -> bytes:
    """What a server really sent, with one or two of its values gone or replaced by others."""
    value = json.loads(draw(among(texts)))
    replacements: list[str] = []
    for _ in range(draw(st.integers(1, 2))):
        members = _members(value)
        if not members:
            break
        container, key = members[draw(st.integers(0, len(members) - 1))]
        if draw(st.integers(0, 3)):
            container[key] = f"@@{len(replacements)}@@"
            replacements.append(draw(soup))
        else:
            del container[key]
    text = json.dumps(value, separators=(",", ":"))
    for number, other in enumerate(replacements):
        text = text.replace(f'"@@{number}@@"', other)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def corruptions(draw: st.DrawFn, sources: tuple[bytes, ...]) -> bytes:
    """One of ``sources`` with bytes or lines turned, taken out, doubled, exchanged, cut off, or those of another put
    in."""
    data = draw(among(sources))
    for _ in range(draw(st.integers(1, 3))):
        step = 1 if draw(st.booleans()) else 0
        parts = [data[at : at + 1] for at in range(len(data))] if step else data.splitlines(keepends=True)
        if not parts:
            break
        start = draw(st.integers(0, len(parts) - 1))
        end = min(len(parts), start + draw(st.integers(1, 3)))
        match draw(st.sampled_from(("turn", "delete", "double", "swap", "truncate", "splice", "ends"))):
            case "turn":
                flip = bytes([parts[start][0] ^ (1 << draw(st.integers(0, 7)))]) + parts[start][1:]
                parts[start] = flip
            case "delete":
                del parts[start:end]
            case "double":
                parts[start:start] = parts[start:end]
            case "swap":
                other = draw(st.integers(0, len(parts) - 1))
                parts[start], parts[other] = parts[other], parts[start]
            case "truncate":
                del parts[start:]
            case "splice":
                source = draw(among(sources)).splitlines(keepends=True)
                if source:
                    parts[start:end] = [source[draw(st.integers(0, len(source) - 1))]]
            case _:
                parts[start:end] = [draw(st.sampled_from((b"\r", b"\n", b"\r\n", b"\n\n", b"\x00", b"\xff", b"\xef")))]
        data = b"".join(parts)
    return data


_starts = st.sampled_from((b"", b"event: error\n", b"event: message_stop\n", b": ping\n", b"\xef\xbb\xbf", b"id: 1\n"))
_fields = st.sampled_from((b"data: ", b"data: ", b"data:", b"", b"data: x\ndata: "))
_ends = st.sampled_from((b"\n\n", b"\n\n", b"\n", b"\r\n\r\n", b"\r\r", b""))
_loose = st.sampled_from((b"data: [DONE]\n\n", b"data\n", b"\n", b": c\n\n", b"Bad Gateway\n", b"{}\n", b"\r"))
_soup = soup.map(lambda text: text.encode("utf-8", "surrogatepass"))


def _break_lines(text: bytes, end: bytes) -> bytes:
    return text.replace(b',"', b"," + end + b'data: "')


@functools.cache
def streams(name: str) -> st.SearchStrategy[bytes]:
    """The bytes of a stream: near to those that this decoder reads, to those of other wires, of the right words, or of
    nothing."""
    ends = st.sampled_from((b"\n", b"\n", b"\r\n", b"\r"))
    own = tuple(dump(value) for value in own_values(name)) or _TEXTS
    event = st.one_of(among(own), mutations(own), mutations(_TEXTS), _soup)
    frames = st.tuples(_starts, _fields, event, _ends).map(b"".join)
    # An event over several lines of data: a line break stands wherever JSON has a comma before a member.
    spread = st.tuples(event, ends).map(lambda pair: b"data: " + _break_lines(*pair) + 2 * pair[1])
    # NDJSON: the same events, each a line.
    lines = st.lists(event, max_size=6).map(lambda events: b"".join(text + b"\n" for text in events))
    recordings = st.one_of(
        corruptions(own_streams(name) or tuple(STREAMS.values())), corruptions(tuple(STREAMS.values()))
    )
    return st.one_of(
        st.tuples(recordings, ends).map(lambda pair: pair[0].replace(b"\n", pair[1])),
        st.lists(st.one_of(frames, frames, spread, _loose, st.binary(max_size=8)), max_size=6).map(b"".join),
        lines,
        st.binary(max_size=200),
    )


bodies = st.one_of(among(BODIES), mutations(_TEXTS), corruptions(BODIES), _soup, st.binary(max_size=100))
"""The body of an answer in one piece."""
cuts = st.lists(st.integers(0, 100_000), max_size=8)


def read(decoder: StreamDecoder, chunks: list[bytes]) -> list[Any]:
    """The events of the whole stream."""
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()
