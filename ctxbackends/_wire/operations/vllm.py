"""vLLM's operations: status, sleep and wake-up, token counts.

API: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/. Sleep requires the development mode.
"""

from __future__ import annotations

import attrs
import msgspec

from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.servers import ServerStatus
from ctxbackends._wire.base import HTTPRequest, Operation, encode_json
from ctxbackends._wire.errors import decode_response, fetch, raise_for_failed_command
from ctxbackends._wire.formats.openai_messages import encode_prompt
from ctxbackends._wire.operations.models import build_ready_status
from ctxbackends._wire.operations.openai import list_models
from ctxbackends._wire.options import OptionTable
from ctxbackends.errors import (
    APIStatusError,
    ModelLoadingError,
    NotFoundError,
    PermissionDeniedError,
    ResponseError,
    ServerSleepingError,
    UnsupportedOperationError,
)

_NO_SLEEP = "this vLLM has no sleep endpoints; start it with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode"


class _Version(msgspec.Struct):
    version: str | None = None


class _Sleeping(msgspec.Struct):
    is_sleeping: bool = False


class _Tokenized(msgspec.Struct):
    count: int


_version_decoder = msgspec.json.Decoder(_Version)
_sleeping_decoder = msgspec.json.Decoder(_Sleeping)


def status(model: str | None) -> Operation[ServerStatus]:
    """Return the status. ``/health`` returns 200 while vLLM sleeps, so ``/is_sleeping`` is checked too."""
    yield HTTPRequest("GET", "/health")
    models = yield from list_models()
    version = yield from _fetch_version()
    is_sleeping = yield from _is_sleeping()
    return attrs.evolve(
        build_ready_status(models, model),
        state="sleeping" if is_sleeping else "ready",
        version=version,
        models=() if is_sleeping else tuple(one.id for one in models),
    )


def _fetch_version() -> Operation[str | None]:
    try:
        response = yield HTTPRequest("GET", "/version")
    except (NotFoundError, PermissionDeniedError):
        return None  # a proxy that lets only /v1 through
    return decode_response(_version_decoder, response, api="vLLM").version


def check_not_sleeping() -> Operation[None]:
    """Raise ServerSleepingError if vLLM sleeps: it would accept a chat request and never answer."""
    if (yield from _is_sleeping()):
        raise ServerSleepingError("vLLM is sleeping; wake it with load() or POST /wake_up")


def _is_sleeping() -> Operation[bool]:
    try:
        response = yield HTTPRequest("GET", "/is_sleeping")
        return decode_response(_sleeping_decoder, response, api="vLLM").is_sleeping
    except ModelLoadingError:
        raise
    except (APIStatusError, ResponseError):
        return False  # the endpoint is missing, as usual, or protected, or a proxy answers for it


def load(model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]:  # noqa: ARG001  # it has one
    """Wake vLLM. Its model is fixed at start."""
    for option, value in (("context_length", context_length), ("keep_alive", keep_alive)):
        if value is not None:
            raise UnsupportedOperationError("load", f"vLLM takes its {option} when it is started")
    yield from _post_sleep("load", "/wake_up")


def unload(model: str) -> Operation[None]:  # noqa: ARG001  # as above
    """Put vLLM to sleep, after the requests in flight: its weights leave the GPU."""
    yield from _post_sleep("unload", "/sleep?level=1&mode=wait")


def _post_sleep(operation: str, path: str) -> Operation[None]:
    try:
        raise_for_failed_command((yield HTTPRequest("POST", path)))
    except NotFoundError as error:
        raise UnsupportedOperationError(operation, _NO_SLEEP) from error


def count_tokens(request: ChatRequest, table: OptionTable) -> Operation[int]:
    """Count tokens with ``POST /tokenize``, which is outside ``/v1``."""
    body = encode_json(encode_prompt(request, table))
    return (yield from fetch(_Tokenized, HTTPRequest("POST", "/tokenize", body), api="vLLM")).count
