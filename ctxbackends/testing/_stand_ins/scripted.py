"""The scripted model of the stand-ins: marks in the prompt, schema and tools decide its answer.

``[[say]]text[[/say]]`` in the last user message is the answer, ``[[think]]text[[/think]]`` the reasoning before it,
``[[call]]{"name": ..., "arguments": {...}}[[/call]]`` a tool call (any number), and ``[[fail]]`` makes the server fail
after the first piece. Without marks, the answer is an instance of the schema, a required tool call, or a greeting. A
token is a word with the whitespace after it. The answer of a test replaces the marks. Independent of wire formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from ctxbackends._chat.messages import ToolCall
from ctxbackends._chat.responses import Usage
from ctxbackends.testing._stand_ins.answers import Answer

_TOKEN = re.compile(r"\s*\S+\s*|\s+")
_MARK = re.compile(r"\[\[(say|think|call)\]\](.*?)\[\[/\1\]\]", re.DOTALL)
GREETING = "Hello from the stand-in: no model is here."

Ending: TypeAlias = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter"]


@attrs.frozen(kw_only=True)
class ModelInput:
    """A request, independent of its format.

    ``prompt`` is the text of the last user message; ``read`` is all text of the request, for token counts. ``tools``
    are the schemas of the arguments by tool name; ``must_call`` names the tools of which one must be called (empty for
    none). ``schema`` is the schema of the answer (``{"type": "object"}`` for any object). ``think`` requests reasoning.
    ``answer`` is the answer of a test, None for the scripted one.
    """

    prompt: str
    read: str = ""
    tools: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    must_call: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    think: bool = True
    answer: Answer | None = None


@attrs.frozen(kw_only=True)
class ModelOutput:
    """The answer of the scripted model.

    ``calls`` have no ID if the server is to create it; ``stop_sequence`` is the one that was reached; ``usage`` are the
    counts to report in place of the two others; ``breaks`` makes the server fail after the first piece.
    """

    reasoning: str = ""
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    ending: Ending = "stop"
    stop_sequence: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    usage: Usage | None = None
    breaks: bool = False

    @property
    def reported_input(self) -> int:
        return self.input_tokens if self.usage is None else self.usage.input_tokens

    @property
    def reported_output(self) -> int:
        return self.output_tokens if self.usage is None else self.usage.output_tokens


def tokens(text: str) -> list[str]:
    """Split a text into the pieces that a stream sends."""
    return _TOKEN.findall(text)


def answer(question: ModelInput) -> ModelOutput:
    """Return the answer to a question. It is the same every time."""
    draft = _draft(question) if question.answer is None else question.answer
    text, calls = draft.text, draft.tool_calls
    if draft.finish_reason is not None:
        return _output(question, draft, tokens(text), calls, draft.finish_reason, None)
    ending: Ending = "tool_calls" if calls else "stop"
    hit = min((stop for stop in question.stop if stop and stop in text), key=text.index, default=None)
    if hit is not None:
        text, ending, calls = text[: text.index(hit)], "stop_sequence", ()
    written = tokens(text)
    if question.max_tokens is not None and len(written) > question.max_tokens:
        written, ending, hit, calls = written[: question.max_tokens], "length", None, ()
    return _output(question, draft, written, calls, ending, hit)


def _draft(question: ModelInput) -> Answer:
    """Return the answer that the marks, the schema and the tools decide."""
    said = _MARK.findall(question.prompt)
    marked = dict(said)
    calls = [_call(content) for kind, content in said if kind == "call"]
    if not calls and question.must_call:
        name = question.must_call[0]
        calls = [(name, example_of(question.tools.get(name, {})))]
    if not question.tools:
        calls = []
    if "say" in marked:
        text = marked["say"]
    elif question.schema is not None:
        text = json.dumps(example_of(question.schema))
    else:
        text = "" if calls else GREETING
    return Answer(text=text, reasoning=marked.get("think", ""), tool_calls=calls)


def _output(
    question: ModelInput,
    draft: Answer,
    written: Sequence[str],
    calls: tuple[ToolCall, ...],
    ending: Ending,
    hit: str | None,
) -> ModelOutput:
    reasoning = draft.reasoning if question.think else ""
    return ModelOutput(
        reasoning=reasoning,
        text="".join(written),
        calls=calls,
        ending=ending,
        stop_sequence=hit,
        input_tokens=max(1, len(tokens(question.read or question.prompt))),
        output_tokens=max(1, len(written) + len(tokens(reasoning)) + 8 * len(calls)),
        usage=draft.usage,
        breaks="[[fail]]" in question.prompt,
    )


def _call(content: str) -> tuple[str, Mapping[str, Any]]:
    call = json.loads(content)
    return call["name"], call["arguments"]


def example_of(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """Return the smallest value that satisfies the parts of JSON Schema that the SDK writes."""
    root = schema if root is None else root
    if "$ref" in schema:
        node: Any = root
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            node = node[step]
        return example_of(node, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return example_of(schema[several][0], root)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: example_of(properties[name], root) for name in schema.get("required", ()) if name in properties}
    if kind == "array":
        return [example_of(schema.get("items", {}), root)] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"string": "x" * schema.get("minLength", 1), "boolean": True}.get(kind)
