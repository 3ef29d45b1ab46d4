"""A stand-in for Anthropic's API: routes, keys, models and the prompt cache.

More marks in the last user message and its tool results: ``[[redact]]`` redacts the thinking; ``[[refuse]]``,
``[[window]]`` and ``[[pause]]`` set the stop reason (``[[refuse]]text[[/refuse]]`` adds an explanation); ``[[rate]]``
returns 429 and ``[[overload]]`` 529; ``[[fail]]`` returns 500, or an error in a stream.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from aiohttp import web

from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins.answers import AnswerError, AnswerFunction, arguments_object
from ctxbackends.testing._stand_ins.anthropic_answers import Reply, events, message, model, usage
from ctxbackends.testing._stand_ins.anthropic_checks import AnthropicProblem, check_body, check_version, invalid, thinks
from ctxbackends.testing._stand_ins.openai_chat_stand_in import ChatCompletions
from ctxbackends.testing._stand_ins.openai_checks import OpenAIProblem
from ctxbackends.testing._stand_ins.openai_stand_in import body_of
from ctxbackends.testing._stand_ins.scripted import ModelInput, ModelOutput, answer, tokens
from ctxbackends.testing._stand_ins.stand_in import Handler, StandIn

MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5")
_REFUSE = re.compile(r"\[\[refuse\]\](?:(.*?)\[\[/refuse\]\])?", re.DOTALL)
_COMPATIBLE = "/v1/chat/completions"

# The model that answers for an alias, from anthropic 2.12, types/model_param.py; later models have no dates.
SNAPSHOTS = {
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
}

# https://platform.claude.com/docs/en/api/openai-sdk#simple-fields
_IGNORED = frozenset(
    [
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "metadata",
        "modalities",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "store",
        "top_logprobs",
        "user",
    ]
)
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
}
_ENDINGS = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


@attrs.frozen
class _Read:
    """A piece of what the model reads. ``cached``: how long the cache keeps all up to here, if it does."""

    text: str
    cached: str | None = None


class AnthropicStandIn(StandIn):
    """A stand-in for Anthropic's API.

    Attributes:
        models: The models in the list.
        context_length: The context length of each model, in tokens.
        answer: Returns the :class:`Answer` to a :class:`Question`; None for the scripted model.
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
        self.context_length = context_length
        self._chat = ChatCompletions(
            models=self.models,
            context_length=context_length,
            ask=self.ask,
            snapshots=SNAPSHOTS,
            ignored=_IGNORED,
            native=False,
        )
        self._numbers = itertools.count()
        self._cache: set[bytes] = set()

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/v1/models", self._guarded(self._list_models)),
            ("POST", "/v1/messages", self._guarded(self._messages)),
            ("POST", "/v1/messages/count_tokens", self._guarded(self._count_tokens)),
            ("POST", _COMPATIBLE, self._chat_completions),
        ]

    def authorized(self, request: web.Request) -> bool:
        key = request.headers.get("x-api-key")
        if request.path == _COMPATIBLE or key is None or self.api_key is None:
            return super().authorized(request)
        return key == self.api_key

    async def unauthorized(self, request: web.Request) -> web.StreamResponse:
        if request.path == _COMPATIBLE:
            return self._imitated_problem(OpenAIProblem(401, "Invalid bearer token"))
        if "x-api-key" in request.headers:
            told = "invalid x-api-key"
        elif "Authorization" in request.headers:
            told = "Invalid bearer token"
        else:
            told = "x-api-key header is required"
        return self._problem(AnthropicProblem(401, "authentication_error", told))

    async def not_found(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path.startswith("/v1/models/"):
            return await self._guarded(self._one_model)(request)
        return self._problem(AnthropicProblem(404, "not_found_error", "Not found"))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                check_version(request.headers.get("anthropic-version"))
                return await handler(request)
            except AnthropicProblem as problem:
                return self._problem(problem)
            except AnswerError as error:
                return self._problem(AnthropicProblem(500, "api_error", str(error)))

        return guarded

    def _headers(self) -> dict[str, str]:
        return {"request-id": f"req_{next(self._numbers):024d}"}

    def _problem(self, problem: AnthropicProblem) -> web.Response:
        headers = self._headers()
        error = {"type": problem.kind, "message": problem.message}
        body = {"type": "error", "error": error, "request_id": headers["request-id"]}
        return web.json_response(body, status=problem.status, headers=headers | problem.headers)

    # --- models -----------------------------------------------------------------------------------

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        try:
            limit = int(request.query.get("limit", "20"))
        except ValueError:
            raise invalid("limit: Input should be a valid integer, unable to parse string as an integer") from None
        if not 1 <= limit <= 1000:
            raise invalid(
                "limit: Input should be "
                + ("greater than or equal to 1" if limit < 1 else "less than or equal to 1000")
            )
        names = list(self.models)
        for name in ("after_id", "before_id"):
            if name in request.query and request.query[name] not in names:
                raise invalid(f"{name}: Invalid cursor")
        if "before_id" in request.query:
            before = names[: names.index(request.query["before_id"])]
            page, more = before[-limit:], len(before) > limit
        else:
            after = names[names.index(request.query["after_id"]) + 1 :] if "after_id" in request.query else names
            page, more = after[:limit], len(after) > limit
        listed = {
            "data": [model(name, context_length=self.context_length) for name in page],
            "has_more": more,
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        return web.json_response(listed, headers=self._headers())

    async def _one_model(self, request: web.Request) -> web.StreamResponse:
        name = self._known(request.path.removeprefix("/v1/models/"))
        return web.json_response(model(name, context_length=self.context_length), headers=self._headers())

    def _known(self, name: Any) -> str:
        """The name that the answer bears."""
        if name in self.models:
            return SNAPSHOTS.get(name, str(name))
        if any(SNAPSHOTS.get(alias) == name for alias in self.models):
            return str(name)
        raise AnthropicProblem(404, "not_found_error", f"model: {name}")

    # --- messages ---------------------------------------------------------------------------------

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        check_body(body, request.headers["anthropic-version"], counting=True)
        self._known(body["model"])
        said = answer(_question(body, _read(body)))
        return web.json_response({"input_tokens": said.input_tokens}, headers=self._headers())

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        check_body(body, request.headers["anthropic-version"], counting=False)
        name = self._known(body["model"])
        read = _read(body)
        question = self.ask(WireAPI.MESSAGES, body, _question(body, read))
        _check_marks(question.prompt)
        length = answer(question).input_tokens
        if length > self.context_length:
            raise invalid(f"prompt is too long: {length} tokens > {self.context_length} maximum")
        room = self.context_length - length
        said = _said(question, min(body["max_tokens"], room))
        streamed = bool(body.get("stream"))
        if said.breaks and not streamed:
            raise AnthropicProblem(500, "api_error", "Internal server error")
        reply = self._reply(body, name, question, said, read, full=room < body["max_tokens"])
        if not streamed:
            return web.json_response(message(reply), headers=self._headers())
        return await self._stream(request, reply, breaks=said.breaks)

    def _reply(
        self,
        body: Mapping[str, Any],
        name: str,
        question: ModelInput,
        said: ModelOutput,
        read: Sequence[_Read],
        *,
        full: bool,
    ) -> Reply:
        """``full``: the context ends before ``max_tokens`` does."""
        number = next(self._numbers)
        redact = "[[redact]]" in question.prompt and question.think
        choice = body.get("tool_choice") or {}
        refused = _REFUSE.search(question.prompt)
        calls = () if refused else said.calls[: 1 if choice.get("disable_parallel_tool_use") else None]
        text = "" if refused and "[[say]]" not in question.prompt else said.text
        stop_reason = _stop_reason(question.prompt, said, full=full)
        thought = len(tokens(said.reasoning))
        cache_read, cache_5m, cache_1h = self._through_the_cache(body, read)
        return Reply(
            id=f"msg_{number:024d}",
            model=name,
            thinking=said.reasoning if said.reasoning or redact else None,
            redact=redact,
            omit=(body.get("thinking") or {}).get("display") == "omitted",
            text=text,
            calls=[
                (call.id or f"toolu_{number:012d}{index:012d}", call.name, arguments_object(call))
                for index, call in enumerate(calls)
            ],
            stop_reason=stop_reason,
            stop_sequence=said.stop_sequence if stop_reason == "stop_sequence" else None,
            stop_details=_stop_details(refused[1] if refused else None) if stop_reason == "refusal" else None,
            usage=usage(
                total=said.input_tokens,
                cache_read=cache_read,
                cache_5m=cache_5m,
                cache_1h=cache_1h,
                output=max(1, thought + len(tokens(text)) + 8 * len(calls)),
                thinking=thought,
            )
            if said.usage is None
            else usage(
                total=said.usage.input_tokens,
                cache_read=said.usage.cached_input_tokens or 0,
                cache_5m=said.usage.cache_write_tokens or 0,
                cache_1h=0,
                output=said.usage.output_tokens,
                thinking=said.usage.reasoning_tokens or 0,
            ),
        )

    def _through_the_cache(self, body: Mapping[str, Any], read: Sequence[_Read]) -> tuple[int, int, int]:
        """The tokens that were read from the cache, and those that were written to it for five minutes and an hour.

        The cache has what ends with a breakpoint; a request reads the longest of those that it begins with, up to its
        own last one. https://platform.claude.com/docs/en/build-with-claude/prompt-caching
        """
        digest = hashlib.sha256(json.dumps([body["model"], body.get("thinking")]).encode())
        length = hit = 0
        written: list[tuple[int, str, bytes]] = []
        for index, piece in enumerate(read):
            digest.update(json.dumps(piece.text).encode())
            length += len(tokens(piece.text))
            if digest.digest() in self._cache and any(later.cached for later in read[index:]):
                hit = length
            if piece.cached is not None:
                written.append((length, piece.cached, digest.digest()))
        spans = {"5m": 0, "1h": 0}
        last = hit
        for end, kept, key in written:
            spans[kept] += max(0, end - last)
            last = max(last, end)
            self._cache.add(key)
        return hit, spans["5m"], spans["1h"]

    async def _stream(self, request: web.Request, reply: Reply, *, breaks: bool) -> web.StreamResponse:
        headers = {**self._headers(), "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for event in events(reply):
            await response.write(_event(event))
            if breaks and event["type"] == "content_block_delta":
                error = {"type": "overloaded_error", "message": "Overloaded"}
                await response.write(_event({"type": "error", "error": error}))
                break
        await response.write_eof()
        return response

    # --- as OpenAI has it -------------------------------------------------------------------------

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._chat.serve(request, await body_of(request), self._headers())
        except OpenAIProblem as problem:
            return self._imitated_problem(problem)
        except AnswerError as error:
            return self._imitated_problem(OpenAIProblem(500, str(error)))

    def _imitated_problem(self, problem: OpenAIProblem) -> web.Response:
        kind = _KINDS[problem.status]
        error = {"code": kind, "message": str(problem), "type": kind, "param": None}
        return web.json_response({"error": error}, status=problem.status, headers=self._headers() | problem.headers)


def _check_marks(prompt: str) -> None:
    if "[[rate]]" in prompt:
        raise AnthropicProblem(
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 50 requests per minute.",
            {"retry-after": "1"},
        )
    if "[[overload]]" in prompt:
        raise AnthropicProblem(529, "overloaded_error", "Overloaded")


def _question(body: Mapping[str, Any], read: Sequence[_Read]) -> ModelInput:
    tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools") or () if "input_schema" in tool}
    choice = body.get("tool_choice") or {"type": "auto"}
    must_call: Sequence[str] = ()
    if choice["type"] == "none":
        tools = {}
    elif choice["type"] == "any":
        must_call = list(tools)
    elif choice["type"] == "tool":
        must_call = [choice["name"]]
    wanted = (body.get("output_config") or {}).get("format") or {}
    users = [said["content"] for said in body["messages"] if said["role"] == "user"]
    return ModelInput(
        prompt="\n".join(_texts(users[-1])) if users else "",
        read="\n".join(piece.text for piece in read),
        tools=tools,
        must_call=must_call,
        schema=wanted.get("schema"),
        stop=body.get("stop_sequences") or (),
        think=thinks(body),
    )


def _said(question: ModelInput, limit: int) -> ModelOutput:
    """Return the model's answer within ``limit`` tokens, some of which it spends on thinking."""
    thought = len(tokens(answer(question).reasoning))
    return answer(attrs.evolve(question, max_tokens=max(0, limit - thought)))


def _stop_reason(prompt: str, said: ModelOutput, *, full: bool) -> str:
    for mark, reason in (
        ("[[refuse]]", "refusal"),
        ("[[window]]", "model_context_window_exceeded"),
        ("[[pause]]", "pause_turn"),
    ):
        if mark in prompt:
            return reason
    if said.ending == "length" and full:
        return "model_context_window_exceeded"
    return _ENDINGS[said.ending]


def _stop_details(explanation: str | None) -> dict[str, Any]:
    return {"type": "refusal", "category": None if explanation is None else "general_harms", "explanation": explanation}


def _read(body: Mapping[str, Any]) -> list[_Read]:
    """All that the model reads, in the order in which the cache sees it."""
    read = [_Read(json.dumps(_bare(tool)), _kept(tool)) for tool in body.get("tools") or ()]
    contents = [body.get("system") or [], *(said["content"] for said in body["messages"])]
    for content in contents:
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        read += [_Read("\n".join(_texts([block])) or json.dumps(_bare(block)), _kept(block)) for block in blocks]
    if body.get("cache_control") and read:
        read[-1] = _Read(read[-1].text, _kept(body))
    return read


def _bare(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name != "cache_control"}


def _kept(holder: Mapping[str, Any]) -> str | None:
    control = holder.get("cache_control")
    return None if not control else control.get("ttl") or "5m"


def _texts(content: Any) -> list[str]:
    """The text in a message's content, in the results of tools as well."""
    if isinstance(content, str):
        return [content]
    found: list[str] = []
    for block in content or ():
        if block["type"] == "text":
            found.append(block["text"])
        elif block["type"] == "tool_result":
            found += _texts(block.get("content"))
    return found


def _event(value: Mapping[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()
