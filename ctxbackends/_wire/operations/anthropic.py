"""Operations of Anthropic's platform: models and token counts. It has no embeddings and no loading."""

from __future__ import annotations

from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._wire.base import HTTPRequest, Operation, encode_json
from ctxbackends._wire.formats.anthropic_messages import VERSION_HEADERS, encode_body
from ctxbackends._wire.operations.models import build_ready_status, decode_models
from ctxbackends._wire.operations.openai import fetch_count
from ctxbackends._wire.options import OptionTable

_PAGE = 1000  # the most that one page has: https://platform.claude.com/docs/en/api/models/list


def list_models() -> Operation[tuple[ModelInfo, ...]]:
    """Return the models of ``GET /v1/models``. ``context_length`` is ``max_input_tokens``, if present."""
    response = yield HTTPRequest("GET", f"/v1/models?limit={_PAGE}", headers=VERSION_HEADERS)
    return decode_models(response)


def status(model: str | None) -> Operation[ServerStatus]:
    """Return ready if the server lists its models."""
    return build_ready_status((yield from list_models()), model)


def count_tokens(request: ChatRequest, table: OptionTable) -> Operation[int]:
    """Count tokens with ``POST /v1/messages/count_tokens``.

    https://platform.claude.com/docs/en/api/messages/count_tokens
    """
    body = encode_body(request, table)
    request_count = HTTPRequest("POST", "/v1/messages/count_tokens", encode_json(body), VERSION_HEADERS)
    return (yield from fetch_count(request_count))
