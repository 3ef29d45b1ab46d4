"""A text to embed that is longer than a batch of llama-server: the error says what to raise."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from ctxbackends._cli.error_messages import format_error
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import error_from_response
from ctxbackends.errors import ContextOverflowError
from tests.unit.test_gguf_header import BOOL, header, number, pair, read

ADVICE = "; start llama-server with --batch-size and --ubatch-size of {} tokens, up to its context"


def overflow(message: str) -> ContextOverflowError:
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    error = error_from_response(HTTPResponse(status=500, headers={}, body=body))
    assert isinstance(error, ContextOverflowError)
    return error


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "input (901 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
            "901 or more",
        ),
        ("input is too large to process. increase the physical batch size", "more"),
    ],
)
def test_a_text_longer_than_a_batch(message: str, size: str) -> None:
    error = overflow(message)
    assert error.exceeds_batch
    for copied in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301  # our own bytes
        assert str(copied).endswith(ADVICE.format(size))
    text = format_error(error, "file")
    assert text is not None
    assert text.endswith("\n  or split the text: llama-server embeds only texts that fit into one of its batches")
    assert 1 == text.count("--ubatch-size")


@pytest.mark.parametrize(
    "message",
    [
        "input (900 tokens) is larger than the max context size (512 tokens). skipping",
        "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    ],
)
def test_a_text_longer_than_the_context(message: str) -> None:
    error = overflow(message)
    assert not error.exceeds_batch
    assert "batch" not in f"{error}{format_error(error, 'file')}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (header(), False),
        (header(number("llama.pooling_type", 0)), False),  # none
        (header(number("bert.pooling_type", 1)), True),  # mean
        (header(number("bert.pooling_type", 2)), True),  # the first token
        (header(number("qwen3.pooling_type", 3)), False),  # the last token
        (header(number("bert.pooling_type", 4)), True),  # rank
        (header(pair("bert.attention.causal", BOOL, b"\0")), True),
        (header(pair("qwen3.attention.causal", BOOL, b"\0"), number("qwen3.pooling_type", 3)), True),
        (header(pair("qwen3.attention.causal", BOOL, b"\1"), number("qwen3.pooling_type", 3)), False),
        (b"", True),  # not known
    ],
)
def test_models_that_need_a_text_in_one_batch(content: bytes, expected: bool, tmp_path: Path) -> None:
    assert expected == read(content, tmp_path).embeds_in_one_batch
