"""Structured output over any backend: pass a Python type, get a validated value of it."""

from __future__ import annotations

import functools
import json
import secrets
from typing import Any, Generic, Literal, TypeAlias, TypeVar, Unpack

import attrs

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, JSONSchemaFormat
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.servers import Enforcement
from ctxbackends._client.backend import Backend, check_backend
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._response_formats import name_schema
from ctxbackends._schema.answers import Wrapper, unwrap_answer
from ctxbackends._schema.generate import schema_for, wrap_in_object
from ctxbackends._schema.strict_schema import describe_unsupported, strict_schema
from ctxbackends._schema.validate import decode_as, unwrap_object
from ctxbackends.errors import IncompleteOutputError, StrictSchemaError, StructuredOutputError

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
        enforcement: How the server enforced the schema; ``unverified`` for a schema that OpenAI cannot enforce.
        completion: The completion that contained the value.
        wrappers: The text around the JSON that was removed, outermost first: ``think`` for a closed block of reasoning
            before it, ``fence`` for a Markdown code fence. Always empty if the server enforced the schema.
    """

    value: T
    enforcement: Enforcement
    completion: Completion
    wrappers: tuple[Wrapper, ...] = ()


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
    only a part of a schema. If the server does not enforce schemas, the JSON may be in a Markdown code fence or follow
    a closed block of reasoning (``<think>``). Nothing else is repaired.

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
    plan = plan_extraction(backend, target)
    completion = await backend.complete(
        plan.messages(text, instructions), request_options=request_options, **plan.add_format(options)
    )
    return plan.decode(completion)


@attrs.frozen
class Plan(Generic[T]):
    """How a value of a type is requested from a backend, and decoded from its answer."""

    target: type[T]
    response_format: JSONSchemaFormat
    enforcement: Enforcement
    is_wrapped: bool

    @staticmethod
    def messages(text: str, instructions: str) -> list[Message]:
        """Return the conversation."""
        for name, value in (("text", text), ("instructions", instructions)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        return [Message.system(instructions), Message.user(text)]

    def add_format(self, options: ChatOptions) -> ChatOptions:
        """Return the options of the request with its format."""
        if "response_format" in options:
            raise TypeError("extract() derives response_format from the target; remove response_format")
        return {**options, "response_format": self.response_format}

    def decode(self, completion: Completion) -> Extraction[T]:
        """Return the value in the answer.

        Raises:
            StructuredOutputError: The answer is incomplete, a refusal or a tool call, or does not match the type.
        """
        check_is_answer(completion)
        text, wrappers = unwrap_answer(completion.text) if self.enforcement == "unverified" else (completion.text, ())
        try:
            value = decode_as(self.target, unwrap_object(text) if self.is_wrapped else text)
        except StructuredOutputError as error:
            if wrappers:
                error.text = completion.text
            raise
        return Extraction(value, self.enforcement, completion, wrappers)


def plan_extraction(backend: Backend, target: type[T]) -> Plan[T]:
    """Return the plan for a backend and a type.

    Raises:
        TypeError: ``target`` has no JSON schema, or ``backend`` is not a Backend.
    """
    check_backend(backend)
    if target is None:
        raise TypeError("target must be a type, not None")
    # Vendors and JSON mode accept only an object at the root; a grammar can be of any type.
    enforcement = backend.schema_enforcement
    only_objects = enforcement != "grammar"
    try:
        response_format, is_wrapped = _build_format_cached(target, only_objects)  # type: ignore[arg-type]  # mypy does not accept a type as Hashable
    except TypeError:  # not hashable, or without a JSON schema, which raises here
        response_format, is_wrapped = _build_format(target, only_objects)
    if enforcement == "native" and not response_format.strict:
        enforcement = "unverified"
    return Plan(target, response_format, enforcement, is_wrapped)


def _build_format(target: type[Any], only_objects: bool) -> tuple[JSONSchemaFormat, bool]:
    """Return the response format for ``target``, and whether its schema is wrapped in an object."""
    name = name_schema(target)
    schema = schema_for(target)
    is_wrapped = only_objects and schema.get("type") != "object"
    if is_wrapped:
        schema = wrap_in_object(schema)
    if not only_objects:
        return JSONSchemaFormat(name, schema, checked=True), is_wrapped
    try:
        strict = strict_schema(describe_unsupported(schema))
    except StrictSchemaError:
        return JSONSchemaFormat(name, schema, checked=True, strict=False), is_wrapped
    return JSONSchemaFormat(name, strict, checked=True, strict=True), is_wrapped


# Programs extract the same types again and again. A chunk of `python -m tests.knowledge.cost` takes 2.7 ms of CPU
# without the cache and 2.2 ms with it.
_build_format_cached = functools.lru_cache(maxsize=128)(_build_format)


def check_is_answer(completion: Completion) -> None:
    if completion.finish_reason in ("length", "content_filter"):
        raise IncompleteOutputError(completion.finish_reason, text=completion.text)
    if completion.refusal:
        raise StructuredOutputError(f"the model refused: {completion.refusal}", text=completion.refusal)
    if completion.finish_reason == "tool_calls":
        raise StructuredOutputError("the model called a tool instead of returning the object", text=completion.text)


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


async def probe_schema(
    backend: Backend, *, model: str | None = None, request_options: RequestOptions | None = None
) -> SchemaProbe:
    """Test whether the server enforces schemas.

    The prompt asks for one word, and the schema allows only another, random one. Only a constrained model can answer
    with it. Costs up to 256 tokens.

    Args:
        backend: The backend to test.
        model: The model, None for ``default_model``.
        request_options: The timeouts, retries and headers of this call, None for those of the configuration.

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
        request_options=request_options,
    )
    return SchemaProbe(_classify(completion, canary), completion.text)


def _classify(completion: Completion, canary: str) -> ProbeOutcome:
    try:
        if json.loads(completion.text) == {"word": canary}:
            return "enforced"
    except ValueError:
        pass
    return "ignored" if completion.finish_reason == "stop" and not completion.refusal else "inconclusive"
