"""What vLLM offers beside generation: its state, sleeping and waking, the count of tokens.

API: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/. Sleep is there only in development mode.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from ctxbackends.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ServerSleepingError,
    UnsupportedOperationError,
)
from ctxbackends.messages import ChatRequest
from ctxbackends.types import ServerStatus
from ctxbackends.wire.http import HTTPRequest, Operation, encode_json
from ctxbackends.wire.openai_chat import encode_messages, encode_tool
from ctxbackends.wire.openai_server import build_ready_status, decode_models
from ctxbackends.wire.options import OptionTable, check_supported, lookup
from ctxbackends.wire.status import decode_response, raise_for_failed_command

_NO_SLEEP = "this vLLM has no sleep endpoints; start it with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode"


class _Version(msgspec.Struct):
    version: str | None = None


class _Sleeping(msgspec.Struct):
    is_sleeping: bool = False


class _Tokenized(msgspec.Struct):
    count: int


_version_decoder = msgspec.json.Decoder(_Version)
_sleeping_decoder = msgspec.json.Decoder(_Sleeping)
_tokenized_decoder = msgspec.json.Decoder(_Tokenized)


def status(model: str | None) -> Operation[ServerStatus]:
    """``/health`` answers 200 while vLLM sleeps as well, so it is asked whether it does."""
    yield HTTPRequest("GET", "/health")
    response = yield HTTPRequest("GET", "/v1/models")
    models = decode_models(response)
    version = yield from _fetch_version()
    asleep = yield from _is_sleeping()
    return attrs.evolve(
        build_ready_status(models, model),
        state="sleeping" if asleep else "ready",
        version=version,
        models=() if asleep else tuple(one.id for one in models),
    )


def _fetch_version() -> Operation[str | None]:
    try:
        response = yield HTTPRequest("GET", "/version")
    except (NotFoundError, PermissionDeniedError):
        return None  # a proxy that lets only /v1 through
    return decode_response(_version_decoder, response, api="vLLM").version


def check_not_sleeping() -> Operation[None]:
    """Raise ServerSleepingError where it sleeps: it would accept a chat, and say nothing."""
    if (yield from _is_sleeping()):
        raise ServerSleepingError("vLLM is sleeping; wake it with load() or POST /wake_up")


def _is_sleeping() -> Operation[bool]:
    try:
        response = yield HTTPRequest("GET", "/is_sleeping")
    except (NotFoundError, AuthenticationError):
        return False  # it has no such route, as is usual, or does not tell
    return decode_response(_sleeping_decoder, response, api="vLLM").is_sleeping


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:  # noqa: ARG001  # it has one
    """Wake a vLLM that sleeps. The model was given to it when it was started."""
    for option, value in (("context_length", context_length), ("keep_alive", keep_alive)):
        if value is not None:
            raise UnsupportedOperationError("load", f"vLLM takes its {option} when it is started")
    yield from _post_sleep("load", "/wake_up")


def unload(model: str) -> Operation[None]:  # noqa: ARG001  # as above
    """Put vLLM to sleep: its weights leave the GPU. Requests in flight are finished first."""
    yield from _post_sleep("unload", "/sleep?level=1&mode=wait")


def _post_sleep(what: str, path: str) -> Operation[None]:
    try:
        raise_for_failed_command((yield HTTPRequest("POST", path)))
    except NotFoundError as error:
        raise UnsupportedOperationError(what, _NO_SLEEP) from error


def count_tokens(request: ChatRequest, table: OptionTable) -> Operation[int]:
    """``POST /tokenize``, which stands outside of ``/v1``."""
    check_supported(request, table)
    body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.messages, table)}
    if request.tools:
        body["tools"] = [encode_tool(tool, lookup(table, "tools").transform) for tool in request.tools]
    response = yield HTTPRequest("POST", "/tokenize", encode_json(body))
    return decode_response(_tokenized_decoder, response, api="vLLM").count
