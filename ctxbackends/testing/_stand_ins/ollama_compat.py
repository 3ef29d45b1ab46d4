"""Ollama's compatible APIs: converts requests to native ones, and native replies back.

Follows Ollama's openai/openai.go, anthropic/anthropic.go and middleware/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ctxbackends.testing._stand_ins import compat_anthropic, compat_openai
from ctxbackends.testing._stand_ins.compat_openai import Dialect, Reply
from ctxbackends.testing._stand_ins.compat_requests import Invalid, from_anthropic, from_openai, tools_from_anthropic
from ctxbackends.testing._stand_ins.compat_stream import DONE, event
from ctxbackends.testing._stand_ins.ollama_chat import ChatReply
from ctxbackends.testing._stand_ins.ollama_models import OllamaError

DIALECT = Dialect(fingerprint="fp_ollama", whole_calls=True)
_EFFORTS = ("high", "medium", "low", "max", "none")
_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_IMAGES = ("jpeg", "jpg", "png", "webp")
# Options that pass unchanged; `max_completion_tokens` and `tool_choice` are unknown to Ollama.
_SAMPLING = ("seed", "frequency_penalty", "presence_penalty")


def openai_error(problem: OllamaError) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(problem.status, "api_error")
    return {"error": {"message": problem.message, "type": kind, "param": None, "code": None}}


def native_from_openai(body: Mapping[str, Any]) -> dict[str, Any]:
    """``FromChatRequest``."""
    if not body.get("messages"):
        raise OllamaError(400, "[] is too short - 'messages'")
    try:
        messages = from_openai(body["messages"], formats=_IMAGES)
    except Invalid as problem:
        raise OllamaError(400, problem.message) from None
    # Where they are absent, the layer sets them: over the defaults of the model.
    options = {name: 1.0 if body.get(name) is None else body[name] for name in ("temperature", "top_p")}
    options |= {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if body.get("max_tokens") is not None:
        options["num_predict"] = body["max_tokens"]
    stop = body.get("stop")
    if stop is not None:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    wanted = body.get("response_format") or {}
    form = {"json_object": "json", "json_schema": (wanted.get("json_schema") or {}).get("schema")}.get(
        wanted.get("type", "")
    )
    effort = (body.get("reasoning") or {}).get("effort") or body.get("reasoning_effort")
    if effort and effort not in _EFFORTS:
        raise OllamaError(
            400, f'invalid reasoning value: \'{effort}\' (must be "high", "medium", "low", "max", or "none")'
        )
    native = {"model": body.get("model"), "messages": messages, "options": options, "format": form}
    if body.get("tools"):
        native["tools"] = body["tools"]
    if effort:
        native["think"] = False if effort == "none" else effort
    return native


def native_from_anthropic(body: Mapping[str, Any]) -> dict[str, Any]:
    """``FromMessagesRequest``. ``tool_choice`` is not supported: docs/api/anthropic-compatibility.mdx."""
    if not body.get("model"):
        raise OllamaError(400, "model is required")
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] <= 0:
        raise OllamaError(400, "max_tokens is required and must be positive")
    if not body.get("messages"):
        raise OllamaError(400, "messages is required")
    try:
        messages = from_anthropic(body)
    except Invalid as problem:
        raise OllamaError(400, problem.message) from None
    options = {name: body[name] for name in ("temperature", "top_p", "top_k") if body.get(name) is not None}
    native = {
        "model": body["model"],
        "messages": messages,
        "options": {
            **options,
            "num_predict": body["max_tokens"],
            **({"stop": body["stop_sequences"]} if body.get("stop_sequences") else {}),
        },
    }
    if body.get("tools"):
        native["tools"] = tools_from_anthropic(body["tools"])
    kind = (body.get("thinking") or {}).get("type")
    if kind in ("enabled", "disabled"):
        native["think"] = kind == "enabled"
    return native


def reply(said: ChatReply, id_: str) -> Reply:
    return Reply(
        id=id_,
        created=int(time.time()),
        model=said.model,
        answer=said.answer,
        call_ids=said.call_ids,
        input_tokens=said.prompt_eval_count,
    )


def openai_stream(written: Reply, *, include_usage: bool) -> Iterator[bytes]:
    for number, chunk in enumerate(compat_openai.chunks(written, DIALECT, include_usage=include_usage)):
        yield event(chunk)
        if written.answer.breaks and number == 0:
            # The layer reads `{"error": ...}` as an answer without anything in it.
            empty = compat_openai.chunk(written, DIALECT, {"role": "assistant", "content": ""})
            yield event({**empty, "model": ""})
            return
    yield DONE


def anthropic_stream(written: Reply) -> Iterator[bytes]:
    """A failure just ends it: "errors return HTTP status", says the documentation, and there is none to return here."""
    for entry in compat_anthropic.events(written):
        yield event(entry, entry["type"])
        if written.answer.breaks and entry["type"] == "content_block_delta":
            return
