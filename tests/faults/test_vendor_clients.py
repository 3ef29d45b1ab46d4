"""The fault server with the vendors' clients, which accept its correct responses.

Also the behaviour of these clients with some faults, for the versions named below; no test of the SDK depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import anthropic
import ollama
import openai
import pytest
from anthropic.types import Message, MessageParam, TextBlock, ToolUseBlock
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from ctxbackends.testing import FaultServer, faults
from tests.stand_ins.validation import validate

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
TO_CLAUDE: list[MessageParam] = [{"role": "user", "content": "Hello"}]
NO_WAIT = 60.0
CALLS = [("call_a", "look", '{"x":1}'), ("call_b", "find", '{"y":2}')]


@pytest.fixture
def to_openai(fault_server: FaultServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="key", base_url=f"{fault_server.url}/v1", timeout=NO_WAIT) as client:
        yield client


@pytest.fixture
def to_anthropic(fault_server: FaultServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="key", base_url=fault_server.url, timeout=NO_WAIT) as client:
        yield client


@pytest.fixture
def to_ollama(fault_server: FaultServer) -> Iterator[ollama.Client]:
    with ollama.Client(host=fault_server.url, timeout=NO_WAIT) as client:
        yield client


# --- whole answers --------------------------------------------------------------------------------


def chat(client: openai.OpenAI) -> ChatCompletion:
    return client.chat.completions.create(model="m", messages=HELLO)


def stream(client: openai.OpenAI) -> list[ChatCompletionChunk]:
    with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
        return list(stream)


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def reason_of(chunks: list[ChatCompletionChunk]) -> str | None:
    return chunks[-1].choices[0].finish_reason


def test_openai(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    answer = validate(ChatCompletion, chat(to_openai).model_dump(exclude_unset=True))
    assert ("Hello, world.", "stop") == (answer.choices[0].message.content, answer.choices[0].finish_reason)
    assert answer.usage is not None
    assert (3, 2) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    chunks = [validate(ChatCompletionChunk, chunk.model_dump(exclude_unset=True)) for chunk in stream(to_openai)]
    assert ("Hello, world.", "stop") == (text_of(chunks), reason_of(chunks))
    embeddings = to_openai.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert [[0.25, -0.5, 1.0]] * 2 == [row.embedding for row in embeddings.data]
    assert ["m"] == [model.id for model in to_openai.models.list()]
    assert (3, 4) == (len(fault_server.generations), len(fault_server.requests))


async def test_openai_async(fault_server: FaultServer) -> None:
    async with openai.AsyncOpenAI(api_key="key", base_url=f"{fault_server.url}/v1", timeout=NO_WAIT) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO)
        assert "Hello, world." == answer.choices[0].message.content
        async with await client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
            chunks = [chunk async for chunk in stream]
        assert ("Hello, world.", "stop") == (text_of(chunks), reason_of(chunks))
        embeddings = await client.embeddings.create(model="m", input="a", encoding_format="float")
        assert [0.25, -0.5, 1.0] == embeddings.data[0].embedding
    await fault_server.wait_idle()


@pytest.mark.parametrize(
    "name", ["byte_by_byte", "informational_responses", "wrong_content_type", "close_after_response"]
)
def test_faults_that_openai_tolerates(to_openai: openai.OpenAI, fault_server: FaultServer, name: str) -> None:
    fault_server.play_always(faults.CATALOGUE[name])
    assert "Hello, world." == chat(to_openai).choices[0].message.content
    assert "Hello, world." == text_of(stream(to_openai))
    assert 2 == len(fault_server.generations)


def test_openai_reads_interleaved_calls(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.interleaved_tool_calls())
    chunks = stream(to_openai)
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for piece in chunk.choices[0].delta.tool_calls or ():
            assert piece.function is not None
            call = calls.setdefault(piece.index, ["", "", ""])
            for index, more in enumerate((piece.id, piece.function.name, piece.function.arguments)):
                call[index] += more or ""
    assert "tool_calls" == reason_of(chunks)
    assert CALLS == [tuple(call) for call in calls.values()]


def test_openai_passes_on_calls_that_share_an_index(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.repeated_tool_index())
    pieces = [piece for chunk in stream(to_openai) for piece in chunk.choices[0].delta.tool_calls or ()]
    assert [0, 0] == [piece.index for piece in pieces]
    assert CALLS == [
        (piece.id, piece.function.name, piece.function.arguments) for piece in pieces if piece.function is not None
    ]


def text_and_reason(message: Message) -> tuple[str, str | None]:
    (block,) = message.content
    assert isinstance(block, TextBlock)
    return block.text, message.stop_reason


def test_anthropic(to_anthropic: anthropic.Anthropic) -> None:
    answer = to_anthropic.messages.create(model="m", max_tokens=9, messages=TO_CLAUDE)
    assert ("Hello, world.", "end_turn") == text_and_reason(validate(Message, answer.model_dump(exclude_unset=True)))
    assert (3, 2) == (answer.usage.input_tokens, answer.usage.output_tokens)
    with to_anthropic.messages.stream(model="m", max_tokens=9, messages=TO_CLAUDE) as stream:
        assert ["Hel", "lo, ", "wor", "ld."] == list(stream.text_stream)
        final = stream.get_final_message()
    assert ("Hello, world.", "end_turn") == text_and_reason(final)


async def test_anthropic_async(fault_server: FaultServer) -> None:
    async with anthropic.AsyncAnthropic(api_key="key", base_url=fault_server.url, timeout=NO_WAIT) as client:
        assert ("Hello, world.", "end_turn") == text_and_reason(
            await client.messages.create(model="m", max_tokens=9, messages=TO_CLAUDE)
        )
        async with client.messages.stream(model="m", max_tokens=9, messages=TO_CLAUDE) as stream:
            assert ("Hello, world.", "end_turn") == text_and_reason(await stream.get_final_message())


def test_anthropic_reads_interleaved_calls(to_anthropic: anthropic.Anthropic, fault_server: FaultServer) -> None:
    fault_server.play(faults.interleaved_tool_calls())
    with to_anthropic.messages.stream(model="m", max_tokens=9, messages=TO_CLAUDE) as stream:
        blocks = [block for block in stream.get_final_message().content if isinstance(block, ToolUseBlock)]
    assert [("call_a", "look", {"x": 1}), ("call_b", "find", {"y": 2})] == [
        (block.id, block.name, block.input) for block in blocks
    ]


def test_ollama(to_ollama: ollama.Client) -> None:
    answer = to_ollama.chat(model="m", messages=HELLO)
    assert ("Hello, world.", True, "stop") == (answer.message.content, answer.done, answer.done_reason)
    parts = list(to_ollama.chat(model="m", messages=HELLO, stream=True))
    assert ("Hello, world.", True) == ("".join(part.message.content or "" for part in parts), parts[-1].done)
    assert [[0.25, -0.5, 1.0]] * 2 == [list(row) for row in to_ollama.embed(model="m", input=["a", "b"]).embeddings]
    assert ["m"] == [model.model for model in to_ollama.list().models]


async def test_ollama_async(fault_server: FaultServer) -> None:
    async with ollama.AsyncClient(host=fault_server.url, timeout=NO_WAIT) as client:
        assert "Hello, world." == (await client.chat(model="m", messages=HELLO)).message.content


def test_ollama_reads_calls_that_share_an_index(to_ollama: ollama.Client, fault_server: FaultServer) -> None:
    fault_server.play(faults.repeated_tool_index())
    parts = to_ollama.chat(model="m", messages=HELLO, stream=True)
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    assert [("look", {"x": 1}), ("find", {"y": 2})] == [(call.name, dict(call.arguments)) for call in calls]


# --- what the vendors' clients make of some faults ------------------------------------------------

# Facts about these versions; with others the tests are skipped, since it is not ours to say.
DOCUMENTED_VERSIONS = {"openai": "3.54.0", "anthropic": "2.12.0", "ollama": "0.6.3"}


def documents(name: str) -> pytest.MarkDecorator:
    installed = metadata.version(name)
    reason = f"documents {name} {DOCUMENTED_VERSIONS[name]}, and {installed} is installed"
    return pytest.mark.skipif(installed != DOCUMENTED_VERSIONS[name], reason=reason)


@pytest.fixture
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without a delay."""
    for name in ("openai", "anthropic"):
        monkeypatch.setattr(f"{name}._base_client.INITIAL_RETRY_DELAY", 0.0)


@documents("openai")
def test_openai_accepts_a_stream_without_an_end(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.no_terminal_marker())
    chunks = stream(to_openai)  # and nothing is raised
    assert ("Hello, ", None) == (text_of(chunks), reason_of(chunks))


@documents("openai")
@pytest.mark.usefixtures("no_retry_delay")
def test_openai_sends_three_requests_to_a_silent_server(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play_always(faults.no_response())
    with pytest.raises(openai.APITimeoutError):
        chat(to_openai.with_options(timeout=openai.Timeout(NO_WAIT, read=0.1)))
    assert 3 == len(fault_server.generations)  # a server that was only slow would have worked for each


@documents("openai")
@pytest.mark.usefixtures("no_retry_delay")
@pytest.mark.parametrize("name", ["server_error", "close_before_headers", "close_in_chunk"])
def test_openai_retries_requests_that_may_have_been_processed(
    to_openai: openai.OpenAI, fault_server: FaultServer, name: str
) -> None:
    fault_server.play(faults.CATALOGUE[name])
    assert "Hello, world." == chat(to_openai).choices[0].message.content
    assert 2 == len(fault_server.generations)


@documents("openai")
def test_openai_follows_a_redirect_to_another_host(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.redirect())
    assert "Hello, world." == chat(to_openai).choices[0].message.content
    first, second = fault_server.generations
    assert f"localhost:{fault_server.port}" == second.headers["host"]
    assert first.body == second.body  # the prompt goes there; the key does not
    assert "authorization" not in second.headers


@documents("openai")
def test_openai_returns_an_error_under_a_good_status(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.error_object())
    assert chat(to_openai).choices is None


@documents("openai")
def test_openai_does_not_compare_models(to_openai: openai.OpenAI, fault_server: FaultServer) -> None:
    fault_server.play(faults.other_model())
    assert "another-model" == chat(to_openai).model


@documents("anthropic")
def test_anthropic_accepts_a_stream_without_an_end(
    to_anthropic: anthropic.Anthropic, fault_server: FaultServer
) -> None:
    fault_server.play(faults.no_terminal_marker())
    with to_anthropic.messages.stream(model="m", max_tokens=9, messages=TO_CLAUDE) as stream:
        assert ("Hello, ", None) == text_and_reason(stream.get_final_message())


@documents("anthropic")
@pytest.mark.usefixtures("no_retry_delay")
def test_anthropic_sends_three_requests_to_a_silent_server(
    to_anthropic: anthropic.Anthropic, fault_server: FaultServer
) -> None:
    fault_server.play_always(faults.no_response())
    patient = to_anthropic.with_options(timeout=anthropic.Timeout(NO_WAIT, read=0.1))
    with pytest.raises(anthropic.APITimeoutError):
        patient.messages.create(model="m", max_tokens=9, messages=TO_CLAUDE)
    assert 3 == len(fault_server.generations)


@documents("ollama")
def test_ollama_accepts_a_stream_without_an_end(to_ollama: ollama.Client, fault_server: FaultServer) -> None:
    fault_server.play(faults.no_terminal_marker())
    parts = list(to_ollama.chat(model="m", messages=HELLO, stream=True))
    assert ("Hello, ", False) == ("".join(part.message.content or "" for part in parts), parts[-1].done)


@documents("ollama")
def test_ollama_retries_nothing(to_ollama: ollama.Client, fault_server: FaultServer) -> None:
    fault_server.play(faults.server_error(), faults.redirect())
    with pytest.raises(ollama.ResponseError):
        to_ollama.chat(model="m", messages=HELLO)
    assert 1 == len(fault_server.generations)
    assert "Hello, world." == to_ollama.chat(model="m", messages=HELLO).message.content  # by the redirect
    assert 3 == len(fault_server.generations)
