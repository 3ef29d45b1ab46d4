"""Wrong arguments name the option and what would be right, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest

from ctxbackends import (
    BackendConfig,
    BackendError,
    ChatRequest,
    ConfigError,
    JSONObjectFormat,
    Message,
    Registry,
    RequestOptions,
    UnknownBackendTypeError,
    extract,
    extract_stream,
    http_backend,
    open_backend,
    run_tools,
    serve_model,
    stream_tools,
    sync,
)
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._client.prompts import OTHER_NAMES as OTHER_OPTIONS
from ctxbackends._client.prompts import build_chat_request
from ctxbackends._config.backend_settings import OTHER_NAMES, BackendSettings
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends.local import LocalServer

NOWHERE = "http://127.0.0.1:1"


class Plain:
    def __repr__(self) -> str:
        return "Plain()"  # the same in each process, as the name of a test


def build(prompt: Any = "Hi", **options: Any) -> ChatRequest:
    chat_options: Any = options
    return build_chat_request(prompt, "m", chat_options)


# --- names of options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("stop", "did you mean stop_sequences?"),
        ("stop_sequence", "did you mean stop_sequences?"),
        ("max_completion_tokens", "did you mean max_tokens?"),
        ("max_output_tokens", "did you mean max_tokens?"),
        ("maxTokens", "did you mean max_tokens?"),
        ("temprature", "did you mean temperature?"),
        ("system", "pass Message.system(...) as the first message"),
        ("messages", "pass the messages as the first argument"),
        ("n", "one answer is returned; call it several times"),
        ("timeout", "pass request_options=RequestOptions(...)"),
        ("model_name", "did you mean model?"),
        ("stream", "call stream() instead of complete()"),
        ("logit_bias", "pass it in extra_body"),
        ("mirostat_tau_eta", "use one of model, max_tokens"),
    ],
)
async def test_an_unknown_option(name: str, advice: str) -> None:
    async with open_backend("vllm", endpoint=NOWHERE, default_model="m") as backend:
        for call in (backend.complete, backend.stream):
            with pytest.raises(TypeError, match=f"^unknown option: {name}; ") as exc_info:
                result: Any = call("Hi", **{name: "x"})  # type: ignore[arg-type]  # what is tested
                await result
            assert advice in str(exc_info.value)
        with pytest.raises(TypeError, match=f"^unknown option: {name}; "):
            await extract(backend, dict, "Hi", **{name: "x"})  # type: ignore[arg-type]  # what is tested


async def test_a_missing_prompt() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    async with open_backend("vllm", endpoint=NOWHERE, default_model="m") as backend:
        with pytest.raises(TypeError, match=r"^unknown option: messages; pass the messages as the first argument$"):
            await backend.complete(messages=messages)  # type: ignore[call-arg]  # what is tested
        with pytest.raises(TypeError, match=r"^missing prompt; pass the messages as the first argument$"):
            backend.stream(max_tokens=3)  # type: ignore[call-arg]  # what is tested


def test_the_names_of_other_clients_lead_somewhere() -> None:
    options = {*ChatOptions.__annotations__}
    assert options.isdisjoint(OTHER_OPTIONS)
    assert {meant for meant in OTHER_OPTIONS.values() if " " not in meant} <= options
    fields = {field.name for field in attrs.fields(BackendConfig)}
    assert fields.isdisjoint(OTHER_NAMES)
    assert {meant for meant in OTHER_NAMES.values() if " " not in meant} <= fields


# --- values of options ------------------------------------------------------------------------------------

NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
INTEGERS = ("max_tokens", "top_k", "seed", "top_logprobs", "reasoning_budget")
FLAGS = ("logprobs", "parallel_tool_calls")


@pytest.mark.parametrize("value", ["0.5", "x", {}, [], Plain, Plain(), True])
@pytest.mark.parametrize("name", [*NUMBERS, *INTEGERS])
def test_not_a_number(name: str, value: Any) -> None:
    kind = "a number" if name in NUMBERS else "an integer"
    with pytest.raises(TypeError, match=f"^{name} must be {kind}: "):
        build(**{name: value})


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_tokens": 1.5}, TypeError, "max_tokens must be an integer: 1.5"),
        ({"temperature": float("nan")}, ValueError, "temperature must be a finite number: nan"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be at least 1: 0"),
        ({"logprobs": "yes"}, TypeError, "logprobs must be True or False: 'yes'"),
        ({"parallel_tool_calls": 1}, TypeError, "parallel_tool_calls must be True or False: 1"),
        ({"stop_sequences": "x"}, TypeError, "stop_sequences must be a list of strings: ['x']"),
        ({"stop_sequences": 5}, TypeError, "stop_sequences must be a list of strings, not int"),
        ({"stop_sequences": {"a": 1}}, TypeError, "stop_sequences must be a list of strings, not dict"),
        ({"stop_sequences": ["a", 5]}, TypeError, "stop_sequences[1] must be a string: 5"),
        ({"reasoning_effort": "hihg"}, ValueError, "unknown reasoning_effort: 'hihg'; use one of none, minimal, low"),
        ({"reasoning_effort": 5}, TypeError, "unknown reasoning_effort: 5; use one of none, minimal, low"),
        ({"extra_body": "x"}, TypeError, "extra_body must be a dict: 'x'"),
        ({"response_format": "json"}, TypeError, "not a response_format: 'json'; pass a format such as"),
        ({"response_format": 5}, TypeError, "not a response_format: 5; pass a format such as"),
        (
            {"response_format": JSONObjectFormat},
            TypeError,
            "response_format is a class: JSONObjectFormat; pass JSONObjectFormat(...)",
        ),
        ({"response_format": Plain}, TypeError, "response_format: cannot create a JSON Schema for Plain: type <class "),
        ({"response_format": list[Plain]}, TypeError, "response_format: cannot create a JSON Schema for list["),
        ({"tools": 5}, TypeError, "tools must be a list, not int"),
        ({"tools": {"name": "a"}}, TypeError, "tools must be a list, not dict"),
        ({"tools": "add"}, TypeError, "tools must be a list, not str"),
        ({"tools": ["add"]}, TypeError, "tools[0] is not a tool: 'add'; pass a Tool, a function or a dict"),
        ({"tools": [None]}, TypeError, "tools[0] is not a tool: None; pass a Tool, a function or a dict"),
        ({"tool_choice": 5}, TypeError, "not a tool_choice: 5; use auto, none, required"),
        ({"tool_choice": "any"}, ValueError, "invalid tool_choice: 'any'; use auto, none, required"),
    ],
)
def test_an_invalid_value(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as exc_info:
        build(**options)
    assert error is type(exc_info.value)
    assert text in str(exc_info.value)


@pytest.mark.parametrize("name", sorted({*ChatOptions.__annotations__} - {"model"}))
def test_none_is_the_default(name: str) -> None:
    assert build() == build(**{name: None})


def test_a_request_takes_none_and_lists() -> None:
    request = ChatRequest(
        messages=[Message.user("Hi")],  # type: ignore[arg-type]  # what is tested
        model="m",
        stop_sequences=None,  # type: ignore[arg-type]  # as above
        tools=None,  # type: ignore[arg-type]  # as above
    )
    assert build() == build([Message.user("Hi")]) == request


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": 5}, "model must be a string, not int"),
        ({"messages": "Hi"}, "messages must be a list, not str"),
        ({"messages": None}, "messages must be a list, not NoneType"),
        ({"tools": [{"name": "a"}]}, "tools[0] must be a Tool"),
        ({"response_format": {"type": "json_object"}}, "not a response_format"),
    ],
)
def test_an_invalid_request(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as exc_info:
        ChatRequest(**{"messages": (Message.user("Hi"),), "model": "m", **fields})
    assert str(exc_info.value).startswith(text)


def test_a_request_has_messages() -> None:
    messages: Any = ({"role": "user", "content": "Hi"},)
    with pytest.raises(TypeError, match=r"^the messages of a ChatRequest must be one or more Message; pass dicts"):
        build_chat_request(ChatRequest(messages=messages, model="m"), "m", {})


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, "not a prompt: NoneType; pass a str, a Message, a dict, or a list"),
        (5, "not a prompt: int; pass a str"),
        (b"Hi", "not a prompt: bytes; pass a str"),
        (Plain, "not a prompt: type; pass a str"),
        (Plain(), "not a prompt: Plain; pass a str"),
        ([], "the prompt has no messages; pass at least one"),
        (["Hi"], "messages[0] is not a message: str; pass a Message or a dict"),
        ([Message.user("Hi"), None], "messages[1] is not a message: NoneType; pass a Message or a dict"),
    ],
)
def test_not_a_prompt(prompt: Any, text: str) -> None:
    with pytest.raises(TypeError) as exc_info:
        build(prompt)
    assert str(exc_info.value).startswith(text)


@pytest.mark.parametrize("content", [None, 5, {"a": 1}, Plain, b"Hi"])
@pytest.mark.parametrize("make", [Message.system, Message.user, Message.assistant])
def test_not_a_content(make: Callable[[Any], Message], content: Any) -> None:
    kind = type(content).__name__
    with pytest.raises(TypeError, match=f"^the content of a message must be a string or a list of parts, not {kind}$"):
        make(content)


@pytest.mark.parametrize("model", [5, 0, False, b"", [], ["m"], {}, {"m": 1}, Plain])
async def test_a_model_is_a_name(model: Any) -> None:
    async with (
        open_backend("vllm", endpoint=NOWHERE, default_model="m") as backend,
        open_backend("ollama", endpoint=NOWHERE, default_model="m") as loader,
    ):
        calls: list[Callable[[], Any]] = [
            partial(backend.complete, "Hi", model=model),
            lambda: backend.stream("Hi", model=model).__aenter__(),
            partial(backend.count_tokens, "Hi", model=model),
            partial(backend.embed, ["Hi"], model=model),
            partial(loader.load, model),
            partial(loader.unload, model),
            partial(extract, backend, dict, "Hi", model=model),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=f"^model must be a string, not {type(model).__name__}$"):
                await call()


@pytest.mark.parametrize("text", [None, 5, {"a": 1}, Plain, [Message.user("Hi")]])
async def test_extract_needs_text(text: Any) -> None:
    async with open_backend("vllm", endpoint=NOWHERE, default_model="m") as backend:
        with pytest.raises(TypeError, match=f"^text must be a string, not {type(text).__name__}$"):
            await extract(backend, dict, text)
        with pytest.raises(TypeError, match=f"^instructions must be a string, not {type(text).__name__}$"):
            await extract(backend, dict, "Hi", instructions=text)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (None, "target must be a type, not None"),
        (5, "cannot create a JSON Schema for 5: "),
        ("dict", "cannot create a JSON Schema for 'dict': "),
        (Plain, "cannot create a JSON Schema for Plain: type <class "),
        (list[Plain], "cannot create a JSON Schema for list["),
        ({"type": "object"}, "cannot create a JSON Schema for {'type': 'object'}: "),
    ],
)
async def test_extract_needs_a_type(target: Any, text: str) -> None:
    async with open_backend("vllm", endpoint=NOWHERE, default_model="m") as backend:
        with pytest.raises(TypeError) as exc_info:
            await extract(backend, target, "Hi")
        assert str(exc_info.value).startswith(text)
        assert "\n" not in str(exc_info.value)
        with pytest.raises(TypeError):
            extract_stream(backend, target, "Hi")


@pytest.mark.parametrize("backend", [None, "vllm", BackendConfig(name="a", type="vllm")])
async def test_functions_need_a_backend(backend: Any) -> None:
    text = f"^backend must be a Backend, not {type(backend).__name__}; Registry.resolve\\(\\) returns one$"
    with pytest.raises(TypeError, match=text):
        await extract(backend, dict, "Hi")
    with pytest.raises(TypeError, match=text):
        extract_stream(backend, dict, "Hi")
    with pytest.raises(TypeError, match=text):
        await run_tools(backend, "Hi", [])
    with pytest.raises(TypeError, match=text):
        stream_tools(backend, "Hi", [])


async def test_async_functions_need_an_async_backend() -> None:
    with sync.open_backend("vllm", endpoint=NOWHERE, default_model="m") as sync_backend:
        backend: Any = sync_backend
        for function in (partial(extract, backend, dict, "Hi"), partial(run_tools, backend, "Hi", [])):
            with pytest.raises(TypeError, match=r"not SyncBackend; pass its async_backend$"):
                await function()


# --- configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("base_url", "did you mean endpoint?"),
        ("api_base", "did you mean endpoint?"),
        ("endpont", "did you mean endpoint?"),
        ("model_name", "did you mean default_model?"),
        ("model", "did you mean default_model?"),
        ("apiKey", "did you mean api_key?"),
        ("retries", "did you mean max_retries?"),
        ("temperature", "pass it with each request"),
        ("xyz", "use one of name, type, endpoint"),
    ],
)
async def test_an_unknown_field(name: str, advice: str) -> None:
    settings: Any = {name: "x"}
    with pytest.raises(TypeError, match=f"^unknown field of BackendConfig: {name}; ") as exc_info:
        BackendConfig(name="vllm", **settings)
    assert advice in str(exc_info.value)
    with pytest.raises(TypeError, match=f"^unknown field of BackendConfig: {name}; "):
        async with open_backend("vllm", **settings):
            pass
    with pytest.raises(TypeError, match=f"^unknown field of BackendConfig: {name}; "):
        async with serve_model("m.gguf", settings=settings):
            pass


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ctx_sise", "did you mean ctx_size?"),
        ("n_ctx", "did you mean ctx_size?"),
        ("n_parallel", "did you mean parallel?"),
        ("timeout", "pass it in settings={...} of serve_model()"),
    ],
)
async def test_an_unknown_option_of_a_local_server(name: str, advice: str) -> None:
    options: Any = {name: 1}
    with pytest.raises(TypeError, match=f"^unknown field of ServerOptions: {name}; ") as exc_info:
        LocalServer("m.gguf", **options)
    assert advice in str(exc_info.value)
    with pytest.raises(TypeError, match=f"^unknown field of ServerOptions: {name}; "):
        async with serve_model("m.gguf", **options):
            pass


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ctx_size", "4k"),
        ("parallel", 0),
        ("threads", 1.5),
        ("port", 70000),
        ("port", True),
        ("host", 5),
        ("alias", {}),
        ("api_key", Plain),
        ("embeddings", "yes"),
        ("inherit_log", None),
        ("environment", "A=b"),
    ],
)
def test_an_invalid_option_of_a_local_server(field: str, value: Any) -> None:
    options: Any = {field: value}
    with pytest.raises(ConfigError, match="must be") as exc_info:
        LocalServer("m.gguf", **options)
    assert field == exc_info.value.key


@pytest.mark.parametrize("path", [None, 5, {}, Plain])
async def test_an_invalid_model_path(path: Any) -> None:
    with pytest.raises(ConfigError, match=f"model_path: must be a path, not {type(path).__name__}"):
        async with serve_model(path):
            pass


def test_an_unknown_request_option() -> None:
    options: Any = {"time_out": 3}
    with pytest.raises(TypeError, match=r"^unknown field of RequestOptions: connect_timeout; set connect_timeout"):
        RequestOptions(connect_timeout=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^unknown field of RequestOptions: time_out; did you mean timeout\?$"):
        RequestOptions(**options)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vLLM", "vllm"),
        ("llama.cpp", "llamacpp"),
        ("llama-cpp", "llamacpp"),
        ("llama-server", "llamacpp"),
        ("lm-studio", "lmstudio"),
        ("LM Studio", "lmstudio"),
        ("OpenAI", "openai"),
        ("openai_compatible", "openai-compatible"),
        ("olama", "ollama"),
        ("claude", "anthropic"),
        ("azure", "azure-openai"),
    ],
)
async def test_a_similar_type(name: str, meant: str) -> None:
    text = f'unknown backend type: "{name}"; did you mean {meant}? The types are vllm, '
    with pytest.raises(UnknownBackendTypeError) as exc_info:
        async with open_backend(name, endpoint=NOWHERE):
            pass
    assert exc_info.value.problem.startswith(text)
    with pytest.raises(UnknownBackendTypeError) as exc_info:
        BackendConfig(name=name)
    assert exc_info.value.problem.startswith(text)
    with pytest.raises(UnknownBackendTypeError) as exc_info:
        parse_ctxrc(f"backends:\n- name: a\n  type: {name}\n", path=".ctxrc")
    assert exc_info.value.problem.startswith(text)


async def test_a_registered_type_keeps_its_name() -> None:
    registry = Registry()
    registry.register("vLLM", partial(http_backend, profile=PROFILES["vllm"]))
    registry.configure(BackendConfig(name="own", type="vLLM", endpoint=NOWHERE))
    assert ("own",) == registry.names
    await registry.aclose()


@pytest.mark.parametrize("field", ["timeout", "connect_timeout", "ready_timeout", "first_token_timeout"])
def test_a_duration_as_text(field: str) -> None:
    settings: Any = {field: "1m30s"}
    assert 90.0 == getattr(BackendConfig(name="vllm", **settings), field)
    for text in ("30", "soon", ""):
        with pytest.raises(ConfigError) as exc_info:
            BackendConfig(name="vllm", **{**settings, field: text})
        assert field == exc_info.value.key
        assert "duration" in exc_info.value.problem


FIELDS = [field.name for field in attrs.fields(BackendConfig)]


@pytest.mark.parametrize("value", [5.5, "x y", {"a": 1}, [1], Plain, Plain(), b"x", float("nan")], ids=repr)
@pytest.mark.parametrize("field", FIELDS)
def test_any_value_of_a_field_is_accepted_or_a_clear_error(field: str, value: Any) -> None:
    """An error is a ConfigError that names a field, and no accident inside."""
    for type_ in ("llamacpp", "openai"):
        problem = None
        try:
            BackendConfig(**{"name": "it", "type": type_, field: value})
        except BackendError as error:
            problem = error
        assert problem is None or isinstance(problem, ConfigError)
        assert problem is None or problem.key in FIELDS


# --- checkers -------------------------------------------------------------------------------------------------


def test_the_settings_are_the_fields() -> None:
    assert {*BackendSettings.__annotations__} == {*FIELDS} - {"name", "type"}
    assert PROFILES.keys().isdisjoint(BackendSettings.__annotations__)


async def test_checkers_see_every_keyword() -> None:
    """Mypy reports an `ignore` without an error, so each line here is an error to it."""
    with pytest.raises(TypeError):
        async with open_backend("vllm", endpont=NOWHERE):  # type: ignore[call-arg]
            pass
    with pytest.raises(TypeError):
        async with serve_model("m.gguf", ctx_sise=1):  # type: ignore[call-arg]
            pass
    with pytest.raises(TypeError):
        async with serve_model("m.gguf", settings={"timeut": 1}):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError):
        BackendConfig(name="vllm", endpont=NOWHERE)  # type: ignore[call-arg]
    with pytest.raises(ConfigError):
        BackendConfig(name="vllm", max_concurrency="many")  # type: ignore[arg-type]
    async with open_backend("vllm", endpoint=NOWHERE, timeout="30s", default_model="m") as backend:
        with pytest.raises(TypeError):
            await backend.complete("Hi", stop=["x"])  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await extract(backend, dict, "Hi", max_token=3)  # type: ignore[call-arg]
