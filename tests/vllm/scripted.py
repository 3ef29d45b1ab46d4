"""Owns the logits processor that makes vLLM say what a test wrote into its request; only the server imports it.

The server is started with ``--logits-processors tests.vllm.scripted:ScriptedProcessor`` and this checkout on
``PYTHONPATH``.
Everything behind the sampler stays real: detokenizer, framing, parsers, stop strings, finish reasons, usage.

What is said, then followed by the end-of-sequence token:

- ``vllm_xargs: {"say": "...", "repeat": 3}`` in the request: the text, as often as ``repeat`` says;
- else the last ``[[say]]...[[/say]]`` of the prompt, wherever it stands; ``repeat`` counts for it, too;
- else nothing is forced, and the random weights decide.

``vllm_xargs: {"delay_ms": 20}`` makes each step take that much longer, ``VLLM_TEST_DELAY_MS`` is the default of the
server. Requests in one batch share their steps: the longest delay counts for all. A stream of more than some hundred
tokens needs one, or else the model starves the event loop of the API server and everything arrives at once.

A grammar (``response_format``, ``structured_outputs``, a strict tool) masks the logits first, this processor comes
after it and takes the mask away. A forced text that the grammar allows is therefore said as it is, whatever its
tokens. One that the grammar refuses is said up to the token that it refuses; see ``test_smoke.py`` for what follows.
Log probabilities in an answer are those of the model, before the forcing.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Final

import attrs
import torch
from tokenizers import Tokenizer
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

_MARKS: Final = re.compile(r"\[\[say\]\](.*?)\[\[/say\]\]", re.DOTALL)
_TYPES: Final[dict[str, tuple[type, ...]]] = {"say": (str,), "repeat": (int,), "delay_ms": (int, float)}


@attrs.frozen
class _Script:
    """What one request gets. ``said`` is the list that vLLM grows; ``forced`` is None where nothing is forced."""

    token_ids: list[int] | None
    output_ids: list[int]
    delay: float  # seconds

    def next_token(self) -> int | None:
        if self.token_ids is None:
            return None
        return self.token_ids[
            min(len(self.output_ids), len(self.token_ids) - 1)
        ]  # with `ignore_eos`, the end comes again


class ScriptedProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM is not there when the types are checked
    """Forces the tokens of each request's script."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._tokenizer = Tokenizer.from_file(str(Path(vllm_config.model_config.tokenizer, "tokenizer.json")))
        self._end: int = vllm_config.model_config.hf_config.eos_token_id
        self._delay_ms = float(os.environ.get("VLLM_TEST_DELAY_MS", "0"))
        self._scripts: dict[int, _Script] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Answer a misspelt or mistyped argument with HTTP 400; without this the test would wait for random text."""
        for name, value in (sampling_params.extra_args or {}).items():
            negative = isinstance(value, int | float) and value < 0
            if name not in _TYPES or not isinstance(value, _TYPES[name]) or negative:
                raise ValueError(f"vllm_xargs of the scripted model are say, repeat and delay_ms; got {name}={value!r}")

    def is_argmax_invariant(self) -> bool:
        return False  # greedy sampling must obey, too

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._scripts, batch_update, self._script)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        delay = max((script.delay for script in self._scripts.values()), default=0.0)
        if delay:
            time.sleep(delay)
        for row, script in self._scripts.items():
            token = script.next_token()
            if token is not None:
                logits[row] = -torch.inf
                logits[row, token] = 0.0
        return logits

    def _script(self, params: Any, prompt: list[int] | None, output_ids: list[int]) -> _Script:
        arguments = params.extra_args or {}
        text = arguments.get("say")
        if text is None:
            texts = _MARKS.findall(self._tokenizer.decode(prompt or [], skip_special_tokens=False))
            text = texts[-1] if texts else None
        token_ids = None
        if text is not None:
            text *= arguments.get("repeat", 1)
            token_ids = [*self._tokenizer.encode(text, add_special_tokens=False).ids, self._end]
        return _Script(token_ids, output_ids, float(arguments.get("delay_ms", self._delay_ms)) / 1000)
