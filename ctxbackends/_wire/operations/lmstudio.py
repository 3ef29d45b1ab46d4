"""LM Studio's operations over its REST API: models, loading with a context length, unloading.

Chat uses the OpenAI-compatible API, which supports tools and schemas. API: https://lmstudio.ai/docs/developer/rest (LM
Studio 0.4 and newer).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._wire.base import HTTPRequest, Operation, WireSettings, encode_json
from ctxbackends._wire.errors import decode_response, raise_for_failed_command
from ctxbackends._wire.operations import openai as openai_server
from ctxbackends._wire.operations.models import convert_rows, parse_parameters
from ctxbackends.errors import (
    EmptyModelListError,
    MalformedResponseError,
    ModelNotFoundError,
    NotFoundError,
    ServerConfigurationError,
    UnsupportedOperationError,
)

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
    params_string: str | None = None

    @property
    def instances(self) -> list[_Instance]:
        return self.loaded_instances or []

    @property
    def names(self) -> tuple[str, ...]:
        """The key of the model and the IDs of its instances; requests may use any of them."""
        return (self.key, *(instance.id for instance in self.instances if instance.id != self.key))


class _Models(msgspec.Struct):
    models: list[Any] | None = None
    error: Any = None


_models_decoder = msgspec.json.Decoder(_Models)


def _fetch_models() -> Operation[list[_Model]]:
    response = yield HTTPRequest("GET", "/api/v1/models")
    answer = decode_response(_models_decoder, response, api="LM Studio")
    if answer.models is None:
        raise MalformedResponseError("unexpected response from LM Studio: no models", body=response.body)
    models = convert_rows(answer.models, _Model)
    if answer.models and not models:
        raise MalformedResponseError("unexpected response from LM Studio: no model has a key", body=response.body)
    return models


def list_models() -> Operation[tuple[ModelInfo, ...]]:
    """Return the downloaded models and whether they are loaded.

    LM Studio before 0.4 lists those of its OpenAI-compatible API. ``context_length`` is that of the loaded instance.

    Raises:
        EmptyModelListError: There are no models.
    """
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
            parameters=parse_parameters(model.params_string),
        )
        for model in models
    )


def _select_instance(model: _Model, name: str | None) -> _Instance | None:
    """Return the instance that a request for ``name`` reaches: the one with this ID, or else the first."""
    named = next((instance for instance in model.instances if instance.id == name), None)
    return named or (model.instances[0] if model.instances else None)


def _get_context_length(model: _Model, name: str | None = None) -> int | None:
    instance = _select_instance(model, name)
    return instance.config.context_length if instance is not None and instance.config else None


def _find_loaded(models: list[_Model], name: str | None) -> tuple[_Model | None, _Instance | None]:
    """Return the first loaded model that has this name, or any name for None, and the instance it reaches."""
    model = next((one for one in models if one.instances and (name is None or name in one.names)), None)
    return model, _select_instance(model, name) if model is not None else None


def status(model: str | None) -> Operation[ServerStatus]:
    """Return ready as soon as it responds: it loads a model in the first request."""
    try:
        models = yield from _fetch_models()
    except NotFoundError:
        return (yield from openai_server.status_from_models(model))
    selected, instance = _find_loaded(models, model)
    config = instance.config if instance else None
    named = next((one for one in models if model in one.names), None)
    chosen = selected or named
    return ServerStatus(
        state="ready",
        model=model or (selected.key if selected else None),
        models=tuple(loaded.id for one in models for loaded in one.instances),
        context_length=config.context_length if config else None,
        max_context_length=named.max_context_length if named is not None else None,
        parameters=parse_parameters(chosen.params_string) if chosen is not None else None,
        slots=config.parallel if config else None,
    )


def slots(model: str | None) -> Operation[int | None]:
    """Return how many requests the loaded model processes at once; 0 if it is not loaded."""
    _, instance = _find_loaded((yield from _fetch_models()), model)
    if instance is None:
        return 0
    return instance.config.parallel if instance.config else None


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:
    """Load a model with ``POST /api/v1/models/load``, unless it is loaded already."""
    if keep_alive is not None:
        raise UnsupportedOperationError(
            "load",
            "LM Studio takes no keep_alive when it loads; write keep_alive into .ctxrc, and each request sends it",
        )
    target = yield from _find_model(model, "load")
    if target is not None and target.instances:
        current = _get_context_length(target, model)
        if context_length is None or current == context_length:
            return
        yield from _unload_all(target)
    body: dict[str, Any] = {"model": target.key if target is not None else model}
    if context_length is not None:
        body["context_length"] = context_length
    raise_for_failed_command((yield HTTPRequest("POST", "/api/v1/models/load", encode_json(body))))


def unload(model: str) -> Operation[None]:
    """Unload every instance of ``model``, if any."""
    target = yield from _find_model(model, "unload")
    if target is None:
        raise ModelNotFoundError(404, body=f"LM Studio has no model {model}".encode(), message="model not found")
    yield from _unload_all(target)


def _find_model(model: str, operation: str) -> Operation[_Model | None]:
    try:
        models = yield from _fetch_models()
    except NotFoundError as error:
        raise UnsupportedOperationError(operation, _TOO_OLD) from error
    return next((one for one in models if model in one.names), None)


def _unload_all(model: _Model) -> Operation[None]:
    for instance in model.instances:
        raise_for_failed_command(
            (yield HTTPRequest("POST", "/api/v1/models/unload", encode_json({"instance_id": instance.id})))
        )


def prepare(model: str, settings: WireSettings) -> Operation[None]:
    """Load the model with the configured context length, which LM Studio accepts only when it loads.

    Raises:
        ServerConfigurationError: The model is loaded with another context length.
    """
    if settings.context_length is None:
        return
    target = yield from _find_model(model, "context_length")
    if target is not None and target.instances:
        current = _get_context_length(target, model)
        if current is not None and current != settings.context_length:
            raise ServerConfigurationError(
                f"{model} is loaded with a context of {current} tokens, and context_length says "
                f"{settings.context_length}; unload it there, or call load() to load it anew"
            )
        return
    yield from load(model, context_length=settings.context_length, keep_alive=None)
