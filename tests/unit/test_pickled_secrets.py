"""No secret is in a pickle: a value with one raises TypeError, and the values of environment variables stay out."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends import BackendConfig, LocalServer, Registry, RequestOptions
from ctxbackends._config.literal_secrets import is_secret_name
from ctxbackends._util.secrets import MaskedHeaders, Secret
from ctxbackends.local import ServerOptions

CANARY = "canary-7d1f0c93"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
GPU: dict[str, Any] = {"name": "gpu", "type": "openai-compatible", "endpoint": "http://gpu:8000"}
REFERENCES = BackendConfig(
    name="gpu",
    type="openai-compatible",
    endpoint="https://${PICKLED_HOST}/${PICKLED_A}",
    api_key_env="PICKLED_A",
    headers={"X-Access-Token": "Bearer ${PICKLED_A}", "X-Team": "a"},
    headers_env={"X-Secret": "PICKLED_A"},
    query={"key": "${PICKLED_A}", "api-version": "2026-01-01"},
)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICKLED_A", CANARY)
    monkeypatch.setenv("PICKLED_HOST", "gpu.example.org")


def dumps_nested(value: object) -> bytes:
    return pickle.dumps([{"nested": value}])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_references_are_pickled_without_their_values(protocol: int, variables: None) -> None:
    options = RequestOptions(timeout=5, headers={"X-Access-Token": "${PICKLED_A}"})
    for value in (REFERENCES, options, attrs.evolve(REFERENCES, timeout=5), [REFERENCES, options]):
        data = pickle.dumps(value, protocol)
        assert CANARY.encode() not in data
        assert value == pickle.loads(data)  # noqa: S301  # our own bytes


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_configuration_whose_backend_was_used(protocol: int, variables: None) -> None:
    backend = Registry([REFERENCES]).resolve("gpu")
    assert "gpu.example.org" in backend.endpoint  # the variables were read
    assert CANARY.encode() not in pickle.dumps(REFERENCES, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            BackendConfig(**GPU, api_key=CANARY),
            "the configuration of gpu: it contains an api_key; set an environment variable and name it in api_key_env",
        ),
        (
            BackendConfig(**GPU, headers={"X-Team": "a", "X-Access-Token": CANARY}),
            (
                "the configuration of gpu: the header X-Access-Token contains a secret; "
                "set an environment variable and write ${NAME}"
            ),
        ),
        (
            BackendConfig(**GPU, query={"subscription-key": CANARY}),
            (
                "the configuration of gpu: the query parameter subscription-key contains a secret; "
                "set an environment variable and write ${NAME}"
            ),
        ),
        (
            BackendConfig(**{**GPU, "endpoint": "http://gpu:8000/v2/sk-canary-7d1f0c93"}),
            "the configuration of gpu: endpoint contains a secret; set an environment variable and write ${NAME}",
        ),
        (
            BackendConfig(**GPU, api_path="/v2/sk-canary-7d1f0c93"),
            "the configuration of gpu: api_path contains a secret; set an environment variable and write ${NAME}",
        ),
        (
            RequestOptions(headers={"Helicone-Auth": f"Bearer {CANARY}"}),
            (
                "the options of a request: the header Helicone-Auth contains a secret; "
                "set an environment variable and write ${NAME}"
            ),
        ),
        (
            ServerOptions(api_key=CANARY),
            "the options of a server: they contain an api_key; set it in the process that starts the server",
        ),
        (
            ServerOptions(environment={"LANG": "C", "HF_TOKEN": CANARY}),
            (
                "the options of a server: they contain the secret environment variable HF_TOKEN; "
                "set it in the process that starts the server"
            ),
        ),
        (
            ServerOptions(environment={"SOME": "sk-canary-7d1f0c93"}),
            (
                "the options of a server: they contain the secret environment variable SOME; "
                "set it in the process that starts the server"
            ),
        ),
    ],
)
def test_a_literal_secret_is_not_pickled(value: object, problem: str, protocol: int) -> None:
    for nested in (value, [{"nested": value}]):
        with pytest.raises(TypeError) as exc_info:
            pickle.dumps(nested, protocol)
        assert f"cannot pickle {problem}" == str(exc_info.value)
        assert CANARY not in str(exc_info.value)


@pytest.mark.parametrize(
    "value",
    [
        BackendConfig(**GPU, api_key=CANARY),
        BackendConfig(**GPU, headers={"X-Access-Token": CANARY}),
        RequestOptions(headers={"X-Access-Token": CANARY}),
        ServerOptions(api_key=CANARY, environment={"HF_TOKEN": CANARY}),
    ],
)
def test_a_value_with_a_secret_is_copied(value: Any) -> None:
    assert value == copy.copy(value) == copy.deepcopy(value) == attrs.evolve(value)
    assert [value] == copy.deepcopy([value])


def test_a_copy_of_server_options_has_its_own_environment() -> None:
    options = ServerOptions(environment={"A": "1"})
    copied = copy.deepcopy(options)
    assert copied.environment is not options.environment
    assert options == copied == pickle.loads(pickle.dumps(options))  # noqa: S301  # our own bytes


@pytest.mark.parametrize("operation", [dumps_nested, pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Secret(CANARY), "cannot pickle or copy a secret"),
        (MaskedHeaders({"Authorization": CANARY}), "cannot pickle or copy headers, which may contain a secret"),
        (
            LocalServer("m.gguf", api_key=CANARY),
            "cannot pickle or copy a LocalServer: it has a process; create one where it is needed",
        ),
    ],
)
def test_internal_values(value: object, problem: str, operation: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as exc_info:
        operation(value)
    assert problem == str(exc_info.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("X-Access-Token", True),
        ("x-portkey-virtual-key", True),
        ("Ocp-Apim-Subscription-Key", True),
        ("Helicone-Auth", True),
        ("Cookie", True),
        ("MY_PASSWORD", True),
        ("api_key", True),
        ("sig", True),
        ("apiKey", True),
        ("X-Max-Tokens", False),
        ("X-Keyboard", False),
        ("X-Team", False),
        ("api-version", False),
        ("X-Token-Limit", False),
    ],
)
def test_names_of_secrets(name: str, expected: bool) -> None:
    assert expected is is_secret_name(name)


def read_in_worker(config: BackendConfig) -> tuple[BackendConfig, str]:
    """Return the configuration as it arrives, and the endpoint with this process's own variables."""
    return config, Registry([config]).resolve(config.name).endpoint


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_worker_reads_its_own_variables(method: str, variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    if method == "forkserver":  # a new one: the one of another test was started without the variables
        from multiprocessing import forkserver  # noqa: PLC0415  # not on Windows

        server = forkserver.ForkServer()
        monkeypatch.setattr(forkserver, "connect_to_new_process", server.connect_to_new_process)
    # The worker imports this module, also where the package is installed from a wheel.
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    config = attrs.evolve(REFERENCES, endpoint="https://${PICKLED_HOST}")
    with multiprocessing.get_context(method).Pool(1) as pool:
        arrived, endpoint = pool.apply_async(read_in_worker, (config,)).get(60)
    assert (config, f"https://{os.environ['PICKLED_HOST']}") == (arrived, endpoint)
