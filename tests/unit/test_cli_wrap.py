"""The lines of errors and warnings at a terminal: they break between words, and a path or URL stays whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctxbackends._cli import root, terminal
from ctxbackends._cli.terminal import wrap
from tests.terminals import Screen
from tests.terminals import terminal as at_terminal
from tests.unit.test_cli import Stream, _alone, ctx  # noqa: F401  # a fixture

URL = "http://127.0.0.1:8000/a/very/long/path/that/is/longer/than/the/window"


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "window_size", lambda _: (40, 24))
    monkeypatch.setenv("TERM", "dumb")  # without the live line


@pytest.mark.usefixtures("_narrow")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("", ""),
        ("the answer of the model was not complete; ask again",
         "the answer of the model was not\ncomplete; ask again"),
        (f"cannot connect to {URL} at the moment", f"cannot connect to\n{URL}\nat the moment"),
        ("a state-of-the-art word at the end of-the-line", "a state-of-the-art word at the end\nof-the-line"),
        ("first line\n  an indented line that is longer than the window\nlast",
         "first line\n  an indented line that is longer than\n  the window\nlast"),
    ],
)  # fmt: skip
def test_lines_break_between_words(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(tty=True))
    assert expected == wrap(text, err=True)
    monkeypatch.setattr(sys, "stderr", Stream())
    assert text == wrap(text, err=True)


@pytest.mark.usefixtures("_narrow")
def test_an_error() -> None:
    Path(".ctxrc").write_text("backends: [")
    whole = ctx("status").err
    lines = ctx("status", tty="stderr").err.splitlines()
    assert whole.split() == " ".join(lines).split()
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)
    assert len(lines) > 1


@pytest.mark.usefixtures("_narrow")
def test_a_wrong_usage() -> None:
    arguments = ("chat", "--max-tokens", "many", "Hello")
    whole = ctx(*arguments)
    result = ctx(*arguments, tty="stderr")
    assert (2, 2) == (whole.code, result.code)
    assert whole.err.split() == result.err.split()
    assert all(len(line) <= 40 for line in result.err.splitlines())
    assert any(len(line) > 40 for line in whole.err.splitlines())


@pytest.mark.usefixtures("_narrow")
def test_a_warning_is_printed_once_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = Stream(tty=True)
    monkeypatch.setattr(sys, "stderr", errors)
    texts: set[str] = set()
    for text in ("the server names another model in its answers", "short", "short"):
        root._print_warning("ctx", texts, UserWarning(text), UserWarning, "file.py", 1)
    assert "ctx: warning: the server names another\nmodel in its answers\nctx: warning: short\n" == errors.text


@pytest.mark.posix
def test_a_program_in_a_narrow_window() -> None:
    arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--workers", "2")
    Path("in.jsonl").write_text('{"custom_id": "a", "prompt": "b"}\n')
    with at_terminal(*arguments, columns=40) as at:
        at.end()
        screen = Screen(40)
        screen.feed(at.raw)
    _, _, message = ctx(*arguments).err.partition("Error: ")
    assert len(message) > 40
    assert message.split() == [word for line in screen.lines for word in line.split()][-len(message.split()) :]
