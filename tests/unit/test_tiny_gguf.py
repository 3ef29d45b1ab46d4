"""The files of the tiny models. Their behaviour is tested with a real server."""

from __future__ import annotations

import getpass
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from ctxbackends.testing import _tiny_gguf as tiny_gguf
from ctxbackends.testing._tiny_gguf import SLOW_TOKENS, TINY, TINY_TOOLS, VARIANTS, TinyModel, cached_model

gguf = pytest.importorskip("gguf")

# Equal on CPython 3.11.7, 3.12.1 and 3.13.0, with numpy 1.26.4, 2.1.3 and 2.4.6, and gguf 0.16.3, 0.17.1 and 0.19.0.
# A change of it on purpose goes with a new _GENERATOR_VERSION, or else cached files stay what they were.
TINY_SHA256 = "d3e09cbdd83dbdf427794a22f0b0063a3047018d5486567180e5b4e557839570"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return TINY.write(tmp_path / "tiny.gguf")


def test_same_recipe_same_bytes(tmp_path: Path, tiny: Path) -> None:
    second = TinyModel().write(tmp_path / "again.gguf")
    assert second == tmp_path / "again.gguf"
    assert second.read_bytes() == tiny.read_bytes()


def test_pinned_bytes(tiny: Path) -> None:
    assert sha256(tiny) == TINY_SHA256


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"eos_bias": -1.0}, {"quote_bias": 0.0}, {"tool_bias": 12.0}, {"repeat_bias": 0.0}]
)
def test_other_recipe_other_bytes(tmp_path: Path, tiny: Path, change: dict[str, Any]) -> None:
    other = attrs.evolve(TINY, **change).write(tmp_path / "other.gguf")
    assert other.read_bytes() != tiny.read_bytes()
    assert other.stat().st_size == tiny.stat().st_size


def test_the_seed_changes_only_the_weights(tmp_path: Path, tiny: Path) -> None:
    one, two = (tensors(path) for path in (tiny, TinyModel(seed=2).write(tmp_path / "two.gguf")))
    assert one.keys() == two.keys()
    assert {name for name in one if (one[name] == two[name]).all()} == {name for name in one if "norm" in name}


def test_size(tiny: Path) -> None:
    assert 300_000 < tiny.stat().st_size < 400_000


def test_size_of_the_slow_one(tmp_path: Path) -> None:
    # Its noise is repeated: this is the recipe that draws more than one block of it.
    path = SLOW_TOKENS.write(tmp_path / "slow.gguf")
    assert 100_000_000 < path.stat().st_size < 200_000_000


def read_fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


def test_metadata(tiny: Path) -> None:
    fields = read_fields(tiny)
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == 2
    assert fields["llama.context_length"] == 8192
    assert fields["llama.embedding_length"] == 64
    assert fields["llama.attention.head_count"] == 4
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.rope.dimension_count"] == 16
    assert fields["llama.pooling_type"] == gguf.PoolingType.MEAN
    assert fields["tokenizer.ggml.model"] == "llama"
    for word in ("<|im_start|>", "<tool_call>", "tools", "add_generation_prompt"):
        assert word in fields["tokenizer.chat_template"]


def test_vocabulary(tiny: Path) -> None:
    fields = read_fields(tiny)
    texts, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert fields["llama.vocab_size"] == len(texts) == len(kinds) == len(fields["tokenizer.ggml.scores"]) == 668
    assert len(set(texts)) == len(texts)
    assert kinds.count(gguf.TokenType.BYTE) == 256
    assert texts[fields["tokenizer.ggml.bos_token_id"]] == "<s>"
    assert texts[fields["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert {"<unk>", "</s>", "<|im_start|>", "<tool_call>", "</tool_call>", "\n", '"', "{", "}"} <= set(texts)


def test_every_piece_can_be_reached_by_joining_pairs(tiny: Path) -> None:
    fields = read_fields(tiny)
    tokens = zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True)
    pieces = {text for text, kind in tokens if kind == gguf.TokenType.NORMAL}
    for piece in pieces:
        assert len(piece) == 1 or any(piece[:i] in pieces and piece[i:] in pieces for i in range(1, len(piece)))


def test_extra_vocabulary(tmp_path: Path) -> None:
    path = TinyModel(extra_vocab=1000, embd=32, ff=32, heads=2, kv_heads=1).write(tmp_path / "m.gguf")
    texts = read_fields(path)["tokenizer.ggml.tokens"]
    assert len(texts) == len(set(texts)) == 1668
    assert tensors(path)["output.weight"].shape == (1668, 32)


def test_tensors(tiny: Path) -> None:
    values_by_name = tensors(tiny)
    assert len(values_by_name) == 3 + 2 * 9
    for name, values in values_by_name.items():
        assert values.dtype == ("float32" if "norm" in name else "float16")
    # No layer writes to the channels that carry the biases.
    biases = bias_channels(tiny)
    assert 0 < len(biases) < 32
    for name in ("blk.0.attn_output.weight", "blk.1.ffn_down.weight"):
        assert biases == list((~values_by_name[name].any(axis=1)).nonzero()[0])


def bias_channels(path: Path) -> list[int]:
    """The channels that the first layer leaves alone."""
    return list((~tensors(path)["blk.0.attn_output.weight"].any(axis=1)).nonzero()[0])


def test_biases_follow_the_recipe(tmp_path: Path, tiny: Path) -> None:
    texts = read_fields(tiny)["tokenizer.ggml.tokens"]
    plain = tensors(tiny)["output.weight"]
    tools = tensors(TINY_TOOLS.write(tmp_path / "tools.gguf"))["output.weight"]
    biases = bias_channels(tiny)
    rows, columns = (plain != tools).nonzero()
    assert {texts[row] for row in rows} == {"<tool_call>"}
    (start,) = set(columns)  # the channel of a turn's start
    assert start in biases
    call, end, word = (texts.index(text) for text in ("<tool_call>", "<|im_end|>", "\u2581ba"))
    assert plain[call, start] < 0 < tools[call, start]
    assert plain[end, biases].min() < 0 < plain[end, biases].max(), "unlikely at the start of a line, else likely"
    assert not plain[word, biases].any()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"layers": 0}, "at least 1"),
        ({"seed": -1}, "negative"),
        ({"extra_vocab": -1}, "negative"),
        ({"heads": 4, "kv_heads": 3}, "multiple of kv_heads"),
        ({"embd": 60}, "multiple of 2"),
        ({"embd": 8, "heads": 1, "kv_heads": 1}, "at least 16"),
    ],
)
def test_impossible_recipes(recipe: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyModel(**recipe)


def test_recipes_are_values() -> None:
    # The hash of a recipe must not depend on how its numbers were written.
    assert TinyModel(eos_bias=2) == TinyModel(eos_bias=2.0)
    assert repr(TinyModel(eos_bias=2)) == repr(TinyModel(eos_bias=2.0))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TINY.seed = 3  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        VARIANTS["other"] = TINY  # type: ignore[index]  # that is the point


def test_variants() -> None:
    assert list(VARIANTS) == ["tiny", "tiny-tools", "slow-load", "slow-tokens"]
    assert VARIANTS["tiny"] is TINY


@pytest.mark.parametrize("content", [None, b"what was there before"])
@pytest.mark.parametrize("step", ["add_chat_template", "write_header_to_file", "write_tensors_to_file"])
def test_failing_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes | None
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "m.gguf"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(gguf.GGUFWriter, step, fail)
    with pytest.raises(OSError, match="disk full"):
        TINY.write(path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == ([("m.gguf", content)] if content else [])


def test_failing_replace_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        assert sha256(source) == TINY_SHA256
        assert source.parent == target.parent
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        TINY.write(tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def test_write_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    assert sha256(TINY.write(path)) == TINY_SHA256
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_write_into_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TINY.write(tmp_path / "missing" / "m.gguf")


@pytest.mark.parametrize("missing", ["gguf", "numpy"])
def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"require {missing}; install ctxbackends\[testing\]"):
        TINY.write(tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def test_cache_writes_once(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there yet"
    path = cached_model(TINY, directory)
    before = path.stat()
    assert sha256(path) == TINY_SHA256
    assert cached_model(TinyModel(), directory) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(directory.iterdir()) == [path]


def test_cache_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {cached_model(TinyModel(seed=seed), tmp_path) for seed in range(3)}
    monkeypatch.setattr(tiny_gguf, "_GENERATOR_VERSION", 1000)
    paths.add(cached_model(TinyModel(seed=0), tmp_path))
    assert len(paths) == 4


def test_cache_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(writer: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
        with pytest.raises(OSError, match="disk full"):
            cached_model(TINY, tmp_path)
    assert sha256(cached_model(TINY, tmp_path)) == TINY_SHA256


@pytest.mark.parametrize("first", [True, False])
def test_cache_where_an_open_file_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    def refuse(source: Path, target: Path) -> None:
        if first:
            target.write_bytes(source.read_bytes())  # the other process, in between
        raise PermissionError("in use")

    monkeypatch.setattr(os, "replace", refuse)
    if first:
        path = cached_model(TINY, tmp_path)
        assert sha256(path) == TINY_SHA256
        assert list(tmp_path.iterdir()) == [path]
    else:
        with pytest.raises(PermissionError):
            cached_model(TINY, tmp_path)
        assert not list(tmp_path.iterdir())


def test_cache_for_many_processes_at_once(tmp_path: Path) -> None:
    # Each says that it is ready, and all start at one line of input. They read right away what they were given.
    program = (
        "import hashlib, pathlib, gguf, numpy\n"
        "from ctxbackends.testing._tiny_gguf import TINY, cached_model\n"
        "print('ready', flush=True)\n"
        "input()\n"
        f"path = cached_model(TINY, pathlib.Path({str(tmp_path)!r}))\n"
        "print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())\n"
    )
    root = Path(tiny_gguf.__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        answers = {process.communicate(timeout=60)[0] for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    (path,) = tmp_path.iterdir()
    assert answers == {f"{path.name} {TINY_SHA256}\n"}
    assert [process.returncode for process in processes] == [0, 0, 0]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_default_directory(temporary: Path) -> None:
    path = cached_model(TINY)
    assert path.parent.parent == temporary
    assert cached_model(TINY) == path
    if os.name == "posix":
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.posix
@pytest.mark.parametrize("how", ["open to others", "a link", "somebody else's"])
def test_default_directory_of_another_user(temporary: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    directory = cached_model(TINY).parent
    if how == "open to others":
        directory.chmod(0o777)
    elif how == "a link":
        target = directory.rename(temporary / "elsewhere")
        directory.symlink_to(target)
    else:
        if sys.platform == "win32":
            raise NotImplementedError
        real = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: real + 1)
        directory.rename(temporary / f"ctxbackends-models-{real + 1}")
    with pytest.raises(PermissionError, match="other users can access the model directory"):
        cached_model(TINY)


def test_default_directory_without_user_ids(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_gguf, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    assert cached_model(TINY).parent.name == "ctxbackends-models-somebody"
