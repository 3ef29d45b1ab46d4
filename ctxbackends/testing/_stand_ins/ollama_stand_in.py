"""A stand-in for Ollama: its native API and its OpenAI- and Anthropic-compatible APIs.

In addition to the marks of the scripted model, ``[[busy]]`` in a message simulates a full queue. ``[[fail]]`` returns
HTTP 500 if the request is not streamed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins import compat_anthropic, compat_openai
from ctxbackends.testing._stand_ins.answers import AnswerError, AnswerFunction
from ctxbackends.testing._stand_ins.compat_stream import NDJSON, SSE, line, send
from ctxbackends.testing._stand_ins.ollama_chat import FAILURE, OVERFLOW, ChatReply, chat, checked_options, now, unloads
from ctxbackends.testing._stand_ins.ollama_compat import (
    DIALECT,
    anthropic_stream,
    native_from_anthropic,
    native_from_openai,
    openai_error,
    openai_stream,
    reply,
)
from ctxbackends.testing._stand_ins.ollama_models import Library, OllamaError
from ctxbackends.testing._stand_ins.scripted import ModelInput, tokens
from ctxbackends.testing._stand_ins.stand_in import Handler, StandIn

MODELS = ("qwen3:4b", "nomic-embed-text:latest")
VERSION = "0.32.4"
_NESTED_SINCE = (0, 34)
_CREATED = 1782907200

Body = dict[str, Any]
Answering = Callable[[web.Request, Body], Awaitable[web.StreamResponse]]


class OllamaStandIn(StandIn):
    """A stand-in for Ollama with downloaded models, none of them loaded.

    ``context_length`` is the default of requests without ``num_ctx``, ``max_context_length`` the one of the chat
    models, both in tokens. From ``version`` 0.34 on, the error of a context overflow is different. ``library.loads``
    records each load. ``answer`` returns the :class:`Answer` to a :class:`Question`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: Sequence[str] = MODELS,
        context_length: int = 4096,
        max_context_length: int = 32768,
        version: str = VERSION,
        answer: AnswerFunction | None = None,
    ) -> None:
        super().__init__(api_key=api_key, answer=answer)
        self.library: Library = Library(models, context_length=context_length, max_context_length=max_context_length)
        self.version = version
        self._ids = itertools.count(1)
        self._nested_overflow = tuple(int(part) for part in version.split(".")[:2]) >= _NESTED_SINCE

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/", self._alive),
            ("HEAD", "/", self._alive),
            ("GET", "/api/version", self._version),
            ("GET", "/api/tags", self._tags),
            ("GET", "/api/ps", self._ps),
            ("POST", "/api/show", _answered(self._show, _native_problem)),
            ("POST", "/api/chat", _answered(self._chat, _native_problem)),
            ("POST", "/api/generate", _answered(self._generate, _native_problem)),
            ("POST", "/api/embed", _answered(self._embed, _native_problem)),
            ("GET", "/v1/models", self._openai_models),
            ("POST", "/v1/chat/completions", _answered(self._openai_chat, openai_error)),
            ("POST", "/v1/embeddings", _answered(self._openai_embeddings, openai_error)),
            ("POST", "/v1/messages", _answered(self._messages, self._anthropic_problem)),
        ]

    async def not_found(self, request: web.Request) -> web.StreamResponse:
        _, found, name = request.path.partition("/v1/models/")
        if not found or request.method != "GET":
            return web.Response(status=404, text="404 page not found")
        try:
            self.library.find(name)
        except OllamaError as problem:
            return web.json_response(openai_error(problem), status=problem.status)
        return web.json_response(_openai_model(name))

    async def unauthorized(self, _: web.Request) -> web.StreamResponse:
        """Of ollama.com: a server of one's own asks for no key."""
        return web.json_response({"error": "unauthorized"}, status=401)

    # --- native ---

    async def _alive(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="Ollama is running")

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": self.version})

    async def _tags(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": [model.tag() for model in self.library.models.values()]})

    async def _ps(self, _: web.Request) -> web.StreamResponse:
        loaded = self.library.loaded()
        return web.json_response(
            {"models": [self.library.models[name].process(entry) for name, entry in loaded.items()]}
        )

    async def _show(self, _: web.Request, body: Body) -> web.StreamResponse:
        return web.json_response(self.library.find(body.get("model") or body.get("name")).shown())

    async def _chat(self, request: web.Request, body: Body) -> web.StreamResponse:
        said = self._generated(body, WireAPI.OLLAMA, body)
        if isinstance(said, dict):
            return web.json_response(said)
        if body.get("stream") is False:
            _check_whole(said)
            return web.json_response(said.whole())
        return await send(request, NDJSON, _native_stream(said))

    async def _generate(self, _: web.Request, body: Body) -> web.StreamResponse:
        """Loads and unloads; it is what the command line's `ollama stop` sends."""
        model = self.library.find(body.get("model"))
        if body.get("prompt"):
            return web.json_response({"error": "the stand-in generates in /api/chat only"}, status=501)
        gone = unloads(self.library, model, body)
        if not gone:
            num_ctx = checked_options(body.get("options")).get("num_ctx")
            self.library.load(model, num_ctx=num_ctx, keep_alive=body.get("keep_alive"))
        told = {"model": body["model"], "created_at": now(), "response": "", "done": True}
        return web.json_response({**told, "done_reason": "unload" if gone else "load"})

    async def _embed(self, _: web.Request, body: Body) -> web.StreamResponse:
        return web.json_response(self._embedded(body))

    def _embedded(self, body: Mapping[str, Any]) -> dict[str, Any]:
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise OllamaError(400, "invalid input type")
        model = self.library.find(body.get("model"))
        num_ctx = checked_options(body.get("options")).get("num_ctx")
        loaded, load_ns = self.library.load(model, num_ctx=num_ctx, keep_alive=body.get("keep_alive"))
        if not given:
            return {"model": body["model"], "embeddings": []}
        pieces = [tokens(text) for text in texts]
        longest = max(len(text) for text in pieces)
        if longest > loaded.context_length and body.get("truncate") is False:
            raise OllamaError(400, OVERFLOW)
        read = [text[: loaded.context_length] for text in pieces]
        vectors = [compat_openai.vector("".join(text)) for text in read]
        width = body.get("dimensions") or 0
        if 0 < width < compat_openai.DIMENSIONS:
            vectors = [compat_openai.unit(values[:width]) for values in vectors]
        return {
            "model": body["model"],
            "embeddings": vectors,
            "total_duration": load_ns + 1_000_000 * len(texts),
            "load_duration": load_ns,
            "prompt_eval_count": sum(len(text) for text in read),
        }

    # --- compatible ---

    async def _openai_models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [_openai_model(name) for name in self.library.models]})

    async def _openai_chat(self, request: web.Request, body: Body) -> web.StreamResponse:
        said = self._replied(native_from_openai(body), WireAPI.CHAT_COMPLETIONS, body)
        written = reply(said, f"chatcmpl-{next(self._ids)}")
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return await send(request, SSE, openai_stream(written, include_usage=include_usage))
        _check_whole(said)
        return web.json_response(compat_openai.completion(written, DIALECT))

    async def _openai_embeddings(self, _: web.Request, body: Body) -> web.StreamResponse:
        encoding = body.get("encoding_format") or "float"
        if encoding.lower() not in ("float", "base64"):
            raise OllamaError(
                400, f"Invalid value for 'encoding_format' = {encoding}. Supported values: ['float', 'base64']."
            )
        given = [""] if body.get("input") == "" else body.get("input")
        if not given:
            raise OllamaError(400, "invalid input")
        embedded = self._embedded({"model": body.get("model"), "input": given, "dimensions": body.get("dimensions")})
        return web.json_response(
            compat_openai.embedding_list(
                embedded["model"],
                embedded["embeddings"],
                embedded["prompt_eval_count"],
                packed=encoding.lower() == "base64",
            )
        )

    async def _messages(self, request: web.Request, body: Body) -> web.StreamResponse:
        native = native_from_anthropic(body)
        if "thinking" not in self.library.find(native["model"]).capabilities:
            native.pop("think", None)  # ChatHandler relaxes it for this layer
        said = self._replied(native, WireAPI.MESSAGES, body)
        written = reply(said, f"msg_{next(self._ids):024x}")
        if body.get("stream"):
            return await send(request, SSE, anthropic_stream(written))
        _check_whole(said)
        return web.json_response(compat_anthropic.message(written))

    def _generated(self, native: Body, wire: WireAPI, body: Body) -> ChatReply | dict[str, Any]:
        def ask(read: ModelInput) -> ModelInput:
            return self.ask(wire, body, read, objects=True)

        return chat(self.library, native, nested_overflow=self._nested_overflow, ask=ask)

    def _replied(self, native: Body, wire: WireAPI, body: Body) -> ChatReply:
        said = self._generated(native, wire, body)
        assert isinstance(said, ChatReply)  # the layers refuse a request without messages
        return said

    def _anthropic_problem(self, problem: OllamaError) -> dict[str, Any]:
        return {
            **compat_anthropic.error(problem.status, problem.message),
            "request_id": f"req_{next(self._ids):024x}",
        }


def _answered(handler: Answering, problem_body: Callable[[OllamaError], dict[str, Any]]) -> Handler:
    """``handler`` with the body, and with the errors in the form of its API."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request, await _body_of(request))
        except AnswerError as error:
            problem = OllamaError(500, str(error))
        except OllamaError as refused:
            problem = refused
        return web.json_response(problem_body(problem), status=problem.status)

    return answered


async def _body_of(request: web.Request) -> Body:
    raw = await request.read()
    if not raw:
        raise OllamaError(400, "missing request body")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise OllamaError(400, f"invalid character in JSON: {error}") from None
    if not isinstance(body, dict):
        raise OllamaError(400, "json: cannot unmarshal into Go value of type api.ChatRequest")
    return body


def _native_problem(problem: OllamaError) -> dict[str, Any]:
    return {"error": problem.message}


def _native_stream(said: ChatReply) -> Iterator[bytes]:
    for number, entry in enumerate(said.lines()):
        yield line(entry)
        if said.answer.breaks and number == 0:
            yield line({"error": FAILURE})
            return


def _check_whole(said: ChatReply) -> None:
    if said.answer.breaks:
        raise OllamaError(500, FAILURE)


def _openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "library"}
