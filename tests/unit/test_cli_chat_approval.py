"""The question before a tool runs, at a pseudo-terminal."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.terminals import WITHIN, terminal
from tests.unit.test_cli import (
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    ctxrc,
    last_chunk,
    script,  # noqa: F401  # a fixture
)
from tests.unit.test_cli_chat_tools import call_chunk

pytestmark = pytest.mark.posix

TOOLS = """
from pathlib import Path

def add(a: int, b: int) -> int:
    Path("calls").open("a").write(f"{a}+{b}\\n")
    return a + b

def shout(text: str) -> str:
    Path("calls").open("a").write(f"{text}\\n")
    return text.upper()
"""
QUESTION = 'run add({"a": 2, "b": 3})? [y]es, [n]o, [a]lways: '


@pytest.fixture(autouse=True)
def _configured(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    Path("mytools.py").write_text(TOOLS, encoding="utf-8")


def rounds(script: Script, *calls: dict[str, Any]) -> None:
    """One round for each call, before the answer."""
    script.rounds = [[call, last_chunk("tool_calls")] for call in calls]


def made_calls() -> list[str]:
    path = Path("calls")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def ask(*tools: str, **options: Any) -> Any:
    names = [argument for tool in tools for argument in ("--tool", f"mytools:{tool}")]
    return terminal("chat", "--raw", *names, "Go", **options)


def results(script: Script) -> list[str]:
    return [message["content"] for message in script.chat_bodies[-1]["messages"] if message["role"] == "tool"]


def test_yes_runs_it_once(script: Script) -> None:
    rounds(script, call_chunk("add", a=2, b=3), call_chunk("add", a=4, b=5))
    with ask("add") as at:
        first = at.read_until(QUESTION)
        assert [] == made_calls()
        at.type("y\n")
        at.read_until('run add({"a": 4, "b": 5})? ', after=first)
        at.type("YES\n")
        at.read_until("Héllo")
        assert 0 == at.end()
    assert ["2+3", "4+5"] == made_calls()
    assert ["5", "9"] == results(script)


@pytest.mark.parametrize("keys", ["n\n", "no\n", "\x04"], ids=["n", "no", "Ctrl-D"])
def test_no_tells_the_model(script: Script, keys: str) -> None:
    rounds(script, call_chunk("add", a=2, b=3))
    with ask("add") as at:
        at.read_until(QUESTION)
        at.type(keys)
        at.read_until("Héllo")
        assert 0 == at.end()
    assert [] == made_calls()
    assert ["Error: the call of add was not approved and not executed"] == results(script)


def test_another_answer_is_asked_again(script: Script) -> None:
    rounds(script, call_chunk("add", a=2, b=3))
    with ask("add") as at:
        first = at.read_until(QUESTION)
        at.type("\n")
        second = at.read_until(QUESTION, after=first)
        at.type("maybe\n")
        at.read_until(QUESTION, after=second)
        assert [] == made_calls()
        at.type("y\n")
        assert 0 == at.end()
    assert ["2+3"] == made_calls()


def test_always_is_for_one_tool(script: Script) -> None:
    rounds(script, call_chunk("add", a=2, b=3), call_chunk("add", a=4, b=5), call_chunk("shout", text="hi"))
    with ask("add", "shout") as at:
        first = at.read_until(QUESTION)
        at.type("a\n")
        at.read_until('run shout({"text": "hi"})? ', after=first)
        at.type("y\n")
        assert 0 == at.end()
        assert 1 == at.raw.count("run add(")
    assert ["2+3", "4+5", "hi"] == made_calls()


def test_a_line_that_was_typed_before_is_no_answer(script: Script) -> None:
    rounds(script, call_chunk("add", a=2, b=3))
    script.loading = 1  # it waits before the question
    ctxrc(backend(script.endpoint, type="llamacpp"))
    with ask("add") as at:
        at.type("y\n")
        at.read_until(QUESTION)
        at.type("n\n")
        assert 0 == at.end()
    assert [] == made_calls()


def test_control_characters_of_the_model_are_escaped(script: Script) -> None:
    call = call_chunk("shout", text="hi")
    call["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] = '{"text": "hi"\x1b[2K}'
    rounds(script, call)
    with ask("shout") as at:
        at.read_until("Héllo")
        assert 0 == at.end()
        assert "\x1b[2K}" not in at.raw
    rounds(script, call_chunk("shout", text="\x1b[2K\nhi"))
    with ask("shout") as at:
        at.read_until('run shout({"text": "\\u001b[2K\\nhi"})? ')
        at.type("n\n")
        assert 0 == at.end()


def test_an_interrupted_question(script: Script) -> None:
    rounds(script, call_chunk("add", a=2, b=3))
    with ask("add") as at:
        at.read_until(QUESTION)
        at.type("\x03")
        assert 130 == at.end()
        assert at.raw.endswith("interrupted\r\n")
    assert [] == made_calls()


def test_the_question_is_asked_where_input_and_output_are_files(script: Script) -> None:
    """Standard error is the terminal."""
    rounds(script, call_chunk("add", a=2, b=3))
    Path("in").write_text("piped\n", encoding="utf-8")
    with ask("add", stdin=Path("in"), stdout=Path("out")) as at:
        at.read_until(QUESTION)
        at.type("y\n")
        assert 0 == at.end()
    assert "piped\n Go" == script.chat_bodies[0]["messages"][0]["content"]
    assert "Héllo\n" == Path("out").read_text(encoding="utf-8")


def test_no_stream_is_a_terminal(script: Script) -> None:
    """As a service or an agent starts programs: nobody looks at them."""
    files = {"stdin": Path("/dev/null"), "stdout": Path("out"), "stderr": Path("err")}
    with ask("add", **files) as at:
        assert 2 == at.process.wait(WITHIN)
    assert "--tool without a terminal" in Path("err").read_text(encoding="utf-8")
    assert [] == script.requests
