"""Owns the real vLLM servers of a test session: one for chat, one for embeddings, each started when first asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.server import PYTHON_VARIABLE, VLLMServer, make_model


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The Python of the environment that has vLLM."""
    python = os.environ.get(PYTHON_VARIABLE)
    if not python:
        pytest.skip(f"{PYTHON_VARIABLE} names no Python that has vLLM; `nox -s e2e_vllm` makes one and sets it")
    return python


@pytest.fixture(scope="session")
def vllm_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the tiny model."""
    return make_model(vllm_python, tmp_path_factory.mktemp("vllm-model"))


@pytest.fixture(scope="session")
def vllm_server(vllm_python: str, vllm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A server that chats, calls tools and reasons, word for word as a request tells it (``scripted.py``)."""
    with VLLMServer(vllm_python, vllm_model, tmp_path_factory.mktemp("vllm-chat")) as server:
        yield server


@pytest.fixture(scope="session")
def vllm_embedding_server(
    vllm_python: str, vllm_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VLLMServer]:
    """A server that embeds, and cannot chat."""
    with VLLMServer(vllm_python, vllm_model, tmp_path_factory.mktemp("vllm-embed"), kind="embed") as server:
        yield server
