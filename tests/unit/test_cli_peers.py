"""Errors for people who know llm, ollama, aichat or lms: each names the way to the same here."""

from __future__ import annotations

import click
import pytest

from ctxbackends._cli.chat.command import OTHER_OPTIONS, chat
from ctxbackends._cli.chat.slash_commands import ADVICE as SLASH_ADVICE
from ctxbackends._cli.chat.slash_commands import ALIASES, COMMANDS
from ctxbackends._cli.commands import ADVICE, OTHER_NAMES, TOP_LEVEL, VERBS
from ctxbackends._cli.root import ctx_group, ctxbackends_group


def problem(*words: str, group: click.Group = ctxbackends_group) -> str:
    program = "ctxbackends" if group is ctxbackends_group else "ctx"
    with pytest.raises(click.UsageError) as caught:
        group.main([*words], prog_name=program, standalone_mode=False)
    return caught.value.format_message()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["hello"], "No such command 'hello'."),
        (
            ["What is Python?"],
            "No such command 'What is Python?'; to ask a model, run ctxbackends chat 'What is Python?'",
        ),
        (
            ["it's me", "--json"],
            """No such command "it's me"; to ask a model, run ctxbackends chat 'it'"'"'s me'""",
        ),
        (["help"], "No such command 'help'; use --help, also after the name of a command"),
        (["help", "chat"], "No such command 'help'; use --help, also after the name of a command"),
        (
            ["keys", "set", "openai"],
            "No such command 'keys'; API keys come from environment variables, which setup --api-key-env names",
        ),
        (["run", "smollm2", "Hello"], "No such command 'run'. Did you mean 'chat'?"),
    ],
)
def test_a_word_that_is_no_command(words: list[str], expected: str) -> None:
    assert expected == problem(*words)
    assert expected.replace("run ctxbackends", "run ctx ai") == problem("ai", *words, group=ctx_group)


def test_a_prompt_after_another_command_has_no_such_advice() -> None:
    assert "No such command 'a b'." == problem("config", "a b")
    assert "No such command 'help'." == problem("logs", "help")


def test_an_option_before_the_command() -> None:
    expected = "; options follow the name of a command, as in {} chat -m NAME 'Hello'"
    assert "No such option '-m'" + expected.format("ctxbackends") == problem("-m", "tiny", "Hello")
    assert "No such option '-x'" + expected.format("ctx ai") == problem("ai", "-x", "Hello", group=ctx_group)
    assert "No such option '-x'." == problem("logs", "-x")
    assert "No such option '--versoin'. Did you mean '--version'?" == problem("--versoin")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["hello", "world"], "'hello' and 'world'"),
        (["smollm2", "Tell a story", "now"], "'smollm2' and 'Tell a story'"),
        (["-f", "a.py", "b.py", "Explain"], "'b.py' and 'Explain'"),
        (["-m", "tiny", "a", "b", "--json"], "'a' and 'b'"),
    ],
)
def test_a_prompt_without_quotes(words: list[str], shown: str) -> None:
    advice = "put the prompt in quotes, and an option such as --file before each value"
    assert f"more than one prompt: {shown}; {advice}" == problem("chat", *words)


@pytest.mark.parametrize(
    ("option", "meant"), [("-u", "--stats"), ("--attachment", "--image"), ("--fragment", "--file"), ("--cid", "--conv")]
)
def test_an_option_of_another_program(option: str, meant: str) -> None:
    assert f"No such option '{option}'. Did you mean '{meant}" in problem("chat", option, "x", "Hello")


def test_an_option_like_no_other() -> None:
    assert "No such option '-x'." == problem("chat", "-x", "Hello")
    assert "'--model'" in problem("chat", "--modle", "m", "Hello")


def test_the_tables() -> None:
    options = {name for parameter in chat.params for name in parameter.opts}
    assert set() == options & {*OTHER_OPTIONS}
    assert {*OTHER_OPTIONS.values()} <= options
    commands = {*VERBS, *TOP_LEVEL}
    assert set() == commands & ({*OTHER_NAMES} | {*ADVICE})
    assert set() == {*OTHER_NAMES} & {*ADVICE}
    assert set() == {*COMMANDS} & ({*ALIASES} | {*SLASH_ADVICE})
    assert set() == {*ALIASES} & {*SLASH_ADVICE}
    assert {*ALIASES.values()} <= {*COMMANDS}
