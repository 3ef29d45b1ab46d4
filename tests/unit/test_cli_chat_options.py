"""The options of chat: -o, stats, quiet, JSON, and which server is suggested."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ctxbackends import Completion, Usage
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._cli import detection
from ctxbackends._cli.chat.model_options import PARSERS, REQUEST_PARSERS
from ctxbackends._cli.chat.output import describe_stats
from ctxbackends._cli.chat.session import Turn
from ctxbackends._cli.detection import FoundServer
from ctxbackends._config.request_options import RequestOptions
from tests.unit.test_cli import (
    ENDPOINT_OF_NOBODY,
    Result,
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    ctx,
    ctxrc,
    last_chunk,
    script,  # noqa: F401  # a fixture
    text_chunk,
    usage_error,
)


@pytest.fixture(autouse=True)
def _configured(script: Script) -> None:
    ctxrc(backend(script.endpoint))


# --- -o ---------------------------------------------------------------------------------------------------


def test_every_option_of_complete_has_a_parser() -> None:
    assert {*ChatOptions.__annotations__} - {"tools"} == {*PARSERS}
    assert {field.name for field in RequestOptions.__attrs_attrs__} == {*REQUEST_PARSERS}


@pytest.mark.parametrize(
    ("pair", "member", "value"),
    [
        ("model=small", "model", "small"),
        ("max_tokens=7", "max_tokens", 7),
        ("max-tokens=7", "max_tokens", 7),
        ("temperature=0.5", "temperature", 0.5),
        ("temperature=0", "temperature", 0.0),
        ("top_p=1e-1", "top_p", 0.1),
        ("seed=-3", "seed", -3),
        ("frequency_penalty=-1", "frequency_penalty", -1.0),
        ("logprobs=true", "logprobs", True),
        ("reasoning_effort=low", "reasoning_effort", "low"),
        ("stop_sequences=END", "stop", ["END"]),
        ("stop_sequences=a=b", "stop", ["a=b"]),
        ('stop_sequences=["\\n", "END"]', "stop", ["\n", "END"]),
        ("stop_sequences=[x", "stop", ["[x"]),
        ("response_format=json_object", "response_format", {"type": "json_object"}),
        ('response_format={"type": "json_object"}', "response_format", {"type": "json_object"}),
        ('extra_body={"top_k": 5}', "top_k", 5),
    ],
)
def test_a_value_is_sent_in_its_type(script: Script, pair: str, member: str, value: Any) -> None:
    result = ctx("chat", "--json", "-o", pair, "Hi")
    sent = script.chat_body[member]
    assert (value, type(value)) == (sent, type(sent)), result.err


def test_options_add_up(script: Script) -> None:
    pairs = ("-o", "stop_sequences=a", "--option", "stop_sequences=b", "-o", "top_p=0.5")
    assert 0 == ctx("chat", *pairs, "--temperature", "1", "Hi").code
    body = script.chat_body
    assert (["a", "b"], 0.5, 1) == (body["stop"], body["top_p"], body["temperature"])


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        (["temprature=1"], "-o: unknown option: temprature; did you mean temperature?"),
        (["stop=x"], "-o: unknown option: stop; did you mean stop_sequences?"),
        (["num_predict=1"], "-o: unknown option: num_predict; did you mean max_tokens?"),
        (["system=x"], "-o: unknown option: system; use --system"),
        (["tools=x"], "-o: unknown option: tools; use --tool"),
        (["json_schema={}"], "-o: unknown option: json_schema; use --schema"),
        (["temperature"], "-o: not an option: 'temperature'; write KEY=VALUE, such as temperature=0.5"),
        (["=1"], "-o: not an option: '=1'; write KEY=VALUE, such as temperature=0.5"),
        (["temperature=warm"], "-o: temperature must be a number: 'warm'"),
        (["temperature="], "-o: temperature must be a number: ''"),
        (["max_tokens=1.5"], "-o: max_tokens must be an integer: '1.5'"),
        (["logprobs=maybe"], "-o: logprobs must be true or false: 'maybe'"),
        (["extra_body=[]"], "-o: extra_body must be a JSON object: '[]'"),
        (["extra_body={"], "-o: extra_body must be a JSON object: '{'"),
        (["stop_sequences=[1]"], "-o: stop_sequences must be a text, or a JSON array of texts: '[1]'"),
        (["top_p=1", "top_p=0.5"], "-o: top_p is given twice"),
        (["max_tokens=0"], "-o: max_tokens must be at least 1: 0"),
        (["temperature=nan"], "-o: temperature must be a finite number: nan"),
        (["top_logprobs=2"], "-o: top_logprobs requires logprobs=True"),
        (["tool_choice=required"], "-o: tool_choice is required; pass tools"),
        (["max_retries=x"], "-o: max_retries must be an integer: 'x'"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_sent(script: Script, pairs: list[str], problem: str) -> None:
    options = [text for pair in pairs for text in ("-o", pair)]
    assert usage_error(problem) == ctx("chat", *options, "Hi")
    assert [] == script.requests


@pytest.mark.parametrize(
    ("option", "pair"), [("--max-tokens", "max_tokens"), ("--temperature", "temperature"), ("-m", "model")]
)
def test_an_option_in_both_forms(script: Script, option: str, pair: str) -> None:
    assert usage_error(f"-o: {pair} is given twice") == ctx("chat", option, "1", "-o", f"{pair}=1", "Hi")
    assert [] == script.requests


def test_an_option_that_the_server_does_not_have(script: Script) -> None:
    result = ctx("chat", "-o", "top_k=5", "Hi")
    assert (1, "") == (result.code, result.out)
    assert result.err.startswith('ctxbackends: backend "local": top_k')
    assert [] == script.requests


def test_timeouts_of_one_request(script: Script) -> None:
    script.silent = True
    expected = 'ctxbackends: backend "local": no first token within 0.2 s; raise first_token_timeout to wait longer\n'
    assert Result(1, "", expected) == ctx("chat", "-o", "first_token_timeout=200ms", "Hi")


def test_a_timeout_that_is_none(script: Script) -> None:
    result = ctx("chat", "-o", "timeout=soon", "Hi")
    assert (1, "") == (result.code, result.out)
    assert "timeout" in result.err
    assert [] == script.requests


def test_truncated_by_an_option(script: Script) -> None:
    script.chunks = [text_chunk("Hel"), last_chunk("length")]
    assert Result(0, "Hel\n", "(truncated: max_tokens reached)\n") == ctx("chat", "-o", "max_tokens=1", "Hi")


# --- output -----------------------------------------------------------------------------------------------


def test_quiet_keeps_the_note_of_a_truncated_answer(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.loading = 2
    script.chunks = [text_chunk("Hel"), last_chunk("length")]
    assert Result(0, "Hel\n", "(truncated: finish_reason length)\n") == ctx("chat", "--quiet", "Hi")


def test_reasoning_goes_to_standard_error(script: Script) -> None:
    script.chunks = [text_chunk("", reasoning_content="Let me see."), text_chunk("Yes."), last_chunk()]
    assert Result(0, "Yes.\n", "") == ctx("chat", "Hi")
    assert Result(0, "Yes.\n", "Let me see.\n\n") == ctx("chat", "--reasoning", "Hi")
    assert "Let me see." == json.loads(ctx("chat", "--json", "Hi").out)["reasoning"]


def test_stats(script: Script) -> None:
    result = ctx("chat", "--stats", "Hi")
    assert (0, "Héllo\n") == (result.code, result.out)
    number = r"\d+\.\d"
    pattern = (
        rf"3 tokens in, 2 out, first token after {number}\d s(, {number} tokens/s)?, {number}\d s in all, model tiny\n"
    )
    assert re.fullmatch(pattern, result.err), result.err


def completion(**more: Any) -> Completion:
    return Completion(text="Yes", finish_reason="stop", requested_model="tiny", **more)


def test_stats_of_a_server_that_counts() -> None:
    usage = Usage(100, 20, cached_input_tokens=90, reasoning_tokens=5, generation_seconds=0.5)
    turn = Turn(completion=completion(served_model="tiny-2"), usage=usage, first_token_seconds=0.25, seconds=1.0)
    expected = (
        "100 tokens in (90 cached), 20 out (5 reasoning), first token after 0.25 s, 40.0 tokens/s, 1.00 s in all, "
        "model tiny-2"
    )
    assert expected == describe_stats(turn)


def test_stats_by_the_clock_here() -> None:
    turn = Turn(completion=completion(), usage=Usage(1, 11), first_token_seconds=1, generation_seconds=2, seconds=3)
    assert "1 token in, 11 out, first token after 1.00 s, 5.0 tokens/s, 3.00 s in all, model tiny" == describe_stats(
        turn
    )


def test_stats_of_a_server_that_reports_nothing() -> None:
    assert "0.50 s in all, model tiny" == describe_stats(Turn(completion=completion(), seconds=0.5))


# --- no backend -------------------------------------------------------------------------------------------


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[FoundServer]:
    """The servers that are found on this machine."""
    from pathlib import Path  # noqa: PLC0415

    Path(".ctxrc").unlink()
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    found: list[FoundServer] = []

    async def find_servers(_: object) -> tuple[FoundServer, ...]:
        return tuple(found)

    monkeypatch.setattr(detection, "find_servers", find_servers)
    return found


def hint(result: Result) -> str:
    assert (1, "") == (result.code, result.out)
    first, _, rest = result.err.partition("\n")
    assert first.startswith("ctxbackends: no backend configured; run ctx setup --backend <name>")
    return rest


def test_a_small_model_is_offered(servers: list[FoundServer]) -> None:
    assert [] == servers
    assert "ctxbackends pull smollm2\n" in hint(ctx("chat", "Hi"))


def test_a_server_that_runs_is_named_and_not_used(servers: list[FoundServer], script: Script) -> None:
    servers += [
        FoundServer(endpoint="http://localhost:8000", state="error", problem="it is a web server"),
        FoundServer(endpoint="http://localhost:8080", type="llamacpp", models=("a b",)),
    ]
    command = "ctxbackends chat --backend llamacpp --model 'a b'"
    expected = f"  llamacpp runs at http://localhost:8080; to use it, run {command}\n"
    assert expected == hint(ctx("chat", "Hi"))
    assert [] == script.requests


def test_another_server_at_a_default_port(servers: list[FoundServer]) -> None:
    servers.append(FoundServer(endpoint="http://localhost:8080", type="vllm", models=("a", "b"), loaded=("b",)))
    command = "ctxbackends chat --backend vllm --endpoint http://localhost:8080 --model b"
    assert f"run {command}\n" in hint(ctx("chat", "Hi"))


def test_an_unreachable_backend_gets_no_offer(script: Script) -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY))
    assert "pull" not in ctx("chat", "Hi").err
