"""What LM Studio offers beside generation, over its own REST API: its models, loading them with a context length,
unloading them. Generation goes over its OpenAI-compatible API, which takes tools and schemas.

API: https://lmstudio.ai/docs/developer/rest (LM Studio 0.4 and newer).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ctxbackends.errors import (
    EmptyModelListError,
    MalformedResponseError,
    ModelNotFoundError,
    NotFoundError,
    ServerConfigurationError,
    UnsupportedOperationError,
)
from ctxbackends.types import ModelInfo, ServerStatus
from ctxbackends.wire import openai_server
from ctxbackends.wire.http import HTTPRequest, Operation, WireSettings, encode_json
from ctxbackends.wire.status import decode_response, error_from_success, raise_for_failed_command

_TOO_OLD = "this LM Studio has no /api/v1; it needs version 0.4 or newer"


class _Config(msgspec.Struct):
    context_length: int | None = None
    parallel: int | None = None


class _Instance(msgspec.Struct):
    id: str
    config: _Config | None = None


class _Model(msgspec.Struct):
    key: str
    type: str | None = None
    publisher: str | None = None
    loaded_instances: list[_Instance] | None = None
    max_context_length: int | None = None

    @property
    def instances(self) -> list[_Instance]:
        return self.loaded_instances or []

    @property
    def names(self) -> tuple[str, ...]:
        """An instance has the name of its model, or one of its own, and requests may use either."""
        return (self.key, *(instance.id for instance in self.instances if instance.id != self.key))


class _Models(msgspec.Struct):
    models: list[_Model] | None = None
    error: Any = None


_models_decoder = msgspec.json.Decoder(_Models)


def _fetch_models() -> Operation[list[_Model]]:
    response = yield HTTPRequest("GET", "/api/v1/models")
    answer = decode_response(_models_decoder, response, api="LM Studio")
    if answer.error is not None:
        raise error_from_success(response)
    if answer.models is None:
        raise MalformedResponseError("unexpected response from LM Studio: no models", body=response.body)
    return answer.models


def list_models() -> Operation[tuple[ModelInfo, ...]]:
    """The models on the disk and whether they are loaded; on an LM Studio before 0.4, what its OpenAI-compatible API
    lists. ``context_length`` is that of the loaded model. Raises EmptyModelListError."""
    try:
        models = yield from _fetch_models()
    except NotFoundError:
        return (yield from openai_server.list_models())
    if not models:
        raise EmptyModelListError("the server lists no model")
    return tuple(
        ModelInfo(
            id=model.key,
            aliases=model.names[1:],
            context_length=_get_context_length(model),
            owned_by=model.publisher,
            state="loaded" if model.instances else "unloaded",
        )
        for model in models
    )


def _select_instance(model: _Model, name: str | None) -> _Instance | None:
    """The one that a request for ``name`` reaches: that of this id, or else the first."""
    named = next((instance for instance in model.instances if instance.id == name), None)
    return named or (model.instances[0] if model.instances else None)


def _get_context_length(model: _Model, name: str | None = None) -> int | None:
    instance = _select_instance(model, name)
    return instance.config.context_length if instance is not None and instance.config else None


def status(model: str | None) -> Operation[ServerStatus]:
    """Ready when it answers: it loads a model inside the first request for it."""
    try:
        models = yield from _fetch_models()
    except NotFoundError:
        return (yield from openai_server.status_from_models(model))
    loaded = [one for one in models if one.instances]
    ours = next((one for one in loaded if model is None or model in one.names), None)
    instance = _select_instance(ours, model) if ours is not None else None
    config = instance.config if instance is not None else None
    return ServerStatus(
        state="ready",
        model=model or (ours.key if ours else None),
        models=tuple(instance.id for one in loaded for instance in one.instances),
        context_length=config.context_length if config else None,
        max_context_length=next((one.max_context_length for one in models if model in one.names), None),
        slots=config.parallel if config else None,
    )


def slots(model: str | None) -> Operation[int | None]:
    """How many requests the loaded model works on at once; 0 before it is loaded."""
    models = yield from _fetch_models()
    ours = next((one for one in models if one.instances and (model is None or model in one.names)), None)
    instance = _select_instance(ours, model) if ours is not None else None
    if instance is None:
        return 0
    return instance.config.parallel if instance.config else None


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:
    """``POST /api/v1/models/load``. A model that is loaded already is not loaded a second time."""
    if keep_alive is not None:
        raise UnsupportedOperationError(
            "load",
            "LM Studio takes no keep_alive when it loads; write keep_alive into .ctxrc, and each request sends it",
        )
    found = yield from _find_model(model, "load")
    if found is not None and found.instances:
        have = _get_context_length(found, model)
        if context_length is None or have == context_length:
            return
        yield from _unload_all(found)
    body: dict[str, Any] = {"model": found.key if found is not None else model}
    if context_length is not None:
        body["context_length"] = context_length
    raise_for_failed_command((yield HTTPRequest("POST", "/api/v1/models/load", encode_json(body))))


def unload(model: str) -> Operation[None]:
    """Every instance of ``model``; nothing happens where there is none."""
    found = yield from _find_model(model, "unload")
    if found is None:
        raise ModelNotFoundError(404, body=f"LM Studio has no model {model}".encode(), message="model not found")
    yield from _unload_all(found)


def _find_model(model: str, what: str) -> Operation[_Model | None]:
    try:
        models = yield from _fetch_models()
    except NotFoundError as error:
        raise UnsupportedOperationError(what, _TOO_OLD) from error
    return next((one for one in models if model in one.names), None)


def _unload_all(model: _Model) -> Operation[None]:
    for instance in model.instances:
        raise_for_failed_command(
            (yield HTTPRequest("POST", "/api/v1/models/unload", encode_json({"instance_id": instance.id})))
        )


def prepare(model: str, settings: WireSettings) -> Operation[None]:
    """Before a generation: LM Studio takes a context length only when it loads a model, so the model is loaded
    with the one that is configured. Raises ServerConfigurationError where it is loaded with another."""
    if settings.context_length is None:
        return
    found = yield from _find_model(model, "context_length")
    if found is not None and found.instances:
        have = _get_context_length(found, model)
        if have is not None and have != settings.context_length:
            raise ServerConfigurationError(
                f"{model} is loaded with a context of {have} tokens, and context_length says "
                f"{settings.context_length}; unload it there, or call load() to load it anew"
            )
        return
    yield from load(model, context_length=settings.context_length, keep_alive=None)
