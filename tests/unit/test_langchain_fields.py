"""The chat model of LangChain has a field for each option, checked without LangChain."""

from __future__ import annotations

import ast
from pathlib import Path

import ctxbackends
from ctxbackends._chat.requests import ChatOptions

OTHER_FORMS = {"tools", "tool_choice", "parallel_tool_calls", "response_format", "stop_sequences"}
"""LangChain passes these to each call, in its own form."""


def test_each_option_is_a_field() -> None:
    source = Path(ctxbackends.__file__).parent / "integrations/langchain.py"
    [model] = [
        node
        for node in ast.parse(source.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "ChatCtxbackends"
    ]
    fields = {
        node.target.id for node in model.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert set() == set(ChatOptions.__annotations__) - OTHER_FORMS - fields
