from __future__ import annotations

from ctxbackends._util.text import escape_controls, one_line
from ctxbackends.errors import BackendError


def test_control_characters_are_escaped_except_line_feeds_and_tabs() -> None:
    assert "\\x00\\x1b[31m\\x0d\\x7f\\x9b\n\té" == escape_controls("\x00\x1b[31m\r\x7f\x9b\n\té")


def test_a_carriage_return_does_not_overwrite_the_line_of_an_error() -> None:
    assert "no\\x0dyes" == str(BackendError("no\ryes"))


def test_a_row_of_knowledge_has_no_escape_sequence() -> None:
    assert "a \\x1b[31mb" == one_line("a\r\x1b[31mb")
