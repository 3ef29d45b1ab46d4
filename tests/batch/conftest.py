"""Journals, and the way to the programs of this directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.journal_entries import store


@pytest.fixture(autouse=True)
def _find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the programs of this directory also where the package is installed from a wheel."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a journal goes."""
    return tmp_path / "out.jsonl.journal"


@pytest.fixture
def stored(directory: Path) -> Path:
    """A journal with entries."""
    return store(directory)
