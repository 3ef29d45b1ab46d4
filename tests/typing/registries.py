# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Registries, their configurations and errors."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from ctxbackends import (
    APIStatusError,
    Backend,
    BackendConfig,
    BackendError,
    BackendType,
    PartialCompletion,
    Registry,
    ServerStatus,
    StreamInterruptedError,
)


async def check_registry(path: Path) -> None:
    assert_type(Registry.from_ctxrc(path), Registry)
    async with Registry([BackendConfig(name="local", type=BackendType.LLAMACPP)]) as registry:
        assert_type(registry, Registry)
        assert_type(registry.default(), Backend)
        assert_type(registry.resolve("local"), Backend)
        assert_type(registry.config("local"), BackendConfig)
        assert_type(registry.names, tuple[str, ...])
        assert_type(await registry.statuses(), tuple[ServerStatus, ...])
        assert_type(await registry.drain("30s"), bool)
    Registry(BackendConfig(name="local", type="vllm"))  # type: ignore[arg-type]


def check_config() -> None:
    config = BackendConfig(name="local", type="vllm", timeout="30s", max_concurrency=4)
    assert_type(config.default_model, str | None)
    config.name = "other"  # type: ignore[misc]
    BackendConfig(name="local", endpont="http://gpu:8000")  # type: ignore[call-arg]


def check_errors(error: BackendError) -> None:
    if isinstance(error, APIStatusError):
        assert_type(error.status_code, int)
        assert_type(error.retry_after, float | None)
    if isinstance(error, StreamInterruptedError):
        assert_type(error.partial, PartialCompletion)
