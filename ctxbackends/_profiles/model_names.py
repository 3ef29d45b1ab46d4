"""Comparison of model names."""

from __future__ import annotations

from collections.abc import Sequence

from ctxbackends._chat.servers import ModelInfo


def same_model(requested: str, served: str) -> bool:
    """Return whether ``served`` is ``requested`` or another name that servers use for the same model.

    These are a dated snapshot of an alias (``gpt-4o`` -> ``gpt-4o-2024-08-06``, ``...-20251001``), Ollama's implied tag
    (``:latest``), the file that llama-server was started with (``/models/qwen3-4b.gguf`` for ``qwen3-4b``), Gemini's
    ``models/`` before a name, and the name in another case.
    """
    requested, served = requested.casefold().removeprefix("models/"), served.casefold().removeprefix("models/")
    if requested == served:
        return True
    requested = requested.removesuffix("-latest")
    digits = served.removeprefix(f"{requested}-").replace("-", "")
    if (
        served.startswith(f"{requested}-") and digits.isdigit() and len(digits) >= 4
    ):  # gpt-4-0613, -2024-08-06, -20251001
        return True
    if f"{requested}:latest" == served:
        return True
    return served.endswith(".gguf") and _stem(served) == _stem(requested)


def is_listed(requested: str, models: Sequence[ModelInfo]) -> bool:
    """Return whether the server lists ``requested``, under this name or another one of the same model."""
    return any(same_model(requested, name) for model in models for name in (model.id, *model.aliases))


def _stem(model: str) -> str:
    return model.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")
