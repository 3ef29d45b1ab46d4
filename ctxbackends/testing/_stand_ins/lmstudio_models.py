"""The models of the LM Studio stand-in: their entries in the native APIs, and the loaded instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

LOAD_SECONDS = 2.5
_CONTEXT_LENGTH = 4096
_MAX_CONTEXT_LENGTH = 32768
_MAX_EMBEDDING_CONTEXT = 2048
# Options of a load besides `context_length`, for language models only: docs, rest/load.
_LLM_CONFIG: Mapping[str, Any] = {"eval_batch_size": 512, "flash_attention": True, "offload_kv_cache_to_gpu": True}
_LLM_OPTIONS = (*_LLM_CONFIG, "num_experts")
_PARALLEL = 4  # what 0.4 loads every language model with (lmstudio-bug-tracker#2061)


@attrs.frozen(kw_only=True)
class Instance:
    """A loaded model. ``on_demand``: a request loaded it (JIT), so the next such load may drop it."""

    id: str
    key: str
    config: Mapping[str, Any]
    on_demand: bool

    @property
    def context_length(self) -> int:
        return int(self.config["context_length"])


class Catalog:
    """The downloaded models by key; a key with "embed" in it is an embedding model.

    ``loads`` lists the key and the context length of each load, in order.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys: tuple[str, ...] = tuple(keys)
        self.instances: dict[str, Instance] = {}
        self.loads: list[tuple[str, int]] = []

    def loaded(self, kind: str) -> list[Instance]:
        return [instance for instance in self.instances.values() if kind_of(instance.key) == kind]

    def load(self, key: str, given: Mapping[str, Any], *, on_demand: bool) -> Instance:
        """One more instance of the model. With auto-evict, as it comes, one model stays of those loaded on demand."""
        if on_demand:
            for instance in [entry for entry in self.instances.values() if entry.on_demand]:
                del self.instances[instance.id]
        most = _MAX_EMBEDDING_CONTEXT if kind_of(key) == "embedding" else _MAX_CONTEXT_LENGTH
        config: dict[str, Any] = {"context_length": min(given.get("context_length") or _CONTEXT_LENGTH, most)}
        if kind_of(key) == "llm":
            config |= {**_LLM_CONFIG, **{name: given[name] for name in _LLM_OPTIONS if name in given}}
        instance = Instance(id=self._free_id(key), key=key, config=config, on_demand=on_demand)
        self.instances[instance.id] = instance
        self.loads.append((key, instance.context_length))
        return instance

    def _free_id(self, key: str) -> str:
        """The key, or with a number behind it: lmstudio-bug-tracker#619 shows ``gemma-3-1b-it-qat:2``."""
        number = 1
        while (free := key if number == 1 else f"{key}:{number}") in self.instances:
            number += 1
        return free

    def shown(self, key: str) -> dict[str, Any]:
        """Its entry in ``GET /api/v1/models``; the docs leave three members out for embedding models."""
        publisher, _, name = key.rpartition("/")
        embeds = kind_of(key) == "embedding"
        entry: dict[str, Any] = {
            "type": kind_of(key),
            "publisher": publisher or "lmstudio-community",
            "key": key,
            "display_name": name.replace("-", " ").title(),
            "architecture": _architecture(key),
            "quantization": {"name": "F16", "bits_per_weight": 16}
            if embeds
            else {"name": "Q4_K_M", "bits_per_weight": 4},
            "size_bytes": 274_290_560 if embeds else 2_497_280_256,
            "params_string": None if embeds else "4B",
            "loaded_instances": [
                {"id": instance.id, "config": {**instance.config, **({} if embeds else {"parallel": _PARALLEL})}}
                for instance in self.instances.values()
                if instance.key == key
            ],
            "max_context_length": _MAX_EMBEDDING_CONTEXT if embeds else _MAX_CONTEXT_LENGTH,
            "format": "gguf",
            "capabilities": {"vision": "-vl" in key, "trained_for_tool_use": True},
            "description": None,
        }
        if embeds:
            for name in ("architecture", "capabilities", "description"):
                del entry[name]
        return entry

    def shown_v0(self, key: str) -> dict[str, Any]:
        """Its entry in ``GET /api/v0/models``."""
        publisher, _, _ = key.rpartition("/")
        embeds = kind_of(key) == "embedding"
        loaded = [instance for instance in self.instances.values() if instance.key == key]
        entry: dict[str, Any] = {
            "id": key,
            "object": "model",
            "type": "embeddings" if embeds else "vlm" if "-vl" in key else "llm",
            "publisher": publisher or "lmstudio-community",
            "arch": "nomic-bert" if embeds else _architecture(key),
            "compatibility_type": "gguf",
            "quantization": "F16" if embeds else "Q4_K_M",
            "state": "loaded" if loaded else "not-loaded",
            "max_context_length": _MAX_EMBEDDING_CONTEXT if embeds else _MAX_CONTEXT_LENGTH,
        }
        if loaded:
            entry["loaded_context_length"] = loaded[0].context_length
        if not embeds:
            entry["capabilities"] = ["tool_use"]
        return entry


def kind_of(key: str) -> str:
    return "embedding" if "embed" in key else "llm"


def _architecture(key: str) -> str:
    return key.rpartition("/")[2].partition("-")[0]
