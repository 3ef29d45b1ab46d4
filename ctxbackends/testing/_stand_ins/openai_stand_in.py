"""A stand-in for OpenAI's API: routes, keys, models, embeddings and token counts.

The marks of the chat completions stand-in work here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from ctxbackends.testing._stand_ins.answers import AnswerError, AnswerFunction
from ctxbackends.testing._stand_ins.openai_answers import embeddings, vector
from ctxbackends.testing._stand_ins.openai_chat_stand_in import SNAPSHOTS, ChatCompletions, known_as, tools_read
from ctxbackends.testing._stand_ins.openai_checks import (
    COUNT_MEMBERS,
    EMBEDDING_MEMBERS,
    MOST_INPUTS,
    OpenAIProblem,
    check_members,
    missing,
    no_such_model,
)
from ctxbackends.testing._stand_ins.scripted import tokens
from ctxbackends.testing._stand_ins.stand_in import Handler, StandIn

DIMENSIONS = 8
MODELS = ("gpt-5-mini", "gpt-4.1-mini", "text-embedding-3-small")
_CREATED = 1754524800
_MOST_EMBEDDED_TOKENS = 8192


class OpenAIStandIn(StandIn):
    """A stand-in for OpenAI's API.

    ``models`` are the models in the list; those with "embedding" in their names embed, the others chat.
    ``context_length`` is the context length of each, in tokens. ``answer`` returns the :class:`Answer` to a
    :class:`Question`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: Sequence[str] = MODELS,
        context_length: int = 8192,
        answer: AnswerFunction | None = None,
    ) -> None:
        super().__init__(api_key=api_key, answer=answer)
        self.models: tuple[str, ...] = tuple(models)
        self._chat = ChatCompletions(models=self.models, context_length=context_length, ask=self.ask)
        self._requests = itertools.count()

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/v1/models", self._list_models),
            ("POST", "/v1/chat/completions", self._guarded(self._chat_completions)),
            ("POST", "/v1/embeddings", self._guarded(self._embeddings)),
            ("POST", "/v1/responses/input_tokens", self._guarded(self._input_tokens)),
        ]

    async def not_found(self, request: web.Request) -> web.StreamResponse:
        _, found, model = request.path.partition("/v1/models/")
        if found and request.method == "GET":
            try:
                known_as(model, self.models, SNAPSHOTS)
            except OpenAIProblem:
                return self._problem(
                    OpenAIProblem(404, f"The model '{model}' does not exist", param="model", code="model_not_found")
                )
            return self._json(_model(model))
        return self._problem(OpenAIProblem(404, f"Invalid URL ({request.method} {request.path})"))

    async def unauthorized(self, request: web.Request) -> web.StreamResponse:
        _, _, key = request.headers.get("Authorization", "").partition("Bearer ")
        if not key:
            problem = OpenAIProblem(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
        else:
            problem = OpenAIProblem(
                401,
                f"Incorrect API key provided: {masked(key)}. You can find your API key at "
                "https://platform.openai.com/account/api-keys.",
                code="invalid_api_key",
            )
        return self._problem(problem)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except OpenAIProblem as problem:
                return self._problem(problem)
            except AnswerError as error:
                return self._problem(OpenAIProblem(500, str(error), kind="server_error"))

        return guarded

    def _headers(self) -> dict[str, str]:
        return {
            "x-request-id": f"req_{next(self._requests):032x}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
        }

    def _json(self, value: Mapping[str, Any]) -> web.Response:
        return web.json_response(value, headers=self._headers())

    def _problem(self, problem: OpenAIProblem) -> web.Response:
        return web.json_response(problem.body, status=problem.status, headers=self._headers() | problem.headers)

    async def _list_models(self, _: web.Request) -> web.StreamResponse:
        return self._json({"object": "list", "data": [_model(name) for name in self.models]})

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        if isinstance(body, dict) and "embedding" in str(body.get("model")) and body["model"] in self.models:
            raise OpenAIProblem(
                404,
                "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to "
                "use v1/completions?",
                param="model",
            )
        return await self._chat.serve(request, body, self._headers())

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        check_members(body, EMBEDDING_MEMBERS)
        if not body.get("model"):
            raise OpenAIProblem(400, "you must provide a model parameter")
        model = body["model"]
        if model not in self.models:
            raise no_such_model(model)
        if "embedding" not in model:
            raise OpenAIProblem(403, "You are not allowed to generate embeddings from this model")
        inputs = _inputs(body.get("input"))
        lengths = [len(tokens(given)) if isinstance(given, str) else len(given) for given in inputs]
        if max(lengths) > _MOST_EMBEDDED_TOKENS:
            raise OpenAIProblem(
                400,
                f"This model's maximum context length is {_MOST_EMBEDDED_TOKENS} tokens, however you requested "
                f"{max(lengths)} tokens ({max(lengths)} in your prompt; 0 for the completion). Please reduce your "
                "prompt; or completion length.",
            )
        dimensions = body.get("dimensions")
        if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
            raise OpenAIProblem(
                400,
                "Invalid 'dimensions': integer below minimum value. Expected a value >= 1, but got "
                f"{dimensions} instead.",
                param="dimensions",
                code="integer_below_min_value",
            )
        encoding = body.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise OpenAIProblem(
                400,
                f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'.",
                param="encoding_format",
                code="invalid_value",
            )
        vectors = [
            vector(given if isinstance(given, str) else json.dumps(given), dimensions or DIMENSIONS) for given in inputs
        ]
        return self._json(embeddings(vectors, model=model, prompt_tokens=sum(lengths), packed=encoding == "base64"))

    async def _input_tokens(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        check_members(body, COUNT_MEMBERS)
        if body.get("model") is not None:
            known_as(body["model"], self.models, SNAPSHOTS)
        given = body.get("input")
        if given is None:
            raise missing("input")
        items: list[Mapping[str, Any]] = [{"content": given}] if isinstance(given, str) else given
        read = [body.get("instructions") or "", *(text for item in items for text in _item_texts(item))]
        read += tools_read(body.get("tools") or ())
        counted = max(1, len(tokens("\n".join(read).strip())))
        return self._json({"object": "response.input_tokens", "input_tokens": counted})


async def body_of(request: web.Request) -> Any:
    """Return the body as JSON, or None if it is not JSON."""
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def masked(key: str) -> str:
    """Return a key as OpenAI's errors show it."""
    return key if len(key) < 12 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system"}


def _inputs(given: Any) -> list[Any]:
    """Return the inputs to embed, each a text or a list of token IDs."""
    if given is None:
        raise missing("input")
    one = isinstance(given, str) or (isinstance(given, list) and bool(given) and isinstance(given[0], int))
    inputs = [given] if one else given
    if not isinstance(inputs, list) or not inputs or not all(inputs):
        raise OpenAIProblem(
            400, "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        )
    if len(inputs) > MOST_INPUTS:
        raise OpenAIProblem(
            400,
            f"Invalid 'input': array too long. Expected an array with maximum length {MOST_INPUTS}, but got an array "
            f"with length {len(inputs)} instead.",
            param="input",
            code="array_above_max_length",
        )
    return inputs


def _item_texts(item: Mapping[str, Any]) -> list[str]:
    """Return the text of an input item of a response: a message, a call or its output."""
    if item.get("type") == "function_call":
        return [f"{item['name']} {item['arguments']}"]
    content = item.get("output") if item.get("type") == "function_call_output" else item.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if isinstance(part.get("text"), str)]
