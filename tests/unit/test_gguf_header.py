"""The facts in the header of a GGUF file, and the check of a model file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.errors import ConfigError
from ctxbackends.local._gguf import ModelHeader, check_model_file, read_header

STRING, ARRAY, UINT32, UINT64, FLOAT32, BOOL = 8, 9, 4, 10, 6, 7


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def number(key: str, value: int) -> bytes:
    return pair(key, UINT32, struct.pack("<I", value))


def header(*pairs: bytes, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs)) + b"".join(pairs)


ARCHITECTURE = pair("general.architecture", STRING, string("llama"))
WORDS = pair("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + string("bc"))
SCORES = pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQff", FLOAT32, 2, 1.0, 2.0))
NESTED = pair("some.nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQI", UINT32, 1, 7))
CONTEXT = number("llama.context_length", 4096)


def read(content: bytes, tmp_path: Path) -> ModelHeader:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


@pytest.mark.parametrize(
    ("content", "context_length"),
    [
        (header(ARCHITECTURE, CONTEXT), 4096),
        (header(ARCHITECTURE, WORDS, SCORES, NESTED, CONTEXT), 4096),
        (header(pair("bert.context_length", UINT64, struct.pack("<Q", 512)), version=2), 512),
        (header(pair("llama.context_length", STRING, string("many"))), None),
        (header(number("llama.context_length", 0)), None),
        (header(pair("llama.context_length", BOOL, b"\1")), None),
        (header(ARCHITECTURE), None),
        (header(ARCHITECTURE, CONTEXT, version=1), None),
        (header(ARCHITECTURE, CONTEXT)[:-2], None),
        (header(pair("some.key", 99, b"")), None),
        (header(string("x")[:4] + b"\xff" * 4), None),  # a length beyond the file
        (header(pair("some.key", ARRAY, struct.pack("<IQ", ARRAY, 1) * 100_000)), None),  # deeper than Python's stack
        (b"GGUF", None),
        (b"", None),
        (b"GGML" + header(ARCHITECTURE, CONTEXT)[4:], None),
    ],
)
def test_the_context_length(content: bytes, context_length: int | None, tmp_path: Path) -> None:
    assert context_length == read(content, tmp_path).context_length


SIZES: dict[str, int] = {
    "block_count": 30,
    "embedding_length": 576,
    "attention.head_count": 9,
    "attention.head_count_kv": 3,
}


def model(architecture: str = "llama", **changes: Any) -> bytes:
    sizes = {**SIZES, **{name.replace("__", "."): value for name, value in changes.items()}}
    pairs = [number(f"{architecture}.{name}", value) for name, value in sizes.items() if value is not None]
    return header(pair("general.architecture", STRING, string(architecture)), *pairs)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (model(), 30 * 3 * (64 + 64) * 2),
        (model("qwen3", attention__key_length=128, attention__value_length=96), 30 * 3 * (128 + 96) * 2),
        (model(attention__head_count_kv=None), 30 * 9 * (64 + 64) * 2),
        (model("gemma3"), None),
        (model("phi3", attention__sliding_window=2047), None),
        (model("qwen3", attention__kv_lora_rank=512), None),
        (model(ssm__state_size=16), None),
        (model(block_count=0), None),
        (model(block_count=None), None),
        (model(embedding_length=None), None),
        (model(attention__key_length=0), None),
        (
            model(attention__head_count_kv=None).replace(struct.pack("<Q", 4), struct.pack("<Q", 5), 1)
            + pair("llama.attention.head_count_kv", ARRAY, struct.pack("<IQI", UINT32, 1, 3)),
            None,
        ),
    ],
)
def test_the_memory_for_a_token(content: bytes, expected: int | None, tmp_path: Path) -> None:
    assert expected == read(content, tmp_path).bytes_per_token


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert ModelHeader() == read_header(tmp_path / "missing.gguf")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "{path}: no such file"),
        (b"", "{path} is empty"),
        (b"GG", "{path} is not a GGUF file"),
        (b"PK\3\4 a zip", "{path} is not a GGUF file"),
    ],
)
@pytest.mark.parametrize(("key", "prefix"), [(None, ""), ("model_path", "model_path: ")])
def test_a_model_file_that_cannot_be_used(
    content: bytes | None, problem: str, key: str | None, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        check_model_file(path, key=key)
    assert prefix + problem.format(path=path) == str(error.value)
