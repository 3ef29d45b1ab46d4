"""Typed, validated output over any backend: a Python type in, a value of that type out, or an error. Knows no server
and no wire format."""

from __future__ import annotations

import re
from typing import TypeVar, Unpack

from ctxbackends.backend import Backend
from ctxbackends.errors import IncompleteOutputError, StructuredOutputError
from ctxbackends.messages import ChatOptions, JSONSchemaFormat, Message
from ctxbackends.types import Completion
from ctxbackends.wire.json_schema import decode_as, schema_for

T = TypeVar("T")

INSTRUCTIONS = (
    "Take what is asked for out of the user's text. "
    "Answer with one JSON object that fits the schema, and with nothing else."
)


async def extract(
    backend: Backend, target: type[T], text: str, *, instructions: str = INSTRUCTIONS, **options: Unpack[ChatOptions]
) -> T:
    """Ask ``backend`` for a ``target`` made out of ``text``.

    ``target``: an attrs class, dataclass, TypedDict, msgspec Struct, or a built-in type such as ``list[str]``; its JSON
    Schema constrains the server, and the answer is validated here as well, since servers enforce schemas in part.
    ``instructions`` is the system message.

    Raises IncompleteOutputError where the answer was cut (``length``) or filtered, StructuredOutputError (with
    ``pointer`` and ``text``) where it is no valid ``target``, UnsupportedOptionError where this server cannot be asked
    for a schema, and what ``complete()`` raises. TypeError: ``target`` is no type that JSON can hold.
    """
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(target, "__name__", "output"))[:64]
    options["response_format"] = JSONSchemaFormat(name, schema_for(target))
    completion = await backend.complete([Message.system(instructions), Message.user(text)], **options)
    return _value(target, completion)


def _value(target: type[T], completion: Completion) -> T:
    if completion.finish_reason in ("length", "content_filter"):
        raise IncompleteOutputError(completion.finish_reason, text=completion.text)
    if completion.refusal:
        raise StructuredOutputError(f"the model refused: {completion.refusal}", text=completion.refusal)
    if completion.finish_reason == "tool_calls":
        raise StructuredOutputError("the model called a tool in the place of an answer", text=completion.text)
    return decode_as(target, completion.text)
