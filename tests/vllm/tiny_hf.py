"""Owns the tiny random Llama in Hugging Face format that the vLLM of the tests serves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

END_OF_TEXT: Final = "<|endoftext|>"
MESSAGE_START: Final = "<|im_start|>"
MESSAGE_END: Final = "<|im_end|>"
# The parsers of vLLM look these up in the vocabulary. They are ordinary text otherwise: decoding keeps them.
MARKUP: Final = ("<think>", "</think>", "<tool_call>", "</tool_call>")

_SEED: Final = 1
_CONTEXT_TOKENS: Final = 8192
_VOCABULARY_TOKENS: Final = 1024
_CONFIG: Final = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,  # of 32: no smaller head runs on vLLM's CPU backend
    "num_key_value_heads": 2,
    "max_position_embeddings": _CONTEXT_TOKENS,
    "tie_word_embeddings": True,
}

# ChatML as the Qwen models speak it. `<think>` gets no treatment here: what a message holds is what the prompt holds.
CHAT_TEMPLATE: Final = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n\\nYou may call these functions:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor a call, write its name and arguments as JSON:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- if call.function.arguments is string %}
                {{- call.function.arguments }}
            {%- else %}
                {{- call.function.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# What the merges are learned from. Any other text is encoded too, down to single bytes.
_CORPUS: Final = (
    "system user assistant tool the a an of and to in is that it for on with as was at by this from have not be are or",
    "You are a helpful assistant. Answer in one short sentence. What is the weather in Paris today? It is sunny.",
    "The server is ready and the model says exactly what the test asks it to say. One two three four five six seven.",
    '{"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}',
    '{"type": "function", "function": {"name": "get_weather", "description": "Look up the weather", "parameters": {}}}',
    (
        "You may call these functions: <tools></tools> <tool_response></tool_response> For a call, write its name and "
        "arguments as JSON: [[say]]Hello, world![[/say]]"
    ),
    "Hello world, hello again; yes and no, true, false, null, 0 1 2 3 4 5 6 7 8 9 10 100 1000 3.14",
    "Every request gets its answer, each answer ends, and a stream sends its pieces as they are made.",
)


def make(directory: Path) -> Path:
    """Write the model into ``directory``, the same bytes every time, and return ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(str(directory))
    _save_weights(directory, tokenizer)
    return directory


def _tokenizer() -> Any:
    # The libraries live in the environment of vLLM, not in that of the tests.
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    bytes_and_merges = Tokenizer(models.BPE())
    bytes_and_merges.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_and_merges.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_TOKENS - len(MARKUP),
        show_progress=False,
        special_tokens=[END_OF_TEXT, MESSAGE_START, MESSAGE_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bytes_and_merges.train_from_iterator(_CORPUS, trainer)
    bytes_and_merges.add_tokens(list(MARKUP))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_and_merges,
        eos_token=MESSAGE_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[MESSAGE_START],
        model_max_length=_CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _save_weights(directory: Path, tokenizer: Any) -> None:
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(_SEED)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **_CONFIG, **end)).to(torch.bfloat16)
    model.save_pretrained(str(directory))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": end["eos_token_id"]}) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
