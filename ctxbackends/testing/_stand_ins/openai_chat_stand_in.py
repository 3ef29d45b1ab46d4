"""Chat completions as OpenAI serves them: from the body of a request to a response or a stream.

Has no routes and keys, so that stand-ins for other vendors can use it. More marks in the last user message or the tool
results after it: ``[[refuse]]text[[/refuse]]`` is a refusal, ``[[filter]]`` ends with ``content_filter``, ``[[rate]]``
returns 429, and ``[[fail]]`` returns 500, or an error in a stream.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from aiohttp import web

from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins.openai_answers import FinishReason, Reply, chunks, completion, usage
from ctxbackends.testing._stand_ins.openai_checks import (
    CHAT_MEMBERS,
    OpenAIProblem,
    check_chat,
    check_imitated_chat,
    check_members,
    is_reasoning,
    no_such_model,
    texts,
    too_long,
)
from ctxbackends.testing._stand_ins.scripted import ModelInput, ModelOutput, answer, tokens

_REFUSE = re.compile(r"\[\[refuse\]\](.*?)\[\[/refuse\]\]", re.DOTALL)
_SCHEMA_OF_ANY_OBJECT = {"type": "object"}

# The cache of prompts: https://platform.openai.com/docs/guides/prompt-caching
CACHE_LEAST = 1024
CACHE_STEP = 128

# The model that answers for an alias, from openai 3.54, types/shared/chat_model.py
SNAPSHOTS = {
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "gpt-5.1": "gpt-5.1-2025-11-13",
    "gpt-5.2": "gpt-5.2-2025-12-11",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "o3": "o3-2025-04-16",
    "o4-mini": "o4-mini-2025-04-16",
}


def known_as(model: Any, models: Sequence[str], snapshots: Mapping[str, str]) -> str:
    """The name that the answer bears; a snapshot may be asked for where its alias may."""
    if model in models:
        return snapshots.get(model, model)
    if any(snapshots.get(alias) == model for alias in models):
        return str(model)
    raise no_such_model(str(model))


@attrs.define(kw_only=True)
class ChatCompletions:
    """The endpoint, with its memory of prompts.

    ``native`` is False where another vendor imitates it: unknown members are let through and what only OpenAI fills is
    left out. ``ignored``: members of the body that have no effect. ``ask`` is :meth:`StandIn.ask`.
    """

    models: Sequence[str]
    context_length: int
    ask: Callable[[WireAPI, Mapping[str, Any], ModelInput], ModelInput]
    snapshots: Mapping[str, str] = attrs.field(factory=lambda: SNAPSHOTS)
    ignored: frozenset[str] = frozenset()
    native: bool = True
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _seen: list[list[str]] = attrs.field(factory=list, init=False)

    async def serve(self, request: web.Request, body: Any, headers: Mapping[str, str]) -> web.StreamResponse:
        """The answer, with ``headers``. Raises :class:`OpenAIProblem`."""
        check_members(body, CHAT_MEMBERS if self.native else None)
        body = {name: value for name, value in body.items() if name not in self.ignored}
        if not body.get("model"):
            raise OpenAIProblem(400, "you must provide a model parameter")
        model = known_as(body["model"], self.models, self.snapshots)
        reasoning = self.native and is_reasoning(model)
        if self.native:
            check_chat(body, reasoning=reasoning)
        else:
            check_imitated_chat(body)
        think = reasoning and body.get("reasoning_effort") != "none"
        question = self.ask(WireAPI.CHAT_COMPLETIONS, body, _question(body, think=think))
        if "[[rate]]" in question.prompt:
            raise rate_limited(model)
        said = _said(question)
        if said.input_tokens > self.context_length:
            raise too_long(model, length=said.input_tokens, most=self.context_length)
        if said.breaks and not body.get("stream"):
            raise broken()
        reply = self._reply(body, model, question, said)
        several = body.get("n") or 1
        if not body.get("stream"):
            return web.json_response(completion(reply, several), headers=headers)
        return await self._stream(request, body, reply, several, said, headers)

    def _reply(self, body: Mapping[str, Any], model: str, question: ModelInput, said: ModelOutput) -> Reply:
        number = next(self._numbers)
        refused = _REFUSE.search(question.prompt) if self.native else None
        calls = () if refused else said.calls[: 1 if body.get("parallel_tool_calls") is False else None]
        text = "" if refused else said.text
        refusal = refused[1] if refused else None
        written = len(tokens(said.reasoning)) + len(tokens(text)) + len(tokens(refusal or "")) + 8 * len(calls)
        return Reply(
            id=f"chatcmpl-{number:024d}",
            created=int(time.time()),
            model=model,
            text=text,
            refusal=refusal,
            calls=[
                (call.id or f"call_{number:012d}{index:012d}", call.name, call.arguments)
                for index, call in enumerate(calls)
            ],
            finish_reason="stop" if refused else self._finish_reason(body, question, said),
            usage=usage(
                prompt=said.input_tokens,
                completion=max(1, written),
                cached=self._cached(question.read) if self.native else 0,
                reasoning=len(tokens(said.reasoning)),
                details=self.native,
            )
            if said.usage is None
            else usage(
                prompt=said.usage.input_tokens,
                completion=said.usage.output_tokens,
                cached=said.usage.cached_input_tokens or 0,
                reasoning=said.usage.reasoning_tokens or 0,
                details=self.native,
            ),
            top_logprobs=(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
            details=self.native,
        )

    def _finish_reason(self, body: Mapping[str, Any], question: ModelInput, said: ModelOutput) -> FinishReason:
        if "[[filter]]" in question.prompt or said.ending == "content_filter":
            return "content_filter"
        if said.ending == "tool_calls":
            # A call of the one tool that was named ends with "stop":
            # https://platform.openai.com/docs/guides/structured-outputs#handling-edge-cases
            choice = body.get("tool_choice")
            named = isinstance(choice, dict) and choice.get("type") == "function"
            is_derived = question.answer is None or question.answer.finish_reason is None
            return "stop" if self.native and named and is_derived else "tool_calls"
        return "length" if said.ending == "length" else "stop"

    def _cached(self, prompt: str) -> int:
        """How many tokens of the beginning have been seen before; ``prompt`` will have been."""
        now = tokens(prompt)
        if len(now) < CACHE_LEAST:
            return 0
        shared = max(
            (
                sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(now, seen, strict=False)))
                for seen in self._seen
            ),
            default=0,
        )
        self._seen.append(now)
        return 0 if shared < CACHE_LEAST else shared - shared % CACHE_STEP

    async def _stream(
        self,
        request: web.Request,
        body: Mapping[str, Any],
        reply: Reply,
        several: int,
        said: ModelOutput,
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        options = body.get("stream_options") or {}
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        pieces = chunks(
            reply,
            several,
            with_usage=bool(options.get("include_usage")),
            obfuscated=self.native and options.get("include_obfuscation") is not False,
        )
        for count, chunk in enumerate(pieces):
            if said.breaks and count == 2:  # the role and one piece are out
                await response.write(_event(broken().body))
                break
            await response.write(_event(chunk))
        else:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def rate_limited(model: str) -> OpenAIProblem:
    return OpenAIProblem(
        429,
        f"Rate limit reached for {model} in organization org-stand-in on requests per min (RPM): Limit 3, Used 3, "
        "Requested 1. Please try again in 1s.",
        kind="requests",
        code="rate_limit_exceeded",
        headers={"retry-after": "1", "retry-after-ms": "1000"},
    )


def broken() -> OpenAIProblem:
    return OpenAIProblem(
        500, "The server had an error while processing your request. Sorry about that!", kind="server_error"
    )


def tools_read(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tools as the model reads them: the same in chat completions and, where they lie flat, in responses."""
    functions: list[Mapping[str, Any]] = [tool.get("function", tool) for tool in tools]
    return [
        f"{function.get('name')} {function.get('description', '')} {json.dumps(function.get('parameters', {}))}"
        for function in functions
    ]


def _question(body: Mapping[str, Any], *, think: bool) -> ModelInput:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    read = [text for message in messages for text in _all_texts(message)]
    tools = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in body.get("tools") or ()}
    read += tools_read(body.get("tools") or ())
    choice = body.get("tool_choice") or "auto"
    must_call: Sequence[str] = ()
    if choice == "none":
        tools = {}
    elif choice == "required":
        must_call = list(tools)
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice["allowed_tools"]
        tools = {tool["function"]["name"]: tools[tool["function"]["name"]] for tool in allowed["tools"]}
        must_call = list(tools) if allowed["mode"] == "required" else ()
    elif isinstance(choice, dict):
        must_call = [choice["function"]["name"]]
        tools = {name: tools[name] for name in must_call}
    wanted = body.get("response_format") or {}
    schema: Mapping[str, Any] | None = None
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"].get("schema", _SCHEMA_OF_ANY_OBJECT)
    elif wanted.get("type") == "json_object":
        schema = _SCHEMA_OF_ANY_OBJECT
    stop = body.get("stop") or ()
    return ModelInput(
        prompt=_prompt(messages),
        read="\n".join(read),
        tools=tools,
        must_call=must_call,
        schema=schema,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop=[stop] if isinstance(stop, str) else stop,
        think=think,
    )


def _said(question: ModelInput) -> ModelOutput:
    """Return the model's answer within the token limit, which includes its reasoning."""
    said = answer(question)
    if question.max_tokens is None or not said.reasoning:
        return said
    left = max(0, question.max_tokens - len(tokens(said.reasoning)))
    return answer(attrs.evolve(question, max_tokens=left))


def _prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message, or of the results of tools behind it: those are what is answered."""
    results: list[str] = []
    for message in reversed(messages):
        if message["role"] == "tool":
            results[:0] = texts(message.get("content")) or [""]
        elif results:
            break
        elif message["role"] == "user":
            return "\n".join(texts(message.get("content")))
    return "\n".join(results)


def _all_texts(message: Mapping[str, Any]) -> list[str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return [*texts(message.get("content")), *(f"{call['name']} {call['arguments']}" for call in calls)]


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
