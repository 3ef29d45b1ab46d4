"""llama-server's operations: status, slots, models of a router, token counts.

API: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md. While it loads, all endpoints return 503.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ctxbackends._chat.requests import ChatRequest, JSONSchemaFormat
from ctxbackends._chat.servers import ModelInfo, ServerState, ServerStatus
from ctxbackends._wire.base import HTTPRequest, HTTPResponse, Operation, encode_json
from ctxbackends._wire.errors import decode_response, fetch, raise_for_failed_command
from ctxbackends._wire.formats.openai_messages import encode_prompt
from ctxbackends._wire.operations.models import decode_models, select_model
from ctxbackends._wire.operations.openai import fetch_count
from ctxbackends._wire.options import OptionTable, Transform, lookup
from ctxbackends.errors import APIStatusError, EmptyModelListError, NotFoundError, UnsupportedOperationError

_NO_ROUTER = (
    "this llama-server serves only the model that it was started with; start it as a router (--models-dir) to load "
    "and unload models"
)


class _Settings(msgspec.Struct):
    n_ctx: int | None = None


class _Props(msgspec.Struct):
    default_generation_settings: _Settings | None = None
    total_slots: int | None = None
    build_info: str | None = None
    is_sleeping: bool = False


class _Slot(msgspec.Struct):
    is_processing: bool = False


class _Template(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[Any]


_props_decoder = msgspec.json.Decoder(_Props)
_slots_decoder = msgspec.json.Decoder(list[_Slot])


def status(model: str | None) -> Operation[ServerStatus]:
    """Return the status: ``/health`` decides, other endpoints add details where they are enabled."""
    yield HTTPRequest("GET", "/health")
    models = yield from _fetch_models()
    chosen = select_model(models, model) or (models[0] if models and models[0].state is None else None)
    if chosen is not None and chosen.state is not None:
        return _build_router_status(chosen, models)
    answer = yield from _request_optional(HTTPRequest("GET", "/props"))
    props = decode_response(_props_decoder, answer, api="llama-server") if answer is not None else _Props()
    busy = None
    if not props.is_sleeping:  # a request for the slots would wake it
        answer = yield from _request_optional(HTTPRequest("GET", "/slots"))
        if answer is not None:
            slots = decode_response(_slots_decoder, answer, api="llama-server")
            busy = sum(slot.is_processing for slot in slots)
    context = props.default_generation_settings.n_ctx if props.default_generation_settings else None
    return ServerStatus(
        state="sleeping" if props.is_sleeping else "ready",
        version=props.build_info,
        model=chosen.id if chosen is not None else model,
        models=() if chosen is None or props.is_sleeping else (chosen.id,),
        context_length=context or (chosen.context_length if chosen is not None else None),
        shared_context=False if props.total_slots == 1 else None,
        parameters=chosen.parameters if chosen is not None else None,
        slots=props.total_slots,
        busy_slots=busy,
    )


def slots(_: str | None) -> Operation[int | None]:
    """Return how many requests it processes at once; None for a router, whose models have their own slots."""
    return (yield from fetch(_Props, HTTPRequest("GET", "/props"), api="llama-server")).total_slots


def _fetch_models() -> Operation[tuple[ModelInfo, ...]]:
    """Return the models; none if a router has none yet."""
    response = yield from _request_optional(HTTPRequest("GET", "/v1/models"))
    try:
        return decode_models(response) if response is not None else ()
    except EmptyModelListError:
        return ()


def _build_router_status(chosen: ModelInfo, models: Sequence[ModelInfo]) -> ServerStatus:
    """Return the status of a router's model; its slots and context belong to the server behind it."""
    states: Mapping[str | None, ServerState] = {
        "loading": "loading",
        "downloading": "loading",
        "sleeping": "sleeping",
        "failed": "error",
    }
    return ServerStatus(
        state=states.get(chosen.state, "ready"),
        problem=f"the model {chosen.id} failed to load" if chosen.state == "failed" else None,
        model=chosen.id,
        models=tuple(model.id for model in models if model.state == "loaded"),
        context_length=chosen.context_length,
        parameters=chosen.parameters,
    )


def _request_optional(request: HTTPRequest) -> Operation[HTTPResponse | None]:
    """Return None for an endpoint that is disabled (403, 501) or missing (404); a rejected key (401) is an error."""
    try:
        return (yield request)
    except APIStatusError as error:
        if error.status_code == 401:
            raise
        return None


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:
    """Load a model of a router with ``POST /models/load``, which returns before the model is loaded."""
    for option, value in (("context_length", context_length), ("keep_alive", keep_alive)):
        if value is not None:
            raise UnsupportedOperationError("load", f"llama-server takes no {option} when it loads a model")
    yield from _post_to_router("load", model)


def unload(model: str) -> Operation[None]:
    """Unload a model of a router with ``POST /models/unload``."""
    yield from _post_to_router("unload", model)


def _post_to_router(operation: str, model: str) -> Operation[None]:
    try:
        raise_for_failed_command((yield HTTPRequest("POST", f"/models/{operation}", encode_json({"model": model}))))
    except NotFoundError as error:
        if error.message is not None and "model" in error.message.casefold():
            raise
        raise UnsupportedOperationError(operation, _NO_ROUTER) from error


def count_tokens(request: ChatRequest, table: OptionTable) -> Operation[int]:
    """Count tokens; older builds without the endpoint apply the template and tokenize separately."""
    prompt = encode_prompt(request, table)
    if isinstance(request.response_format, JSONSchemaFormat) and (
        lookup(table, "response_format: json_schema").transform != Transform.IN_PROMPT
    ):
        # The chat templates of some models write the schema into the prompt.
        named = {"name": request.response_format.name, "schema": request.response_format.schema}
        prompt["response_format"] = {"type": "json_schema", "json_schema": named}
    body = encode_json(prompt)
    try:
        return (yield from fetch_count(HTTPRequest("POST", "/v1/chat/completions/input_tokens", body)))
    except NotFoundError:
        pass
    template = yield from fetch(_Template, HTTPRequest("POST", "/apply-template", body), api="llama-server")
    text = encode_json({"content": template.prompt, "add_special": True, "parse_special": True})
    return len((yield from fetch(_Tokens, HTTPRequest("POST", "/tokenize", text), api="llama-server")).tokens)
