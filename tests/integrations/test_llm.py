"""The plugin for llm, through its command line and its Python API, on stand-ins of the servers."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llm", reason="needs the extra llm: nox -s integrations")

import llm
import llm.cli
from click.testing import CliRunner, Result

from ctxbackends import BackendConfig, JSONObjectFormat, JSONSchemaFormat, ReasoningPart, Usage
from ctxbackends.integrations import close_backends
from ctxbackends.integrations import llm as plugin
from ctxbackends.integrations.llm import AsyncCtxModel, CtxEmbeddingModel, CtxModel
from ctxbackends.testing import Answer, FaultServer, Question
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401
from tests.stand_ins.test_answers import ANTHROPIC, LMSTUDIO, OLLAMA, OPENAI, PDF, PNG, SERVERS, Answering, Server

NATIVE_OLLAMA = next(server for server in OLLAMA if server.wire == "ollama")
every_wire = pytest.mark.parametrize("server", [OPENAI, ANTHROPIC, NATIVE_OLLAMA], ids=lambda server: server.id)
every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
OTHER_MODEL = f"{OPENAI.model}-2025-04-14"
DOUBLE = "def double(value: int) -> int:\n    'Double a number.'\n    return 2 * value\n"


@pytest.fixture(autouse=True)
async def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugin, "_reported", set())
    yield
    await close_backends()


class Recorder:
    """Answers with each answer in turn, and keeps the questions."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = [*answers]
        self.questions: list[Question] = []

    def __call__(self, question: Question) -> Answer:
        self.questions.append(question)
        return self.answers.pop(0)


def write(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


def write_ctxrc(**settings: object) -> None:
    lines = ["backends:", "  - name: b", *(f"    {name}: {value}" for name, value in settings.items())]
    write(".ctxrc", "\n".join(lines).encode())


@asynccontextmanager
async def ctxrc_for(server: Server, answer: Answering) -> AsyncIterator[None]:
    """A `.ctxrc` with the backend ``b``."""
    async with server.stand_in(answer=answer) as stand_in:
        os.environ["CTX_TEST_KEY"] = "any"
        write_ctxrc(
            type=server.type,
            endpoint=stand_in.url,
            wire_api=server.wire,
            default_model=server.model,
            api_key_env="CTX_TEST_KEY",
        )
        yield


async def run_llm(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, llm.cli.cli, arguments)


async def output_of(*arguments: str) -> str:
    result = await run_llm(*arguments)
    assert 0 == result.exit_code, result.output
    return result.stdout.strip()


async def last_log() -> dict[str, Any]:
    [log] = json.loads(await output_of("logs", "--json", "-n", "1"))
    return dict(log)


# --- prompts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--async",), ("--async", "--no-stream")], ids=" ".join)
@every_wire
async def test_prompt(server: Server, flags: tuple[str, ...]) -> None:
    recorder = Recorder(Answer(text="Hello there!", usage=Usage(input_tokens=7, output_tokens=2)))
    async with ctxrc_for(server, recorder):
        options = ("-o", "max_tokens", "9", "-o", "temperature", "0.5")
        assert "Hello there!" == await output_of("-m", "ctx/b", "-s", "Be nice.", *options, *flags, "Hi")
    [question] = recorder.questions
    assert [("system", "Be nice."), ("user", "Hi")] == [(m.role, m.text) for m in question.messages]
    assert server.model == question.model
    log = await last_log()
    assert (7, 2) == (log["input_tokens"], log["output_tokens"])
    assert "ctx/b" == log["model"]
    assert log["resolved_model"].startswith(server.model)
    assert "stop" == log["response_json"]["finish_reason"]


@every_server
async def test_a_conversation_goes_on(server: Server) -> None:
    recorder = Recorder(Answer(text="One."), Answer(text="Two."))
    async with ctxrc_for(server, recorder):
        await output_of("-m", "ctx/b", "-s", "Count.", "First")
        assert "Two." == await output_of("-c", "Second")
    expected = [("system", "Count."), ("user", "First"), ("assistant", "One."), ("user", "Second")]
    assert expected == [(message.role, message.text) for message in recorder.questions[1].messages]


async def test_the_default_backend_and_another_model() -> None:
    recorder = Recorder(Answer(text="One."), Answer(text="Two."))
    async with ctxrc_for(OPENAI, recorder):
        assert "One." == await output_of("-m", "ctx", "Hi")
        assert "Two." == await output_of("-m", "ctx/b", "-o", "model", OTHER_MODEL, "Hi")
    assert [OPENAI.model, OTHER_MODEL] == [question.model for question in recorder.questions]


async def test_reasoning_is_printed_to_stderr() -> None:
    async with ctxrc_for(NATIVE_OLLAMA, lambda _: Answer(text="8", reasoning="2 * 4")):
        result = await run_llm("-m", "ctx/b", "Double 4")
    assert ("8", "2 * 4") == (result.stdout.strip(), result.stderr.strip())


# --- tools --------------------------------------------------------------------------------------------


def call_twice(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=" and ".join(result.text for result in question.tool_results))
    return Answer(text="I call.", tool_calls=[("double", {"value": 4}), ("double", {"value": 5})])


@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--async",)], ids=" ".join)
@every_server
async def test_two_parallel_tool_calls(server: Server, flags: tuple[str, ...]) -> None:
    async with ctxrc_for(server, call_twice):
        output = await output_of("-m", "ctx/b", "--functions", DOUBLE, *flags, "Double 4 and 5")
    assert output.endswith("8 and 10")


async def test_a_tool_that_fails_is_an_error_for_the_model() -> None:
    recorder = Recorder(Answer(tool_calls=[("fail", {})]), Answer(text="Sorry."))
    async with ctxrc_for(ANTHROPIC, recorder):
        functions = "def fail() -> str:\n    raise ValueError('broken')\n"
        assert "Sorry." == await output_of("-m", "ctx/b", "--functions", functions, "Try")
    [result] = recorder.questions[1].tool_results
    assert (True, "Error: broken", "fail") == (result.is_error, result.text, result.name)


async def test_arguments_that_are_not_json_go_back_to_the_model() -> None:
    recorder = Recorder(Answer(tool_calls=[("double", '{"value": ')]), Answer(text="Sorry."))
    async with ctxrc_for(OPENAI, recorder):
        assert "Sorry." == await output_of("-m", "ctx/b", "--functions", DOUBLE, "Try")
    [result] = recorder.questions[1].tool_results
    assert "unexpected keyword argument '_raw'" in result.text


async def test_a_forced_call_is_forced_once() -> None:
    recorder = Recorder(Answer(tool_calls=[("double", {"value": 1})]), Answer(text="2"))
    async with ctxrc_for(OPENAI, recorder):
        await output_of("-m", "ctx/b", "--functions", DOUBLE, "-o", "tool_choice", "required", "Double 1")
    assert ["required", None] == [question.tool_choice for question in recorder.questions]


@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--async",)], ids=" ".join)
async def test_signed_reasoning_goes_back_through_a_tool_loop(flags: tuple[str, ...]) -> None:
    recorder = Recorder(
        Answer(reasoning="I must double.", tool_calls=[("double", {"value": 4})]), Answer(text="8"), Answer(text="ok")
    )
    options = ("-o", "max_tokens", "2048", "-o", "reasoning_budget", "1024")
    async with ctxrc_for(ANTHROPIC, recorder):
        await output_of("-m", "ctx/b", "--functions", DOUBLE, *options, *flags, "Double 4")
        assert "ok" == await output_of("-c", *options, "Thanks")  # from llm's database
    for question in recorder.questions[1:]:
        reasoning = [part for message in question.messages for part in message.parts if isinstance(part, ReasoningPart)]
        assert ["I must double."] == [part.text for part in reasoning if part.text]
        assert all(part.signature for part in reasoning)


async def test_a_history_of_other_models() -> None:
    """Their reasoning and the calls of their own tools are left out; calls without an ID get one."""
    recorder = Recorder(Answer(text="ok"))
    history = [
        llm.user("Double 4 and 5"),
        llm.Message(
            "assistant",
            [
                llm.parts.ReasoningPart("secret", provider_metadata={"anthropic": {"signature": "s"}}),
                llm.parts.ToolCallPart("search", {}, "s1", server_executed=True),
                llm.parts.ToolCallPart("double", {"value": 4}),
                llm.parts.ToolCallPart("double", {"value": 5}),
            ],
        ),
        llm.tool_message(llm.parts.ToolResultPart("double", "8"), llm.parts.ToolResultPart("double", "10")),
    ]
    async with ctxrc_for(ANTHROPIC, recorder):
        response = await asyncio.to_thread(lambda: CtxModel("b").prompt(messages=history).text())
    assert "ok" == response
    _, calls, *results = recorder.questions[0].messages
    assert [("call_1", "double"), ("call_2", "double")] == [(call.id, call.name) for call in calls.tool_calls]
    assert len(calls.parts) == 2
    found = [(r.tool_call_id, r.text) for r in recorder.questions[0].tool_results]
    assert [("call_1", "8"), ("call_2", "10")] == found
    assert results


# --- schemas, attachments, embeddings, options --------------------------------------------------------


@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC, NATIVE_OLLAMA, LMSTUDIO[0]], ids=lambda server: server.id)
async def test_schema(server: Server) -> None:
    recorder = Recorder(Answer(text='{"name": "Rome", "people": 3}'))
    async with ctxrc_for(server, recorder):
        assert {"name": "Rome", "people": 3} == json.loads(
            await output_of("-m", "ctx/b", "--schema", "name, people int", "A town")
        )
    answer_format = recorder.questions[0].response_format
    assert isinstance(answer_format, JSONSchemaFormat)
    assert {"name", "people"} == set(answer_format.schema["properties"])


async def test_a_schema_that_is_not_supported_is_an_error_with_the_reason() -> None:
    async with ctxrc_for(LMSTUDIO[1], lambda _: Answer()):
        result = await run_llm("-m", "ctx/b", "--schema", "name, people int", "A town")
    assert 1 == result.exit_code
    assert 'backend "b"' in result.stderr
    assert "response_format" in result.stderr


@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--async",)], ids=" ".join)
async def test_an_object_that_was_cut_off_is_an_error(flags: tuple[str, ...]) -> None:
    async with ctxrc_for(OPENAI, lambda _: Answer(text='{"name": "Ro', finish_reason="length")):
        result = await run_llm("-m", "ctx/b", "--schema", "name, people int", *flags, "A town")
    assert 1 == result.exit_code
    assert "the answer is not complete: it reached max_tokens" in result.stderr


async def test_a_text_that_was_cut_off_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with ctxrc_for(OPENAI, lambda _: Answer(text="Once upon", finish_reason="length")):
        assert "Once upon" == await output_of("-m", "ctx/b", "A story")
    assert "the answer is not complete: it reached max_tokens" in caplog.text


async def test_attachments() -> None:
    write("a.png", PNG)
    write("a.pdf", PDF)
    recorder = Recorder(Answer(text="A dot."))
    async with ctxrc_for(ANTHROPIC, recorder):
        assert "A dot." == await output_of("-m", "ctx/b", "-a", "a.png", "-a", "a.pdf", "What is this?")
        audio = await run_llm("-m", "ctx/b", "--at", "a.png", "audio/wav", "What is this?")
    [message] = recorder.questions[0].messages
    assert ["TextPart", "ImagePart", "FilePart"] == [type(part).__name__ for part in message.parts]
    assert 1 == audio.exit_code
    assert "does not support attachments of type 'audio/wav'" in audio.stderr


@pytest.mark.parametrize("server", [OPENAI, NATIVE_OLLAMA, LMSTUDIO[0]], ids=lambda server: server.id)
async def test_embeddings(server: Server) -> None:
    async with ctxrc_for(server, lambda _: Answer()):
        assert "ctx/b" in await output_of("embed-models")
        models = {"openai": "text-embedding-3-small", "lmstudio": "text-embedding-nomic-embed-text-v1.5"}
        model = CtxEmbeddingModel("b", models.get(server.type, server.model))
        vectors = await asyncio.to_thread(lambda: list(model.embed_multi(["one", "two", "three"], batch_size=2)))
    assert 3 == len(vectors)
    assert {list} == {type(vector) for vector in vectors}


async def test_embed_models_lists_only_backends_that_embed() -> None:
    async with ctxrc_for(ANTHROPIC, lambda _: Answer()):
        assert "ctx/b" not in await output_of("embed-models")
        assert "ctx/b" in await output_of("models")


async def test_options_reach_the_server() -> None:
    recorder = Recorder(Answer(text="{}"))
    options = {"stop_sequences": '["a", "b"]', "extra_body": '{"user": "me"}', "seed": "4", "json_object": "true"}
    async with ctxrc_for(OPENAI, recorder):
        pairs = [text for name, value in options.items() for text in ("-o", name, value)]
        await output_of("-m", "ctx/b", *pairs, "-o", "timeout", "30s", "-o", "ready_timeout", "0", "Hi in JSON")
    [question] = recorder.questions
    assert JSONObjectFormat() == question.response_format
    sent = {name: question.options[name] for name in ("stop", "user", "seed")}
    assert {"stop": ["a", "b"], "user": "me", "seed": 4} == sent


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("max_tokens", "0", "greater than or equal to 1"),
        ("stop_sequences", "[1]", "must be a text or a JSON list of texts"),
        ("stop_sequences", "[", "not valid JSON"),
        ("extra_body", "[]", "must be a JSON object"),
        ("timeout", "soon", "timeout"),
        ("max_token", "1", "Extra inputs are not permitted"),
        ("unsupported", "ignore", "'error' or 'drop'"),
    ],
)
async def test_wrong_options(option: str, value: str, problem: str) -> None:
    async with ctxrc_for(OPENAI, lambda _: Answer()):
        result = await run_llm("-m", "ctx/b", "-o", option, value, "Hi")
    assert 1 == result.exit_code
    assert option in result.stderr
    assert problem in result.stderr


async def test_an_option_that_is_not_supported() -> None:
    recorder = Recorder(Answer(text="ok"))
    async with ctxrc_for(ANTHROPIC, recorder):
        result = await run_llm("-m", "ctx/b", "-o", "seed", "4", "Hi")
        assert (1, True) == (result.exit_code, "seed" in result.stderr)
        assert "ok" == await output_of("-m", "ctx/b", "-o", "seed", "4", "-o", "unsupported", "drop", "Hi")
    assert 1 == len(recorder.questions)


# --- the .ctxrc ---------------------------------------------------------------------------------------


async def test_without_a_ctxrc_other_models_work() -> None:
    result = await run_llm("models")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "ctxbackends: ctx\n" in result.stdout
    prompt = await run_llm("-m", "ctx", "Hi")
    assert 1 == prompt.exit_code
    assert prompt.stderr.startswith("Error: no backend configured; run ctx setup --backend <name> (no .ctxrc in ")


@pytest.mark.parametrize("text", ["backends: [", "backends:\n  - name: b\n    typo: vllm\n", b"\xff\xfe"])
async def test_a_broken_ctxrc_is_one_message(text: str | bytes) -> None:
    write(".ctxrc", text if isinstance(text, bytes) else text.encode())
    for command in ("models", "embed-models", "plugins"):
        result = await run_llm(command)
        assert 0 == result.exit_code
    plugin._reported.clear()
    result = await run_llm("models")
    assert "OpenAI Chat: " in result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith("ctxbackends: ")
    assert ".ctxrc" in line
    prompt = await run_llm("-m", "ctx", "Hi")
    assert (1, True) == (prompt.exit_code, ".ctxrc" in prompt.stderr)


async def test_a_backend_without_its_key() -> None:
    write_ctxrc(type="openai", api_key_env="CTX_NO_SUCH_KEY")
    assert "ctx/b" in await output_of("models")
    with pytest.raises(llm.NeedsKeyException, match="CTX_NO_SUCH_KEY"):
        await asyncio.to_thread(lambda: CtxModel("b").prompt("Hi").text())
    assert "ctx/b" in await output_of("embed-models")
    with pytest.raises(llm.NeedsKeyException, match="CTX_NO_SUCH_KEY"):
        await asyncio.to_thread(lambda: CtxEmbeddingModel("b").embed("Hi"))


def test_an_llm_that_is_too_old_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ctxbackends.integrations._llm.models", None)
    plugin.register_models(pytest.fail)
    plugin.register_embedding_models(pytest.fail)
    assert 1 == len(capsys.readouterr().err.splitlines())


def test_loading_the_plugin_imports_no_backend() -> None:
    code = (
        "import sys, ctxbackends.integrations.llm\n"
        "print([name for name in ('ctxbackends.integrations._llm.models', 'llm.cli') if name in sys.modules])"
    )
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


# --- models in Python ---------------------------------------------------------------------------------

CONFIG = BackendConfig(name="b", type="vllm", endpoint="http://127.0.0.1:9", default_model="m")


@pytest.mark.parametrize("kind", [CtxModel, AsyncCtxModel, CtxEmbeddingModel])
def test_models_pickle_and_copy(kind: Callable[..., Any]) -> None:
    model = kind(CONFIG, "other")
    assert "ctx/b/other" == model.model_id
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert "ctx/b/other" == other.model_id
        assert other._reference == model._reference


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="backend must be a BackendConfig, a name in "):
        CtxModel(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid unsupported: 'ignore'"):
        AsyncCtxModel(CONFIG, unsupported="ignore")  # type: ignore[arg-type]


async def test_many_threads_use_one_model() -> None:
    with FaultServer() as server:
        model = CtxModel(BackendConfig(name="t", type="openai", endpoint=server.url, api_key="k", default_model="m"))
        texts = await asyncio.gather(*(asyncio.to_thread(lambda: model.prompt("Hi").text()) for _ in range(4)))
    assert {"Hello, world."} == set(texts)


@pytest.mark.parametrize("flags", [(), ("--async",)], ids=" ".join)
def test_nothing_is_open_at_the_exit(flags: tuple[str, ...]) -> None:
    with FaultServer() as server:
        write_ctxrc(type="vllm", endpoint=server.url, default_model="m")
        command = [sys.executable, "-X", "dev", "-m", "llm", "-m", "ctx/b", *flags, "Hi"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Hello, world.\n" == done.stdout
    assert "nclosed" not in done.stderr


# --- the page -----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("llm"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811
    run_block(block, project)
