"""Backends and registries cannot be pickled or copied; their configurations can, but not with a key."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable

import pytest

from ctxbackends import BackendConfig, Registry

CONFIG = BackendConfig(
    name="one",
    type="openai-compatible",
    endpoint="http://gpu:8000",
    api_key_env="ONE_KEY",
    headers={"X-Team": "a"},
    served_as={"small": ["big"]},
    omit=["top_k"],
)


def roundtrip(value: object) -> object:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own


@pytest.mark.parametrize("operation", [roundtrip, copy.copy, copy.deepcopy])
def test_backends_and_registries(operation: Callable[[object], object]) -> None:
    config = BackendConfig(name="one", type="vllm", api_key="sk-from-a-store")
    registry = Registry([config])
    for value, name in ((registry, "Registry"), (registry.default(), "HTTPBackend"), ([registry], "Registry")):
        if operation is copy.copy and isinstance(value, list):
            continue  # a shallow copy has the same registry
        with pytest.raises(TypeError) as exc_info:
            operation(value)
        assert (
            f"cannot pickle or copy a {name}: it has connections; store its BackendConfig and create a new one from it"
            == str(exc_info.value)
        )
        assert (None, True) == (exc_info.value.__cause__, "sk-from" not in str(exc_info.value))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_configuration(protocol: int) -> None:
    loaded = pickle.loads(pickle.dumps(CONFIG, protocol))  # noqa: S301  # our own
    assert (CONFIG, hash(CONFIG)) == (loaded, hash(loaded))
    assert CONFIG == copy.deepcopy(CONFIG) == copy.copy(CONFIG)
    assert {CONFIG: 1}[loaded] == 1
    assert loaded.type is CONFIG.type


@pytest.mark.parametrize("operation", [pickle.dumps, lambda config: pickle.dumps([{"nested": config}])])
def test_a_configuration_with_a_key_is_not_pickled(operation: Callable[[object], bytes]) -> None:
    config = BackendConfig(name="one", type="openai", api_key="sk-from-a-store")
    with pytest.raises(TypeError, match="set an environment variable and name it in api_key_env") as exc_info:
        operation(config)
    assert "sk-from" not in str(exc_info.value)
    assert copy.deepcopy(config) == config
    assert len({config, copy.deepcopy(config)}) == 1


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_configuration_in_another_process(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    config = BackendConfig(name="one", type="vllm", default_model="m")
    with multiprocessing.get_context(method).Pool(1) as pool:
        # A function that the other process can import; the pool waits forever for one that it cannot.
        assert config == pool.apply_async(copy.copy, (config,)).get(60)
