"""The messages of the command line: the value, the option or key, and what to do."""

# ruff: noqa: F811  # fixtures that are imported

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import click
import pytest

from ctxbackends._cli.numbers import Integer, Number
from ctxbackends._cli.root import ctx_group, ctxbackends_group
from ctxbackends.knowledge._extract.progress import Progress
from tests.unit.test_cli import ENDPOINT_OF_NOBODY, Result, Script, _alone, backend, ctx, ctxrc, script  # noqa: F401  # fixtures of the command line


def usage_problem(*arguments: str) -> str:
    result = ctx(*arguments)
    assert (2, "") == (result.code, result.out)
    return result.err.splitlines()[-1].removeprefix("Error: ")


# --- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--temperature", "abc"), "Invalid value for '--temperature': 'abc' is not a number"),
        (("--temperature", ""), "Invalid value for '--temperature': '' is not a number"),
        (("--temperature", "0,5"), "Invalid value for '--temperature': '0,5' is not a number"),
        (("--temperature", "nan"), "Invalid value for '--temperature': 'nan' is not a number"),
        (("--temperature", "inf"), "Invalid value for '--temperature': 'inf' is not a number"),
        (("--temperature", "-1"), "Invalid value for '--temperature': -1.0 is out of range; it must be 0 or more"),
        (("--max-tokens", "abc"), "Invalid value for '--max-tokens': 'abc' is not a number"),
        (("--max-tokens", "1.5"), "Invalid value for '--max-tokens': '1.5' is not a whole number"),
        (("--max-tokens", "0"), "Invalid value for '--max-tokens': 0 is out of range; it must be 1 or more"),
    ],
)
def test_numbers_of_chat(arguments: tuple[str, ...], problem: str) -> None:
    assert problem == usage_problem("chat", *arguments, "Hi")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("abc", "'abc' is not a number"),
        ("70000", "70000 is out of range; it must be from 1 to 65535"),
        ("0", "0 is out of range; it must be from 1 to 65535"),
    ],
)
def test_a_port(value: str, problem: str) -> None:
    assert f"Invalid value for '--port': {problem}" == usage_problem("serve", "model.gguf", "--port", value)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [(Integer(1, 5), "5", 5), (Integer(min=1), "7", 7), (Number(min=0), "0.5", 0.5), (Number(), "-3", -3.0)],
)
def test_numbers_in_their_range(type_: Any, value: str, expected: float) -> None:
    number = type_.convert(value, None, None)
    assert (expected, type(expected)) == (number, type(number))


def test_no_more_than_a_limit() -> None:
    with pytest.raises(click.BadParameter, match="6 is out of range; it must be at most 5"):
        Integer(max=5).convert("6", None, None)


def commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, context) if isinstance(command, click.Group) else (command,)


def test_every_number_has_these_messages() -> None:
    with click.Context(ctxbackends_group, info_name="ctxbackends") as context:
        types = [parameter.type for command in commands(ctxbackends_group, context) for parameter in command.params]
    numbers = [type_ for type_ in types if type_.name.startswith(("integer", "float"))]
    assert len(numbers) > 5
    assert [] == [type_ for type_ in numbers if not isinstance(type_, Integer | Number)]


# --- commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"), [("pign", "ping"), ("Chat", "chat"), ("run", "chat"), ("ls", "models"), ("ps", "status")]
)
@pytest.mark.parametrize("group", [ctxbackends_group, ctx_group])
def test_a_command_that_is_misspelt(word: str, meant: str, group: click.Group) -> None:
    words = [word] if group is ctxbackends_group else ["ai", word]
    with pytest.raises(click.UsageError, match=f"No such command '{word}'. Did you mean '{meant}'?"):
        group.main(words, standalone_mode=False)


def test_a_command_like_no_other() -> None:
    assert "No such command 'xyzzy'." == usage_problem("xyzzy")


# --- endpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["foo", "localhost:8080", "ftp://host", "//host"])
@pytest.mark.parametrize("command", [("ping",), ("models",), ("status",), ("chat", "Hi", "--model", "m")])
def test_an_endpoint_that_is_no_url(endpoint: str, command: tuple[str, ...]) -> None:
    shown = "" if endpoint == "//host" else endpoint
    expected = f"ctxbackends: --endpoint: {shown!r} must start with http:// or https://; write it like "
    result = ctx(*command, "--endpoint", endpoint)
    assert (1, "") == (result.code, result.out)
    assert expected in result.err


def test_an_endpoint_in_a_file_names_its_key() -> None:
    ctxrc(backend("foo"))
    assert ":4: backends[0].endpoint: 'foo' must start with http:// or https://; " in ctx("ping").err


@pytest.mark.parametrize("endpoint", ["http://h:99999", "http://", "http://a b", "http://h?x=1"])
def test_an_endpoint_that_is_an_invalid_url(endpoint: str) -> None:
    assert "ctxbackends: --endpoint: invalid URL 'http://" in ctx("ping", "--endpoint", endpoint).err


def test_an_endpoint_with_a_password_is_not_shown() -> None:
    result = ctx("ping", "--endpoint", "me:geheim@gpu:8000")
    assert "ctxbackends: --endpoint: invalid URL: it must start with http:// or https://" in result.err
    assert "geheim" not in result.err


def test_a_name_for_a_key_is_the_option() -> None:
    result = ctx("ping", "--endpoint", ENDPOINT_OF_NOBODY, "--api-key-env", "not a name")
    assert result.err.startswith("ctxbackends: --api-key-env: must be the name of an environment variable ")


@pytest.mark.parametrize("value", ["sk-a b", "sk-a\nb", "sk-ä", "sk-a\r\nX: 1"])
def test_a_key_that_cannot_be_sent(value: str, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    problem = (
        "--api-key-env: invalid API key in the variable SOME_KEY: it contains spaces, a line break or non-ASCII "
        "characters; check the variable"
    )
    expected = Result(1, "", f"ctxbackends: {problem}\n")
    assert expected == ctx("ping", "--endpoint", script.endpoint, "--api-key-env", "SOME_KEY")
    ctxrc(backend(script.endpoint, api_key_env="SOME_KEY"))
    assert problem.replace("--api-key-env", "api_key_env") in ctx("ping").err
    assert [] == script.requests


# --- hosts ------------------------------------------------------------------------------------------


@pytest.fixture
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", unknown)


@pytest.mark.usefixtures("_no_names")
@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("file", "check the endpoint in .ctxrc; correct it with ctxbackends config set local.endpoint URL"),
        ("endpoint", "check the URL of --endpoint"),
    ],
)
def test_an_unknown_host(source: str, hint: str) -> None:
    ctxrc(backend("https://gpu.invalid"))
    arguments, name = (
        ((), "local") if source == "file" else (("--endpoint", "https://gpu.invalid"), "openai-compatible")
    )
    problem = "cannot find the host gpu.invalid (Name or service not known)"
    expected = f'ctxbackends: backend "{name}" unreachable at https://gpu.invalid: {problem}\n  {hint}\n'
    assert Result(1, "", expected) == ctx("ping", *arguments)


# --- the progress of an extraction ------------------------------------------------------------------


def progress(**changes: Any) -> Progress:
    counts = {"sources": 1, "sources_done": 0, "size": 100, "size_done": 100, "chunks": 1, "reused": 0, "rows": 1}
    times = {"quarantined": 0, "input_tokens": 0, "output_tokens": 0, "elapsed": 0.0}
    return Progress(source="a.md", **{**counts, **times, **changes})


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (progress(), "1 chunk, 1 row"),
        (progress(chunks=2, rows=0), "2 chunks, 0 rows"),
        (progress(size_done=50, elapsed=4.0), "50%: 1 chunk, 1 row, 4 s left"),
        (progress(size=1000, size_done=999), "99%: 1 chunk, 1 row"),
        (progress(size_done=0, chunks=0, rows=0), "0%: 0 chunks, 0 rows"),
        (progress(sources=3, sources_done=1, quarantined=2), "1 of 3 files, 1 chunk, 1 row, 2 quarantined"),
        (progress(size=0, size_done=0, chunks=0, rows=0), "0 chunks, 0 rows"),
        (progress(elapsed=2.0, output_tokens=40), "1 chunk, 1 row, 20 tokens/s"),
    ],
)
def test_progress(event: Progress, text: str) -> None:
    assert text == str(event)


# --- setup ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--endpoint", "foo"), "--endpoint: 'foo' must start with http:// or https://; "),
        (("--endpoint", "http://h:99999"), "--endpoint: invalid URL 'http://h:99999': "),
        (("--api-key-env", "not a name"), "--api-key-env: must be the name of an environment variable "),
        (("--model", " m"), "--model: must not be empty or have leading or trailing white space"),
        (("--name", " n"), "--name: must not be empty or have leading or trailing white space"),
    ],
)
def test_setup_names_the_option(arguments: tuple[str, ...], message: str) -> None:
    result = ctx("setup", "--backend", "vllm", *arguments)
    assert (1, "") == (result.code, result.out)
    assert result.err.startswith(f"ctxbackends: {message}")


def test_setup_of_a_misspelt_type() -> None:
    problem = usage_problem("setup", "--backend", "opnai")
    start = "Invalid value for '--backend': unknown backend type: \"opnai\"; did you mean openai? The types are vllm, "
    assert problem.startswith(start)
