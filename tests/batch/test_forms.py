"""Lines of a batch in the forms of OpenAI, of Anthropic and of this package: the rows that they become, and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import ChatOptions, Message
from ctxbackends.batch import BatchRow
from ctxbackends.batch import _forms as forms
from ctxbackends.batch._forms import check_row, parse_line

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"name": "lookup", "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}}}
CHAT_URL, EMBEDDINGS_URL = "/v1/chat/completions", "/v1/embeddings"


def openai(body: object, url: object = CHAT_URL, **members: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body, **members}


def chat(**body: Any) -> dict[str, Any]:
    return openai({"messages": HELLO, **body})


def anthropic(**params: Any) -> dict[str, Any]:
    return {"custom_id": "a", "params": {"messages": HELLO, **params}}


def simple(**members: Any) -> dict[str, Any]:
    return {"custom_id": "a", "prompt": "Hello", **members}


def options_of(line: object) -> dict[str, Any]:
    row = parse_line(line, 1)
    check_row(row)
    return dict(row.options)


def error_of(line: object) -> str:
    with pytest.raises((TypeError, ValueError)) as info:
        check_row(parse_line(line, 1))
    return str(info.value)


# --- OpenAI -------------------------------------------------------------------------------------------


def test_line_of_openai_for_a_chat() -> None:
    line = chat(model="small", max_completion_tokens=50, stop="END", temperature=0, seed=None, stream=False, n=1)
    expected = BatchRow(
        id="a",
        prompt=HELLO,
        options={"model": "small", "max_tokens": 50, "stop_sequences": ["END"], "temperature": 0},
        line=7,
    )
    assert expected == parse_line(line, 7)


@pytest.mark.parametrize("url", [CHAT_URL, "/chat/completions"])
def test_urls_of_a_chat(url: str) -> None:
    assert "chat" == parse_line(openai({"messages": HELLO}, url), 1).operation


@pytest.mark.parametrize("url", [EMBEDDINGS_URL, "/embeddings"])
def test_line_of_openai_for_embeddings(url: str) -> None:
    body = {"model": "vectors", "input": ["one", "two"], "dimensions": 8, "encoding_format": "float"}
    expected = BatchRow(
        id="a", prompt=["one", "two"], operation="embed", options={"model": "vectors", "dimensions": 8}, line=3
    )
    row = parse_line(openai(body, url), 3)
    check_row(row)
    assert expected == row


def test_vectors_as_base64() -> None:
    row = parse_line(openai({"input": "one", "encoding_format": "base64"}, EMBEDDINGS_URL), 1)
    check_row(row)
    assert {"encoding": "base64"} == row.options
    assert row == parse_line({"custom_id": "a", "input": "one", "encoding": "base64"}, 1)
    with pytest.raises(ValueError, match=r"^encoding must be float or base64: 'int8'$"):
        check_row(parse_line({"custom_id": "a", "input": "one", "encoding": "int8"}, 1))


def test_method_may_be_missing() -> None:
    line = chat()
    del line["method"]
    assert HELLO == parse_line(line, 1).prompt


def test_members_that_are_not_options_are_sent_unchanged() -> None:
    line = chat(user="me", logit_bias={"5": 1}, extra_body={"chat_template_kwargs": {"x": True}}, store=None)
    expected = {"extra_body": {"user": "me", "logit_bias": {"5": 1}, "chat_template_kwargs": {"x": True}}}
    assert expected == options_of(line)


def test_options_of_other_servers_that_the_package_has_are_options() -> None:
    expected = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    assert expected == options_of(chat(**expected))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (openai({}, "/v1/responses"), "unsupported url: '/v1/responses'; write the input as messages"),
        (openai({}, "/v1/completions"), "unsupported url: '/v1/completions'; write the prompt as a message"),
        (openai({}, "/v1/moderations"), "unsupported url: '/v1/moderations'; use /v1/chat/completions or"),
        (openai({}, "https://example.com/v1/chat/completions"), "unsupported url: 'https://example.com"),
        (openai({}, 5), "unsupported url: 5; use"),
        (openai({}, ["/v1/responses"]), "unsupported url: ['/v1/responses']; use"),
        (openai({}, None), "missing member: url; use /v1/chat/completions or /v1/embeddings"),
        (openai({}, method="GET"), "method must be POST: 'GET'"),
        (openai({}, method=None), "method must be POST: None"),
        (openai(None), "missing member: body"),
        (openai("x"), "body must be an object: 'x'"),
        (openai({}), "missing member: messages"),
        (openai({"messages": "Hello"}), "messages must be a list: 'Hello'"),
        (openai({"messages": HELLO[0]}), "messages must be a list: {"),
        (openai({"messages": HELLO}, boddy={}), "unknown member: boddy; did you mean body?"),
        (openai({"messages": HELLO}, params={}), "unknown member: params; use one of"),
        (chat(stream=True), "stream is not supported: True; remove it"),
        (chat(stream=0), "stream is not supported: 0; remove it"),
        (chat(n=2), "n is not supported: 2; write one line for each answer"),
        (chat(n=True), "n is not supported: True"),
        (chat(stream_options={}), "stream_options is not supported: {}"),
        (chat(modalities=["text", "audio"]), "modalities is not supported: ['text', 'audio']"),
        (chat(temprature=1), "unknown option: temprature; did you mean temperature? Otherwise, put it into extra_body"),
        (chat(temprature=None), "unknown option: temprature; did you mean temperature?"),
        (chat(guided_json={}), "unknown option: guided_json; did you mean response_format? Otherwise, put it into"),
        (chat(chat_template_kwargs={}), "unknown option: chat_template_kwargs; put it into extra_body if the server"),
        (chat(input="x"), "unknown option: input; write the messages into messages"),
        (chat(system="x"), 'unknown option: system; put {"role": "system"'),
        (chat(functions=[]), "unknown option: functions; did you mean tools?"),
        (chat(max_tokens=1, max_completion_tokens=2), "max_tokens and max_completion_tokens are in one line; keep one"),
        (chat(user="a", extra_body={"user": "b"}), "user is in the line and in its extra_body; keep one"),
        (chat(user="a", extra_body=[]), "extra_body must be an object: []"),
        (chat(extra_body=[]), "extra_body must be a dict: []"),
        (chat(extra_body={"model": "b"}), "extra_body cannot have model; set model"),
        (chat(extra_body={"stream": True}), "extra_body cannot have stream; remove it"),
        (openai({"model": "m"}, EMBEDDINGS_URL), "missing member: body.input"),
        (openai({"input": [1, 2]}, EMBEDDINGS_URL), "input must be a text or a list of texts: [1, 2]"),
        (openai({"input": [[1], [2]]}, EMBEDDINGS_URL), "input must be a text or a list of texts: [[1], [2]]"),
        (openai({"input": []}, EMBEDDINGS_URL), "input must be a text or a list of texts: []"),
        (openai({"input": {"a": 1}}, EMBEDDINGS_URL), "input must be a text or a list of texts: {'a': 1}"),
        (
            openai({"input": "x", "encoding_format": "int8"}, EMBEDDINGS_URL),
            "encoding_format must be float or base64: 'int8'",
        ),
        (openai({"input": "x", "dimensions": 0}, EMBEDDINGS_URL), "dimensions must be an integer of at least 1: 0"),
        (openai({"input": "x", "dimensions": True}, EMBEDDINGS_URL), "dimensions must be an integer of at least 1"),
        (openai({"input": "x", "model": 5}, EMBEDDINGS_URL), "model must be a text that is not empty: 5"),
        (
            openai({"input": "x", "max_tokens": 5}, EMBEDDINGS_URL),
            "unknown option of an embedding: max_tokens; use one",
        ),
    ],
)
def test_invalid_line_of_openai(line: dict[str, Any], error: str) -> None:
    assert error_of(line).startswith(error)


# --- Anthropic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be brief."}]])
def test_line_of_anthropic(system: object) -> None:
    line = anthropic(
        model="small",
        max_tokens=9,
        system=system,
        stop_sequences=["END"],
        top_k=3,
        tools=[TOOL],
        metadata={"user": "x"},
    )
    expected = BatchRow(
        id="a",
        prompt=[{"role": "system", "content": system}, *HELLO],
        options={
            "model": "small",
            "max_tokens": 9,
            "stop_sequences": ["END"],
            "top_k": 3,
            "tools": [TOOL],
            "extra_body": {"metadata": {"user": "x"}},
        },
        line=4,
    )
    row = parse_line(line, 4)
    check_row(row)
    assert expected == row


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_budget": 2048}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "adaptive"}}, {"extra_body": {"thinking": {"type": "adaptive"}}}),
        ({"output_config": {"effort": "low"}}, {"extra_body": {"output_config": {"effort": "low"}}}),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            {"extra_body": {"thinking": {"type": "adaptive", "display": "omitted"}}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9, "display": "omitted"}},
            {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 9, "display": "omitted"}}},
        ),
        (
            {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "extra_body": {"output_config": {"effort": "low"}},
                "response_format": {"type": "json_schema", "schema": {"type": "object"}},
            },
        ),
        ({"thinking": None, "output_config": None, "system": None}, {}),
    ],
)
def test_reasoning_of_anthropic_becomes_an_option_where_both_mean_the_same(
    params: dict[str, Any], options: dict[str, Any]
) -> None:
    assert options == options_of(anthropic(**params))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"custom_id": "a", "params": []}, "params must be an object: []"),
        ({"custom_id": "a", "params": {}}, "missing member: messages"),
        ({"custom_id": "a", "params": {"messages": "x", "system": "y"}}, "messages must be a list: 'x'"),
        ({"custom_id": "a", "params": {"messages": HELLO}, "method": "POST"}, "unknown member: params"),
        ({"custom_id": "a", "params": {"messages": HELLO}, "model": "m"}, "unknown member: model; use one of"),
        (anthropic(system=5), "messages[0].content must be a string or a list of parts"),
        (anthropic(system=[{"type": "image"}]), "unsupported value: messages[0].content[0].type is 'image'"),
        (anthropic(stream=True), "stream is not supported: True"),
        (anthropic(stop="x"), "unknown option: stop; did you mean stop_sequences?"),
        (anthropic(stop_sequences="x"), "stop_sequences must be a list of strings: ['x']"),
        (anthropic(thinking={"type": "enabled", "budget_tokens": "9"}), "reasoning_budget must be an integer: '9'"),
        (anthropic(tools=[{**TOOL, "name": "look up"}]), "not a valid tool name: tools[0].name is 'look up'"),
    ],
)
def test_invalid_line_of_anthropic(line: dict[str, Any], error: str) -> None:
    assert error_of(line).startswith(error)


# --- the simple form ----------------------------------------------------------------------------------


def test_line_with_a_prompt() -> None:
    expected = BatchRow(id="a", prompt="Hello", options={"model": "small", "max_tokens": 5}, line=2)
    assert expected == parse_line(simple(model="small", max_tokens=5, seed=None), 2)


def test_line_with_messages() -> None:
    line = {"id": "a", "messages": HELLO, "extra_body": {"guided_json": {}}}
    expected = BatchRow(id="a", prompt=HELLO, options={"extra_body": {"guided_json": {}}}, line=1)
    assert expected == parse_line(line, 1)


@pytest.mark.parametrize("texts", ["one", ["one", "two"]])
def test_line_with_an_input_is_embedded(texts: object) -> None:
    line = {"custom_id": "a", "input": texts, "dimensions": 4}
    expected = BatchRow(id="a", prompt=texts, operation="embed", options={"dimensions": 4}, line=1)  # type: ignore[arg-type]
    assert expected == parse_line(line, 1)


def test_line_with_a_prompt_is_embedded_if_the_batch_embeds() -> None:
    assert BatchRow(id="a", prompt="Hello", operation="embed", line=1) == parse_line(simple(), 1, "embed")
    assert "chat" == parse_line(chat(), 1, "embed").operation


def test_integer_as_an_id_becomes_text() -> None:
    assert "12" == parse_line(simple(custom_id=12), 1).id


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ([1], "not a JSON object: [1]; write one object on each line"),
        ("x", "not a JSON object: 'x'"),
        (None, "not a JSON object: None"),
        ({}, "missing custom_id; add"),
        ({"prompt": "x"}, "missing custom_id; add"),
        (simple(custom_id=None), "missing custom_id; add"),
        (simple(custom_id=""), "custom_id must be a text that is not empty: ''"),
        (simple(custom_id=True), "custom_id must be a text that is not empty: True"),
        (simple(custom_id=1.5), "custom_id must be a text that is not empty: 1.5"),
        (simple(custom_id=["a"]), "custom_id must be a text that is not empty: ['a']"),
        (simple(id="b"), "custom_id and id are in one line; keep one"),
        ({"custom_id": "a"}, "missing prompt; add"),
        ({"custom_id": "a", "promt": "x"}, "missing prompt; did you mean prompt instead of promt?"),
        ({"custom_id": "a", "message": []}, "missing prompt; did you mean messages instead of message?"),
        ({"custom_id": "a", "top_p": 1, "max_tokens": 5}, "missing prompt; add"),
        (simple(prompt=None), "missing prompt; add"),
        (simple(prompt=5), "prompt must be a text: 5; use messages"),
        (simple(prompt=["x"]), "prompt must be a text: ['x']; use messages"),
        (simple(messages=HELLO), "prompt and messages are in one line; keep one"),
        (simple(input="x"), "prompt and input are in one line; keep one"),
        (simple(stop="x"), "unknown option: stop; did you mean stop_sequences?"),
        (simple(user="x"), "unknown option: user; pass it in extra_body"),
        (simple(label="x"), "unknown option: label; put it into extra_body"),
        (simple(model=""), "model must be a text that is not empty: ''"),
        (simple(model=5), "model must be a text that is not empty: 5"),
        (simple(max_tokens="5"), "max_tokens must be an integer: '5'"),
        (simple(max_tokens=0), "max_tokens must be at least 1: 0"),
        (simple(temperature=True), "temperature must be a number: True"),
        (simple(reasoning_effort="most"), "unknown reasoning_effort: 'most'"),
        (simple(response_format={"type": "xml"}), "unsupported value: response_format.type is 'xml'"),
        (simple(response_format={"type": "json_schema"}), "missing member: response_format.schema"),
        (simple(response_format="json"), "not a response_format: 'json'"),
        (simple(tools={}), "tools must be a list"),
        (simple(tools=[{"type": "web_search"}]), "unsupported value: tools[0].type is 'web_search'"),
        (simple(tools=[TOOL, TOOL]), "duplicate tool name: lookup, lookup"),
        (simple(tool_choice="required"), "tool_choice is required; pass tools"),
        (simple(top_logprobs=2), "top_logprobs requires logprobs=True"),
        ({"custom_id": "a", "messages": []}, "the prompt has no messages"),
        ({"custom_id": "a", "messages": [*HELLO, {"role": "user", "text": "x"}]}, "unsupported member: messages["),
        ({"custom_id": "a", "messages": [*HELLO, {"role": "tool", "content": "x"}]}, "missing member: messages[1]."),
        ({"custom_id": "a", "messages": [*HELLO, {"role": "user", "content": 5}]}, "messages[1].content must be"),
        ({"custom_id": "a", "messages": ["Hello"]}, "messages[0] is not a message: str"),
        ({"custom_id": "a", "messages": [{"role": "usr", "content": "x"}]}, "unsupported value: messages[0].role"),
        ({"custom_id": "a", "messages": [*HELLO, {"role": "user"}]}, "missing member: messages[1].content"),
        (
            {"custom_id": "a", "messages": [{"role": "user", "content": "x", "nmae": 1}]},
            "unsupported member: messages[0]",
        ),
        (
            {"custom_id": "a", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "missing member: messages[0]",
        ),
    ],
)
def test_invalid_line(line: object, error: str) -> None:
    assert error_of(line).startswith(error)


def test_unknown_options_of_all_clients_have_an_advice() -> None:
    for name in ("system_prompt", "timeout", "json_mode", "max_new_tokens", "think", "xyz"):
        assert error_of(simple(**{name: 1})).startswith(f"unknown option: {name}; ")


def test_each_option_of_a_chat_is_an_option_of_a_line() -> None:
    values: dict[str, Any] = {
        "model": "small",
        "max_tokens": 1,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 1,
        "min_p": 0.5,
        "seed": 1,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "repetition_penalty": 1.5,
        "stop_sequences": ["x"],
        "logprobs": True,
        "top_logprobs": 1,
        "reasoning_effort": "low",
        "reasoning_budget": 1,
        "response_format": {"type": "json_object"},
        "tools": [TOOL],
        "tool_choice": {"type": "tool", "name": "lookup"},
        "parallel_tool_calls": False,
        "extra_body": {"x": 1},
    }
    assert ChatOptions.__annotations__.keys() == values.keys()
    assert values == options_of(simple(**values))


# --- rows of Python -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (BatchRow(id="", prompt="x"), "id must be a text that is not empty: ''"),
        (BatchRow(id=5, prompt="x"), "id must be a text that is not empty: 5"),  # type: ignore[arg-type]
        (BatchRow(id="a", prompt=5), "prompt must be a text or a list of messages: 5"),  # type: ignore[arg-type]
        (BatchRow(id="a", prompt={"role": "user"}), "prompt must be a text or a list of messages"),  # type: ignore[arg-type]
        (BatchRow(id="a", prompt=b"x"), "not a prompt: bytes"),
        (BatchRow(id="a", prompt="x", options=[]), "options must be a dict: []"),  # type: ignore[arg-type]
        (BatchRow(id="a", prompt="x", options={"stop": "x"}), "unknown option: stop; did you mean stop_sequences?"),
        (BatchRow(id="a", prompt="x", options={"response_format": int}), "a value of the options is not JSON"),
        (BatchRow(id="a", prompt="x", options={"extra_body": {1: 2}}), "a value of the options is not JSON"),
        (BatchRow(id="a", prompt="\ud800"), "a value of the prompt is not JSON"),
        (BatchRow(id="\ud800", prompt="x"), "a value of the prompt is not JSON"),
        (BatchRow(id="a", prompt="x", operation="rank"), "unknown operation: 'rank'; use chat or embed"),  # type: ignore[arg-type]
    ],
)
def test_invalid_row(row: BatchRow, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        check_row(row)
    assert str(info.value).startswith(error)


def test_rows_may_have_messages_of_the_package() -> None:
    row = BatchRow(id="a", prompt=[Message.system("Be brief."), Message.user("Hello")])
    check_row(row)
    assert row.digest(b"") == BatchRow(id="a", prompt=[Message.system("Be brief."), Message.user("Hello")]).digest(b"")


def test_options_of_the_batch_are_checked_with_those_of_the_row() -> None:
    row = BatchRow(id="a", prompt="x", options={"tool_choice": "required"})
    check_row(row, {"tools": [TOOL]})
    with pytest.raises(ValueError, match="tool_choice is required; pass tools"):
        check_row(row, {"max_tokens": 5})
    check_row(BatchRow(id="a", prompt="x", operation="embed"), {"max_tokens": 5})


def test_equal_options_of_two_types_are_checked_each() -> None:
    """1 and True are equal in Python, and only one of them is a number of tokens."""
    check_row(BatchRow(id="a", prompt="x", options={"max_tokens": 1}))
    with pytest.raises(TypeError, match="max_tokens must be an integer: True"):
        check_row(BatchRow(id="a", prompt="x", options={"max_tokens": True}))


# --- the identity of a row ----------------------------------------------------------------------------

BASE: dict[str, Any] = {"custom_id": "a", "messages": HELLO, "max_tokens": 5, "extra_body": {"x": {"b": 1, "a": 2}}}


@pytest.mark.parametrize(
    "change",
    [
        {"custom_id": "b"},
        {"messages": [*HELLO, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "system", "content": "Hello"}]},
        {"max_tokens": 6},
        {"temperature": 0},
        {"model": "other"},
        {"extra_body": {"x": {"b": 1, "a": 3}}},
    ],
)
def test_digest_depends_on_all_of_the_request(change: dict[str, Any]) -> None:
    assert parse_line(BASE, 1).digest(b"run") != parse_line(BASE | change, 1).digest(b"run")


def test_digest_depends_on_the_run_and_the_operation() -> None:
    chat_row, embed_row = (parse_line(simple(), 1, operation) for operation in ("chat", "embed"))
    assert chat_row.digest(b"run") != embed_row.digest(b"run")
    assert chat_row.digest(b"run") != chat_row.digest(b"other")


def test_digest_does_not_depend_on_the_line_the_form_and_the_order_of_keys() -> None:
    row = parse_line(BASE, 1)
    turned = {"extra_body": {"x": {"a": 2, "b": 1}}, "max_tokens": 5, "seed": None, "messages": HELLO, "custom_id": "a"}
    in_openai_form = openai({"messages": HELLO, "max_completion_tokens": 5, "extra_body": {"x": {"b": 1, "a": 2}}})
    assert row.digest(b"run") == parse_line(turned, 99).digest(b"run")
    assert row.digest(b"run") == parse_line(in_openai_form, 2).digest(b"run")
    assert 16 == len(row.digest(b"run"))


# --- the documentation --------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "batch-input.md").read_text(encoding="utf-8")


def test_lines_of_the_documentation_are_valid() -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    rows = [parse_line(json.loads(line), number) for number, line in enumerate(block.splitlines(), 1)]
    for row in rows:
        check_row(row)
    assert ["a", "b", "c", "d", "e"] == [row.id for row in rows]


def test_documentation_lists_the_members_that_are_no_options() -> None:
    openai_table, anthropic_table = PAGE.split("**Anthropic's batches.**")
    known = [*forms._OPENAI_EXTRA, *forms._FIXED, *forms._OPENAI_NAMES, "encoding_format"]
    assert [] == [name for name in known if f"`{name}`" not in openai_table]
    assert [] == [name for name in forms._ANTHROPIC_EXTRA if f"`{name}`" not in anthropic_table]
    assert [] == [name for name in forms._RESERVED if f"`{name}`" not in anthropic_table]
