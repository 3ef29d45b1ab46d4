"""Operations of OpenAI-compatible servers: models and embeddings, and OpenAI's token counter."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, JSONSchemaFormat, ResponseFormat
from ctxbackends._chat.responses import Embeddings, Usage
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPRequest, HTTPResponse, Operation, WireSettings, encode_json
from ctxbackends._wire.body_settings import adapt_body
from ctxbackends._wire.errors import decode_response, fetch
from ctxbackends._wire.formats.openai_messages import encode_tool, format_tool_result
from ctxbackends._wire.formats.openai_parts import parse_usage
from ctxbackends._wire.lenient import Lenient, LenientDecoder
from ctxbackends._wire.operations.models import build_ready_status, decode_models
from ctxbackends._wire.options import OptionTable, check_supported, lookup, prepare_strict_schema
from ctxbackends.errors import APIStatusError, MalformedResponseError, UnsupportedOperationError

VectorEncoding: TypeAlias = Literal["float", "base64"]
_NUMBER_BYTES = 25  # of the JSON text "-1.2345678901234567e-05, "
_VECTOR_MEMBERS_BYTES = 256
_LONGEST_VECTOR = 8192


class _Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str | None = None
    usage: Lenient[dict[str, Any]] = None


class _Count(msgspec.Struct):
    input_tokens: int


# llama-server: "This server does not support embeddings", "Pooling type 'none' is not OAI compatible"; vLLM: "The model
# does not support Embeddings API"; Ollama: "this model does not support embeddings"
_NOT_AN_EMBEDDING_MODEL = re.compile(r"does not support embeddings|pooling type 'none'", re.IGNORECASE)

_embeddings_decoder = LenientDecoder(_Embeddings)


# --- models -------------------------------------------------------------------------------------------


def list_models() -> Operation[tuple[ModelInfo, ...]]:
    """Return the models of ``GET /v1/models``.

    Raises:
        EmptyModelListError: There are no models.
    """
    response = yield HTTPRequest("GET", "/v1/models")
    return decode_models(response)


def status_from_models(model: str | None) -> Operation[ServerStatus]:
    """Return ready if the server lists its models."""
    return build_ready_status((yield from list_models()), model)


# --- embeddings ---------------------------------------------------------------------------------------


def embed(
    inputs: Sequence[str],
    *,
    model: str,
    dimensions: int | None,
    encoding: VectorEncoding | None,
    settings: WireSettings,
) -> Operation[Embeddings]:
    """Request one batch of embeddings with ``POST /v1/embeddings``."""
    body: dict[str, Any] = {"model": model, "input": list(inputs), "encoding_format": encoding or "float"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    response = yield from request_embeddings(
        HTTPRequest("POST", "/v1/embeddings", encode_json(adapt_body(body, settings))), model
    )
    answer = decode_response(_embeddings_decoder, response, api="the OpenAI API")
    count = len(inputs)
    by_index = {
        item.index if item.index is not None else index: item.embedding for index, item in enumerate(answer.data)
    }
    if sorted(by_index) != list(range(count)) or len(answer.data) != count:
        raise MalformedResponseError(f"{len(answer.data)} vectors received for {count} inputs", body=response.body)
    return Embeddings(
        vectors=tuple(_decode_vector(by_index[index], response.body) for index in range(count)),
        requested_model=model,
        served_model=answer.model or None,
        usage=parse_usage(answer.usage),
    )


def request_embeddings(request: HTTPRequest, model: str) -> Operation[HTTPResponse]:
    """Send ``request``; raise UnsupportedOperationError if the server says that the model generates text only."""
    try:
        return (yield request)
    except APIStatusError as error:
        if not _NOT_AN_EMBEDDING_MODEL.search(error.message or ""):
            raise
        raise UnsupportedOperationError(
            "embed", f"not an embedding model: {model}; use one, and start the server with embeddings on"
        ) from error


def _decode_vector(value: list[float] | str, body: bytes) -> tuple[float, ...]:
    if isinstance(value, list):
        return tuple(value)
    # Some servers always send base64: little-endian float32.
    try:
        raw = base64.b64decode(value, validate=True)
        return struct.unpack(f"<{len(raw) // 4}f", raw)
    except (ValueError, struct.error) as error:
        raise MalformedResponseError(
            "a vector is neither a list of numbers nor base64 of 32-bit floats", body=body
        ) from error


def fitting_batch_size(length: int | None) -> int:
    """Return how many vectors of ``length`` numbers fit into one response, also from a server that ignores base64.

    For an unknown length (None), return how many of the longest known vectors fit.
    """
    return max(1, MAX_BODY_BYTES // ((length or _LONGEST_VECTOR) * _NUMBER_BYTES + _VECTOR_MEMBERS_BYTES))


def merge_embeddings(batches: Sequence[Embeddings]) -> Embeddings:
    """Join the vectors of several requests in their order, and add up their token counts."""
    if len(batches) == 1:
        return batches[0]
    counts = [batch.usage for batch in batches]
    known = [count for count in counts if count is not None]
    return attrs.evolve(
        batches[0],
        vectors=tuple(vector for batch in batches for vector in batch.vectors),
        usage=Usage(sum(count.input_tokens for count in known), sum(count.output_tokens for count in known))
        if len(known) == len(counts)
        else None,
    )


# --- tokens -------------------------------------------------------------------------------------------


def count_tokens(request: ChatRequest, table: OptionTable) -> Operation[int]:
    """Count tokens with OpenAI's counter, which takes the messages as its Responses API does.

    https://platform.openai.com/docs/api-reference/responses/input-tokens
    """
    check_supported(request, table)
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _encode_response_items(message)],
    }
    if request.tools:
        # Tools are strict by default here.
        body["tools"] = [
            {"type": "function", **encode_tool(tool)["function"], "strict": tool.strict} for tool in request.tools
        ]
    if request.response_format is not None:
        body["text"] = {"format": _encode_response_format(request.response_format, table)}
    return (yield from fetch_count(HTTPRequest("POST", "/v1/responses/input_tokens", encode_json(body))))


def _encode_response_format(response_format: ResponseFormat, table: OptionTable) -> dict[str, Any]:
    if not isinstance(response_format, JSONSchemaFormat):
        return {"type": "json_object"}
    transform = lookup(table, "response_format: json_schema").transform
    schema, strict = prepare_strict_schema(response_format, transform)
    named = {"type": "json_schema", "name": response_format.name, "schema": schema, "strict": strict}
    return {**named, **({"description": response_format.description} if response_format.description else {})}


def fetch_count(request: HTTPRequest) -> Operation[int]:
    """Return n of ``{"input_tokens": n}``, the response of OpenAI, Anthropic and llama-server."""
    return (yield from fetch(_Count, request, api="a counter of tokens")).input_tokens


def _encode_response_items(message: Message) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    text_type = "output_text" if message.role == "assistant" else "input_text"
    for part in message.parts:
        if isinstance(part, TextPart):
            content.append({"type": text_type, "text": part.text})
        elif isinstance(part, ImagePart):
            content.append({"type": "input_image", "image_url": part.data_url, "detail": "auto"})
        elif isinstance(part, ToolCall):
            items.append({"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments})
        elif isinstance(part, ToolResult):
            items.append(
                {"type": "function_call_output", "call_id": part.tool_call_id, "output": format_tool_result(part)}
            )
        else:
            assert not isinstance(part, ReasoningPart), "check_supported() raises for reasoning"
    if content:
        items.insert(0, {"type": "message", "role": message.role, "content": content})
    return items
