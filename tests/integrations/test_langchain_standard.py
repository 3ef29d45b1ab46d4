"""LangChain's own suites for integrations, against stand-ins and a real llama.cpp server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("langchain_tests", reason="the extra langchain and langchain-tests are not installed")

from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from ctxbackends import BackendConfig, NamedTool
from ctxbackends.integrations.langchain import ChatCtxbackends, CtxbackendsEmbeddings
from ctxbackends.local import LocalServer
from ctxbackends.testing import Answer, AnthropicStandIn, LMStudioStandIn, OllamaStandIn, OpenAIStandIn, Question
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.integrations.stand_in_threads import serve

ARGUMENTS: dict[str, dict[str, Any]] = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "greeting_generator": {"answer_style": "pirate"},
    "get_weather": {"location": "San Francisco"},
    "my_adder_tool": {"a": 3, "b": 4},
}
JOKE = {"setup": "Why do cats type badly?", "punchline": "They only know the home paw."}


def answer(question: Question) -> Answer:
    """Answer the fixed prompts of the suites as a capable model would."""
    if question.tools and not question.tool_results:
        choice = question.tool_choice
        name = choice.name if isinstance(choice, NamedTool) else question.tools[0].name
        return Answer(tool_calls=[(name, ARGUMENTS.get(name) or _guess(name, question.prompt))])
    if question.response_format is not None:
        return Answer(text=json.dumps(JOKE))
    return Answer(text="Hello! I am fine, and you?", reasoning="They greet me.")


def _guess(name: str, prompt: str) -> dict[str, Any]:
    quoted = re.search("'(.+)'", prompt)
    if name == "unicode_customer" and quoted is not None:
        return {"customer_name": quoted[1], "description": "a company"}
    return JOKE if name != "magic_function_no_args" else {}


# --- unit suites ------------------------------------------------------------------------------------

UNUSED = BackendConfig(name="gpu", type="vllm", endpoint="http://127.0.0.1:9", default_model="m")


@pytest.mark.disable_socket
class TestChatUnit(ChatModelUnitTests):
    chat_model_class = ChatCtxbackends
    chat_model_params: ClassVar[dict[str, Any]] = {"backend": UNUSED}
    init_from_env_params: ClassVar[Any] = (
        {"OPENAI_API_KEY": "sk-of-the-environment"},
        {"backend": BackendConfig(name="vendor", type="openai"), "model": "gpt-4.1-mini"},
        {"model": "gpt-4.1-mini"},
    )


@pytest.mark.disable_socket
class TestEmbeddingsUnit(EmbeddingsUnitTests):
    embeddings_class = CtxbackendsEmbeddings
    embedding_model_params: ClassVar[dict[str, Any]] = {"backend": UNUSED}


# --- integration suites -----------------------------------------------------------------------------


class OverStandIn:
    """A model over a stand-in for the tests of a class."""

    type: ClassVar[str]
    model_name: ClassVar[str]
    url: ClassVar[str]

    @staticmethod
    def stand_in() -> StandIn:
        raise NotImplementedError

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _serve(cls) -> Iterator[None]:
        with serve(cls.stand_in()) as server:
            cls.url = server.url
            yield

    @property
    def params(self) -> dict[str, Any]:
        config = BackendConfig(name=self.type, type=self.type, endpoint=self.url, api_key="sk-none")
        return {"backend": config, "model": self.model_name}


class ChatOverStandIn(OverStandIn):
    chat_model_class = ChatCtxbackends
    supports_json_mode = True
    model_override_value: ClassVar[str]

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.params


class TestChatWithOpenAI(ChatOverStandIn, ChatModelIntegrationTests):
    type = "openai"
    model_name = "gpt-4.1-mini"
    model_override_value = "gpt-5-mini"
    supported_usage_metadata_details: ClassVar[Any] = {
        "invoke": ["reasoning_output", "cache_read_input"],
        "stream": ["reasoning_output", "cache_read_input"],
    }

    @staticmethod
    def stand_in() -> StandIn:
        return OpenAIStandIn(api_key="sk-none", answer=answer)

    def _ask(self, *, stream: bool) -> Any:
        model = ChatCtxbackends(**self.chat_model_params)
        if not stream:
            return model.invoke("Hello")
        chunks = iter(model.stream("Hello"))
        full = next(chunks)
        for chunk in chunks:
            full += chunk
        return full

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> Any:
        return self._ask(stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        return self._ask(stream=stream)


class TestChatWithAnthropic(ChatOverStandIn, ChatModelIntegrationTests):
    type = "anthropic"
    model_name = "claude-sonnet-4-5"
    model_override_value = "claude-haiku-4-5"
    supports_json_mode = False  # the Messages API has no JSON mode

    @staticmethod
    def stand_in() -> StandIn:
        return AnthropicStandIn(api_key="sk-none", answer=answer)


class TestChatWithOllama(ChatOverStandIn, ChatModelIntegrationTests):
    type = "ollama"
    model_name = "qwen3:4b"
    model_override_value = "qwen3:4b"
    # Two tests with tools require a call, which Ollama cannot do: such a request is an error, and not sent without it.
    # Tools with Ollama are in test_langchain.py.
    has_tool_calling = False

    @staticmethod
    def stand_in() -> StandIn:
        return OllamaStandIn(api_key="sk-none", answer=answer)


class TestChatWithLMStudio(ChatOverStandIn, ChatModelIntegrationTests):
    type = "lmstudio"
    model_name = "qwen/qwen3-4b"
    model_override_value = "qwen/qwen3-4b"
    supports_json_mode = False  # LM Studio has none

    @staticmethod
    def stand_in() -> StandIn:
        return LMStudioStandIn(api_key="sk-none", answer=answer)


class TestEmbeddingsWithOpenAI(OverStandIn, EmbeddingsIntegrationTests):
    type = "openai"
    model_name = "text-embedding-3-small"
    embeddings_class = CtxbackendsEmbeddings

    @staticmethod
    def stand_in() -> StandIn:
        return OpenAIStandIn(api_key="sk-none")

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return self.params


# --- a real server ----------------------------------------------------------------------------------


class OverLlamaServer:
    url: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _serve(cls, llama_server: LocalServer) -> None:
        cls.url = asyncio.run(llama_server.start())

    @property
    def params(self) -> dict[str, Any]:
        return {"backend": BackendConfig(name="local", type="llamacpp", endpoint=self.url, default_model="tiny")}


@pytest.mark.real
class TestChatWithLlamaServer(OverLlamaServer, ChatModelIntegrationTests):
    chat_model_class = ChatCtxbackends
    has_tool_calling = False  # the model writes random words
    has_structured_output = False  # as above, without an end

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.params | {"max_tokens": 8}


@pytest.mark.real
class TestEmbeddingsWithLlamaServer(OverLlamaServer, EmbeddingsIntegrationTests):
    embeddings_class = CtxbackendsEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return self.params
