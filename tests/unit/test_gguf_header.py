"""The context length in the header of a GGUF file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ctxbackends.local._gguf import read_context_length

STRING, ARRAY, UINT32, UINT64, FLOAT32 = 8, 9, 4, 10, 6


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def header(*pairs: bytes, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs)) + b"".join(pairs)


ARCHITECTURE = pair("general.architecture", STRING, string("llama"))
WORDS = pair("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + string("bc"))
SCORES = pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQff", FLOAT32, 2, 1.0, 2.0))
NESTED = pair("some.nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQI", UINT32, 1, 7))
CONTEXT = pair("llama.context_length", UINT32, struct.pack("<I", 4096))


@pytest.mark.parametrize(
    ("content", "context_length"),
    [
        (header(ARCHITECTURE, CONTEXT), 4096),
        (header(ARCHITECTURE, WORDS, SCORES, NESTED, CONTEXT), 4096),
        (header(pair("bert.context_length", UINT64, struct.pack("<Q", 512)), version=2), 512),
        (header(pair("llama.context_length", STRING, string("many"))), None),
        (header(ARCHITECTURE), None),
        (header(ARCHITECTURE, CONTEXT, version=1), None),
        (header(ARCHITECTURE, CONTEXT)[:-2], None),
        (header(pair("some.key", 99, b"")), None),
        (header(string("x")[:4] + b"\xff" * 4), None),  # a length beyond the file
        (b"GGUF", None),
        (b"", None),
        (b"GGML" + header(ARCHITECTURE, CONTEXT)[4:], None),
    ],
)
def test_the_context_length(content: bytes, context_length: int | None, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert context_length == read_context_length(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_context_length(tmp_path / "missing.gguf") is None
