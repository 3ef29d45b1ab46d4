"""Parsers with arbitrary input: configuration, durations, endpoints, typed answers and tool arguments."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from typing import Any, Literal, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.messages import ToolCall
from ctxbackends._config.duration import parse_duration
from ctxbackends._config.endpoint import normalise_endpoint
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._schema.validate import decode_as, unwrap_object
from ctxbackends._tools import arguments_of, tool_of
from ctxbackends.errors import ConfigError, InvalidEndpointError, StructuredOutputError
from tests.fuzz.material import among, corruptions, fuzz_settings, soup

pytestmark = pytest.mark.full

CTXRC = (
    b"""default_backend: vllm
backends:
  - name: vllm
    endpoint: http://gpu:8000
    ready_timeout: 90s
  - &base
    name: local
    type: llamacpp
    model_path: ~/models/tiny.gguf
    ctx_size: 4096
    parallel: 2
    embeddings: true
  - <<: *base
    name: "other"
  - {name: openai, api_key_env: MY_KEY, timeout: 1h30m, wire_api: chat_completions}
""",
    b"""%YAML 1.2
---
theirs: {a: [1, !!python/object x, "\\x41", *nowhere], ? complex : 1}
backends: !!seq [ { name: ollama, keep_alive: forever, context_length: 8192 } ]
...
""",
    b"",
)
_YAML = (
    *("backends:", "\n", "- ", "  ", "name: ", "vllm", "type: ", "&a ", "*a", "<<: ", "{", "}", "[", "]", ": ", ","),
    *("!!map ", "!!int ", "? ", "| ", "> ", "'", '"', "\\", "%TAG ! x", "---", "...", "\t", "#", "\ufeff", "\x85"),
    *("1e999", ".inf", "0x1F", "on", "~", "endpoint: ", "http://h:1", "timeout: ", "30s", "api_key: sk-aaaaaaaaaaaa"),
)
yaml_soup = st.lists(among(_YAML), max_size=25).map("".join)
files = st.one_of(
    corruptions(CTXRC).map(lambda data: data.decode("utf-8", "surrogateescape")), yaml_soup, st.text(max_size=60)
)


@fuzz_settings
@given(files)
def test_a_configuration_is_read_or_rejected(text: str) -> None:
    try:
        config = parse_ctxrc(text, path="/work/.ctxrc")
    except ConfigError as error:
        assert "/work/.ctxrc" == error.path
        assert error.line is None or 1 <= error.line <= text.count("\n") + text.count("\r") + text.count("\x85") + 2
        assert "sk-aaaaaaaaaaaa" not in str(error)
        return
    names = [backend.name for backend in config.backends]
    assert len(set(names)) == len(names)
    assert config.default_backend is None or config.default_backend in names


duration_soup = st.lists(
    st.sampled_from(("1", "0", "9" * 20, ".", "-", "+", "s", "ms", "h", "m", "µs", "ns", " ", "e", "\u0663")),
    max_size=8,
).map("".join)


@fuzz_settings
@given(duration_soup | st.text(max_size=70))
def test_a_duration_is_seconds_or_rejected(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert type(error) is ValueError
        return
    assert 0 <= seconds < math.inf


_URL = (
    *("http", "https", "://", ":", "/", "//", "localhost", "::1", "[", "]", "@", "?", "#", "8000", "99999", "v1", "%"),
    *(".", "..", " ", "\u2028", "\xe9", "\uff11", "user:pass", "\\", "%00", "xn--", "0"),
)
url_soup = st.lists(among(_URL), max_size=10).map("".join)


@fuzz_settings
@given(url_soup | st.text(max_size=40))
def test_an_endpoint_is_normalised_or_rejected(text: str) -> None:
    try:
        endpoint = normalise_endpoint(text)
    except InvalidEndpointError:
        return
    assert endpoint.startswith(("http://", "https://"))
    assert "@" not in endpoint.partition("://")[2].partition("/")[0]
    assert endpoint == normalise_endpoint(endpoint)


# --- what models write --------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@attrs.define
class Inner:
    when: datetime.datetime
    span: datetime.timedelta | None = None


class Members(TypedDict):
    amount: decimal.Decimal
    key: uuid.UUID


class Tree(msgspec.Struct):
    children: list[Tree] = []  # msgspec copies it


class Model(pydantic.BaseModel):
    name: str
    amount: decimal.Decimal = decimal.Decimal(0)
    when: datetime.datetime | None = None
    children: list[Model] = []  # pydantic copies it


TARGETS: tuple[Any, ...] = (
    *(Colour, Inner, Members, Tree, Model, int, float, bool, str, bytes, decimal.Decimal, uuid.UUID, Any, None),
    *(datetime.date, datetime.time, datetime.timedelta, dict[str, int], list[Inner], tuple[int, str], set[int]),
    *(dict[int, str], Literal["a", 1], int | str | None),
)
MODEL_TEXTS = (
    b'{"when":"2026-02-30T25:00:00Z","span":"P99999999999999D"}',
    b'{"when":"9999-12-31T23:59:60+23:59","span":"PT1S"}',
    b'{"amount":"1e999999999","key":"00000000-0000-0000-0000-00000000000"}',
    b'{"name":"x","amount":1e400,"when":1e300,"children":[{"name":1}]}',
    b'{"a":1,"b":9223372036854775808}',
    b'{"children":' + b'[{"children":' * 300 + b"[]" + b"}]" * 300 + b"}",
    b'"AACAPw=="',
    b'"P1D"',
    b'{"value":[1,2]}',
    b"```json\n{}\n```",
)
model_texts = st.one_of(
    corruptions(MODEL_TEXTS).map(lambda data: data.decode("utf-8", "surrogateescape")), soup, st.text(max_size=20)
)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@fuzz_settings
@given(model_texts)
def test_an_answer_is_a_value_or_an_error_with_its_text(target: Any, text: str) -> None:
    for variant in (text, unwrap_object(text)):
        try:
            decode_as(target, variant)
        except StructuredOutputError as error:
            assert variant == error.text


def book(title: str, pages: int = 1, when: datetime.date | None = None) -> None:
    """Book it."""


@fuzz_settings
@given(model_texts | soup.map(lambda text: f'{{"title":"x","pages":{text}}}'))
def test_arguments_are_those_of_the_tool_or_an_error(text: str) -> None:
    try:
        arguments = arguments_of(tool_of(book), ToolCall("1", "book", text))
    except StructuredOutputError as error:
        assert (text or "{}") == error.text  # a call without arguments has those of the empty object
        return
    assert {"title"} <= set(arguments) <= {"title", "pages", "when"}
