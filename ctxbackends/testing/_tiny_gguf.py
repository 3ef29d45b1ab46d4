"""Creates tiny GGUF models with random weights, for tests with a real llama.cpp server.

Requires the packages ``gguf`` and ``numpy``. The same recipe gives the same bytes on every run, so a file can be cached
and pinned.

The models write readable text, end their turns, close JSON strings and call tools because the first channels of the
embedding are not random (see ``_Channel``). Each token writes a known value there, no layer changes them, and the
output matrix turns them into a bias for each next token. All other channels are noise, which selects the words.
"""

from __future__ import annotations

import enum
import getpass
import hashlib
import importlib
import json
import math
import os
import stat
import string
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from ctxbackends._util.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

__all__ = ["SLOW_LOAD", "SLOW_TOKENS", "TINY", "TINY_TOOLS", "VARIANTS", "TinyModel", "cached_model"]

#: Part of the name of a cached file. Increase it with every change to the bytes of a recipe.
_GENERATOR_VERSION: Final = 1

#: A token with this bias is only generated if a grammar leaves no other choice: e**-30 of the weight of a word.
_NEVER: Final = -30.0

#: The number of values before the noise repeats. More would only slow down the large recipes.
_NOISE_BLOCK: Final = 1 << 20

#: The approximate divisor of the final norm: constant channel 1, embedding 1, layers the rest. Measured: 2.0 to 3.0.
_FINAL_RMS: Final = math.sqrt(2.4)

#: Damps the channels of ``_Channel`` in the final norm; otherwise all pooled embeddings would point the same way.
_CHANNEL_GAIN: Final = 1 / 16

# The turn after a tool result starts with a blank line, whose token has no bias towards a tool call, so that an agent
# loop ends.
_CHAT_TEMPLATE: Final = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n' }}
    {%- endif %}
    {{- 'Functions at hand, one JSON object on each line:\n<tools>\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\n' }}
    {%- endfor %}
    {{- '</tools>\nA call is written as <tool_call>{"name": "NAME", "arguments": {}}</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and tools and loop.first %}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if message.content %}
            {{- message.content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if not loop.first %}
                    {{- '\n' }}
                {%- endif %}
                {{- '<tool_call>{"name": "' + tool_call.function.name + '", "arguments": ' }}
                {%- if tool_call.function.arguments is string %}
                    {{- tool_call.function.arguments }}
                {%- else %}
                    {{- tool_call.function.arguments | tojson }}
                {%- endif %}
                {{- '}</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>tool\n<tool_response>' + message.content + '</tool_response><|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if messages[-1].role == 'tool' %}
        {{- '\n' }}
    {%- endif %}
{%- endif %}
""".strip()


class _Channel(enum.IntEnum):
    """The embedding channels that have a meaning; the others are noise."""

    ALWAYS = 0  # the same for all tokens: carries the plain bias of the next token
    LINE_START = 1  # a turn must not begin with its end or with a space, or else the text of an answer may be empty
    TURN_START = 2  # a line start that is not the turn after a tool result: here a tool may be called
    BRACE_CLOSED = 3  # after "}": the call ends, where the grammar lets it. llama.cpp's also takes "," and another call
    CALL_CLOSED = 4  # after </tool_call>: the turn ends


class _Token(NamedTuple):
    text: str
    kind: str  # the name of a gguf.TokenType
    score: float  # the tokenizer joins the pair with the highest score first
    bias: Mapping[_Channel, float]  # added to the logit of this token, where the token before has that channel
    channels: tuple[_Channel, ...] = ()  # of this token, besides ALWAYS


@attrs.frozen(kw_only=True)
class TinyModel:
    """The parameters of a llama model with random weights. Equal parameters give equal bytes.

    Attributes:
        layers: The number of layers.
        embd: The embedding length.
        ff: The feed-forward length.
        heads: The number of attention heads.
        kv_heads: The number of key-value heads.
        context_length: The context length in tokens that the model reports.
        extra_vocab: The number of tokens in addition to the 668 that every model has. The model never generates them,
            but the server has to load them.
        eos_bias: The logit of the end-of-turn token, where words have about 0 ± 1. With -30, no turn ends by itself.
        quote_bias: The logit of ``"``. It sets the length of JSON strings without ``maxLength``.
        tool_bias: The logit of ``<tool_call>`` at the start of a turn. With -30, the model calls no tool by itself.
        repeat_bias: The logit of another tool call. With 0, about every second call is followed by another one if the
            server allows it; with -30, none is.
        seed: The seed of the random weights.
    """

    layers: int = 2
    embd: int = 64
    ff: int = 160
    heads: int = 4
    kv_heads: int = 2
    context_length: int = 8192
    extra_vocab: int = 0
    eos_bias: float = attrs.field(default=0.6, converter=float)
    quote_bias: float = attrs.field(default=1.7, converter=float)
    tool_bias: float = attrs.field(default=_NEVER, converter=float)
    repeat_bias: float = attrs.field(default=_NEVER, converter=float)
    seed: int = 1

    def __attrs_post_init__(self) -> None:
        if min(self.layers, self.ff, self.heads, self.kv_heads, self.context_length) < 1:
            raise ValueError("layers, ff, heads, kv_heads and context_length must be at least 1")
        if self.extra_vocab < 0 or self.seed < 0:
            raise ValueError("extra_vocab and seed must not be negative")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        # Rotary embedding turns pairs of values, hence the 2.
        if self.embd < 16 or self.embd % (2 * self.heads):
            raise ValueError(f"embd ({self.embd}) must be at least 16 and a multiple of 2 * heads ({2 * self.heads})")

    def write(self, path: Path) -> Path:
        """Write the model file atomically, and return its path. An existing file is replaced.

        Args:
            path: The path of the file.

        Raises:
            ImportError: The extra ``testing`` is not installed.
        """
        with replacing(path) as temporary:
            _write_gguf(self, temporary)
        return path


#: Small and fast: about 360 KB, thousands of tokens per second. Most answers end after 10 to 120 tokens.
TINY: Final = TinyModel()

#: Calls one tool in every turn except the one after a tool result, so that a loop of calls ends. Without tools in the
#: request, the text begins with "<tool_call>".
TINY_TOOLS: Final = TinyModel(tool_bias=12)

#: The server returns 503 "Loading model" for about a second, because of the large vocabulary. About 31 MB.
SLOW_LOAD: Final = TinyModel(embd=32, ff=32, heads=2, kv_heads=1, extra_vocab=200_000)

#: About 90 tokens per second on a slow core, and never ends by itself. About 145 MB.
SLOW_TOKENS: Final = TinyModel(layers=6, embd=1024, ff=2816, heads=8, kv_heads=4, eos_bias=_NEVER)

VARIANTS: Final[Mapping[str, TinyModel]] = MappingProxyType(
    {"tiny": TINY, "tiny-tools": TINY_TOOLS, "slow-load": SLOW_LOAD, "slow-tokens": SLOW_TOKENS}
)
"""The models of the fixture ``tiny_model``, by name."""


def cached_model(recipe: TinyModel, directory: Path | None = None) -> Path:
    """Return the path of a model file, and create the file if it is missing. Safe to call from several processes.

    Args:
        recipe: The model.
        directory: The directory of the file; by default one in the system's temporary directory that only this user
            can access.

    Raises:
        PermissionError: Another user can access the default directory.
        ImportError: The extra ``testing`` is not installed.
    """
    if directory is None:
        directory = _private_directory()
    else:
        directory.mkdir(parents=True, exist_ok=True)
    facts = json.dumps([_GENERATOR_VERSION, attrs.asdict(recipe)], sort_keys=True)
    path = directory / f"tiny-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.gguf"
    if not path.exists():
        try:
            recipe.write(path)
        except PermissionError:
            # Windows cannot replace an open file. Another process has created it already, with the same bytes.
            if not path.exists():
                raise
    return path


def _private_directory() -> Path:
    if sys.platform == "win32":  # a statement, which mypy understands
        user = getpass.getuser()
    else:
        user = str(os.getuid())
    directory = Path(tempfile.gettempdir()) / f"ctxbackends-models-{user}"
    directory.mkdir(mode=0o700, exist_ok=True)
    # The name is predictable and /tmp is shared: another user may have created it first, to plant a model.
    status = directory.lstat()
    if sys.platform != "win32" and (
        not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077
    ):
        raise PermissionError(
            f"other users can access the model directory: {directory}; remove it, or pass a directory"
        )
    return directory


def _vocabulary(recipe: TinyModel) -> list[_Token]:
    always, line_start, turn_start, brace_closed, call_closed = _Channel
    never = {always: _NEVER}

    def control(text: str) -> _Token:
        return _Token(text, "CONTROL", 0.0, never)

    def marker(text: str, bias: Mapping[_Channel, float] = never, channels: tuple[_Channel, ...] = ()) -> _Token:
        # Not CONTROL: the server would leave it out of the text in which its parser looks for tool calls.
        return _Token(text, "USER_DEFINED", 0.0, bias, channels)

    def piece(text: str, bias: float) -> _Token:
        return _Token(text, "NORMAL", 0.0, {always: bias})

    def space(text: str, channels: tuple[_Channel, ...] = ()) -> _Token:
        return _Token(text, "NORMAL", 0.0, {always: -2.0, line_start: _NEVER}, channels)

    # No tag comes up in text, yet a grammar that asks for one gets this token, not its letters one by one.
    tag = {always: -10.0}
    open_call = {**tag, turn_start: recipe.tool_bias + 10.0, call_closed: recipe.repeat_bias + 30.0}
    end_of_turn = {always: recipe.eos_bias, line_start: _NEVER, call_closed: 20.0 - recipe.eos_bias}
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvwz" for vowel in "aeiou"]
    # 7 has no factor in common with 75, so no two words begin with the same syllable.
    words = [syllables[7 * i % 75] + syllables[(32 * i + 5) % 75] for i in range(75)]
    letters = string.ascii_letters + string.digits
    tokens = [
        _Token("<unk>", "UNKNOWN", 0.0, never),
        control("<s>"),
        control("</s>"),
        *(_Token(f"<0x{byte:02X}>", "BYTE", 0.0, never) for byte in range(256)),
        control("<|im_start|>"),
        _Token("<|im_end|>", "CONTROL", 0.0, end_of_turn),
        marker("<tool_call>", open_call),
        marker("</tool_call>", {**tag, brace_closed: 30.0}, (call_closed,)),
        *(marker(text) for text in ("<tool_response>", "</tool_response>", "<tools>", "</tools>")),
        # The tokenizer joins pairs only, so each longer piece is made of pieces that come before it.
        space("\n", (line_start, turn_start)),
        space("\n\n", (line_start,)),
        space("\u2581"),
        *(piece(char, -3.0 if char in letters else -4.0) for char in string.printable[:94] if char not in '".,<}'),
        piece("<", -16.0),
        _Token("}", "NORMAL", 0.0, {always: -4.0}, (brace_closed,)),
        piece('"', recipe.quote_bias),
        piece(".", 0.0),
        piece(",", 0.0),
        *(piece(text, -3.0) for text in ('":', '",', '{"', '"}')),
        *(piece(syllable, -1.0) for syllable in syllables),
        *(piece("\u2581" + syllable, 0.0) for syllable in syllables),
        *(piece(word, -1.0) for word in words),
        *(piece("\u2581" + word, 0.0) for word in words),
    ]
    tokens = [token._replace(score=-float(i)) if token.kind == "NORMAL" else token for i, token in enumerate(tokens)]
    extra = (_Token(f"\u2581x{index:06d}", "NORMAL", -1e6, never) for index in range(recipe.extra_vocab))
    return [*tokens, *extra]


class _Noise:
    """Random weights. Drawn as raw integers, whose stream numpy promises never to change, unlike that of its floats.

    https://numpy.org/doc/stable/reference/random/compatibility.html
    """

    def __init__(self, seed: int) -> None:
        self._np = _library("numpy")
        raw = self._np.random.PCG64(seed).random_raw(_NOISE_BLOCK // 4).astype("<u8").view("<u2")
        # All scalars as float32: with Python's, the versions of numpy disagree about the type to compute in.
        single = self._np.float32
        self._block: Floats = (raw.astype("f4") - single(32767.5)) * single(math.sqrt(12) / 65536)
        self._start = 0

    def take(self, rows: int, columns: int, deviation: float) -> Floats:
        """The next ``rows`` x ``columns`` values as F16, even around 0, with this standard deviation."""
        end = self._start + rows * columns
        values = self._block[self._start : end] if end <= _NOISE_BLOCK else self._np.roll(self._block, -self._start)
        self._start = end % _NOISE_BLOCK
        # Repeated only after the rounding, which is what costs time in a large matrix.
        taken: Floats = self._np.resize((values * self._np.float32(deviation)).astype("f2"), (rows, columns))
        return taken


def _weights(recipe: TinyModel, vocabulary: list[_Token]) -> dict[str, Floats]:
    """The tensors by name. A matrix has one row for each output."""
    np = _library("numpy")
    noise = _Noise(recipe.seed)
    width = recipe.embd
    fixed = len(_Channel)
    even = 1 / math.sqrt(width)
    # Keeps what all layers add together at the same size, whatever their number.
    share = 1 / math.sqrt(2 * recipe.layers)
    kv_width = width // recipe.heads * recipe.kv_heads

    embedding = noise.take(len(vocabulary), width, 1.0)
    embedding[:, :fixed] = 0
    embedding[:, _Channel.ALWAYS] = math.sqrt(width)
    output = noise.take(len(vocabulary), width, _FINAL_RMS * even)
    output[:, :fixed] = 0
    for row, token in enumerate(vocabulary):
        for channel in token.channels:
            embedding[row, channel] = math.sqrt(width)
        for channel, bias in token.bias.items():
            output[row, channel] = bias * _FINAL_RMS * even / _CHANNEL_GAIN

    norm = np.ones(width, "f4")
    norm[:fixed] = 0
    final_norm = np.ones(width, "f4")
    final_norm[:fixed] = _CHANNEL_GAIN
    tensors = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": final_norm}
    for layer in range(recipe.layers):
        parts = {
            "attn_norm": norm,
            "attn_q": noise.take(width, width, 2 * even),
            "attn_k": noise.take(kv_width, width, 2 * even),
            "attn_v": noise.take(kv_width, width, even),
            "attn_output": noise.take(width, width, share * even),
            "ffn_norm": norm,
            "ffn_gate": noise.take(recipe.ff, width, even),
            "ffn_up": noise.take(recipe.ff, width, even),
            "ffn_down": noise.take(width, recipe.ff, share / math.sqrt(recipe.ff)),
        }
        for name in ("attn_output", "ffn_down"):
            parts[name][:fixed] = 0
        tensors |= {f"blk.{layer}.{name}.weight": values for name, values in parts.items()}
    return tensors


def _write_gguf(recipe: TinyModel, path: Path) -> None:
    gguf = _library("gguf")
    vocabulary = _vocabulary(recipe)
    writer = gguf.GGUFWriter(path, "llama")
    try:
        writer.add_name("ctxbackends tiny model")
        writer.add_description("Random weights, for tests of clients.")
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_block_count(recipe.layers)
        writer.add_context_length(recipe.context_length)
        writer.add_embedding_length(recipe.embd)
        writer.add_feed_forward_length(recipe.ff)
        writer.add_head_count(recipe.heads)
        writer.add_head_count_kv(recipe.kv_heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(recipe.embd // recipe.heads)
        writer.add_vocab_size(len(vocabulary))
        writer.add_pooling_type(gguf.PoolingType.MEAN)

        texts = [token.text for token in vocabulary]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores([token.score for token in vocabulary])
        writer.add_token_types([int(gguf.TokenType[token.kind]) for token in vocabulary])
        writer.add_unk_token_id(texts.index("<unk>"))
        writer.add_bos_token_id(texts.index("<s>"))
        writer.add_eos_token_id(texts.index("<|im_end|>"))
        writer.add_add_bos_token(value=True)
        # Or else a space would stand before "assistant" in "<|im_start|>assistant".
        writer.add_add_space_prefix(value=False)
        writer.add_chat_template(_CHAT_TEMPLATE)

        for name, values in _weights(recipe, vocabulary).items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _library(name: str) -> ModuleType:
    # Imported on use: a recipe alone needs neither library.
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"test models require {name}; install ctxbackends[testing]") from error
