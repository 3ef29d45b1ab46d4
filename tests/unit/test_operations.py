"""What servers offer beside generation, as steps against given answers; and the values that go into every wire:
options, tools, messages, completions."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, ChoiceFormat, NamedTool, Tool
from ctxbackends._chat.responses import Completion, Embeddings, Usage
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._profiles.option_support import LLAMACPP_CHAT, OPENAI_CHAT, VLLM_CHAT
from ctxbackends._tools import arguments_of, build_tools, tool_of
from ctxbackends._wire.base import HTTPRequest, HTTPResponse, Operation, WireSettings
from ctxbackends._wire.operations import llamacpp, lmstudio, vllm
from ctxbackends._wire.operations import openai as openai_server
from ctxbackends._wire.options import OptionTable, Supported, Unsupported, merge_extra_body, set_path
from ctxbackends.errors import (
    AuthenticationError,
    BackendError,
    BadRequestError,
    EmptyModelListError,
    InternalServerError,
    MalformedResponseError,
    ModelLoadingError,
    ModelNotFoundError,
    NotFoundError,
    ResponseError,
    ServerConfigurationError,
    StructuredOutputError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)
from tests.operations import body_of, drive, json_response, play

HI = (Message.user("Hi"),)
WIRE_HI = {"role": "user", "content": "Hi"}
ADD = Tool("add", "Adds.", {"type": "object"})
WIRE_ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
OK = json_response({})
NOT_FOUND = json_response({"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}, 404)


def get(path: str) -> HTTPRequest:
    return HTTPRequest("GET", path)


def path_and_body(request: HTTPRequest) -> tuple[str, Any]:
    assert "POST" == request.method
    return request.path, body_of(request)


def models(*rows: Mapping[str, Any]) -> HTTPResponse:
    return json_response({"object": "list", "data": rows})


# --- llama-server -----------------------------------------------------------------------------------

HEALTH, MODELS, PROPS, SLOTS = get("/health"), get("/v1/models"), get("/props"), get("/slots")
TINY = {"id": "tiny.gguf", "aliases": ["tiny"], "owned_by": "llamacpp", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}
PROPS_BODY = {"default_generation_settings": {"n_ctx": 1024}, "total_slots": 2, "build_info": "b11434-abc"}
TWO_SLOTS = [{"id": 0, "n_ctx": 1024, "is_processing": True}, {"id": 1, "n_ctx": 1024, "is_processing": False}]
UNSUPPORTED = json_response({"error": {"code": 501, "message": "disabled", "type": "not_supported_error"}}, 501)
KEYLESS = json_response({"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}, 401)
FULL = ServerStatus(
    state="ready",
    version="b11434-abc",
    model="tiny.gguf",
    models=("tiny.gguf",),
    context_length=1024,
    slots=2,
    busy_slots=1,
)


@pytest.mark.parametrize("model", [None, "tiny.gguf", "tiny", "another"])
def test_status_of_a_llama_server(model: str | None) -> None:
    """A single server answers whatever name it is asked by, so that the model is the one that it has."""
    requests, status = play(
        llamacpp.status(model), OK, models(TINY), json_response(PROPS_BODY), json_response(TWO_SLOTS)
    )
    assert ([HEALTH, MODELS, PROPS, SLOTS], FULL) == (requests, status)


def test_a_sleeping_llama_server_is_not_asked_for_its_slots() -> None:
    requests, status = play(
        llamacpp.status("tiny"), OK, models(TINY), json_response({**PROPS_BODY, "is_sleeping": True})
    )
    assert [HEALTH, MODELS, PROPS] == requests
    assert attrs.evolve(FULL, state="sleeping", models=(), busy_slots=None) == status


@pytest.mark.parametrize(
    ("props", "slots", "fields"),
    [
        pytest.param(
            NOT_FOUND,
            json_response(TWO_SLOTS),
            {"version": None, "context_length": 2048, "slots": None},
            id="no /props: the context is that of the list",
        ),
        pytest.param(json_response(PROPS_BODY), UNSUPPORTED, {"busy_slots": None}, id="/slots is switched off"),
        pytest.param(
            NOT_FOUND,
            UNSUPPORTED,
            {"version": None, "context_length": 2048, "slots": None, "busy_slots": None},
            id="neither",
        ),
        pytest.param(
            json_response({}),
            json_response([]),
            {"version": None, "context_length": 2048, "slots": None, "busy_slots": 0},
            id="both tell nothing",
        ),
    ],
)
def test_missing_facts_of_a_llama_server_are_none(
    props: HTTPResponse, slots: HTTPResponse, fields: Mapping[str, Any]
) -> None:
    requests, status = play(llamacpp.status(None), OK, models(TINY), props, slots)
    assert ([HEALTH, MODELS, PROPS, SLOTS], attrs.evolve(FULL, **fields)) == (requests, status)


def test_status_of_a_llama_server_without_a_model_list() -> None:
    """`model` is the one that this backend would ask for."""
    _, status = play(llamacpp.status("m"), OK, NOT_FOUND, json_response(PROPS_BODY), json_response(TWO_SLOTS))
    assert attrs.evolve(FULL, model="m", models=()) == status


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_llama_server_that_rejects_the_key_is_not_ready(index: int) -> None:
    """Its /health answers without a key, and older builds list their models without one."""
    answers = [OK, models(TINY), json_response(PROPS_BODY), json_response(TWO_SLOTS)]
    with pytest.raises(AuthenticationError):
        play(llamacpp.status("tiny"), *answers[:index], KEYLESS)


@pytest.mark.parametrize(
    ("health", "error"),
    [
        (json_response({"error": {"code": 503, "message": "Loading model"}}, 503), ModelLoadingError),
        (json_response({"error": "x"}, 500), InternalServerError),
    ],
)
def test_an_unhealthy_llama_server_gets_no_more_requests(health: HTTPResponse, error: type[Exception]) -> None:
    with pytest.raises(error):
        play(llamacpp.status(None), health)


@pytest.mark.parametrize(("index", "body"), [(1, {"data": 5}), (2, []), (3, {}), (3, [5])])
def test_unexpected_status_bodies_are_malformed(index: int, body: object) -> None:
    answers = [OK, models(TINY), json_response(PROPS_BODY), json_response(TWO_SLOTS)]
    answers[index] = json_response(body)
    with pytest.raises(MalformedResponseError):
        play(llamacpp.status(None), *answers[: index + 1])


def router_row(id: str, value: str, **more: Any) -> dict[str, Any]:  # noqa: A002  # as on the wire
    return {"id": id, "status": {"value": value, **more}}


ROUTER_ROWS = (
    router_row("a", "loaded"),
    router_row("b", "loading"),
    router_row("c", "unloaded"),
    router_row("d", "unloaded", failed=True, exit_code=1),
    router_row("e", "sleeping"),
    router_row("f", "downloading"),
)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (None, {"model": "a"}),
        ("a", {"model": "a"}),
        ("b", {"model": "b", "state": "loading"}),
        ("c", {"model": "c"}),
        ("d", {"model": "d", "state": "error", "problem": "the model d failed to load"}),
        ("f", {"model": "f", "state": "loading"}),
    ],
)
def test_status_of_a_model_behind_a_router(model: str | None, fields: Mapping[str, Any]) -> None:
    requests, status = play(llamacpp.status(model), OK, models(*ROUTER_ROWS))
    assert [HEALTH, MODELS] == requests
    assert attrs.evolve(ServerStatus(state="ready"), **fields) == attrs.evolve(status, models=())
    assert {"a"} <= set(status.models) <= {"a", "e"}


# ServerStatus: `sleeping` is a server that would load the model again first, and `models` are those in memory. A single
# server is told so (test_a_sleeping_llama_server_is_not_asked_for_its_slots).
def test_a_sleeping_model_behind_a_router() -> None:
    _, status = play(llamacpp.status("e"), OK, models(*ROUTER_ROWS))
    assert ("sleeping", ("a",)) == (status.state, status.models)


def test_a_model_unknown_to_a_router_is_not_its_first() -> None:
    _, status = play(llamacpp.status("z"), OK, models(*ROUTER_ROWS), json_response({"role": "router"}), UNSUPPORTED)
    assert ("ready", (), None) == (status.state, status.models, status.context_length)


LIFECYCLE: list[tuple[str, Callable[[], Operation[None]]]] = [
    ("load", lambda: llamacpp.load("m", context_length=None, keep_alive=None)),
    ("unload", lambda: llamacpp.unload("m")),
]


@pytest.mark.parametrize(("what", "steps"), LIFECYCLE)
def test_a_router_loads_and_unloads(what: str, steps: Callable[[], Operation[None]]) -> None:
    (request,), _ = play(steps(), json_response({"success": True}))
    assert (f"/models/{what}", {"model": "m"}) == path_and_body(request)


@pytest.mark.parametrize(("what", "steps"), LIFECYCLE)
def test_a_single_llama_server_neither_loads_nor_unloads(what: str, steps: Callable[[], Operation[None]]) -> None:
    with pytest.raises(UnsupportedOperationError, match="start it as a router") as exc_info:
        play(steps(), NOT_FOUND)
    assert what == exc_info.value.operation
    assert isinstance(exc_info.value.__cause__, NotFoundError)


@pytest.mark.parametrize(("what", "steps"), LIFECYCLE)
def test_a_model_that_a_router_does_not_have_is_not_found(what: str, steps: Callable[[], Operation[None]]) -> None:
    with pytest.raises(ModelNotFoundError):
        play(steps(), json_response({"error": {"code": 404, "message": "model is not found"}}, 404))
    with pytest.raises(BadRequestError):
        play(steps(), json_response({"error": {"code": 400, "message": "it is loaded already"}}, 400))


@pytest.mark.parametrize("option", ["context_length", "keep_alive"])
@pytest.mark.parametrize("load", [llamacpp.load, vllm.load], ids=["llama-server", "vLLM"])
def test_settings_of_the_servers_start_are_rejected_without_a_request(load: Any, option: str) -> None:
    steps = load("m", **{"context_length": None, "keep_alive": None, option: 8})
    with pytest.raises(UnsupportedOperationError, match=option) as exc_info:
        next(steps)
    assert "load" == exc_info.value.operation


CHAT = ChatRequest(messages=(Message.system("S"), *HI), model="m", tools=(ADD,))
CHAT_BODY = {"model": "m", "messages": [{"role": "system", "content": "S"}, WIRE_HI], "tools": [WIRE_ADD]}
NEW_ROUTE = "/v1/chat/completions/input_tokens"


def test_llama_server_counts_with_its_endpoint() -> None:
    (request,), count = play(llamacpp.count_tokens(CHAT, LLAMACPP_CHAT), json_response({"input_tokens": 20}))
    assert (NEW_ROUTE, CHAT_BODY) == path_and_body(request)
    assert 20 == count


def test_an_older_llama_server_counts_with_template_and_tokenizer() -> None:
    requests, count = play(
        llamacpp.count_tokens(CHAT, LLAMACPP_CHAT),
        NOT_FOUND,
        json_response({"prompt": "<|im_start|>漢"}),
        json_response({"tokens": [1, 2, {"id": 3, "piece": "x"}]}),
    )
    assert [
        (NEW_ROUTE, CHAT_BODY),
        ("/apply-template", CHAT_BODY),
        ("/tokenize", {"content": "<|im_start|>漢", "add_special": True, "parse_special": True}),
    ] == [path_and_body(request) for request in requests]
    assert 3 == count


def test_empty_tools_are_not_counted() -> None:
    (request,), _ = play(
        llamacpp.count_tokens(ChatRequest(messages=HI, model="m"), LLAMACPP_CHAT), json_response({"input_tokens": 1})
    )
    assert {"model": "m", "messages": [WIRE_HI]} == body_of(request)


def test_other_errors_of_a_count_are_raised() -> None:
    with pytest.raises(AuthenticationError):
        play(llamacpp.count_tokens(CHAT, LLAMACPP_CHAT), KEYLESS)
    with pytest.raises(MalformedResponseError):
        play(llamacpp.count_tokens(CHAT, LLAMACPP_CHAT), json_response({"count": 5}))
    with pytest.raises(NotFoundError):
        play(llamacpp.count_tokens(CHAT, LLAMACPP_CHAT), NOT_FOUND, NOT_FOUND)


# --- vLLM -------------------------------------------------------------------------------------------

# The answers are those of 0.32.0, with and without VLLM_SERVER_DEV_MODE=1.
VERSION, IS_SLEEPING = get("/version"), get("/is_sleeping")
MODEL_LIST = models(
    {"id": "tiny", "object": "model", "owned_by": "vllm", "root": "/models/tiny", "max_model_len": 1024}
)
NO_ROUTE = json_response({"detail": "Not Found"}, 404)
VERSION_RESPONSE = json_response({"version": "0.32.0"})
EMPTY = json_response(b"")
AWAKE = ServerStatus(state="ready", version="0.32.0", model="tiny", models=("tiny",), context_length=1024)


@pytest.mark.parametrize(
    ("model", "asleep", "status"),
    [
        pytest.param(None, json_response({"is_sleeping": False}), AWAKE, id="awake"),
        pytest.param("tiny", NO_ROUTE, AWAKE, id="no development mode"),
        pytest.param("tiny", KEYLESS, AWAKE, id="the route is for another key"),
        pytest.param(
            "tiny", json_response({"is_sleeping": True}), attrs.evolve(AWAKE, state="sleeping", models=()), id="asleep"
        ),
        pytest.param("x", NO_ROUTE, attrs.evolve(AWAKE, model="x", context_length=None), id="another model"),
    ],
)
def test_status_of_vllm(model: str | None, asleep: HTTPResponse, status: ServerStatus) -> None:
    requests, actual = play(vllm.status(model), EMPTY, MODEL_LIST, VERSION_RESPONSE, asleep)
    assert ([HEALTH, MODELS, VERSION, IS_SLEEPING], status) == (requests, actual)


@pytest.mark.parametrize(
    ("what", "steps", "path", "answer"),
    [
        (
            "load",
            lambda: vllm.load("m", context_length=None, keep_alive=None),
            "/wake_up",
            {"status": "awake", "tags": None},
        ),
        ("unload", lambda: vllm.unload("m"), "/sleep?level=1&mode=wait", {"status": "sleeping", "level": 1}),
    ],
)
def test_vllm_sleeps_and_wakes(what: str, steps: Callable[[], Operation[None]], path: str, answer: object) -> None:
    assert ([HTTPRequest("POST", path)], None) == play(steps(), json_response(answer))
    with pytest.raises(UnsupportedOperationError, match="VLLM_SERVER_DEV_MODE=1") as exc_info:
        play(steps(), NO_ROUTE)
    assert what == exc_info.value.operation
    with pytest.raises(InternalServerError):
        play(steps(), json_response({"error": "x"}, 500))


def test_vllm_counts_with_its_tokenizer() -> None:
    body = {"count": 2, "max_model_len": 1024, "tokens": [1720, 1313], "token_strs": None}
    (request,), count = play(vllm.count_tokens(CHAT, VLLM_CHAT), json_response(body))
    assert (("/tokenize", CHAT_BODY), 2) == (path_and_body(request), count)


# --- LM Studio --------------------------------------------------------------------------------------

# After https://lmstudio.ai/docs/developer/rest
NATIVE = get("/api/v1/models")
UNEXPECTED_ENDPOINT = json_response({"error": "Unexpected endpoint or method. (GET /api/v1/models)"})


def disk_model(key: str, *instances: tuple[str, int | None], max_context: int | None = 131072) -> dict[str, Any]:
    """A model on the disk, with the id and the context of each instance of it."""
    loaded_instances = [
        {"id": id_, "config": None if n is None else {"context_length": n, "parallel": 4}} for id_, n in instances
    ]
    fields = {"type": "llm", "publisher": "google", "key": key, "max_context_length": max_context}
    return {**fields, "loaded_instances": loaded_instances}


def disk(*rows: Mapping[str, Any]) -> HTTPResponse:
    return json_response({"models": rows})


TWO = disk(disk_model("gemma", ("gemma", 4096)), disk_model("qwen"))


def test_lm_studio_lists_downloaded_models() -> None:
    requests, model_list = play(
        lmstudio.list_models(), disk(disk_model("gemma", ("g:2", 4096), ("gemma", 8192)), disk_model("qwen"))
    )
    assert [NATIVE] == requests
    assert (
        ModelInfo(id="gemma", aliases=("g:2",), context_length=4096, owned_by="google", state="loaded"),
        ModelInfo(id="qwen", owned_by="google", state="unloaded"),
    ) == model_list


@pytest.mark.parametrize("instances", [None, []])
def test_a_model_without_instances_is_not_loaded(instances: object) -> None:
    _, model_list = play(lmstudio.list_models(), disk({"key": "m", "loaded_instances": instances}, {"key": "n"}))
    assert (ModelInfo(id="m", state="unloaded"), ModelInfo(id="n", state="unloaded")) == model_list


@pytest.mark.parametrize("response", [NOT_FOUND, UNEXPECTED_ENDPOINT], ids=["404", "200 with an error"])
def test_an_older_lm_studio_is_asked_by_the_openai_api(response: HTTPResponse) -> None:
    requests, model_list = play(lmstudio.list_models(), response, models({"id": "m"}))
    assert ([NATIVE, MODELS], (ModelInfo(id="m"),)) == (requests, model_list)
    requests, status = play(lmstudio.status("m"), response, models({"id": "m"}))
    assert ([NATIVE, MODELS], ServerStatus(state="ready", model="m")) == (requests, status)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"models": []}, EmptyModelListError),
        ({}, MalformedResponseError),
        ({"models": None}, MalformedResponseError),
        ({"models": [{}]}, MalformedResponseError),
        ([], MalformedResponseError),
        ({"error": "boom"}, ResponseError),
        ({"error": {"message": "boom"}, "models": []}, ResponseError),
    ],
)
def test_other_bodies_of_lm_studio_are_an_error(body: object, error: type[Exception]) -> None:
    with pytest.raises(error) as exc_info:
        play(lmstudio.list_models(), json_response(body))
    assert error is type(exc_info.value)


GEMMA = {"model": "gemma", "models": ("gemma",), "context_length": 4096, "slots": 4}


@pytest.mark.parametrize(
    ("model", "response", "status"),
    [
        pytest.param(None, disk(), {}, id="nothing on the disk"),
        pytest.param(None, disk(disk_model("qwen")), {}, id="nothing is loaded"),
        pytest.param(
            None,
            TWO,
            GEMMA,
            id="the first loaded",
        ),
        pytest.param(
            "gemma",
            TWO,
            {**GEMMA, "max_context_length": 131072},
            id="a loaded one",
        ),
        pytest.param(
            "qwen",
            TWO,
            {"model": "qwen", "models": ("gemma",), "max_context_length": 131072},
            id="not loaded: the most that it can be loaded with",
        ),
        pytest.param("x", TWO, {"model": "x", "models": ("gemma",)}, id="unknown"),
        pytest.param(
            "g:2",
            disk(disk_model("gemma", ("g:2", 4096))),
            {"model": "g:2", "models": ("g:2",), "context_length": 4096, "slots": 4, "max_context_length": 131072},
            id="by the name of its instance",
        ),
        pytest.param(
            "gemma",
            disk(disk_model("gemma", ("gemma", None))),
            {"model": "gemma", "models": ("gemma",), "max_context_length": 131072},
            id="loaded, and its context is untold",
        ),
    ],
)
def test_status_of_lm_studio(model: str | None, response: HTTPResponse, status: Mapping[str, Any]) -> None:
    expected = attrs.evolve(ServerStatus(state="ready"), **status)
    assert ([NATIVE], expected) == play(lmstudio.status(model), response)


def requests_of(steps: Operation[None], *answers: HTTPResponse) -> list[tuple[str, Any]]:
    """What is posted after the models were asked for."""
    requests, result = play(steps, *answers)
    assert (NATIVE, None) == (requests[0], result)
    return [path_and_body(request) for request in requests[1:]]


LOAD, UNLOAD = "/api/v1/models/load", "/api/v1/models/unload"


@pytest.mark.parametrize(
    ("model", "context_length", "response", "posts"),
    [
        pytest.param("qwen", None, TWO, [(LOAD, {"model": "qwen"})], id="not loaded"),
        pytest.param(
            "qwen", 8192, TWO, [(LOAD, {"model": "qwen", "context_length": 8192})], id="not loaded, with a context"
        ),
        pytest.param("gemma", None, TWO, [], id="loaded already"),
        pytest.param("gemma", 4096, TWO, [], id="loaded with this context already"),
        pytest.param(
            "gemma",
            8192,
            TWO,
            [(UNLOAD, {"instance_id": "gemma"}), (LOAD, {"model": "gemma", "context_length": 8192})],
            id="loaded with another context",
        ),
        pytest.param(
            "g:2",
            8192,
            disk(disk_model("gemma", ("gemma", 4096), ("g:2", 4096))),
            [
                (UNLOAD, {"instance_id": "gemma"}),
                (UNLOAD, {"instance_id": "g:2"}),
                (LOAD, {"model": "gemma", "context_length": 8192}),
            ],
            id="loaded twice, and asked for by an instance",
        ),
        pytest.param("x", None, TWO, [(LOAD, {"model": "x"})], id="unknown: LM Studio says so itself"),
    ],
)
def test_lm_studio_loads(
    model: str, context_length: int | None, response: HTTPResponse, posts: Sequence[tuple[str, Any]]
) -> None:
    steps = lmstudio.load(model, context_length=context_length, keep_alive=None)
    assert list(posts) == requests_of(steps, response, *[OK] * len(posts))


def test_lm_studio_loads_without_keep_alive() -> None:
    with pytest.raises(UnsupportedOperationError, match="keep_alive"):
        next(lmstudio.load("m", context_length=None, keep_alive=0.0))


@pytest.mark.parametrize(
    ("model", "response", "instance_ids"),
    [
        ("gemma", TWO, ["gemma"]),
        ("qwen", TWO, []),
        ("g:2", disk(disk_model("gemma", ("gemma", 1), ("g:2", 1))), ["gemma", "g:2"]),
    ],
    ids=["loaded", "not loaded", "every instance"],
)
def test_lm_studio_unloads(model: str, response: HTTPResponse, instance_ids: Sequence[str]) -> None:
    expected = [(UNLOAD, {"instance_id": id_}) for id_ in instance_ids]
    assert expected == requests_of(lmstudio.unload(model), response, *[OK] * len(instance_ids))


def test_a_model_that_lm_studio_does_not_have_is_not_unloaded() -> None:
    with pytest.raises(ModelNotFoundError):
        play(lmstudio.unload("x"), TWO)


@pytest.mark.parametrize("response", [NOT_FOUND, UNEXPECTED_ENDPOINT], ids=["404", "200 with an error"])
def test_an_older_lm_studio_does_not_load(response: HTTPResponse) -> None:
    with pytest.raises(UnsupportedOperationError, match=r"needs version 0\.4 or newer") as exc_info:
        play(lmstudio.load("m", context_length=None, keep_alive=None), response)
    assert "load" == exc_info.value.operation


def test_an_older_lm_studio_does_not_unload() -> None:
    with pytest.raises(UnsupportedOperationError, match=r"needs version 0\.4 or newer") as exc_info:
        play(lmstudio.unload("m"), NOT_FOUND)
    assert "unload" == exc_info.value.operation


def prepare(model: str, context_length: int | None, *answers: HTTPResponse) -> list[tuple[str, Any]]:
    requests, _ = play(lmstudio.prepare(model, WireSettings(context_length=context_length)), *answers)
    return [path_and_body(request) for request in requests if request != NATIVE]


def test_lm_studio_is_not_prepared_without_a_context() -> None:
    assert ([], None) == play(lmstudio.prepare("m", WireSettings(keep_alive=5)))


@pytest.mark.parametrize("model", ["qwen", "x"])
def test_a_model_is_loaded_with_the_configured_context(model: str) -> None:
    assert [(LOAD, {"model": model, "context_length": 8192})] == prepare(model, 8192, TWO, TWO, OK)


def test_a_model_with_the_configured_context_is_not_reloaded() -> None:
    assert [] == prepare("gemma", 4096, TWO)
    assert [] == prepare("gemma", 4096, disk(disk_model("gemma", ("gemma", None))))


def test_a_model_with_another_context_is_an_error() -> None:
    with pytest.raises(ServerConfigurationError) as exc_info:
        prepare("gemma", 8192, TWO)
    assert (
        "gemma is loaded with a context of 4096 tokens, and context_length says 8192; unload it there, or call load() "
        "to load it anew"
    ) == str(exc_info.value)


# Requests may name an instance, and each has a context of its own; status() and load() look at the first as well.
def test_the_context_is_that_of_the_requested_instance() -> None:
    response = disk(disk_model("gemma", ("gemma", 4096), ("g:2", 8192)))
    assert 8192 == play(lmstudio.status("g:2"), response)[1].context_length
    assert [] == prepare("g:2", 8192, response)


# --- OpenAI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "items"),
    [
        pytest.param(
            Message.system("S"),
            [{"type": "message", "role": "system", "content": [{"type": "input_text", "text": "S"}]}],
            id="system",
        ),
        pytest.param(
            Message.user(["a", ImagePart(b"x", "image/x"), "b", ImagePart.from_url("http://h/i")]),
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:image/x;base64,eA==", "detail": "auto"},
                        {"type": "input_text", "text": "b"},
                        {"type": "input_image", "image_url": "http://h/i", "detail": "auto"},
                    ],
                }
            ],
            id="texts and images",
        ),
        pytest.param(
            Message.assistant("A", tool_calls=[ToolCall("c1", "f", '{"a":'), ToolCall("c2", "g", "{}")]),
            [
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":'},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            ],
            id="an answer with calls",
        ),
        pytest.param(
            Message.assistant("", tool_calls=[ToolCall("c1", "f", "{}")]),
            [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}],
            id="calls alone",
        ),
        pytest.param(
            Message("tool", (ToolResult("c1", "3", "f"), ToolResult("c2", "no", is_error=True))),
            [
                {"type": "function_call_output", "call_id": "c1", "output": "3"},
                {"type": "function_call_output", "call_id": "c2", "output": "Error: no"},
            ],
            id="results, one of a tool that failed",
        ),
        pytest.param(Message.assistant(""), [], id="an empty answer"),
    ],
)
def test_openai_counts_every_kind_of_part(message: Message, items: Sequence[Mapping[str, Any]]) -> None:
    request = ChatRequest(messages=(message,), model="m")
    (http_request,), count = play(openai_server.count_tokens(request, OPENAI_CHAT), json_response({"input_tokens": 7}))
    assert ("/v1/responses/input_tokens", {"model": "m", "input": list(items)}) == path_and_body(http_request)
    assert 7 == count


def test_openai_counts_tools_in_their_flat_form() -> None:
    strict = Tool("get", "", {"type": "object"}, strict=True)
    request = ChatRequest(messages=HI, model="m", tools=(ADD, strict))
    (http_request,), _ = play(openai_server.count_tokens(request, OPENAI_CHAT), json_response({"input_tokens": 7}))
    assert [
        {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": False},
        {"type": "function", "name": "get", "description": "", "parameters": {"type": "object"}, "strict": True},
    ] == body_of(http_request)["tools"]


def test_unsupported_parts_are_not_counted() -> None:
    request = ChatRequest(messages=(*HI, Message.assistant([ReasoningPart("Hm."), "A"])), model="m")
    with pytest.raises(UnsupportedOptionError) as exc_info:
        next(openai_server.count_tokens(request, OPENAI_CHAT))
    assert "message: reasoning" == exc_info.value.option


LISTING = models({"id": "a", "max_model_len": 9, "aliases": ["b"]}, {"id": "c"})


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (None, {"model": "a", "context_length": 9}),
        ("a", {"model": "a", "context_length": 9}),
        ("b", {"model": "a", "context_length": 9}),
        ("c", {"model": "c"}),
        ("z", {"model": "z"}),
    ],
)
def test_a_server_that_lists_its_models_is_ready(model: str | None, fields: Mapping[str, Any]) -> None:
    expected = attrs.evolve(ServerStatus(state="ready"), **fields)
    assert ([MODELS], expected) == play(openai_server.status_from_models(model), LISTING)


def test_a_server_that_lists_no_model_is_an_error() -> None:
    with pytest.raises(EmptyModelListError):
        play(openai_server.status_from_models("m"), models())


def vectors(*numbers: float, usage: Usage | None = None) -> Embeddings:
    return Embeddings(vectors=tuple((n,) for n in numbers), requested_model="m", served_model="s", usage=usage)


@pytest.mark.parametrize(
    ("batches", "one"),
    [
        pytest.param([vectors(1, 2)], vectors(1, 2), id="one"),
        pytest.param([vectors(1, 2), vectors(3), vectors()], vectors(1, 2, 3), id="in their order"),
        pytest.param(
            [vectors(1, usage=Usage(3, 0)), vectors(2, usage=Usage(4, 1))],
            vectors(1, 2, usage=Usage(7, 1)),
            id="counts are added up",
        ),
        pytest.param(
            [vectors(1, usage=Usage(3, 0)), vectors(2)], vectors(1, 2), id="a count that is missing makes none of all"
        ),
    ],
)
def test_batches_are_joined(batches: Sequence[Embeddings], one: Embeddings) -> None:
    assert one == openai_server.merge_embeddings(batches)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(
    st.sampled_from(["data", "models", "error", "total_slots", "is_sleeping", "input_tokens", "prompt", "version"]),
    json_values
    | st.lists(st.fixed_dictionaries({"id": st.text(), "key": st.text()}, optional={"status": json_values})),
    max_size=4,
)
EVERY: list[Callable[[], Operation[object]]] = [
    lambda: llamacpp.status("m"),
    lambda: llamacpp.count_tokens(CHAT, LLAMACPP_CHAT),
    lambda: llamacpp.load("m", context_length=None, keep_alive=None),
    lambda: vllm.status("m"),
    lambda: vllm.count_tokens(CHAT, VLLM_CHAT),
    lmstudio.list_models,
    lambda: lmstudio.status("m"),
    lambda: lmstudio.load("m", context_length=5, keep_alive=None),
    lambda: lmstudio.unload("m"),
    lambda: lmstudio.prepare("m", WireSettings(context_length=5)),
    lambda: openai_server.status_from_models("m"),
    lambda: openai_server.count_tokens(CHAT, OPENAI_CHAT),
]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(EVERY),
    st.lists(
        st.tuples(
            st.binary() | bodies.map(lambda value: json.dumps(value).encode()), st.sampled_from([200, 200, 404, 500])
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_any_response_is_decoded_or_raises_our_errors(
    make: Callable[[], Operation[object]], answers: list[tuple[bytes, int]]
) -> None:
    remaining = list(answers)

    def server(_: HTTPRequest) -> HTTPResponse:
        body, status = remaining.pop(0) if remaining else (b"{}", 200)
        return HTTPResponse(status=status, headers={}, body=body)

    with suppress(BackendError):
        drive(make(), server)


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "at", "expected"),
    [
        ({}, "a", {"a": 1}),
        ({}, "a.b.c", {"a": {"b": {"c": 1}}}),
        ({"a": {"x": 2}}, "a.b", {"a": {"x": 2, "b": 1}}),
        ({"a": 2}, "a", {"a": 1}),
    ],
)
def test_a_value_is_set_at_its_path(body: dict[str, Any], at: str, expected: Mapping[str, Any]) -> None:
    set_path(body, at, 1)
    assert expected == body


HOLDING_A: OptionTable = {"one": Supported("a.x"), "two": Supported("b"), "three": Unsupported("no")}
"""A table whose options lie in the object ``a``, which more may be put into."""


@pytest.mark.parametrize(
    ("body", "extra", "expected"),
    [
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": None}, {"a": 1, "b": None}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": {"model": "m"}}, {"a": {"x": 1, "model": "m"}}),
    ],
)
def test_extra_members_are_merged(body: dict[str, Any], extra: Any, expected: Mapping[str, Any]) -> None:
    merge_extra_body(body, extra, {"model": "pass model="}, HOLDING_A)
    assert expected == body


@pytest.mark.parametrize(
    ("body", "extra", "message"),
    [
        ({}, {"model": "m"}, "extra_body: model: pass model="),
        ({"a": 1}, {"a": 1}, "extra_body: a: a is already set by an option"),
        ({"a": {"x": 1}}, {"a": 5}, "extra_body: a: a is already set by an option"),
        ({"a": 5}, {"a": {"x": 1}}, "extra_body: a: a is already set by an option"),
        ({"a": [1]}, {"a": [2]}, "extra_body: a: a is already set by an option"),
        ({"a": {"x": {"p": 1}}}, {"a": {"x": {"q": 2}}}, "extra_body: a.x: x is already set by an option"),
        ({"b": {"x": 1}}, {"b": {"y": 2}}, "extra_body: b: b is already set by an option"),
    ],
)
def test_conflicting_members_are_rejected(body: dict[str, Any], extra: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        merge_extra_body(body, extra, {"model": "pass model="}, HOLDING_A)
    assert message == str(exc_info.value)


# --- tools ------------------------------------------------------------------------------------------


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


@attrs.frozen
class Place:
    city: str
    zip_code: int | None = None


@dataclasses.dataclass
class Span:
    days: int


class Source(TypedDict):
    url: str


def weather(
    place: Place,
    unit: Unit,
    span: Annotated[Span, msgspec.Meta(description="How long.")],
    sources: list[Source],
    mode: Literal["a", "b"] = "a",
    limit: Annotated[int, msgspec.Meta(description="At most so many.", ge=1)] = 3,
    note: str | None = None,
) -> str:
    """Tell the weather
    of a   place.

    This is for people, and not for the model.
    """
    return ""


def closed_schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def test_a_typed_function_is_a_tool() -> None:
    tool = tool_of(weather)
    assert ("weather", "Tell the weather of a place.", True, weather) == (
        tool.name,
        tool.description,
        tool.strict,
        tool.function,
    )
    parameters = json.loads(json.dumps(tool.parameters))
    definitions = parameters.pop("$defs")
    span = parameters["properties"].pop("span")
    parameters["required"] = sorted(parameters["required"])
    expected = closed_schema(
        place={"$ref": "#/$defs/Place"},
        unit={"$ref": "#/$defs/Unit"},
        sources={"type": "array", "items": {"$ref": "#/$defs/Source"}},
        mode={"enum": ["a", "b"]},
        limit={"type": "integer", "minimum": 1, "description": "At most so many."},
        note={"anyOf": [STRING, {"type": "null"}]},
    )
    assert {**expected, "required": sorted([*expected["required"], "span"])} == parameters
    assert "How long." == span["description"]
    assert (INTEGER, "How long.") == (span["properties"]["days"], span["description"])
    assert {
        "Place": {"title": "Place", **closed_schema(city=STRING, zip_code={"anyOf": [INTEGER, {"type": "null"}]})},
        "Span": {"title": "Span", **closed_schema(days=INTEGER)},
        "Source": {"title": "Source", **closed_schema(url=STRING)},
        "Unit": {"title": "Unit", "enum": ["celsius", "kelvin"]},
    } == definitions


def test_parameters_of_a_tool_that_is_not_strict_may_be_omitted() -> None:
    tool = tool_of(weather, strict=False)
    assert (False, ["place", "unit", "span", "sources"]) == (tool.strict, tool.parameters["required"])


def test_name_and_description_can_be_passed() -> None:
    tool = tool_of(weather, name="get-weather_2", description="")
    assert ("get-weather_2", "") == (tool.name, tool.description)


class Box:
    def method(self, a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    @staticmethod
    def static(a: int) -> int:
        return a


async def later(a: int, *, title: str = "x") -> int:
    return a


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("function", "name", "schema"),
    [
        (Box().method, "method", closed_schema(a=INTEGER)),
        (Box.of_class, "of_class", closed_schema(a=INTEGER)),
        (Box.static, "static", closed_schema(a=INTEGER)),
        (later, "later", closed_schema(a=INTEGER, title=STRING)),
        (nothing, "nothing", closed_schema()),
    ],
)
def test_every_kind_of_function_is_a_tool(function: Callable[..., Any], name: str, schema: Mapping[str, Any]) -> None:
    assert Tool(name, "", schema, strict=True) == tool_of(function)


def untyped(a) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is tested
    pass


def many(*a: int) -> None:
    pass


def named(**a: int) -> None:
    pass


def positional(a: int, /) -> None:
    pass


def unknown(a: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821  # what is tested
    pass


def number(a: complex) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (untyped, "the parameter a of the tool untyped has no type; annotate it"),
        (many, "the tool many does not support *a: 'int'; use parameters that can be passed by name"),
        (named, "the tool named does not support **a: 'int'; use parameters that can be passed by name"),
        (positional, "the tool positional does not support a: 'int'; use parameters that can be passed by name"),
        (unknown, "a type of the tool unknown is not defined: name 'Nowhere' is not defined"),
        (Box.method, "the parameter self of the tool method has no type; annotate it"),
    ],
)
def test_unsupported_functions_are_not_tools(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError) as exc_info:
        tool_of(function)
    assert message == str(exc_info.value)


def test_parameters_need_a_json_type() -> None:
    with pytest.raises(TypeError, match="complex"):
        tool_of(number)


@pytest.mark.parametrize("name", ["two words", "ä", "x" * 65, "a.b", "a\n"])
def test_tool_names_are_checked(name: str) -> None:
    with pytest.raises(TypeError, match=r"pass name= with up to 64 letters, digits, _ and -"):
        tool_of(nothing, name=name)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(TypeError, match=r"^the tool int has no readable parameters; pass a function with typed"):
        tool_of(int)
    with pytest.raises(TypeError, match=r"^not a valid tool name: '<lambda>'"):
        tool_of(lambda: None)
    assert "f" == tool_of(lambda: None, name="f").name


def test_functions_among_tools_become_tools() -> None:
    assert (ADD, tool_of(nothing)) == build_tools([ADD, nothing])
    assert () == build_tools([])


WEATHER = {"place": {"city": "漢"}, "unit": "kelvin", "span": {"days": 2}, "sources": [{"url": "u"}]}
READ_WEATHER = {"place": Place("漢"), "unit": Unit.KELVIN, "span": Span(2), "sources": [{"url": "u"}]}


def test_arguments_are_values_of_their_types() -> None:
    tool = tool_of(weather)
    assert READ_WEATHER == arguments_of(tool, ToolCall("c", "weather", json.dumps(WEATHER)))
    every = json.dumps({**WEATHER, "mode": "b", "limit": 1, "note": None})
    assert {**READ_WEATHER, "mode": "b", "limit": 1, "note": None} == arguments_of(
        tool, ToolCall("c", "weather", every)
    )


@pytest.mark.parametrize("arguments", ["", "{}", " {} "])
def test_a_tool_without_parameters_takes_no_arguments(arguments: str) -> None:
    assert {} == arguments_of(tool_of(nothing), ToolCall("c", "nothing", arguments))


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ("{", None),
        ("[]", None),
        ("", None),
        ("\ud800", None),
        (json.dumps({**WEATHER, "unit": "x"}), "$.unit"),
        (json.dumps({**WEATHER, "place": {"city": 5}}), "$.place.city"),
        (json.dumps({**WEATHER, "sources": [{}]}), "$.sources[0]"),
        (json.dumps({**WEATHER, "limit": 0}), "$.limit"),
        (json.dumps({**WEATHER, "limit": None}), "$.limit"),
    ],
)
def test_invalid_arguments_are_an_error_with_their_path(arguments: str, pointer: str | None) -> None:
    with pytest.raises(StructuredOutputError) as exc_info:
        arguments_of(tool_of(weather), ToolCall("c", "weather", arguments))
    assert pointer == exc_info.value.pointer
    assert (arguments or "{}") == exc_info.value.text


CLOSED = Tool("add", "", {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False})


def test_the_arguments_of_a_tool_from_a_schema() -> None:
    assert {} == arguments_of(ADD, ToolCall("c", "add", ""))
    assert {"a": [1, None]} == arguments_of(CLOSED, ToolCall("c", "add", '{"a": [1, null]}'))
    assert {"x": 1} == arguments_of(ADD, ToolCall("c", "add", '{"x": 1}'))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("[1]", "response does not match dict"),
        ('{"a"', "response does not match dict"),
        ("{}", "the call of add lacks arguments: a"),
        ('{"a": 1, "b": 2}', "the call of add has unknown arguments: b"),
    ],
)
def test_invalid_arguments_of_a_tool_from_a_schema(arguments: str, text: str) -> None:
    with pytest.raises(StructuredOutputError) as exc_info:
        arguments_of(CLOSED, ToolCall("c", "add", arguments))
    assert str(exc_info.value).startswith(text)
    assert arguments == exc_info.value.text


@settings(deadline=None)
@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_arguments_or_our_error(arguments: str) -> None:
    with suppress(StructuredOutputError):
        assert isinstance(arguments_of(tool_of(later), ToolCall("c", "later", arguments)), dict)


# --- messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0...", "image/jpeg"),
        (b"GIF87a...", "image/gif"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_images_are_recognised(data: bytes, media_type: str) -> None:
    assert ImagePart(data, media_type) == ImagePart.from_bytes(data)
    assert ImagePart(data, "image/x") == ImagePart.from_bytes(data, media_type="image/x")


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"RIFF", b"<svg>", b"BM"])
def test_other_images_need_their_type(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^unknown image format: not PNG, JPEG, GIF or WebP; pass media_type="):
        ImagePart.from_bytes(data)
    assert "image/svg+xml" == ImagePart.from_bytes(data, media_type="image/svg+xml").media_type


def test_an_image_is_data_or_a_url() -> None:
    assert ("eA==", "data:image/x;base64,eA==") == (
        ImagePart(b"x", "image/x").base64,
        ImagePart(b"x", "image/x").data_url,
    )
    assert "http://h/i" == ImagePart.from_url("http://h/i").data_url
    for wrong in ({}, {"data": b"x", "media_type": "image/x", "url": "u"}):
        with pytest.raises(ValueError, match=r"^an ImagePart takes either data or url$"):
            ImagePart(**wrong)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match=r"needs a media_type"):
        ImagePart(b"x")


def test_the_data_of_an_image_is_not_printed() -> None:
    assert "<1000 bytes>" in repr(ImagePart(b"x" * 1000, "image/x"))


IMAGE, REASONING, CALL = ImagePart.from_url("https://example.org/u.png"), ReasoningPart("r"), ToolCall("c", "f", "{}")
RESULT, TEXT = ToolResult("c", "3"), TextPart("t")
ALLOWED_PARTS: Mapping[str, tuple[Part, ...]] = {
    "system": (TEXT,),
    "user": (TEXT, IMAGE, AudioPart(b"a"), FilePart(b"%PDF-")),
    "assistant": (TEXT, REASONING, CALL, OpaquePart("messages", "{}")),
    "tool": (RESULT,),
}


@pytest.mark.parametrize("role", ALLOWED_PARTS)
@pytest.mark.parametrize("part", [TEXT, IMAGE, REASONING, CALL, RESULT], ids=lambda part: type(part).__name__)
def test_parts_belong_to_roles(role: Any, part: Part) -> None:
    if part in ALLOWED_PARTS[role]:
        assert (part,) == Message(role, (part,)).parts
        return
    with pytest.raises(TypeError) as exc_info:
        Message(role, (part,))
    names = " or ".join(type(allowed_part).__name__ for allowed_part in ALLOWED_PARTS[role])
    assert f"invalid part in a {role} message: {type(part).__name__}; use {names}" == str(exc_info.value)


@pytest.mark.parametrize("role", ALLOWED_PARTS)
def test_a_message_needs_parts(role: Any) -> None:
    with pytest.raises(ValueError, match=rf"^a {role} message needs at least one part$"):
        Message(role, ())


def test_a_message_has_a_known_role() -> None:
    with pytest.raises(ValueError, match=r"^unknown role: 'developer'; use one of system, user, assistant, tool$"):
        Message("developer", "x")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("content", ["3", [5], [None], [{"type": "text", "text": "x"}]])
def test_invalid_parts_are_rejected(content: Any) -> None:
    with pytest.raises(TypeError):
        Message("tool", content)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (Message.system("S"), "S"),
        (Message.system(["S", TextPart("T")]), (TextPart("S"), TextPart("T"))),
        (Message.user("U"), "U"),
        (Message.user(["U", IMAGE]), (TextPart("U"), IMAGE)),
        (Message.assistant("A"), "A"),
        (Message.assistant(""), ""),
        (Message.assistant([REASONING, "A", CALL]), (REASONING, TextPart("A"), CALL)),
        (Message.assistant("A", tool_calls=[CALL]), (TextPart("A"), CALL)),
        (Message.assistant("", tool_calls=[CALL]), (CALL,)),
        (Message.assistant([TextPart(""), REASONING], tool_calls=[CALL, CALL]), (REASONING, CALL, CALL)),
        (Message.assistant([REASONING, "A"], tool_calls=(CALL,)), (REASONING, TextPart("A"), CALL)),
        (Message.tool("3", tool_call_id="c"), (ToolResult("c", "3"),)),
        (Message.tool("3", tool_call_id="c", name="f", is_error=True), (ToolResult("c", "3", "f", is_error=True),)),
    ],
)
def test_messages_accept_texts_and_parts(message: Message, content: object) -> None:
    assert content == message.content


def test_an_empty_text_with_calls_is_omitted() -> None:
    assert (CALL,) == Message.assistant([""], tool_calls=[CALL]).content


@pytest.mark.parametrize(
    ("message", "parts", "text", "calls"),
    [
        (Message.user("U"), (TextPart("U"),), "U", ()),
        (Message.user(""), (), "", ()),
        (Message.user(["a", IMAGE, "b"]), (TextPart("a"), IMAGE, TextPart("b")), "ab", ()),
        (Message.assistant([REASONING, "A", CALL]), (REASONING, TextPart("A"), CALL), "A", (CALL,)),
        (Message("tool", (RESULT,)), (RESULT,), "", ()),
    ],
)
def test_a_message_is_decoded(message: Message, parts: object, text: str, calls: object) -> None:
    assert (parts, text, calls) == (message.parts, message.text, message.tool_calls)


def request(**options: Any) -> ChatRequest:
    return ChatRequest(**{"messages": HI, "model": "m", **options})


FRACTIONS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")


@pytest.mark.parametrize("name", FRACTIONS)
def test_fractions_are_finite_numbers(name: str) -> None:
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=rf"^{name} must be a finite number: .*$"):
            request(**{name: wrong})
    for value in (0, -2.0, 1.5, None):
        assert value == getattr(request(**{name: value}), name)


@pytest.mark.parametrize(("name", "least"), [("max_tokens", 1), ("top_k", 0), ("reasoning_budget", 0)])
def test_counts_have_a_minimum(name: str, least: int) -> None:
    assert least == getattr(request(**{name: least}), name)
    with pytest.raises(ValueError, match=rf"^{name} must be at least {least}: {least - 1}$"):
        request(**{name: least - 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": (ADD, ADD)}, "duplicate tool name: add, add"),
        (
            {"tools": (ADD,), "tool_choice": NamedTool("x")},
            "unknown tool in tool_choice: 'x'; pass it in tools",
        ),
        ({"tool_choice": NamedTool("x")}, "unknown tool in tool_choice: 'x'; pass it in tools"),
        ({"tool_choice": "required"}, "tool_choice is required; pass tools"),
        (
            {"tools": (ADD,), "tool_choice": "any"},
            "invalid tool_choice: 'any'; use auto, none, required or a NamedTool",
        ),
        ({"top_logprobs": 3}, "top_logprobs requires logprobs=True"),
        ({"top_logprobs": 0, "logprobs": False}, "top_logprobs requires logprobs=True"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs must be at least 0: -1"),
        pytest.param(
            {"tools": (ADD,), "tool_choice": {"type": "auto"}},
            "invalid tool_choice: {'type': 'auto'}; use auto, none, required or a NamedTool",
        ),
    ],
)
def test_invalid_options_are_a_value_error(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as exc_info:  # noqa: PT011  # the message is compared below
        request(**options)
    assert message == str(exc_info.value)


@pytest.mark.parametrize(
    "options",
    [
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tools": (ADD,), "tool_choice": "required"},
        {"tools": (ADD,), "tool_choice": NamedTool("add")},
        {"logprobs": True, "top_logprobs": 0},
        {"logprobs": True},
    ],
)
def test_valid_tool_choices_are_accepted(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        assert value == getattr(request(**options), name)


@pytest.mark.parametrize("choices", [[], ["a", ""], [""]])
def test_a_choice_format_needs_choices(choices: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^choices must be one or more non-empty strings$"):
        ChoiceFormat(choices)


# A str is a Sequence[str] for every type checker, and a common mistake; backend.chat_request() does the same to
# stop_sequences="###".
def test_a_string_is_not_a_list_of_choices() -> None:
    try:
        choices = ChoiceFormat("yes").choices
    except (TypeError, ValueError):
        return
    assert ("yes",) == choices


# --- completions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({}, Message.assistant(""), id="nothing"),
        pytest.param({"text": "A"}, Message.assistant("A"), id="a text stays a text"),
        pytest.param(
            {"text": "A", "reasoning": "R"}, Message.assistant([ReasoningPart("R"), "A"]), id="reasoning comes first"
        ),
        pytest.param({"reasoning": "R"}, Message.assistant([ReasoningPart("R")]), id="reasoning alone"),
        pytest.param({"tool_calls": (CALL,)}, Message.assistant([CALL]), id="calls alone"),
        pytest.param(
            {"text": "A", "reasoning": "R", "tool_calls": (CALL, CALL)},
            Message.assistant([ReasoningPart("R"), "A", CALL, CALL]),
            id="all of them",
        ),
        pytest.param(
            {
                "text": "A",
                "reasoning": "R",
                "tool_calls": (CALL,),
                "parts": (CALL, ReasoningPart("R", "s"), TextPart("A")),
            },
            Message("assistant", (CALL, ReasoningPart("R", "s"), TextPart("A"))),
            id="parts are taken in their order, with signatures",
        ),
    ],
)
def test_a_completion_converts_to_a_message(fields: Mapping[str, Any], message: Message) -> None:
    assert message == Completion(**{"text": "", "finish_reason": "stop", "requested_model": "m", **fields}).message
