"""Check a GGUF file, and read the facts about the model from its header.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import attrs

from ctxbackends.errors import ConfigError

_HEADER = struct.Struct("<4sIQQ")
_LENGTH = struct.Struct("<Q")
_ARRAY = struct.Struct("<IQ")
_STRING_TYPE, _ARRAY_TYPE = 8, 9
_NUMBERS = {
    number: struct.Struct(f"<{code}")
    for number, code in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_MAX_STRING = 1 << 24  # bytes; longer ones are not text of a model
_PLAIN = frozenset(
    ("granite", "llama", "mistral3", "olmo2", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "starcoder2")
)
"""Architectures whose layers all keep the keys and values of every token, unless the header has one of these:"""
_OTHER_CACHES = ("attention.sliding_window", "attention.kv_lora_rank", "attention.shared_kv_layers", "ssm.")
_NO_POOLING, _LAST_TOKEN = 0, 3  # of llama.cpp's llama_pooling_type
_CACHE_NUMBER_BYTES = 2  # a 16-bit float, llama.cpp's default


@attrs.frozen(kw_only=True)
class ModelHeader:
    """Facts from the header of a model file.

    Attributes:
        context_length: Tokens of context that the model was trained with; None if the file does not state them.
        bytes_per_token: Memory in bytes for each token of context; None if it cannot be told from the header.
        embeds_in_one_batch: Whether llama.cpp embeds only texts that fit into one batch: it splits a text if the vector
            is that of the last token. A model without a pooling type is not an embedding model. True if the header
            cannot be read.
    """

    context_length: int | None = None
    bytes_per_token: int | None = None
    embeds_in_one_batch: bool = True


def check_model_file(path: Path, *, key: str | None = None) -> None:
    """Raise ConfigError unless ``path`` is a readable GGUF file; ``key`` is the setting that names it."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path} is a directory; name a .gguf file", key=key)
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is not a regular file; name a .gguf file", key=key)  # a pipe would block
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", key=key) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", key=key) from None
    if magic != b"GGUF":
        raise ConfigError(f"{path} is {'not a GGUF file' if magic else 'empty'}", key=key)


def read_header(path: Path) -> ModelHeader:
    """Return the facts about a model; without any if the header cannot be read."""
    try:
        with path.open("rb") as file:
            magic, version, _, count = _read(file, _HEADER)
            if magic != b"GGUF" or version < 2:
                return ModelHeader()
            values: dict[str, Any] = {}
            for _ in range(count):
                name = _read_string(file).decode("utf-8", "replace")
                (kind,) = _read(file, _NUMBERS[4])
                values[name.partition(".")[2]] = _read_value(file, kind)  # context_length for llama.context_length
    except (OSError, struct.error, KeyError, OverflowError, MemoryError, RecursionError):
        return ModelHeader()
    context_length, architecture = values.get("context_length"), values.get("architecture")
    is_causal = values.get("attention.causal", True)
    return ModelHeader(
        context_length=context_length if _is_count(context_length) else None,
        bytes_per_token=_bytes_per_token(architecture.decode("utf-8", "replace"), values)
        if isinstance(architecture, bytes)
        else None,
        embeds_in_one_batch=not is_causal or values.get("pooling_type", _NO_POOLING) not in (_NO_POOLING, _LAST_TOKEN),
    )


def _bytes_per_token(architecture: str, values: Mapping[str, Any]) -> int | None:
    """Return the size of the keys and values of one token in all layers; None if the model may have other caches."""
    if architecture not in _PLAIN or any(name.startswith(_OTHER_CACHES) for name in values):
        return None
    heads = values.get("attention.head_count")
    kv_heads = values.get("attention.head_count_kv", heads)
    numbers = [values.get("block_count"), values.get("embedding_length"), heads, kv_heads]
    if not all(map(_is_count, numbers)):  # None for a list, with a number for each layer
        return None
    layers, embedding, heads, kv_heads = numbers
    lengths = [values.get(f"attention.{name}_length", embedding // heads) for name in ("key", "value")]
    return layers * kv_heads * sum(lengths) * _CACHE_NUMBER_BYTES if all(map(_is_count, lengths)) else None


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _read(file: IO[bytes], form: struct.Struct) -> tuple[Any, ...]:
    return form.unpack(file.read(form.size))


def _read_string(file: IO[bytes]) -> bytes:
    (length,) = _read(file, _LENGTH)
    if length > _MAX_STRING:
        raise OverflowError
    return file.read(length)


def _read_value(file: IO[bytes], kind: int) -> int | float | bytes | None:
    """Return a value and move behind it; arrays are passed over."""
    if kind == _STRING_TYPE:
        return _read_string(file)
    if kind != _ARRAY_TYPE:
        value: int | float = _read(file, _NUMBERS[kind])[0]
        return value
    item, count = _read(file, _ARRAY)
    if item in _NUMBERS:
        file.seek(count * _NUMBERS[item].size, 1)
    else:
        for _ in range(count):
            _read_value(file, item)
    return None
