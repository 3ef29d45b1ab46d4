"""Ollama's operations: models, loading and unloading, embeddings.

API: https://docs.ollama.com/api. A model that is not in ``/api/ps`` is not loaded; the first request loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ctxbackends._chat.responses import Embeddings, Usage
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._wire.base import HTTPRequest, Operation, WireSettings, encode_json
from ctxbackends._wire.body_settings import adapt_body
from ctxbackends._wire.errors import decode_response, fetch, raise_for_failed_command
from ctxbackends._wire.formats.ollama_chat import NANOSECONDS, Nanoseconds, encode_keep_alive
from ctxbackends._wire.operations.models import convert_rows, parse_count, parse_parameters
from ctxbackends._wire.operations.openai import VectorEncoding, request_embeddings
from ctxbackends.errors import APIStatusError, EmptyModelListError, MalformedResponseError


class _Listed(msgspec.Struct):
    name: str
    context_length: int | None = None
    details: Any = None

    @property
    def parameters(self) -> int | None:
        return _find_parameters(self.details)


class _Models(msgspec.Struct):
    models: list[Any] | None = None


class _Version(msgspec.Struct):
    version: str | None = None


class _Show(msgspec.Struct):
    model_info: dict[str, Any] | None = None
    details: Any = None


class _Embedded(msgspec.Struct):
    embeddings: list[list[float]]
    model: str | None = None
    prompt_eval_count: int | None = None
    load_duration: Nanoseconds | None = None


_models_decoder = msgspec.json.Decoder(_Models)
_show_decoder = msgspec.json.Decoder(_Show)
_embed_decoder = msgspec.json.Decoder(_Embedded)


def list_models() -> Operation[tuple[ModelInfo, ...]]:
    """Return the models of ``GET /api/tags`` and which of them are loaded. Only loaded models have a context length.

    Raises:
        EmptyModelListError: There are no models.
    """
    response = yield HTTPRequest("GET", "/api/tags")
    rows = decode_response(_models_decoder, response, api="Ollama").models
    if not rows:
        raise EmptyModelListError("the server lists no model", body=response.body)
    models = convert_rows(rows, _Listed)
    if not models:
        raise MalformedResponseError("unexpected response from Ollama: no model has a name", body=response.body)
    loaded = {model.name: model for model in (yield from _fetch_loaded())}
    return tuple(
        ModelInfo(
            id=model.name,
            aliases=(model.name.removesuffix(":latest"),) if model.name.endswith(":latest") else (),
            context_length=loaded[model.name].context_length if model.name in loaded else None,
            state="loaded" if model.name in loaded else "unloaded",
            parameters=model.parameters,
        )
        for model in models
    )


def _fetch_loaded() -> Operation[list[_Listed]]:
    answer = yield from fetch(_Models, HTTPRequest("GET", "/api/ps"), api="Ollama")
    return convert_rows(answer.models, _Listed)


def status(model: str | None) -> Operation[ServerStatus]:
    """Return ready as soon as it responds: it loads a model, with its context length, in the first request."""
    version = (yield from fetch(_Version, HTTPRequest("GET", "/api/version"), api="Ollama")).version
    loaded = yield from _fetch_loaded()
    selected = next((one for one in loaded if model is None or one.name in (model, f"{model}:latest")), None)
    trained_context, parameters = (None, None) if model is None else (yield from _fetch_details(model))
    return ServerStatus(
        state="ready",
        version=version,
        model=model or (selected.name if selected else None),
        models=tuple(one.name for one in loaded),
        context_length=selected.context_length if selected is not None else None,
        max_context_length=trained_context,
        parameters=parameters or (selected.parameters if selected is not None else None),
    )


def _fetch_details(model: str) -> Operation[tuple[int | None, int | None]]:
    """Return the context that the model was trained with, and its number of parameters."""
    try:
        response = yield HTTPRequest("POST", "/api/show", encode_json({"model": model}))
    except APIStatusError:
        return None, None  # a model that is not there has no context; asking for it says so
    answer = decode_response(_show_decoder, response, api="Ollama")
    info = answer.model_info or {}
    context = next(
        (value for name, value in info.items() if name.endswith(".context_length") and isinstance(value, int)), None
    )
    return context, parse_count(info.get("general.parameter_count")) or _find_parameters(answer.details)


def _find_parameters(details: object) -> int | None:
    return parse_parameters(details.get("parameter_size")) if isinstance(details, dict) else None


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:
    """Load a model with a chat request without messages (https://docs.ollama.com/api/chat#load-a-model)."""
    body: dict[str, Any] = {"model": model, "messages": [], "stream": False, **encode_keep_alive(keep_alive)}
    if context_length is not None:
        body["options"] = {"num_ctx": context_length}
    raise_for_failed_command((yield HTTPRequest("POST", "/api/chat", encode_json(body))))


def unload(model: str) -> Operation[None]:
    """Unload a model with a chat request without messages and a keep_alive of 0."""
    body = {"model": model, "messages": [], "stream": False, "keep_alive": 0}
    raise_for_failed_command((yield HTTPRequest("POST", "/api/chat", encode_json(body))))


def embed(
    inputs: Sequence[str],
    *,
    model: str,
    dimensions: int | None,
    encoding: VectorEncoding | None,  # noqa: ARG001  # refused before: these vectors come as numbers alone
    settings: WireSettings,
) -> Operation[Embeddings]:
    """Request embeddings with ``POST /api/embed``, which may not truncate texts."""
    body: dict[str, Any] = {
        "model": model,
        "input": list(inputs),
        "truncate": False,
        **encode_keep_alive(settings.keep_alive),
    }
    if settings.context_length is not None:
        body["options"] = {"num_ctx": settings.context_length}
    if dimensions is not None:
        body["dimensions"] = dimensions
    response = yield from request_embeddings(
        HTTPRequest("POST", "/api/embed", encode_json(adapt_body(body, settings))), model
    )
    answer = decode_response(_embed_decoder, response, api="Ollama")
    if len(answer.embeddings) != len(inputs):
        raise MalformedResponseError(
            f"{len(answer.embeddings)} vectors received for {len(inputs)} inputs", body=response.body
        )
    load_seconds = None if answer.load_duration is None else answer.load_duration * NANOSECONDS
    prompt_tokens = answer.prompt_eval_count
    return Embeddings(
        vectors=tuple(tuple(vector) for vector in answer.embeddings),
        requested_model=model,
        served_model=answer.model,
        usage=None if prompt_tokens is None else Usage(prompt_tokens, 0, load_seconds=load_seconds),
    )
