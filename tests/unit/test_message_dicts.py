"""Messages as dicts: those of `Message.to_dict()`, and the forms of OpenAI's chat and Anthropic's Messages API."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ctxbackends._client.prompts import build_messages

PNG = b"\x89PNG\r\n\x1a\n...."
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PDF = b"%PDF-1.7 ..."
WAV = b"RIFF....WAVE"


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- the form of to_dict() --------------------------------------------------------------------------

TEXTS = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=10)
OPAQUE = st.builds(OpaquePart, st.sampled_from(["messages", "chat_completions"]), TEXTS)
TEXT = st.builds(TextPart, TEXTS, st.none() | OPAQUE)
IMAGE = st.builds(ImagePart, st.binary(max_size=20), st.just("image/png")) | st.builds(ImagePart, url=NAMES)
AUDIO = st.builds(AudioPart, st.binary(max_size=20), st.sampled_from(["audio/wav", "audio/mpeg"]))
FILE = st.builds(FilePart, st.binary(max_size=20).map(PDF.__add__), TEXTS)
REASONING = st.builds(ReasoningPart, TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS)
CALL = st.builds(ToolCall, NAMES, NAMES, TEXTS, st.none() | OPAQUE)
RESULT = st.builds(
    ToolResult, NAMES, TEXTS | st.lists(TEXT | IMAGE, min_size=1, max_size=3), st.none() | NAMES, st.booleans()
)


def messages_of(role: Any, parts: st.SearchStrategy[Any], texts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(role), texts | st.lists(parts, min_size=1, max_size=4).map(tuple))


MESSAGES = st.one_of(
    messages_of("system", TEXT, TEXTS),
    messages_of("user", TEXT | IMAGE | AUDIO | FILE, TEXTS),
    messages_of("assistant", TEXT | REASONING | CALL | OPAQUE, TEXTS),
    messages_of("tool", RESULT, st.nothing()),
)


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    values = message.to_dict()
    assert 1 == values["version"]
    assert values == json.loads(json.dumps(values))
    assert message == Message.from_dict(json.loads(json.dumps(values)))


@given(MESSAGES)
def test_msgspec_decodes_what_it_encodes(message: Message) -> None:
    assert message == msgspec.json.decode(msgspec.json.encode(message), type=Message)
    assert [message] == msgspec.msgpack.decode(msgspec.msgpack.encode([message]), type=list[Message])


def test_the_stored_form() -> None:
    message = Message.assistant([ReasoningPart("Hm.", signature="s"), "Yes.", ToolCall("1", "add", "{}")])
    assert {
        "version": 1,
        "role": "assistant",
        "content": [
            {"type": "reasoning", "text": "Hm.", "signature": "s"},
            {"type": "text", "text": "Yes."},
            {"type": "tool_call", "id": "1", "name": "add", "arguments": "{}"},
        ],
    } == message.to_dict()
    assert {"version": 1, "role": "user", "content": "Hi"} == Message.user("Hi").to_dict()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"version": 2}, "unknown version of a message: message.version is 2; use 1"),
        ({"version": "1"}, "unknown version of a message: message.version is '1'; use 1"),
        ({"version": True}, "unknown version of a message: message.version is True; use 1"),
        ({"more": 1}, "unsupported member: message.more; remove it"),
        ({"content": [{"type": "video"}]}, "message.content[0].type"),
        ({"content": [{"type": "text", "text": "a", "more": 1}]}, "message.content[0]"),
        ({"content": [{"type": "text", "text": 1}]}, "message.content[0].text"),
        ({"content": [{"type": "tool_call", "id": "1", "name": "a", "arguments": "{}"}]}, "use TextPart or ImagePart"),
        ({"content": 5}, "message.content"),
        ({"role": "nobody"}, "message.role"),
    ],
)
def test_an_invalid_stored_message(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"^(unknown|unsupported|invalid)") as exc_info:
        Message.from_dict({"version": 1, "role": "user", "content": "Hi", **values})
    assert text in str(exc_info.value)


# --- the vendors' forms -------------------------------------------------------------------------------

CALL_DICT = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}

SINGLE: list[tuple[dict[str, Any], Message]] = [
    ({"role": "user", "content": "Hi"}, Message.user("Hi")),
    ({"role": "user", "content": ""}, Message.user("")),
    ({"role": "system", "content": "Be brief."}, Message.system("Be brief.")),
    ({"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, Message.system(["Be brief."])),
    ({"role": "assistant", "content": "Yes."}, Message.assistant("Yes.")),
    ({"role": "assistant", "content": None}, Message.assistant("")),
    ({"role": "assistant", "content": []}, Message.assistant("")),
    (
        {"role": "assistant", "content": "Yes.", "refusal": None, "tool_calls": None, "annotations": [], "audio": None},
        Message.assistant("Yes."),
    ),
    ({"role": "assistant", "content": None, "refusal": "No."}, Message.assistant(["No."])),
    ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, Message.assistant(["No."])),
    (
        {"role": "assistant", "content": None, "tool_calls": [CALL_DICT]},
        Message.assistant("", tool_calls=[ToolCall("c1", "add", '{"a": 1}')]),
    ),
    (
        {"role": "assistant", "content": "So:", "tool_calls": [{**CALL_DICT, "index": 0, "thought_signature": "s"}]},
        Message.assistant(
            "So:",
            tool_calls=[ToolCall("c1", "add", '{"a": 1}', OpaquePart("chat_completions", '{"thought_signature":"s"}'))],
        ),
    ),
    (
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": {"a": None}}}]},
        Message.assistant("", tool_calls=[ToolCall("c1", "add", '{"a":null}')]),
    ),
    (
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        Message.assistant([ReasoningPart("Hm.", member="reasoning_content"), "Yes."]),
    ),
    (
        {"role": "assistant", "content": "Yes.", "reasoning": "Hm.", "reasoning_content": "Hm."},
        Message.assistant([ReasoningPart("Hm.", member="reasoning"), "Yes."]),
    ),
    (
        {"role": "assistant", "content": "Yes.", "reasoning_details": [{"type": "reasoning.encrypted", "data": None}]},
        Message.assistant(
            [
                "Yes.",
                OpaquePart("chat_completions", '{"reasoning_details":[{"type":"reasoning.encrypted","data":null}]}'),
            ]
        ),
    ),
    (
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Yes."},
            ],
        },
        Message.assistant([ReasoningPart("Hm.", member="content"), "Yes."]),
    ),
    (
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "ENC"},
                {"type": "text", "text": "So:", "citations": None},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": None}, "caller": {"type": "direct"}},
            ],
        },
        Message.assistant(
            [
                ReasoningPart("Hm.", signature="s"),
                ReasoningPart("", redacted="ENC"),
                "So:",
                ToolCall("t1", "add", '{"a":null}', OpaquePart("messages", '{"caller":{"type":"direct"}}')),
            ]
        ),
    ),
    (
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": None}]},
        Message.assistant(
            [OpaquePart("messages", '{"type":"server_tool_use","id":"s","name":"web_search","input":null}')]
        ),
    ),
    (
        {"role": "assistant", "content": [{"type": "text", "text": "A", "citations": [{"url": "u"}]}]},
        Message.assistant([TextPart("A", OpaquePart("messages", '{"text":"A","citations":[{"url":"u"}]}'))]),
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        Message.tool("42", tool_call_id="c1"),
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "name": "add", "content": [{"type": "text", "text": "42"}]},
        Message.tool([TextPart("42")], tool_call_id="c1", name="add"),
    ),
    (
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "42"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": in_base64(PNG)},
                        },
                    ],
                },
                {"type": "tool_result", "tool_use_id": "t2"},
            ],
        },
        Message(
            "tool",
            (ToolResult("t1", (TextPart("42"), ImagePart.from_bytes(PNG)), is_error=True), ToolResult("t2", "")),
        ),
    ),
    (
        {
            "role": "user",
            "content": [
                "See:",
                {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "auto"}},
                {"type": "image_url", "image_url": "https://example.org/a.png"},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/b.png"}},
                {"type": "input_audio", "input_audio": {"data": in_base64(WAV), "format": "wav"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{in_base64(PDF)}"},
                },
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": in_base64(PDF)},
                },
            ],
        },
        Message.user(
            [
                "See:",
                ImagePart.from_bytes(PNG),
                ImagePart.from_url("https://example.org/a.png"),
                ImagePart.from_url("https://example.org/b.png"),
                AudioPart(WAV),
                FilePart(PDF, "a.pdf"),
                FilePart(PDF),
            ]
        ),
    ),
    ({"role": "user", "content": ["Hi", ImagePart.from_bytes(PNG)]}, Message.user(["Hi", ImagePart.from_bytes(PNG)])),
]


@pytest.mark.parametrize(("values", "message"), SINGLE)
def test_a_message_in_a_vendors_form(values: dict[str, Any], message: Message) -> None:
    assert message == Message.from_dict(values)
    assert (message,) == build_messages(values)
    assert (Message.user("First."), message) == build_messages([Message.user("First."), values])


def test_results_and_other_parts_become_messages_in_their_order() -> None:
    values = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
            {"type": "text", "text": "And now?"},
        ],
    }
    assert (Message.tool("42", tool_call_id="t1"), Message.user(["And now?"])) == build_messages([values])
    with pytest.raises(ValueError, match=r"several messages; split it$"):
        Message.from_dict(values)


def test_a_stored_message_in_a_prompt() -> None:
    message = Message.user(["Hi", ImagePart.from_bytes(PNG)])
    assert (message, Message.assistant("Yes.")) == build_messages(
        [message.to_dict(), {"role": "assistant", "content": "Yes."}]
    )


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"content": "Hi"}, ValueError, "missing member: messages[1].role"),
        (
            {"role": "human", "content": "Hi"},
            ValueError,
            "unsupported value: messages[1].role is 'human'; did you mean user?",
        ),
        ({"role": 5, "content": "Hi"}, TypeError, "messages[1].role must be a string, not int"),
        ({"role": "user"}, ValueError, "missing member: messages[1].content"),
        (
            {"role": "user", "content": 5},
            TypeError,
            "messages[1].content must be a string or a list of parts, not int",
        ),
        ({"role": "user", "content": []}, ValueError, "messages[1]: a user message needs at least one part"),
        ({"role": "user", "content": [5]}, TypeError, "messages[1].content[0] must be a dict, not int"),
        ({"role": "user", "content": [{"text": "a"}]}, ValueError, "missing member: messages[1].content[0].type"),
        (
            {"role": "user", "content": [{"type": "txt", "text": "a"}]},
            ValueError,
            "unsupported value: messages[1].content[0].type is 'txt'; did you mean text?",
        ),
        (
            {"role": "user", "content": [{"type": "video_url", "video_url": {}}]},
            ValueError,
            "messages[1].content[0].type is 'video_url'",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": 5}]},
            TypeError,
            "messages[1].content[0].text must be a string, not int",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
            ValueError,
            "unsupported member: messages[1].content[0].cache_control; pass cache_control in extra_body",
        ),
        ({"role": "user", "content": "Hi", "name": "Ann"}, ValueError, "unsupported member: messages[1].name; write"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}}]},
            ValueError,
            "messages[1].content[0].image_url.detail is 'low'",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,%%"}}]},
            None,
            "",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}]},
            ValueError,
            "messages[1].content[0].image_url.url: invalid data: URL",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}]},
            ValueError,
            "messages[1].content[0].input_audio.data must be base64 text",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
            ValueError,
            "unsupported member: messages[1].content[0].file.file_id; send the document itself",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": in_base64(b"text")}}]},
            ValueError,
            "messages[1].content[0].file.file_data: not a PDF",
        ),
        (
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "a"}}]},
            ValueError,
            "messages[1].content[0].source.type is 'text'; send it as a text",
        ),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG_URL}}]},
            ValueError,
            "messages[1].content[0].type is 'image_url'; use one of text",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]},
            ValueError,
            "messages[1].tool_calls[0].type is 'custom'",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]},
            ValueError,
            "missing member: messages[1].tool_calls[0].id",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": {"id": "c"}},
            TypeError,
            "messages[1].tool_calls must be a list, not dict",
        ),
        (
            {"role": "assistant", "content": "", "function_call": {"name": "a", "arguments": "{}"}},
            ValueError,
            "unsupported member: messages[1].function_call; use tool_calls",
        ),
        (
            {"role": "assistant", "content": "", "annotations": [{"type": "url_citation"}]},
            ValueError,
            "unsupported member: messages[1].annotations",
        ),
        (
            {"role": "assistant", "content": "", "reasoning": "a", "reasoning_content": "b"},
            ValueError,
            "messages[1] has reasoning and reasoning_content; remove one",
        ),
        ({"role": "tool", "content": "42"}, ValueError, "missing member: messages[1].tool_call_id"),
        ({"role": "tool", "tool_call_id": "c"}, ValueError, "missing member: messages[1].content"),
        (
            {"role": "tool", "tool_call_id": "c", "content": {"a": 1}},
            TypeError,
            "messages[1].content must be a string or a list of parts, not dict",
        ),
        ({"role": "user", "content": "Hi", "foo": 1}, ValueError, "unsupported member: messages[1].foo; remove it"),
        ({"role": "user", "content": "Hi", "foo": None}, None, ""),
        ("Hi", TypeError, "messages[1] is not a message: str; pass a Message or a dict"),
        (None, TypeError, "messages[1] is not a message: NoneType; pass a Message or a dict"),
    ],
)
def test_an_error_names_the_place(values: Any, error: type[Exception] | None, text: str) -> None:
    prompt: Any = [Message.system("Be brief."), values]
    if error is None:
        assert 2 == len(build_messages(prompt))
        return
    with pytest.raises(error) as exc_info:
        build_messages(prompt)
    assert error is type(exc_info.value)
    assert str(exc_info.value).startswith(text) or text in str(exc_info.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "tool_calls", "id", "x"]), inner)
        ),
        max_leaves=10,
    ).filter(lambda value: isinstance(value, dict))
)
def test_any_other_dict_is_a_clear_error(values: Any) -> None:
    problem = ""
    try:
        Message.from_dict(values)
    except (TypeError, ValueError) as error:
        problem = str(error)
    assert not problem or "message" in problem


def test_the_vendors_own_types_are_accepted() -> None:
    """By checkers too."""
    for_openai: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    for_anthropic: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hi"}]
    assert (Message.system("Be brief."), Message.user("Hi")) == build_messages(for_openai)
    assert (Message.user("Hi"),) == build_messages(for_anthropic)
    answer = openai.types.chat.ChatCompletionMessage(role="assistant", content="Yes.")
    assert (Message.user("Hi"), Message.assistant("Yes.")) == build_messages([*for_anthropic, answer.model_dump()])


def test_an_answer_may_be_empty() -> None:
    assert Message.assistant("") == Message.assistant([])
    assert Message.assistant("") == Message.assistant((), tool_calls=[])
