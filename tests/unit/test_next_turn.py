"""Messages of the next turn: results of tools, arguments, media, and data that only one server understands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends.errors import UnsupportedOptionError

PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n....")
PNG_BASE64 = "iVBORw0KGgouLi4u"
ASK = Message.user("Hi")
CALLS = Message.assistant("", tool_calls=[ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")])
CHAT, MESSAGES, OLLAMA = (
    ("openai-compatible", "chat_completions"),
    ("anthropic", "messages"),
    ("ollama", "ollama"),
)
WIRES = (CHAT, MESSAGES, OLLAMA)


def encode(type_: str, wire: str, *messages: Message) -> list[Any]:
    request = ChatRequest(messages=(ASK, *messages), model="m")
    body = PROFILES[type_].codec(wire).encode_chat(request, stream=False).body or b""
    sent: list[Any] = json.loads(body)["messages"][1:]
    return sent


# --- arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["", " ", "null", " null\n"])
def test_empty_arguments_are_the_empty_object(arguments: str) -> None:
    call = Message.assistant("", tool_calls=[ToolCall("c1", "f", arguments)])
    assert "{}" == encode(*CHAT, call)[0]["tool_calls"][0]["function"]["arguments"]
    assert {} == encode(*MESSAGES, call)[0]["content"][0]["input"]
    assert {} == encode(*OLLAMA, call)[0]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire[1])
@pytest.mark.parametrize("arguments", ["{", '{"a":', "[1]", "3", "{} {}"])
def test_arguments_that_a_server_would_reject_are_not_sent(wire: tuple[str, str], arguments: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"the arguments of f must be a JSON object") as exc_info:
        encode(*wire, Message.assistant("", tool_calls=[ToolCall("c1", "f", arguments)]))
    assert "message: tool call" == exc_info.value.option


def test_valid_arguments_are_sent_as_the_model_wrote_them() -> None:
    call = Message.assistant("", tool_calls=[ToolCall("c1", "f", '{ "a": 1.0 }')])
    assert '{ "a": 1.0 }' == encode(*CHAT, call)[0]["tool_calls"][0]["function"]["arguments"]


# --- results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("rain", "rain"),
        ("", ""),
        ({"a": [1, "漢"]}, '{"a":[1,"漢"]}'),
        ([1, 2.5], "[1,2.5]"),
        (["a", "b"], '["a","b"]'),
        ([], "[]"),
        ((1, "a"), '[1,"a"]'),
        (3, "3"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
    ],
)
def test_json_values_are_results(value: Any, text: str) -> None:
    message = Message.tool(value, tool_call_id="c1")
    assert (ToolResult("c1", text),) == message.parts
    assert text == encode(*CHAT, message)[0]["content"]


@pytest.mark.parametrize(
    "value", [b"a", {1, 2}, object(), {"a": object()}, [b"a"], float("nan"), {("a",): 1}, [PNG, 1], [PNG, ToolCall]]
)
def test_other_values_are_no_results(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^invalid (result of a tool|part in the result of a tool): .*; (pass|use) "):
        Message.tool(value, tool_call_id="c1")


def test_a_value_that_contains_itself_is_no_result() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match=r"^invalid result of a tool: list"):
        Message.tool(value, tool_call_id="c1")


def test_images_of_results_go_where_the_wire_has_them() -> None:
    first = Message.tool(["a", PNG], tool_call_id="c1")
    second = Message.tool(PNG, tool_call_id="c2")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_BASE64}}
    assert [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "a"}, image]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [image]},
            ],
        }
    ] == encode(*MESSAGES, CALLS, first, second)[1:]


def test_images_of_results_follow_all_results_elsewhere() -> None:
    messages = (
        Message.tool(["a", PNG], tool_call_id="c1"),
        Message.tool(PNG, tool_call_id="c2"),
        Message.user("Go on"),
    )
    before = [f"Image in the result of the tool call {name}:" for name in ("c1", "c2")]
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_BASE64}"}}
    texts = [{"type": "text", "text": text} for text in before]
    assert [
        {"role": "tool", "tool_call_id": "c1", "content": "a"},
        {"role": "tool", "tool_call_id": "c2", "content": "The result is an image, which follows."},
        {"role": "user", "content": [texts[0], url, texts[1], url]},
        {"role": "user", "content": "Go on"},
    ] == encode(*CHAT, CALLS, *messages)[1:]
    assert ["tool", "tool", "user", "user", "user"] == [sent["role"] for sent in encode(*OLLAMA, CALLS, *messages)[1:]]
    local = encode("vllm", "messages", CALLS, *messages)[1]["content"]
    assert ["tool_result", "tool_result", "text", "image", "text", "image"] == [block["type"] for block in local]


# --- media --------------------------------------------------------------------------------------------


def test_audio_and_documents_are_sent_where_a_server_takes_them() -> None:
    audio, file = AudioPart.from_bytes(b"RIFF....WAVE"), FilePart.from_bytes(b"%PDF-1.7", name="tides.pdf")
    assert [
        {"type": "text", "text": "?"},
        {"type": "input_audio", "input_audio": {"data": "UklGRi4uLi5XQVZF", "format": "wav"}},
        {"type": "file", "file": {"filename": "tides.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjc="}},
    ] == encode(*CHAT, Message.user(["?", audio, file]))[0]["content"]
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjc="}
    document = {"type": "document", "source": source, "title": "tides.pdf"}
    assert [document] == encode(*MESSAGES, Message.user([file]))[0]["content"]
    for wire, part, option in ((MESSAGES, audio, "audio"), (OLLAMA, audio, "audio"), (OLLAMA, file, "file")):
        with pytest.raises(UnsupportedOptionError) as exc_info:
            encode(*wire, Message.user([part]))
        assert f"message: {option}" == exc_info.value.option


@pytest.mark.parametrize("media_type", ["audio/wav", "application/pdf", "text/plain"])
def test_an_image_is_an_image(media_type: str) -> None:
    with pytest.raises(ValueError, match=rf"^not an image: {media_type}; use an AudioPart for audio and a FilePart"):
        ImagePart.from_bytes(b"x", media_type=media_type)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"data:image/png;base64,{PNG_BASE64}", PNG),
        (f"DATA:IMAGE/PNG;charset=x;BASE64,{PNG_BASE64}", PNG),
        (f"data:;base64,{PNG_BASE64}", PNG),
        ("data:image/svg+xml,%3Csvg/%3E", ImagePart(b"<svg/>", "image/svg+xml")),
        ("https://example.org/a.png", ImagePart(url="https://example.org/a.png")),
    ],
)
def test_a_data_url_is_data(url: str, part: ImagePart) -> None:
    assert part == ImagePart.from_url(url)


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:image/png;base64,???", "data:audio/wav;base64,AAAA"])
def test_an_invalid_data_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(invalid data: URL|not an image: audio/wav)"):
        ImagePart.from_url(url)


@pytest.mark.parametrize(
    ("data", "format_"), [(b"RIFF....WAVE", "wav"), (b"ID3.", "mp3"), (b"fLaC", "flac"), (b"OggS", "ogg")]
)
def test_the_format_of_audio_is_detected(data: bytes, format_: str) -> None:
    assert format_ == AudioPart.from_bytes(data).format


def test_audio_and_documents_of_another_kind_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^unknown audio format: not WAV"):
        AudioPart.from_bytes(b"x")
    with pytest.raises(ValueError, match=r"^unknown audio format: audio/x; use one of audio/wav"):
        AudioPart(b"x", "audio/x")
    with pytest.raises(ValueError, match=r"^not a PDF document"):
        FilePart.from_bytes(b"x")


# --- opaque data --------------------------------------------------------------------------------------


def test_opaque_data_goes_to_its_own_wire_only() -> None:
    chat = OpaquePart("chat_completions", '{"reasoning_details":[{"data":"SECRET"}],"executed_tools":["SECRET-2"]}')
    block = OpaquePart("messages", '{"type":"server_tool_use","id":"SECRET-3"}')
    call = ToolCall("c1", "f", "{}", OpaquePart("chat_completions", '{"extra_content":{"a":"SECRET-4"}}'))
    message = Message.assistant([TextPart("a"), chat, block, call])
    sent = {wire: json.dumps(encode(*wire, message)) for wire in WIRES}
    assert '"reasoning_details": [{"data": "SECRET"}]' in sent[CHAT]
    assert '"extra_content": {"a": "SECRET-4"}' in sent[CHAT]
    assert "SECRET-2" not in sent[CHAT]
    assert "SECRET-3" not in sent[CHAT]
    assert ("SECRET-3", 1) == ("SECRET-3", sent[MESSAGES].count("SECRET"))
    assert "SECRET" not in sent[OLLAMA]


@pytest.mark.parametrize("member", ["reasoning", "reasoning_content"])
def test_reasoning_goes_back_under_the_name_that_it_came_with(member: str) -> None:
    message = Message.assistant([ReasoningPart("r", member=member), TextPart("a")])
    assert {"role": "assistant", "content": "a", member: "r"} == encode(*CHAT, message)[0]
    assert "r" == encode("vllm", "chat_completions", message)[0][member]
    with pytest.raises(UnsupportedOptionError, match="message: reasoning"):
        encode("openai", "chat_completions", message)
