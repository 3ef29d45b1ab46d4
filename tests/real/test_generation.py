"""Generation by a real server: chat, streams, schemas, embeddings, errors."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import attrs
import msgspec
import pytest

from ctxbackends import (
    APIStatusError,
    AuthenticationError,
    Backend,
    BadRequestError,
    ContextOverflowError,
    Finish,
    IncompleteOutputError,
    JSONObjectFormat,
    JSONSchemaFormat,
    LocalServer,
    Message,
    ModelMismatchError,
    TextDelta,
    UnsupportedOperationError,
    extract,
    open_backend,
)
from tests.real.conftest import CONTEXT_TOKENS, ServerFactory, over

pytestmark = pytest.mark.real


@attrs.frozen
class Decision:
    title: Annotated[str, msgspec.Meta(max_length=40)]
    kind: Literal["decision", "learning"]
    votes: Annotated[int, msgspec.Meta(ge=0, le=9)]


async def test_complete(backend: Backend) -> None:
    answer = await backend.complete([Message.system("Be brief."), Message.user("Hello")], max_tokens=16, seed=1)
    assert answer.text
    assert answer.finish_reason in ("stop", "length")
    assert answer.requested_model == answer.served_model == "tiny"
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert 1 <= answer.usage.output_tokens <= 16
    assert answer.usage.cached_input_tokens is not None
    assert answer.raw.rstrip().endswith(b"[DONE]")


async def test_a_stream_equals_a_completion(backend: Backend) -> None:
    complete = await backend.complete("Hello", max_tokens=32, seed=7, temperature=0)
    async with backend.stream("Hello", max_tokens=32, seed=7, temperature=0) as stream:
        events = [event async for event in stream]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == complete.text
    assert isinstance(events[-1], Finish)
    assert (stream.completion.text, stream.completion.finish_reason) == (complete.text, complete.finish_reason)
    assert stream.completion.usage is not None
    assert complete.usage is not None
    assert stream.completion.usage.input_tokens == complete.usage.input_tokens


async def test_max_tokens_ends_with_length(backend: Backend) -> None:
    answer = await backend.complete("Hello", max_tokens=1, seed=3)
    assert answer.finish_reason == "length"


async def test_a_stop_sequence_ends_the_answer(backend: Backend) -> None:
    complete = await backend.complete("Hello", max_tokens=24, seed=5, temperature=0)
    stop = complete.text.split()[2]
    short = await backend.complete("Hello", max_tokens=24, seed=5, temperature=0, stop_sequences=[stop])
    assert short.finish_reason == "stop"
    assert short.text == complete.text[: complete.text.index(stop)]


@pytest.mark.parametrize("seed", range(1, 9))
async def test_a_schema_is_enforced(backend: Backend, seed: int) -> None:
    decision = await extract(backend, Decision, "We chose YAML.", max_tokens=300, seed=seed)
    assert isinstance(decision, Decision)
    assert len(decision.title) <= 40
    assert 0 <= decision.votes <= 9


async def test_any_object(backend: Backend) -> None:
    """b8672 ignores ``json_object``, so it is asked for by a schema. An object without bounds may run into the limit;
    it is one all the same."""
    answers = [
        await backend.complete("Hello", response_format=JSONObjectFormat(), max_tokens=300, seed=seed)
        for seed in range(1, 9)
    ]
    assert {answer.text.lstrip()[:1] for answer in answers} == {"{"}
    complete = [msgspec.json.decode(answer.text) for answer in answers if answer.finish_reason == "stop"]
    assert all(isinstance(value, dict) for value in complete)


async def test_a_truncated_object_is_an_error(backend: Backend) -> None:
    with pytest.raises(IncompleteOutputError) as exc_info:
        await extract(backend, Decision, "We chose YAML.", max_tokens=3)
    assert exc_info.value.finish_reason == "length"


async def test_a_schema_that_the_server_rejects(backend: Backend) -> None:
    with pytest.raises(APIStatusError) as exc_info:
        await backend.complete("Hello", response_format=JSONSchemaFormat("bad", {"type": "no such type"}), max_tokens=8)
    assert exc_info.value.status_code in (400, 500)  # 500 on b8672
    assert exc_info.value.message


async def test_embeddings(backend: Backend) -> None:
    answer = await backend.embed(["one", "two", "three", "one"])
    assert len(answer.vectors) == 4
    assert len({len(vector) for vector in answer.vectors}) == 1
    assert answer.vectors[0] == pytest.approx(answer.vectors[3], abs=1e-3)
    assert answer.vectors[0] != pytest.approx(answer.vectors[1], abs=1e-3)
    assert answer.vectors[0] == pytest.approx((await backend.embed("one")).vectors[0], abs=1e-3)


async def test_texts_up_to_the_context_are_embedded(backend: Backend) -> None:
    context = (await backend.status()).context_length
    assert context is not None
    assert context > 512  # llama.cpp's default batch, which limited texts
    text = "a b " * (context // 4 - 1)
    answer = await backend.embed(text)
    assert answer.usage is not None
    assert context - 8 < answer.usage.input_tokens <= context


async def test_no_embeddings_without_the_flag(slow_backend: Backend) -> None:
    with pytest.raises(UnsupportedOperationError, match="not an embedding model: "):
        await slow_backend.embed("one")


async def test_models(backend: Backend) -> None:
    (model,) = await backend.models()
    assert model.id == "tiny"


async def test_another_model_is_not_accepted(backend: Backend, server: LocalServer) -> None:
    with pytest.raises(ModelMismatchError) as exc_info:
        await backend.complete("Hello", model="gpt-oss-120b", max_tokens=4)
    assert (exc_info.value.requested_model, exc_info.value.served_model) == ("gpt-oss-120b", "tiny")
    async with over(server, model_mismatch="ignore") as lenient:
        answer = await lenient.complete("Hello", model="gpt-oss-120b", max_tokens=4)
    assert (answer.requested_model, answer.served_model) == ("gpt-oss-120b", "tiny")


@pytest.mark.parametrize("streamed", [False, True])
async def test_context_overflow_has_both_numbers(backend: Backend, streamed: bool) -> None:
    prompt = "word " * 9000
    with pytest.raises(ContextOverflowError) as exc_info:
        if streamed:
            async with backend.stream(prompt) as stream:
                await stream.get_final_completion()
        else:
            await backend.complete(prompt)
    assert exc_info.value.context_length == CONTEXT_TOKENS  # one cache for all slots, as always with embeddings
    assert exc_info.value.input_tokens is not None
    assert exc_info.value.input_tokens > CONTEXT_TOKENS


async def test_a_bad_request_has_a_reason(backend: Backend) -> None:
    with pytest.raises(BadRequestError) as exc_info:
        await backend.complete("Hello", extra_body={"top_logprobs": 3})
    assert exc_info.value.message == "top_logprobs requires logprobs to be set to true"


async def test_api_keys(server_of: ServerFactory) -> None:
    server = server_of("tiny", api_key="right-key-0123456789")
    try:
        endpoint = await server.start()
        async with open_backend(
            "llamacpp", endpoint=endpoint, default_model="tiny", api_key="right-key-0123456789"
        ) as backend:
            await backend.wait_ready()
            assert (await backend.complete("Hello", max_tokens=2)).served_model == "tiny"
        for key in (None, "wrong-key-0123456789"):
            async with open_backend("llamacpp", endpoint=endpoint, default_model="tiny", api_key=key) as backend:
                with pytest.raises(AuthenticationError) as exc_info:
                    await backend.complete("Hello", max_tokens=2)
            assert exc_info.value.status_code == 401
            assert exc_info.value.message == "Invalid API Key"
            assert "wrong-key" not in f"{exc_info.value} {exc_info.value!r} {vars(exc_info.value)}"
    finally:
        await server.aclose()


async def test_more_requests_than_slots_wait(backend: Backend) -> None:
    answers = await asyncio.gather(*(backend.complete(f"Hello {number}", max_tokens=8) for number in range(24)))
    assert len(answers) == 24
    assert {answer.served_model for answer in answers} == {"tiny"}
