"""Markdown on standard output, drawn while it streams.

Blocks that are complete are printed once and stay. Only the last block is drawn over, so a long answer does not
flicker, and a token costs the same at its beginning and at its end.
"""

from __future__ import annotations

import asyncio
import functools
import io
import sys
import time
from collections.abc import Iterator, Sequence

import attrs
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.theme import Theme

from ctxbackends._cli.live_line import window_size
from ctxbackends._util.text import escape_controls

INTERVAL = 0.08
"""Seconds between two drawings, at least."""

_LOAD = 5  # a drawing is followed by at least as many times its own duration without one
_LISTS = ("bullet_list_open", "ordered_list_open")
_THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "none"})  # without rich's black background
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@attrs.frozen
class Block:
    """A top-level block of Markdown, or one item of a top-level list.

    Attributes:
        kind: The type of its first token.
        tokens: Its tokens.
        line: The number of its first line.
    """

    kind: str
    tokens: tuple[Token, ...]
    line: int


class _Heading(Heading):
    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _CodeBlock(CodeBlock):
    """Without a background, which would fill the lines with spaces, and without padding, so that it can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme="ansi_dark", background_color="default", word_wrap=True)


class _Table(TableElement):
    """A narrow window folds the cells, and cuts none off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Markdown(Markdown):
    elements = Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__("", hyperlinks=False)  # the address of a link is shown, not hidden behind its text
        self.parsed = list(tokens)
        for token in tokens:
            if token.children:
                token.children = [*_adapt(token.children)]
            if token.type == "fence" and (" " in token.info.strip() or not token.content):
                token.content = f"{token.markup}{token.info}\n{token.content}"  # more than the name of a language
                token.info = ""


def _adapt(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield the inline tokens so that rich leaves nothing out, and shows no address twice."""
    for token in tokens:
        if token.type == "softbreak":  # a model breaks lines on purpose: verses, addresses
            token.type = "hardbreak"
        elif token.type == "image":
            token = Token("text", "", 0, content=f"{token.content or 'image'} ({token.attrs.get('src', '')})")
        elif token.type in ("link_open", "link_close") and token.markup == "autolink":
            continue
        yield token


class MarkdownText:
    """The text of the answer as Markdown on standard output."""

    def __init__(self) -> None:
        # HTML and link definitions are shown as text: rich would leave them out.
        parser = MarkdownIt().enable(["strikethrough", "table"])
        self._parser = parser.disable(["html_block", "html_inline", "reference"])
        self._pieces: list[str] = []
        self._pending = ""
        self._last_kind = ""  # of the last block that was printed, empty before the first
        self._has_text = self._is_live = False
        self._drawn: tuple[int, list[str]] = 0, []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def write(self, text: str) -> None:
        """Add a piece, and draw soon."""
        self._pieces.append(text)
        self._has_text = True
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._due, loop.time()), self._draw_live)

    def finish(self, is_complete: bool) -> None:
        """Print the rest, which stays. An answer without text is an empty line, as it is without Markdown."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._draw(is_last=True)
        self._last_kind = ""
        if not self._has_text and is_complete:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _draw_live(self) -> None:
        self._timer = None
        begin = time.monotonic()
        self._draw()
        duration = time.monotonic() - begin
        self._due = asyncio.get_running_loop().time() + max(INTERVAL, _LOAD * duration)

    def _draw(self, *, is_last: bool = False) -> None:
        self._pending += escape_controls("".join(self._pieces))
        self._pieces.clear()
        columns, rows = window_size(sys.stdout)
        blocks = _split(self._parser.parse(self._pending))
        count = len(blocks) if is_last else self._count_complete(blocks)
        kind = self._last_kind
        final, self._last_kind = _lay_out(blocks[:count], kind, columns)
        live, _ = _lay_out(blocks[count:], self._last_kind, columns)
        if count:
            rest = blocks[count:]
            self._pending = "\n".join(self._pending.split("\n")[rest[0].line :]) if rest else ""
        # Narrowed to a third, the live rows still fit into the window, and can be erased.
        live = live[-max(1, rows // 3) :]
        if final or is_last or (columns, live) != self._drawn:
            self._write(final, live)
            self._drawn = columns, live

    def _count_complete(self, blocks: Sequence[Block]) -> int:
        """Return how many blocks no further text can change.

        The last one may continue. If it began on the line that still arrives, below a line of text, it may turn out to
        be a part of the block before it.
        """
        if not blocks:
            return 0
        lines = self._pending.split("\n")
        line = blocks[-1].line
        is_certain = line < len(lines) - 1 or not lines[line - 1].strip()
        return max(0, len(blocks) - (1 if is_certain else 2))

    def _write(self, final: Sequence[str], live: Sequence[str]) -> None:
        """Write lines that stay and lines that are drawn over, from the cursor, which is left where the latter begin.

        A line is erased before it is written: afterwards, the cursor may be on its last character.
        """
        if not final and not live and not self._is_live:
            return
        parts = [] if self._is_live else [_HIDE_CURSOR]
        parts += [f"\x1b[K{line}\n" for line in final]
        parts += [f"\x1b[K{line}\n" for line in live[:-1]]
        parts.append(f"\x1b[J{live[-1]}\r" if live else f"\x1b[J{_SHOW_CURSOR}")
        if len(live) > 1:
            parts.append(f"\x1b[{len(live) - 1}A")
        self._is_live = bool(live)
        sys.stdout.write("".join(parts))
        sys.stdout.flush()


def _split(tokens: Sequence[Token]) -> list[Block]:
    """Return the top-level blocks, with each item of a list as a block."""
    blocks: list[Block] = []
    begin = 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            group = tokens[begin : index + 1]
            blocks += (
                _split_list(group) if group[0].type in _LISTS else [Block(group[0].type, tuple(group), _line(group[0]))]
            )
            begin = index + 1
    return blocks


def _split_list(tokens: Sequence[Token]) -> Iterator[Block]:
    first, last = tokens[0], tokens[-1]
    begin = 1
    for index in range(1, len(tokens) - 1):
        token = tokens[index]
        if token.level == 1 and token.nesting == -1:
            item = tokens[begin]
            opening = first.copy(attrs={"start": int(item.info)} if item.info else {})
            yield Block(first.type, (opening, *tokens[begin : index + 1], last), _line(item))
            begin = index + 1


def _line(token: Token) -> int:
    assert token.map is not None  # each block has one
    return token.map[0]


def _lay_out(blocks: Sequence[Block], last_kind: str, columns: int) -> tuple[list[str], str]:
    """Return the lines of the blocks after a block of ``last_kind``, and the kind of the last one."""
    lines: list[str] = []
    for block in blocks:
        if last_kind and not (block.kind == last_kind and block.kind in _LISTS):
            lines.append("")
        lines += _render(block.tokens, columns)
        last_kind = block.kind
    return lines, last_kind


@functools.lru_cache(maxsize=4)
def _build_console(columns: int) -> Console:
    # One column is left free: a terminal moves to the next row at the end of a full one.
    return Console(file=io.StringIO(), force_terminal=True, width=max(1, columns - 1), theme=_THEME, highlight=False)


def _render(tokens: Sequence[Token], columns: int) -> list[str]:
    """Return the lines with their escape sequences, without spaces at their ends."""
    console = _build_console(columns)
    lines = [_format_line(line, console) for line in console.render_lines(_Markdown(tokens), pad=False)]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        del lines[0]
    return lines


def _format_line(line: Sequence[Segment], console: Console) -> str:
    segments = [segment for segment in line if not segment.control]
    while segments and not segments[-1].text.strip():
        segments.pop()
    color_system = COLOR_SYSTEMS.get(console.color_system or "")
    parts: list[str] = []
    for index, (text, style, _) in enumerate(segments):
        # Again: an entity such as &#13; is a control character by now.
        text = escape_controls(text.rstrip() if index == len(segments) - 1 else text)
        if style is not None:
            style = style.without_color if console.no_color else style
            text = style.render(text, color_system=color_system)
        parts.append(text)
    return "".join(parts)
