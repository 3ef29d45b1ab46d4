"""The real small model, for tests whose answers have meaning. `nox -s e2e_words` downloads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "CTXBACKENDS_TEST_WORDS"
"""Environment variable with the path of the model file."""


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The model file."""
    if not os.environ.get(VARIABLE):
        pytest.skip("needs SmolLM2; run nox -s e2e_words")
    return Path(os.environ[VARIABLE])


@pytest.fixture
def cache(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the model, and an empty working directory without a .ctxrc."""
    directory = tmp_path / "cache" / "models"
    directory.mkdir(parents=True)
    (directory / "smollm2.gguf").symlink_to(smollm2)
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return directory
