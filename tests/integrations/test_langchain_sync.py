"""The LangChain adapter without async: in threads, under a running loop, beside async calls, and at the exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core import exceptions as langchain
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from ctxbackends import BackendConfig
from ctxbackends.integrations.langchain import ChatCtxbackends, CtxbackendsEmbeddings
from ctxbackends.local import LocalServer
from ctxbackends.testing import (
    VARIANTS,
    Answer,
    AnthropicStandIn,
    FaultServer,
    OpenAIStandIn,
    Question,
    cached_model,
    faults,
)
from tests.integrations.langchain_models import get_time
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401  # fixtures
from tests.integrations.stand_in_threads import serve
from tests.real.conftest import SLOTS, wait_for_slots


def answer(question: Question) -> Answer:
    if question.tools and not question.tool_results:
        return Answer(tool_calls=[("get_time", {"city": "Oslo"})])
    if question.response_format is not None:
        return Answer(text='{"city": "Oslo"}')
    return Answer(text=f"You said: {question.prompt}")


@pytest.fixture(scope="module")
def config() -> Iterator[BackendConfig]:
    with serve(OpenAIStandIn(api_key="sk-none", answer=answer)) as server:
        yield BackendConfig(
            name="o", type="openai", endpoint=server.url, api_key="sk-none", default_model="gpt-4.1-mini"
        )


def test_batches_and_threads_share_one_model(config: BackendConfig) -> None:
    model = ChatCtxbackends(backend=config)
    prompts = [f"number {number}" for number in range(12)]
    expected = [f"You said: {prompt}" for prompt in prompts]
    assert expected == [message.text for message in model.batch(prompts)]  # type: ignore[arg-type]  # texts are prompts
    with ThreadPoolExecutor(4) as threads:
        streams = threads.map(lambda prompt: "".join(chunk.text for chunk in model.stream(prompt)), prompts)
    assert expected == list(streams)


async def test_it_works_under_a_running_loop_and_beside_async_calls(config: BackendConfig) -> None:
    model = ChatCtxbackends(backend=config)
    assert "You said: a" == model.invoke("a").text  # as in Jupyter
    assert "You said: b" == (await model.ainvoke("b")).text
    assert ["You said: c", "You said: d"] == [message.text for message in await model.abatch(["c", "d"])]


def test_it_works_in_one_loop_after_another(config: BackendConfig) -> None:
    model = ChatCtxbackends(backend=config)
    for _ in range(3):
        assert "You said: a" == asyncio.run(model.ainvoke("a")).text
        assert "You said: a" == model.invoke("a").text


def test_embeddings(config: BackendConfig) -> None:
    embeddings = CtxbackendsEmbeddings(backend=config, model="text-embedding-3-small", dimensions=8)
    assert [8, 8] == [len(vector) for vector in embeddings.embed_documents(["a", "b"])]
    assert [] == embeddings.embed_documents([])
    assert embeddings.embed_query("a") == asyncio.run(embeddings.aembed_query("a"))


def test_errors_have_their_categories(config: BackendConfig) -> None:
    model = ChatCtxbackends(backend=config, model="gpt-nothing")
    with pytest.raises(langchain.ModelNotFoundError):
        model.invoke("a")
    with pytest.raises(langchain.ModelNotFoundError):
        next(iter(model.stream("a")))
    with pytest.raises(langchain.ModelNotFoundError):
        CtxbackendsEmbeddings(backend=config, model="gpt-nothing").embed_query("a")


def test_tokens_are_counted_by_the_server() -> None:
    with serve(AnthropicStandIn(api_key="sk-none")) as server:
        config = BackendConfig(name="a", type="anthropic", endpoint=server.url, api_key="sk-none")
        model = ChatCtxbackends(backend=config, model="claude-haiku-4-5")
        plain = model.get_num_tokens_from_messages([HumanMessage("one two three")])
        assert plain == model.get_num_tokens("one two three")
        assert plain < model.get_num_tokens_from_messages([HumanMessage("one two three")], tools=[get_time])
        assert ["/v1/messages/count_tokens"] * 3 == [request.path for request in server.requests]


def test_leaving_a_stream_closes_the_connection() -> None:
    with FaultServer() as server:
        server.play_always(faults.CATALOGUE["endless_stream"])
        model = ChatCtxbackends(backend=BackendConfig(name="v", type="vllm", endpoint=server.url, default_model="m"))
        chunks = model.stream("a")
        assert next(chunks).text
        chunks.close()  # type: ignore[attr-defined]  # a generator
        asyncio.run(server.wait_idle())


@pytest.mark.real
def test_leaving_a_stream_frees_the_slot() -> None:
    server = LocalServer(cached_model(VARIANTS["slow-tokens"]), alias="s", threads=1, parallel=SLOTS, ctx_size=4096)
    try:
        endpoint = asyncio.run(server.start())
        config = BackendConfig(name="slow", type="llamacpp", endpoint=endpoint, default_model="s")
        for _ in ChatCtxbackends(backend=config).stream("Hello"):
            break
        assert 0 == asyncio.run(wait_for_slots(0, endpoint, within=2))
    finally:
        asyncio.run(server.aclose())


PROGRAM = """
    import asyncio, sys
    from ctxbackends import BackendConfig
    from ctxbackends.integrations.langchain import ChatCtxbackends

    model = ChatCtxbackends(backend=BackendConfig(name="v", type="vllm", endpoint=sys.argv[1], default_model="m"))
    print(model.invoke("a").text, *(chunk.text for chunk in model.stream("a")))
    print(asyncio.run(model.ainvoke("a")).text)
    chunks = model.stream("a")
    next(chunks)
"""


def test_nothing_is_left_open_at_the_exit() -> None:
    with FaultServer() as server:
        # LangChain's own imports warn, so that only our warnings are errors.
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", textwrap.dedent(PROGRAM), server.url],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert 0 == done.returncode, done.stderr
    assert "ResourceWarning" not in done.stderr
    assert "unclosed" not in done.stderr.lower()


# --- agents -----------------------------------------------------------------------------------------


def test_an_agent_calls_its_tools(config: BackendConfig) -> None:
    agents = pytest.importorskip("langchain.agents")
    agent = agents.create_agent(ChatCtxbackends(backend=config), tools=[get_time])
    prompt: Any = {"messages": [{"role": "user", "content": "time?"}]}
    *_, result, last = agent.invoke(prompt)["messages"]
    assert ("noon in Oslo", "You said: time?") == (result.content, last.text)
    *_, result, last = asyncio.run(agent.ainvoke(prompt))["messages"]
    assert ("noon in Oslo", "You said: time?") == (result.content, last.text)
    streamed = [message for message, _ in agent.stream(prompt, stream_mode="messages")]
    assert "noon in Oslo" in [message.content for message in streamed]


class City(BaseModel):
    city: str


def test_an_agent_returns_structured_output_after_its_tools(config: BackendConfig) -> None:
    agents = pytest.importorskip("langchain.agents")
    agent = agents.create_agent(ChatCtxbackends(backend=config), tools=[get_time], response_format=City)
    state = agent.invoke({"messages": [{"role": "user", "content": "time?"}]})
    assert City(city="Oslo") == state["structured_response"]
    assert "noon in Oslo" in [message.content for message in state["messages"]]


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("langchain"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811  # the fixture
    run_block(block, project)
