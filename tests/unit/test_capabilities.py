"""`backend.capabilities` and `backend.refusal()` agree with the option tables and with the requests."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ctxbackends import Backend, Capabilities, ChatOptions, Message, Registry, UnsupportedOptionError
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._profiles.builtin import PROFILES, SERVERS
from ctxbackends._wire.options import OPTION_KEYS, Unsupported
from ctxbackends.errors import UnsupportedOperationError

OPERATIONS = ("embed", "count_tokens", "load", "unload")


@asynccontextmanager
async def opened(type_: str, **settings: Any) -> AsyncIterator[Backend]:
    config = BackendConfig(
        name="it",
        type=type_,
        default_model="m",
        **{"endpoint": "http://localhost:1", "api_key": "test-key", **settings},
    )
    async with Registry([config]) as registry:
        yield registry.resolve("it")


PAIRS = [(type_, wire) for type_, profile in SERVERS.items() for wire in profile.wire_apis]


@pytest.mark.parametrize(("type_", "wire"), PAIRS)
async def test_they_are_those_of_the_option_table(type_: str, wire: str) -> None:
    table = SERVERS[type_].wire_apis[wire]
    async with opened(type_, wire_api=wire) as backend:
        capabilities = backend.capabilities
        assert wire == capabilities.wire_api
        assert capabilities.options <= {*ChatOptions.__annotations__}
        for key in OPTION_KEYS:
            support = table[key]
            group, _, value = key.partition(": ")
            expected = support.reason if isinstance(support, Unsupported) else None
            assert expected == backend.refusal(key)
            values = {
                "response_format": capabilities.response_formats,
                "tool_choice": capabilities.tool_choices,
                "message": capabilities.message_parts,
            }.get(group, capabilities.options)
            assert (expected is None) == ((value or group) in values)


@pytest.mark.parametrize("type_", sorted(PROFILES))
async def test_operations(type_: str) -> None:
    async with opened(type_) as backend:
        capabilities = backend.capabilities
        flags = (capabilities.embeddings, capabilities.count_tokens, capabilities.load, capabilities.unload)
        assert flags == tuple(backend.refusal(operation) is None for operation in OPERATIONS)
        assert backend.schema_enforcement == capabilities.schema_enforcement


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_reason_is_that_of_the_error(operation: str) -> None:
    async with opened("openai-compatible") as compatible, opened("anthropic") as anthropic:
        backend = anthropic if operation == "embed" else compatible
        reason = backend.refusal(operation)
        assert reason is not None
        arguments = ("text",) if operation in ("embed", "count_tokens") else ()
        with pytest.raises(UnsupportedOperationError) as exc_info:
            await getattr(backend, operation)(*arguments)
        assert reason in str(exc_info.value)


async def test_the_reason_of_an_option_is_that_of_the_error() -> None:
    async with opened("openai") as backend:
        reason = backend.refusal("top_k")
        assert reason is not None
        with pytest.raises(UnsupportedOptionError) as exc_info:
            await backend.complete("Hi", top_k=3)
        assert "top_k" == exc_info.value.option
        assert reason in str(exc_info.value)


async def test_an_option_with_several_values_is_supported_if_one_is() -> None:
    async with opened("ollama") as backend:
        assert backend.refusal("tool_choice") is None
        assert backend.refusal("tool_choice: required") is not None
        assert backend.refusal("response_format") is None
    async with opened("anthropic", wire_api="chat_completions") as backend:
        assert backend.refusal("response_format") is not None
        assert "response_format" not in backend.capabilities.options


async def test_settings_of_the_backend_count() -> None:
    async with opened("openai-compatible", omit=["seed", "stop", "encoding_format"], json_mode=True) as backend:
        assert {"seed", "stop_sequences"}.isdisjoint(backend.capabilities.options)
        assert backend.refusal("seed") == backend.refusal("stop_sequences") == backend.refusal("encoding")
        assert "omit" in (backend.refusal("seed") or "")
        assert "unverified" == backend.capabilities.schema_enforcement


async def test_embedding_options() -> None:
    async with opened("llamacpp") as backend:
        assert "truncate and normalise" in (backend.refusal("dimensions") or "")
        assert backend.refusal("encoding") is None
    async with opened("anthropic") as backend:
        assert backend.refusal("embed") == backend.refusal("dimensions") == backend.refusal("encoding")


async def test_features_by_name() -> None:
    async with opened("anthropic") as anthropic, opened("ollama") as ollama, opened("openai") as openai:
        assert (True, True, True, True, True, False) == features(anthropic.capabilities)
        assert (True, True, True, False, False, False) == features(ollama.capabilities)
        assert (True, True, True, True, True, True) == features(openai.capabilities)
        assert {"temperature": 1.0} == anthropic.capabilities.maximums


def features(capabilities: Capabilities) -> tuple[bool, ...]:
    return (
        capabilities.tools,
        capabilities.reasoning,
        capabilities.images,
        capabilities.image_urls,
        capabilities.files,
        capabilities.audio,
    )


@pytest.mark.parametrize(("type_", "wire"), PAIRS)
async def test_a_later_system_message(type_: str, wire: str) -> None:
    messages = [Message.user("Hi"), Message.system("Be brief."), Message.user("Go on.")]
    async with opened(type_, wire_api=wire) as backend:
        problem = None
        try:
            backend.stream(messages)
        except UnsupportedOptionError as error:
            problem = error.option
        assert backend.capabilities.later_system_messages == (problem is None)
        assert problem in (None, "message: system")


async def test_capabilities_are_a_value() -> None:
    async with opened("vllm") as one, opened("vllm") as other:
        assert one.capabilities == other.capabilities
        assert hash(one.capabilities) == hash(other.capabilities)
        assert one.capabilities == pickle.loads(pickle.dumps(one.capabilities))  # noqa: S301  # its own bytes


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("top-k", "did you mean top_k?"),
        ("tool_choise", "did you mean tool_choice?"),
        ("embeddings", "did you mean embed?"),
        ("tool_choice: any", "tool_choice"),
    ],
)
async def test_an_unknown_option(name: str, advice: str) -> None:
    async with opened("vllm") as backend:
        with pytest.raises(ValueError, match=f"^unknown option: '{name}'; ") as exc_info:
            backend.refusal(name)
        assert advice in str(exc_info.value)


@pytest.mark.parametrize("name", [None, 5, {"top_k": 1}])
async def test_an_option_is_a_name(name: Any) -> None:
    async with opened("vllm") as backend:
        with pytest.raises(TypeError, match=f"^option must be the name of an option, not {type(name).__name__}$"):
            backend.refusal(name)
