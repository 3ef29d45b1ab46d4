"""A stand-in for LM Studio: its compatible APIs, and the native one for lists and loading.

Errors have LM Studio's shape: ``{"error": "text"}`` from the checks of a chat, an object from the lookup of a model.
The websocket API is not supported.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from aiohttp import web

from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins import compat_anthropic, compat_openai
from ctxbackends.testing._stand_ins.answers import AnswerError, AnswerFunction
from ctxbackends.testing._stand_ins.compat_openai import Dialect, Reply
from ctxbackends.testing._stand_ins.compat_requests import (
    Invalid,
    from_anthropic,
    from_openai,
    question,
    tools_from_anthropic,
)
from ctxbackends.testing._stand_ins.compat_stream import DONE, SSE, event, send
from ctxbackends.testing._stand_ins.lmstudio_models import LOAD_SECONDS, Catalog, Instance, kind_of
from ctxbackends.testing._stand_ins.scripted import ModelInput, answer, tokens
from ctxbackends.testing._stand_ins.stand_in import Handler, StandIn

MODELS = ("qwen/qwen3-4b", "text-embedding-nomic-embed-text-v1.5")
# Quoted in lmstudio-bug-tracker#1105 and by many clients; it comes with HTTP 400 and is a bare string.
CRASH = "The model has crashed without additional information. (Exit code: null)"
_IMAGES = ("jpeg", "jpg", "png")  # WebP is refused as if it were a link
_TOOL_CHOICES = ("none", "auto", "required")

Body = dict[str, Any]


@attrs.frozen
class Refused(Exception):
    """An answer other than 200: ``error`` is the value of the member of that name."""

    status: int
    error: str | Mapping[str, Any]

    @property
    def message(self) -> str:
        return self.error if isinstance(self.error, str) else str(self.error["message"])


class LMStudioStandIn(StandIn):
    """A stand-in for LM Studio with downloaded models, none of them loaded.

    ``jit`` loads a model with the first request for it, and makes ``/v1/models`` list all. ``catalog.loads`` records
    each load. ``answer`` returns the :class:`Answer` to a :class:`Question`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: Sequence[str] = MODELS,
        jit: bool = True,
        answer: AnswerFunction | None = None,
    ) -> None:
        super().__init__(api_key=api_key, answer=answer)
        self.catalog: Catalog = Catalog(models)
        self.jit = jit
        self._ids = itertools.count(1)

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/v1/models", self._openai_models),
            ("POST", "/v1/chat/completions", _answered(self._chat, _plain_problem)),
            ("POST", "/v1/embeddings", _answered(self._embeddings, _plain_problem)),
            ("POST", "/v1/messages", _answered(self._messages, _anthropic_problem)),
            ("GET", "/api/v1/models", self._models),
            ("POST", "/api/v1/models/load", _answered(self._load, _plain_problem)),
            ("POST", "/api/v1/models/unload", _answered(self._unload, _plain_problem)),
            ("GET", "/api/v0/models", self._models_v0),
        ]

    def authorized(self, request: web.Request) -> bool:
        """The layer for Anthropic's clients takes their header as well: docs, developer/anthropic-compat."""
        return super().authorized(request) or request.headers.get("x-api-key") == self.api_key

    async def unauthorized(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        message = (
            f"Malformed LM Studio API token provided: {key[:10]}... Ensure you are using a valid token."
            if key
            else "An LM Studio API token is required to make requests to this server, but none was provided using the "
            "Authorization header using the 'Bearer' scheme."
        )
        error = {"message": message, "type": "invalid_request", "code": "invalid_api_key"}
        return web.json_response({"error": error}, status=401)

    async def not_found(self, request: web.Request) -> web.StreamResponse:
        """HTTP 200 indeed; its log says "Returning 200 anyway": lmstudio-bug-tracker#1680."""
        return web.json_response({"error": f"Unexpected endpoint or method. ({request.method} {request.path})"})

    # --- native ---

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": [self.catalog.shown(key) for key in self.catalog.keys]})

    async def _models_v0(self, _: web.Request) -> web.StreamResponse:
        data = [self.catalog.shown_v0(key) for key in self._listed()]
        return web.json_response({"data": data, "object": "list"})

    async def _load(self, _: web.Request, body: Body) -> web.StreamResponse:
        key = body.get("model")
        if not key:
            raise _missing("model")
        if key not in self.catalog.keys:
            raise Refused(404, self._not_downloaded(key, kind="invalid_request"))
        instance = self.catalog.load(key, body, on_demand=False)
        told = {
            "type": kind_of(key),
            "instance_id": instance.id,
            "load_time_seconds": LOAD_SECONDS,
            "status": "loaded",
        }
        if body.get("echo_load_config"):
            told["load_config"] = dict(instance.config)
        return web.json_response(told)

    async def _unload(self, _: web.Request, body: Body) -> web.StreamResponse:
        id_ = body.get("instance_id")
        if not id_:
            raise _missing("instance_id")
        if self.catalog.instances.pop(id_, None) is None:
            message = f'No loaded model instance with the identifier "{id_}" was found.'
            error = {"message": message, "type": "invalid_request", "param": "instance_id", "code": "model_not_found"}
            raise Refused(404, error)
        return web.json_response({"instance_id": id_})

    def _listed(self) -> list[str]:
        """All with JIT, else those that are loaded."""
        loaded = {instance.key for instance in self.catalog.instances.values()}
        return [key for key in self.catalog.keys if self.jit or key in loaded]

    # --- which model answers ---

    def _serving(self, name: Any, kind: str) -> Instance:
        """Return the instance that answers a request for ``name``.

        That is the one of this name, one loaded for it, or else the only one (lmstudio-bug-tracker#619).
        """
        loaded = self.catalog.loaded(kind)
        for instance in loaded:
            if name in (instance.id, instance.key):
                return instance
        if self.jit and name in self.catalog.keys and kind_of(name) == kind:
            return self.catalog.load(name, {}, on_demand=True)
        if len(loaded) == 1:
            return loaded[0]
        if loaded:
            listed = "\n".join(self._listed())
            message = f'Model "{name}" not found. Please specify a valid model.\n\nYour models:\n\n{listed}'
            raise Refused(404, _model_error(message))
        if self.jit:
            raise Refused(400, self._not_downloaded(name, kind="invalid_request_error"))
        message = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
        raise Refused(404, {**_model_error(message), "code": None})

    def _not_downloaded(self, name: Any, *, kind: str) -> dict[str, Any]:
        some = ", ".join(self.catalog.keys[:3])
        message = f'Invalid model identifier "{name}". Please specify a valid downloaded model (e.g., {some}).'
        return {**_model_error(message), "type": kind}

    def _reply(self, instance: Instance, asked: ModelInput, prefix: str) -> Reply:
        said = answer(asked)
        number = next(self._ids)
        return Reply(
            id=f"{prefix}{number:020d}",
            created=int(time.time()),
            model=instance.id,
            answer=said,
            call_ids=[call.id or f"{number:05d}{index:04d}" for index, call in enumerate(said.calls)],
            input_tokens=said.reported_input,
        )

    # --- compatible ---

    async def _openai_models(self, _: web.Request) -> web.StreamResponse:
        data = [{"id": key, "object": "model", "owned_by": "organization_owner"} for key in self._listed()]
        return web.json_response({"data": data, "object": "list"})

    async def _chat(self, request: web.Request, body: Body) -> web.StreamResponse:
        read = _chat_question(body)
        instance = self._serving(body.get("model"), "llm")
        asked = self.ask(WireAPI.CHAT_COMPLETIONS, body, read)
        written = self._reply(instance, asked, "chatcmpl-")
        dialect = Dialect(
            reasoning="reasoning" if "gpt-oss" in instance.key else "reasoning_content",
            bare_end=True,
            choice={"logprobs": None},
            body={"stats": {}},
        )
        problem = _overflow(instance, written.answer.input_tokens)
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = compat_openai.chunks(written, dialect, include_usage=include_usage)
            return await send(request, SSE, _stream(chunks, problem, breaks=written.answer.breaks))
        problem = problem or (CRASH if written.answer.breaks else None)
        if problem is not None:
            raise Refused(400, problem)
        return web.json_response(compat_openai.completion(written, dialect))

    async def _embeddings(self, _: web.Request, body: Body) -> web.StreamResponse:
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "'input' field must be a string or an array of strings")
        instance = self._serving(body.get("model"), "embedding")
        vectors = [compat_openai.vector(text) for text in texts]
        counted = sum(len(tokens(text)) for text in texts)
        return web.json_response(compat_openai.embedding_list(instance.id, vectors, counted))

    async def _messages(self, request: web.Request, body: Body) -> web.StreamResponse:
        if not isinstance(body.get("max_tokens"), int):
            raise Refused(400, "max_tokens: Required")
        choice = (body.get("tool_choice") or {}).get("type", "auto")
        thinking = (body.get("thinking") or {}).get("type", "enabled")
        tools = () if choice == "none" else tools_from_anthropic(body.get("tools") or ())
        read = question(
            from_anthropic(body),
            tools=tools,
            must_call=choice in ("any", "tool"),
            max_tokens=body["max_tokens"],
            stop=body.get("stop_sequences") or (),
            think=thinking != "disabled",
        )
        instance = self._serving(body.get("model"), "llm")
        asked = self.ask(WireAPI.MESSAGES, body, read)
        written = self._reply(instance, asked, "msg_")
        problem = _overflow(instance, written.answer.input_tokens)
        if problem is not None:
            raise Refused(400, problem)
        if body.get("stream"):
            return await send(request, SSE, _message_stream(written))
        if written.answer.breaks:
            raise Refused(500, CRASH)
        return web.json_response(compat_anthropic.message(written))


def _chat_question(body: Mapping[str, Any]) -> ModelInput:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "'messages' field is required")
    wanted: Any = body.get("response_format") or {"type": "text"}
    if wanted.get("type") not in ("json_schema", "text"):
        raise Refused(400, "'response_format.type' must be 'json_schema' or 'text'")
    choice = body.get("tool_choice")
    if choice is not None and choice not in _TOOL_CHOICES:
        kind = "object" if isinstance(choice, dict) else type(choice).__name__
        raise Refused(400, f"Invalid tool_choice type: '{kind}'. Supported string values: {', '.join(_TOOL_CHOICES)}")
    limit = body.get("max_tokens")
    stop = body.get("stop") or ()
    return question(
        from_openai(messages, formats=_IMAGES, no_image="'url' field must be a base64 encoded image."),
        tools=() if choice == "none" else body.get("tools") or (),
        must_call=choice == "required",
        schema=wanted["json_schema"]["schema"] if wanted["type"] == "json_schema" else None,
        max_tokens=None if limit is None or limit < 0 else limit,
        stop=[stop] if isinstance(stop, str) else stop,
    )


def _overflow(instance: Instance, read: int) -> str | None:
    window = instance.context_length
    if read < window:
        return None
    return (
        "The number of tokens to keep from the initial prompt is greater than the context length "
        f"(n_keep: {read}>= n_ctx: {window}). Try to load the model with a larger context length, or provide a shorter "
        "input."
    )


def _stream(chunks: Iterator[Mapping[str, Any]], problem: str | None, *, breaks: bool) -> Iterator[bytes]:
    """With HTTP 200 even where nothing can be said: an event ``error`` then tells why (lmstudio-bug-tracker#2322)."""
    if problem is None:
        for number, chunk in enumerate(chunks):
            yield event(chunk)
            if breaks and number == 0:
                problem = CRASH
                break
    if problem is None:
        yield DONE
    else:
        yield event({"error": {"message": problem}, "message": problem}, "error")


def _message_stream(written: Reply) -> Iterator[bytes]:
    for entry in compat_anthropic.events(written):
        yield event(entry, entry["type"])
        if written.answer.breaks and entry["type"] == "content_block_delta":
            yield event(compat_anthropic.error(500, CRASH), "error")
            return


def _answered(
    handler: Callable[[web.Request, Body], Awaitable[web.StreamResponse]],
    problem_body: Callable[[Refused], dict[str, Any]],
) -> Handler:
    """``handler`` with the body, and with the errors in the form of its API."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request, _object(await request.read()))
        except Invalid as invalid:
            problem = Refused(400, invalid.message)
        except Refused as refused:
            problem = refused
        except AnswerError as error:
            problem = Refused(500, str(error))
        return web.json_response(problem_body(problem), status=problem.status)

    return answered


def _object(raw: bytes) -> Body:
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refused(400, "Invalid JSON in the body") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be an object")
    return body


def _plain_problem(problem: Refused) -> dict[str, Any]:
    return {"error": problem.error}


def _anthropic_problem(problem: Refused) -> dict[str, Any]:
    return compat_anthropic.error(problem.status, problem.message)


def _model_error(message: str) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}


def _missing(name: str) -> Refused:
    error = {"message": "Required", "type": "invalid_request", "param": name, "code": "missing_required_parameter"}
    return Refused(400, error)
