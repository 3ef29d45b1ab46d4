"""Structured output over any backend: pass a Python type, get a validated value of it. Knows no wire format."""

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
from ctxbackends._config.request_options import RequestOptions
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
    """A validated value, with its completion.

    Attributes:
        value: The validated value.
        enforcement: How the server enforced the schema.
        completion: The completion that contained the value.
    """

    value: T
    enforcement: Enforcement
    completion: Completion


async def extract(
    backend: Backend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> T:
    """Extract a value of type ``target`` from ``text``.

    The JSON schema of ``target`` constrains the server. The answer is validated here as well, since servers enforce
    only a part of a schema.

    Args:
        backend: The backend to ask.
        target: An attrs class, dataclass, TypedDict, msgspec Struct, pydantic model, or a built-in type such as
            ``list[str]``.
        text: The text to extract from.
        instructions: The system message.
        request_options: The timeouts, retries and headers of the request, None for those of the configuration.
        **options: The options of the request except ``response_format``, see :class:`ChatOptions`.

    Returns:
        The validated value.

    Raises:
        IncompleteOutputError: The answer was truncated (``length``) or filtered.
        StructuredOutputError: The answer does not match ``target``; see ``pointer`` and ``text`` of the error.
        UnsupportedOptionError: The server does not support schemas.
        TypeError: ``target`` has no JSON schema.
        BackendError: ``complete()`` failed.
    """
    result = await extract_result(
        backend, target, text, instructions=instructions, request_options=request_options, **options
    )
    return result.value


async def extract_result(
    backend: Backend,
    target: type[T],
    text: str,
    *,
    instructions: str = INSTRUCTIONS,
    request_options: RequestOptions | None = None,
    **options: Unpack[ChatOptions],
) -> Extraction[T]:
    """Extract a value like :func:`extract`, and return it with its completion.

    Args:
        backend: The backend to ask.
        target: The type of the value, as for :func:`extract`.
        text: The text to extract from.
        instructions: The system message.
        request_options: The timeouts, retries and headers of the request, None for those of the configuration.
        **options: The options of the request except ``response_format``, see :class:`ChatOptions`.

    Raises:
        IncompleteOutputError: The answer was truncated (``length``) or filtered.
        StructuredOutputError: The answer does not match ``target``; see ``pointer`` and ``text`` of the error.
        UnsupportedOptionError: The server does not support schemas.
        TypeError: ``target`` has no JSON schema.
        BackendError: ``complete()`` failed.
    """
    if "response_format" in options:
        raise TypeError("extract() derives response_format from the target; remove response_format")
    # Vendors and JSON mode accept only an object at the root; a grammar can be of any type.
    only_objects = backend.schema_enforcement != "grammar"
    try:
        response_format, is_wrapped = _build_format_cached(target, only_objects)  # type: ignore[arg-type]  # mypy does not accept a type as Hashable
    except TypeError:  # not hashable, or without a JSON schema, which raises here
        response_format, is_wrapped = _build_format(target, only_objects)
    options["response_format"] = response_format
    messages = [Message.system(instructions), Message.user(text)]
    completion = await backend.complete(messages, request_options=request_options, **options)
    return Extraction(_decode_value(target, completion, is_wrapped), backend.schema_enforcement, completion)


def _build_format(target: type[Any], only_objects: bool) -> tuple[JSONSchemaFormat, bool]:
    """Return the response format for ``target``, and whether its schema is wrapped in an object."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(target, "__name__", "output"))[:64]
    schema = schema_for(target)
    is_wrapped = only_objects and schema.get("type") != "object"
    return JSONSchemaFormat(name, wrap_in_object(schema) if is_wrapped else schema, checked=True), is_wrapped


# Programs extract the same types again and again. A chunk of `python -m tests.knowledge.cost` takes 2.7 ms of CPU
# without the cache and 2.2 ms with it.
_build_format_cached = functools.lru_cache(maxsize=128)(_build_format)


def _decode_value(target: type[T], completion: Completion, is_wrapped: bool) -> T:
    if completion.finish_reason in ("length", "content_filter"):
        raise IncompleteOutputError(completion.finish_reason, text=completion.text)
    if completion.refusal:
        raise StructuredOutputError(f"the model refused: {completion.refusal}", text=completion.refusal)
    if completion.finish_reason == "tool_calls":
        raise StructuredOutputError("the model called a tool instead of returning the object", text=completion.text)
    return decode_as(target, unwrap_object(completion.text) if is_wrapped else completion.text)


# --- does the server enforce schemas? -------------------------------------------------------------------

ProbeOutcome: TypeAlias = Literal["enforced", "ignored", "inconclusive"]

CANARY_MAX_TOKENS = 256


@attrs.frozen
class SchemaProbe:
    """The result of :func:`probe_schema`.

    Attributes:
        outcome: ``enforced`` for the answer that only the schema allows, ``ignored`` for another answer, and
            ``inconclusive`` for a truncated answer or a refusal.
        answer: The text of the answer.
    """

    outcome: ProbeOutcome
    answer: str


async def probe_schema(backend: Backend, *, model: str | None = None) -> SchemaProbe:
    """Test whether the server enforces schemas.

    The prompt asks for one word, and the schema allows only another, random one. Only a constrained model can answer
    with it. Costs up to 256 tokens.

    Args:
        backend: The backend to test.
        model: The model, None for ``default_model``.

    Raises:
        UnsupportedOptionError: The server does not support schemas.
        BackendError: ``complete()`` failed.
    """
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
