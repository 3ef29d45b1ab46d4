"""The display of an answer: where each event goes, and the screen that is left."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from ctxbackends import Completion, Finish, Loading, ReasoningDelta, ServerStatus, TextDelta, ToolCall
from ctxbackends._chat.events import PromptProgress, ToolCallDelta
from ctxbackends._chat.messages import ToolResult
from ctxbackends._chat.tool_runs import RoundStart, ToolEnd, ToolOutcome, ToolStart
from ctxbackends._cli import live_line
from ctxbackends._cli.chat import display as display_module
from ctxbackends._cli.chat import markdown, queue
from ctxbackends._cli.chat.display import Display, create_display
from ctxbackends._cli.root import _print_warning
from tests.terminals import Screen

ANSWER = Completion(text="x", finish_reason="stop", requested_model="tiny")
LOADING = Loading(endpoint="http://127.0.0.1:8080", state="loading", elapsed=3.0, budget=90.0)


class Stream(io.StringIO):
    """A standard stream. ``sink``: called with each piece that is written."""

    def __init__(self, *, is_terminal: bool, sink: Callable[[str], object]) -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self._sink = sink

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str, /) -> int:
        self._sink(text)
        return super().write(text)


@attrs.define
class Terminals:
    """The standard streams, and one screen that shows what goes to terminals."""

    screen: Screen
    out: Stream
    err: Stream
    rows: int = 24

    def resize(self, columns: int) -> None:
        self.screen.resize(columns)

    @property
    def lines(self) -> list[str]:
        return self.screen.lines


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminals]]:
    """Replace the standard streams; ``on`` names those that are terminals."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(live_line.LINE, "is_drawn", False)
    monkeypatch.setattr(markdown, "INTERVAL", 0.0)
    monkeypatch.setattr(markdown, "_LOAD", 0)
    if sys.platform == "win32":
        monkeypatch.setenv("WT_SESSION", "1")

    def attach(on: str = "stdout stderr", *, columns: int = 80, rows: int = 24) -> Terminals:
        screen = Screen(columns, rows)
        feed = lambda text: screen.feed(text.replace("\n", "\r\n"))  # noqa: E731  # as the terminal's driver does
        streams = {
            name: Stream(is_terminal=name in on, sink=feed if name in on else lambda _: None)
            for name in ("stdout", "stderr")
        }
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        size = lambda _: (screen.columns, screen.rows)  # noqa: E731
        monkeypatch.setattr(live_line, "window_size", size)
        monkeypatch.setattr(markdown, "window_size", size)
        return Terminals(screen, streams["stdout"], streams["stderr"], rows)

    yield attach
    markdown._build_console.cache_clear()


async def settle() -> None:
    """Let everything run that is due."""
    for _ in range(3):
        await asyncio.sleep(0)


async def show(display: Display, *events: Any, answer: Completion | None = ANSWER) -> None:
    display.start()
    for event in events:
        display.event(event)
        await settle()
    display.finish(answer)


def pieces(text: str, size: int = 3) -> list[TextDelta]:
    return [TextDelta(text[at : at + size]) for at in range(0, len(text), size)]


# --- a pipe -----------------------------------------------------------------------------------------


async def test_a_pipe_gets_the_text_as_it_is(attach: Callable[..., Terminals]) -> None:
    streams = attach("")
    await show(create_display(), *pieces("# **Hé**\x1b[31m\r\n\n<b>"), Finish("stop"))
    assert ("# **Hé**\x1b[31m\r\n\n<b>\n", "") == (streams.out.getvalue(), streams.err.getvalue())


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [("a", ANSWER, "a\n"), ("a\n", ANSWER, "a\n"), ("", ANSWER, "\n"), ("", None, ""), ("a", None, "a\n")],
)
async def test_the_last_line_is_ended_once(
    attach: Callable[..., Terminals], text: str, answer: Completion | None, expected: str
) -> None:
    streams = attach("")
    display = create_display()
    await show(display, *([TextDelta(text)] if text else []), *([Finish("stop")] if answer else []), answer=answer)
    display.finish(answer)
    assert expected == streams.out.getvalue()


async def test_texts_of_several_rounds_are_on_lines_of_their_own(attach: Callable[..., Terminals]) -> None:
    streams = attach("")
    end = (Finish("tool_calls"), RoundStart(2))
    await show(create_display(), TextDelta("I look."), *end, TextDelta("Sunny."), Finish("stop"))
    assert "I look.\nSunny.\n" == streams.out.getvalue()


async def test_a_wait_without_a_terminal_is_a_line(attach: Callable[..., Terminals]) -> None:
    streams = attach("")
    display = create_display()
    display.start()
    display.progress(LOADING)
    display.progress(LOADING)
    await show(display, TextDelta("a"))
    assert ["waiting for http://127.0.0.1:8080 (loading, 3 s of 90 s)"] == streams.err.getvalue().splitlines()


async def test_a_long_wait_for_the_answer_is_a_line_now_and_then(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = attach("")
    monkeypatch.setattr(display_module, "PLAIN_INTERVAL", 0.0)
    display = create_display()
    display.start()
    while len(streams.err.getvalue().splitlines()) < 2:
        await asyncio.sleep(0)
    display.finish(None)
    assert {"waiting for the answer, 0 s"} == set(streams.err.getvalue().splitlines())


async def test_quiet(attach: Callable[..., Terminals]) -> None:
    for on in ("", "stdout stderr"):
        streams = attach(on)
        display = create_display(quiet=True, reasoning="full")
        display.start()
        display.progress(LOADING)
        call = ToolCall("1", "look", "{}")
        await show(display, ReasoningDelta("hm"), ToolStart(call, {}), TextDelta("a"), Finish("stop"))
        assert "" == streams.err.getvalue()


async def test_what_draws_markdown_is_loaded_during_the_wait(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch
) -> None:
    attach()
    loaded = asyncio.Event()
    monkeypatch.setattr(display_module, "_LOAD_AFTER", 0)
    monkeypatch.setattr(display_module.DrawnText, "load", lambda _: loaded.set())
    display = create_display()
    display.start()
    async with asyncio.timeout(60):
        await loaded.wait()
    display.pause()


async def test_no_text(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(create_display(text=False), TextDelta("a"), Finish("stop"))
    assert "" == streams.out.getvalue()
    assert "waiting for the answer, 0 s" in streams.err.getvalue()


# --- the wait on a terminal -------------------------------------------------------------------------


def test_the_first_line_needs_no_event_loop(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    create_display().start()
    assert ["waiting for the answer, 0 s"] == streams.lines


async def test_the_wait_is_one_line_that_goes(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = attach()
    monkeypatch.setattr(display_module, "TICK", 0.0)
    display = create_display()
    display.start()
    display.progress(LOADING)
    assert ["waiting for http://127.0.0.1:8080 (loading, 3 s of 90 s)"] == streams.lines
    display.event(PromptProgress(5, 100))
    assert ["reading the prompt (5 of 100 tokens), 0 s"] == streams.lines
    count = streams.err.getvalue().count("reading")
    while streams.err.getvalue().count("reading") == count:  # the clock runs
        await asyncio.sleep(0)
    display.event(ReasoningDelta("hm"))
    assert ["thinking, 0 s"] == streams.lines
    display.event(ToolCallDelta(0, "1", "look", "{"))
    assert ["preparing a call of look, 0 s"] == streams.lines
    display.event(TextDelta("answer"))
    await settle()
    assert ["answer"] == streams.lines
    display.finish(ANSWER)
    assert ["answer"] == streams.lines


async def test_an_answer_that_is_printed_when_it_is_whole(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = attach()
    monkeypatch.setattr(display_module, "TICK", 0.0)
    display = create_display(text=False)
    display.start()
    display.event(TextDelta("{"))
    assert ["receiving the answer (1 character), 0 s"] == streams.lines
    assert not display.is_waiting
    display.event(TextDelta('"a"'))
    while "receiving the answer (4 characters), 0 s" not in streams.lines:
        await asyncio.sleep(0)
    display.event(ToolCallDelta(0, "1", "look", "{"))
    display.event(TextDelta("{}"))
    assert ["receiving the answer (2 characters), 0 s"] == streams.lines
    display.event(Finish("stop"))
    assert [] == streams.lines
    display.finish(ANSWER)
    assert "" == streams.out.getvalue()


async def test_after_a_cold_start_the_answer_is_awaited(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = attach()
    monkeypatch.setattr(display_module, "PROBE_SECONDS", 0.0)
    display = create_display()
    display.start()
    display.progress(LOADING)
    assert not display.is_waiting
    while not display.is_waiting:
        await asyncio.sleep(0)
    assert ["waiting for the answer, 0 s"] == streams.lines
    display.finish(None)


async def test_the_slots_of_a_busy_server(attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch) -> None:
    streams = attach()
    monkeypatch.setattr(queue, "INTERVAL", 0.0)
    statuses = iter([(2, 2), (1, 2), (None, 2)])

    class Server:
        endpoint = "http://127.0.0.1:8080"

        async def status(self) -> ServerStatus:
            busy, slots = next(statuses)
            return ServerStatus(backend="x", endpoint=self.endpoint, state="ready", slots=slots, busy_slots=busy)

    display = create_display()
    display.start()
    server: Any = Server()
    await queue.watch_slots(server, display)  # it ends where the server does not tell
    assert ["waiting for the answer (the server uses 1 of 2 slots), 0 s"] == streams.lines
    assert "(the server uses 2 of 2 slots)" in streams.err.getvalue()
    server.endpoint = "https://api.example.com"
    await queue.watch_slots(server, display)  # nobody else is asked
    display.finish(None)


@pytest.mark.parametrize("columns", [20, 33, 70])
async def test_a_window_that_narrows_in_the_wait_leaves_nothing(
    attach: Callable[..., Terminals], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = attach(columns=120)
    display = create_display()
    display.start()
    display.progress(LOADING)
    streams.resize(columns)
    display.progress(LOADING)
    assert ["waiting for http://127.0.0.1:8080 (loading, 3 s of 90 s)"[: columns - 1]] == streams.lines
    streams.resize(12)
    await show(display, TextDelta("answer"))
    assert ["answer"] == streams.lines


async def test_wide_characters_do_not_break_the_live_line(attach: Callable[..., Terminals]) -> None:
    streams = attach(columns=20)
    display = create_display()
    display.event(ToolCallDelta(0, "1", "天気を調べる関数の名前", "{"))
    assert ["preparing a call of"] == streams.lines
    display.finish(None)
    assert [] == streams.lines


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "unknown"}])
async def test_a_dumb_terminal_gets_lines(
    attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    streams = attach()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    display = create_display(reasoning="full")
    display.start()
    display.progress(LOADING)
    await show(display, ReasoningDelta("hm"), *pieces("# a **b**\x1b[31m"), Finish("stop"))
    assert "# a **b**\\x1b[31m\n" == streams.out.getvalue()
    assert "waiting for http://127.0.0.1:8080 (loading, 3 s of 90 s)\nhm\n\n" == streams.err.getvalue()


async def test_tools(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    call = ToolCall("1", "look", '{"at":\n"x"}\x1b[31m')
    outcome = ToolOutcome(call=call, result=ToolResult("1", "no"), status="denied")
    display = create_display()
    await show(display, RoundStart(1), Finish("tool_calls"), ToolEnd(outcome), ToolStart(call, {}), TextDelta("ok"))
    assert ["look: denied", 'look({"at": "x"}\\x1b[31m)', "ok"] == streams.lines


# --- reasoning --------------------------------------------------------------------------------------


async def test_full_reasoning_is_dimmed(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    events = (ReasoningDelta("I "), ReasoningDelta("think\x1b]0;x\x07"), TextDelta("answer"), Finish("stop"))
    await show(create_display(reasoning="full"), *events)
    assert ["I think\\x1b]0;x\\x07", "", "answer"] == streams.lines
    assert "\x1b[2mI \x1b[0m" in streams.err.getvalue()


async def test_full_reasoning_off_a_terminal_is_plain(attach: Callable[..., Terminals]) -> None:
    streams = attach("")
    await show(create_display(reasoning="full"), ReasoningDelta("I think"), TextDelta("answer"), Finish("stop"))
    assert ("answer\n", "I think\n\n") == (streams.out.getvalue(), streams.err.getvalue())


async def test_reasoning_after_text(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(create_display(), TextDelta("one"), ReasoningDelta("hm"), TextDelta("two"), Finish("stop"))
    assert ["one", "two"] == streams.lines


# --- Markdown ---------------------------------------------------------------------------------------

DOCUMENT = """\
# Title

Some *emphasis*, `code`, **bold** and [a link](http://example.test/x).
A second line with <b>HTML</b> &amp; an entity.

1. one
2. two
   - nested
10. ten

* a bullet with

  two paragraphs
* another

```python
def f(x):
    return x # comment
```

| a | b |
|---|---|
| cell | other |

> quote

[1]: http://ref.test/
End"""

DRAWN = """\
Title

Some emphasis, code, bold and a link (http://example.test/x).
A second line with <b>HTML</b> & an entity.

 1 one
 2 two
    • nested
 10 ten

 • a bullet with
   two paragraphs
 • another

def f(x):
    return x # comment

 a b
 ─
 cell other

▌ quote

[1]: http://ref.test/
End"""


@pytest.mark.parametrize(("size", "columns"), [(1, 80), (7, 80), (40, 120), (10_000, 120)])
async def test_a_document(attach: Callable[..., Terminals], size: int, columns: int) -> None:
    streams = attach(columns=columns)
    await show(create_display(), *pieces(DOCUMENT, size), Finish("stop"))
    # The widths of a table depend on the version of rich.
    assert DRAWN.splitlines() == [re.sub("[─━]+", "─", re.sub(r"(?<=\S) +", " ", line)) for line in streams.lines]


@pytest.mark.parametrize("columns", [8, 20, 40])
async def test_a_narrow_window_loses_nothing(attach: Callable[..., Terminals], columns: int) -> None:
    streams = attach(columns=columns)
    await show(create_display(), *pieces(DOCUMENT), Finish("stop"))
    words = "".join("".join(streams.lines).split())
    for word in ("Title", "emphasis", "http://example.test/x", "<b>HTML</b>&anentity", "nested", "returnx#", "other"):
        assert word in words or columns == 8
    assert max(map(len, streams.lines)) < columns


@pytest.mark.parametrize("columns", [20, 40, 60])
async def test_a_window_that_narrows_in_an_answer_leaves_nothing(
    attach: Callable[..., Terminals], columns: int
) -> None:
    streams = attach(columns=120)
    display = create_display()
    text = "word " * 30
    display.event(TextDelta(f"{text}\n\n{text}"))
    await settle()
    streams.resize(columns)
    display.event(TextDelta(f"{text}\n\nend"))
    await settle()
    streams.resize(12)
    display.finish(ANSWER)
    assert "word" * 90 + "end" == "".join("".join(streams.lines).split())


async def test_a_block_that_is_longer_than_the_window_is_complete_at_the_end(attach: Callable[..., Terminals]) -> None:
    streams = attach(rows=10)
    code = [f"line {number}" for number in range(50)]
    await show(create_display(), *pieces("\n".join(["```", *code, "```", "", "end"])), Finish("stop"))
    assert [*code, "", "end"] == streams.lines


async def test_a_finished_block_is_written_once(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(create_display(), TextDelta("first\n\nsecond"), *pieces("\n\n" + "word " * 50, 1), Finish("stop"))
    output = streams.out.getvalue()
    assert output.count("word") > 100, "the last block is drawn again and again"
    assert (1, 2) == (output.count("first"), output.count("second"))


async def test_a_line_that_turns_out_to_belong_to_the_block_before_it(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(create_display(), *pieces("one\n***two*** three\n```four``` five", 1), Finish("stop"))
    assert ["one", "two three", "four five"] == streams.lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred\x1b]8;;http://x\x07\x9b2J", "\\x1b[31mred\\x1b]8;;http://x\\x07\\x9b2J"),
        ("a\rb\x00c\x7fd\x08e", "a\\x0db\\x00c\\x7fd\\x08e"),
        ("`\x1b[2J`", "\\x1b[2J"),
        ("[red]x[/red] [link=http://x]y[/link]", "[red]x[/red] [link=http://x]y[/link]"),
        ("&#27;[31m&#x9b;2J", "\ufffd[31m\ufffd2J"),
        ("a&#13;b&#12;c&#10;", "abc"),
        ("[safe.test](http://evil.test/\x1b)", "safe.test (http://evil.test/%5Cx1b)"),
        ("<http://evil.test/%1b%5d>", "http://evil.test/\\x1b]"),
        ("[![a](http://x.test/a.png)](http://y.test)", "a (http://x.test/a.png) (http://y.test)"),
        ("![alt](http://x.test/a.png)", "alt (http://x.test/a.png)"),
    ],
)
async def test_the_model_controls_no_terminal(attach: Callable[..., Terminals], text: str, line: str) -> None:
    streams = attach()
    await show(create_display(), *pieces(text), Finish("stop"))
    assert [line] == [row.rstrip() for row in streams.lines]
    assert "\x1b]" not in streams.out.getvalue()


async def test_a_code_block_and_a_table_control_no_terminal(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    text = "```py\x1b]0;x\x07\nx = '\x1b[2J'\r\n```\n\n| \x1b[1A |\n|---|\n| &#13;\x07 |"
    await show(create_display(), *pieces(text), Finish("stop"))
    shown = "\n".join(streams.lines)
    assert "x = '\\x1b[2J'" in shown
    assert "\\x1b[1A" in shown
    assert not {"\x07", "\x1b]", "\x1b[2J", "\x1b[1A\x1b"} & {streams.out.getvalue()[at : at + 4] for at in range(400)}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("```", ["```"]),
        ("```python", ["```python"]),
        ("``` some words\ncode\n```", ["``` some words", "code"]),
        ("```python\ncode\n```", ["code"]),
    ],
)
async def test_the_line_of_a_fence(attach: Callable[..., Terminals], text: str, lines: list[str]) -> None:
    streams = attach()
    await show(create_display(), *pieces(text), Finish("stop"))
    assert lines == streams.lines


def test_a_warning_replaces_what_is_drawn_over(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    display = create_display()
    display.start()
    _print_warning("ctxbackends", set(), "w")
    assert ["ctxbackends: warning: w"] == streams.lines


async def test_no_color(attach: Callable[..., Terminals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    streams = attach()
    await show(create_display(reasoning="full"), ReasoningDelta("hm"), *pieces(DOCUMENT), Finish("stop"))
    assert DRAWN.splitlines()[0] in streams.lines
    assert set(re.findall("\x1b\\[([0-9;]+)m", streams.out.getvalue())) <= {"0", "1", "1;4", "2", "3", "4"}
    assert "hm" in streams.err.getvalue()


async def test_raw_on_a_terminal(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(create_display(raw=True), *pieces("# **a**\x1b[31m"), Finish("stop"))
    assert ["# **a**\\x1b[31m"] == streams.lines


async def test_an_answer_that_breaks_off_keeps_its_text(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    display = create_display()
    await show(display, *pieces("one\n\n- two\n- thr"), answer=None)
    assert ["one", "", " • two", " • thr"] == streams.lines
    assert streams.out.getvalue().endswith("\x1b[?25h"), "the cursor is shown"


async def test_the_texts_of_two_rounds(attach: Callable[..., Terminals]) -> None:
    streams = attach()
    await show(
        create_display(),
        *pieces("- a\n- b"),
        Finish("tool_calls"),
        RoundStart(2),
        *pieces("- c\n\nd"),
        Finish("stop"),
    )
    assert [" • a", " • b", " • c", "", "d"] == streams.lines
