"""chat --tool: which functions are tools, when they run, and what is asked before."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_cli import (
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

TOOLS = '''
"""Tools for tests."""
from ctxbackends import tool_of

NUMBER = 7
calls = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append((a, b))
    return a + b


async def shout(text: str) -> str:
    return text.upper()


def untyped(x):
    return x


def fail(text: str) -> str:
    raise ValueError("no " + text)


class Box:
    @staticmethod
    def open(name: str) -> str:
        return name


named = tool_of(add, name="sum")
'''


@pytest.fixture(autouse=True)
def _configured(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of tools in the working directory."""
    ctxrc(backend(script.endpoint))
    Path("mytools.py").write_text(TOOLS, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = {*sys.modules}
    yield
    for name in {*sys.modules} - modules:
        del sys.modules[name]


def call_chunk(name: str, /, index: int = 0, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
    return {"model": "tiny", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


def calls(script: Script, *chunks: dict[str, Any]) -> None:
    """The first answer calls tools."""
    script.rounds = [[*chunks, last_chunk("tool_calls")]]


# --- the loop ---------------------------------------------------------------------------------------------


def test_a_tool_runs_without_a_question(script: Script) -> None:
    calls(script, text_chunk("Let me add."), call_chunk("add", a=2, b=3))
    result = ctx("chat", "--yes", "--tool", "mytools:add", "2 + 3?")
    assert (0, "Let me add.\nHéllo\n") == (result.code, result.out)
    assert [(2, 3)] == sys.modules["mytools"].calls
    first, second = script.chat_bodies
    (tool,) = first["tools"]
    assert ("add", "Add two numbers.") == (tool["function"]["name"], tool["function"]["description"])
    assert {"role": "tool", "tool_call_id": "call_0", "content": "5"} == second["messages"][-1]
    assert 'add({"a": 2, "b": 3})' in result.err


def test_several_tools_and_names(script: Script) -> None:
    calls(script, call_chunk("sum", a=2, b=3), call_chunk("shout", 1, text="hi"), call_chunk("open", 2, name="x"))
    tools = ("--tool", "mytools:named", "--tool", "mytools:shout", "--tool", "mytools:Box.open")
    assert 0 == ctx("chat", "-q", "--yes", *tools, "Go").code
    results = [message["content"] for message in script.chat_bodies[1]["messages"][-3:]]
    assert ["5", "HI", "x"] == results


def test_a_tool_that_fails_is_told_to_the_model(script: Script) -> None:
    calls(script, call_chunk("fail", text="luck"))
    result = ctx("chat", "--yes", "--tool", "mytools:fail", "Go")
    assert (0, "Héllo\n") == (result.code, result.out)
    assert "Error: fail failed: ValueError: no luck" == script.chat_bodies[1]["messages"][-1]["content"]
    assert "fail: failed\n" in result.err


def test_the_rounds_as_json(script: Script) -> None:
    calls(script, text_chunk("Let me add."), call_chunk("add", a=2, b=3), call_chunk("nope", 1))
    printed = json.loads(ctx("chat", "--json", "--yes", "--tool", "mytools:add", "Go").out)
    assert "Héllo" == printed["text"]
    first, last = printed["rounds"]
    assert ("Let me add.", "Héllo", []) == (first["text"], last["text"], last["calls"])
    add, nope = first["calls"]
    assert ("add", '{"a": 2, "b": 3}', "ok", "5") == (add["name"], add["arguments"], add["status"], add["result"])
    assert ("nope", "invalid") == (nope["name"], nope["status"])
    assert 2 == first["usage"]["output_tokens"]


def test_the_choice_of_a_tool(script: Script) -> None:
    calls(script, call_chunk("add", a=2, b=3))
    assert 0 == ctx("chat", "-q", "--yes", "--tool", "mytools:add", "-o", "tool_choice=add", "Go").code
    first, second = script.chat_bodies
    assert {"type": "function", "function": {"name": "add"}} == first["tool_choice"]
    assert "tool_choice" not in second
    problem = "-o: unknown tool in tool_choice: 'sub'; pass it in tools"
    assert usage_error(problem) == ctx("chat", "--yes", "--tool", "mytools:add", "-o", "tool_choice=sub", "Go")


# --- approval -----------------------------------------------------------------------------------------------


def test_tools_without_a_terminal_are_refused(script: Script) -> None:
    problem = "--tool without a terminal: nobody can be asked before a call; pass --yes to run all calls"
    assert usage_error(problem) == ctx("chat", "--tool", "mytools:add", "Go")
    assert [] == script.requests


# --- what is no tool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mytools:ad", "--tool mytools:ad: mytools has no ad; did you mean add?"),
        ("mytools:Box.close", "--tool mytools:Box.close: mytools has no Box.close"),
        ("mytools:NUMBER", "--tool mytools:NUMBER: not a function: int"),
        ("mytools:untyped", "--tool mytools:untyped: "),
        ("nothere:f", "--tool nothere:f: no module named nothere; modules are looked for in "),
        ("mytools.inner:f", "--tool mytools.inner:f: "),
        ("broken:f", "--tool broken:f: broken cannot be imported: NameError: name 'nope' is not defined ("),
        ("syntax:f", "--tool syntax:f: syntax cannot be imported: SyntaxError: "),
        ("needs:f", "--tool needs:f: needs cannot be imported: No module named 'nothere'"),
        ("exits:f", "--tool exits:f: exits cannot be imported: SystemExit: 3"),
    ],
)
def test_what_cannot_be_a_tool(script: Script, name: str, problem: str) -> None:
    Path("broken.py").write_text("x = 1\nnope\n", encoding="utf-8")
    Path("syntax.py").write_text("def f(:\n", encoding="utf-8")
    Path("needs.py").write_text("import nothere\n", encoding="utf-8")
    Path("exits.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    result = ctx("chat", "--yes", "--tool", name, "Go")
    assert (1, "") == (result.code, result.out)
    assert result.err.startswith(f"ctxbackends: {problem}"), result.err
    assert 1 == result.err.count("\n")
    assert [] == script.requests


def test_the_line_of_an_error_in_a_module() -> None:
    Path("broken.py").write_text("x = 1\nnope\n", encoding="utf-8")
    assert "broken.py, line 2)\n" in ctx("chat", "--yes", "--tool", "broken:f", "Go").err


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("add", "--tool: not MODULE:FUNCTION: 'add'; write it as in 'package.module:function'"),
        ("mytools:", "--tool: not MODULE:FUNCTION: 'mytools:'; write it as in 'package.module:function'"),
        ("mytools.py:add", "--tool: mytools.py is a file; name its module: mytools:add"),
        ("tools/mine.py:add", "--tool: tools/mine.py is a file; name its module: tools.mine:add"),
    ],
)
def test_a_name_that_is_none(name: str, problem: str) -> None:
    assert usage_error(problem) == ctx("chat", "--yes", "--tool", name, "Go")


def test_a_tool_twice() -> None:
    expected = Result(1, "", "ctxbackends: --tool: duplicate tool: add\n")
    assert expected == ctx("chat", "--yes", "--tool", "mytools:add", "--tool", "mytools:add", "Go")


def test_a_server_without_tools(script: Script) -> None:
    """The fault is the server's word, before a tool runs."""
    script.chat = (400, b'{"error": {"message": "tools are not supported"}}')
    result = ctx("chat", "--yes", "--tool", "mytools:add", "Go")
    assert (1, "") == (result.code, result.out)
    assert "tools are not supported" in result.err
