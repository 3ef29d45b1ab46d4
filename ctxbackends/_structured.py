"""Typed, validated output over any backend: a Python type in, a value of that type out, or an error. Knows no server
and no wire format."""

from __future__ import annotations

import functools
import json
import re
import secrets
from typing import Any, Generic, Literal, TypeAlias, TypeVar, Unpack

import attrs

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, JSONSchemaFormat
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.servers import Enforcement
from ctxbackends._client.backend import Backend
from ctxbackends._schema.generate import schema_for, wrap_in_object
from ctxbackends._schema.validate import decode_as, unwrap_object
from ctxbackends.errors import IncompleteOutputError, StructuredOutputError

T = TypeVar("T")

INSTRUCTIONS = (
    "Take what is asked for out of the user's text. "
    "Answer with one JSON object that fits the schema, and with nothing else."
)


@attrs.frozen
class Extraction(Generic[T]):
    """A validated ``value``, how the server was held to the schema, and the answer that it came from."""

    value: T
    enforcement: Enforcement
    completion: Completion


async def extract(
    backend: Backend, target: type[T], text: str, *, instructions: str = INSTRUCTIONS, **options: Unpack[ChatOptions]
) -> T:
    """Ask ``backend`` for a ``target`` made out of ``text``.

    ``target``: an attrs class, dataclass, TypedDict, msgspec Struct, pydantic model, or a built-in type such as
    ``list[str]``; its JSON Schema constrains the server, and the answer is validated here as well, since servers
    enforce schemas in part. ``instructions`` is the system message.

    Raises IncompleteOutputError where the answer was cut (``length``) or filtered, StructuredOutputError (with
    ``pointer`` and ``text``) where it is no valid ``target``, UnsupportedOptionError where this server cannot be asked
    for a schema, and what ``complete()`` raises. TypeError: ``target`` is no type that JSON can hold.
    """
    return (await extract_result(backend, target, text, instructions=instructions, **options)).value


async def extract_result(
    backend: Backend, target: type[T], text: str, *, instructions: str = INSTRUCTIONS, **options: Unpack[ChatOptions]
) -> Extraction[T]:
    """The same as :func:`extract`, with how the schema was enforced and the whole answer beside the value."""
    if "response_format" in options:
        raise TypeError("extract() makes the response_format out of the target; leave it out")
    native = backend.schema_enforcement == "native"
    try:
        response_format, is_wrapped = _build_format_cached(target, native)  # type: ignore[arg-type]  # mypy takes no type for Hashable
    except TypeError:  # a type that has no hash, or one that JSON cannot hold, which says so here
        response_format, is_wrapped = _build_format(target, native)
    options["response_format"] = response_format
    completion = await backend.complete([Message.system(instructions), Message.user(text)], **options)
    return Extraction(_decode_value(target, completion, is_wrapped), backend.schema_enforcement, completion)


def _build_format(target: type[Any], native: bool) -> tuple[JSONSchemaFormat, bool]:
    """The format that asks for a ``target``, and whether that is in a box."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(target, "__name__", "output"))[:64]
    schema = schema_for(target)
    # Vendors take an object at the root alone; what is none is put into one.
    is_wrapped = native and schema.get("type") != "object"
    return JSONSchemaFormat(name, wrap_in_object(schema) if is_wrapped else schema, checked=True), is_wrapped


# A program asks for the same types again and again. Without this, a chunk of `python -m tests.knowledge.cost` took
# 2.7 ms of CPU, with it 2.2.
_build_format_cached = functools.lru_cache(maxsize=128)(_build_format)


def _decode_value(target: type[T], completion: Completion, is_wrapped: bool) -> T:
    if completion.finish_reason in ("length", "content_filter"):
        raise IncompleteOutputError(completion.finish_reason, text=completion.text)
    if completion.refusal:
        raise StructuredOutputError(f"the model refused: {completion.refusal}", text=completion.refusal)
    if completion.finish_reason == "tool_calls":
        raise StructuredOutputError("the model called a tool in the place of an answer", text=completion.text)
    return decode_as(target, unwrap_object(completion.text) if is_wrapped else completion.text)


# --- does the server really hold an answer to a schema? -------------------------------------------------

ProbeOutcome: TypeAlias = Literal["enforced", "ignored", "inconclusive"]

CANARY_MAX_TOKENS = 256


@attrs.frozen
class SchemaProbe:
    """What one canary showed. ``outcome``: ``enforced``, the answer was what only the schema allows; ``ignored``, it
    was something else; ``inconclusive``, it was cut or refused. ``answer`` is the text that came."""

    outcome: ProbeOutcome
    answer: str


async def probe_schema(backend: Backend, *, model: str | None = None) -> SchemaProbe:
    """Ask for one word, under a schema that allows only another one, which is new each time and stands nowhere in the
    prompt. Who answers with it was constrained. Costs up to CANARY_MAX_TOKENS tokens."""
    canary = f"canary-{secrets.token_hex(4)}"
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": [canary]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    completion = await backend.complete(
        "Answer with the single word hello, in plain text, and with nothing else.",
        model=model,
        max_tokens=CANARY_MAX_TOKENS,
        response_format=JSONSchemaFormat("canary", schema),
    )
    return SchemaProbe(_classify(completion, canary), completion.text)


def _classify(completion: Completion, canary: str) -> ProbeOutcome:
    try:
        if json.loads(completion.text) == {"word": canary}:
            return "enforced"
    except ValueError:
        pass
    return "ignored" if completion.finish_reason == "stop" and not completion.refusal else "inconclusive"
