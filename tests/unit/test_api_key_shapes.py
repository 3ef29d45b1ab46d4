from __future__ import annotations

import attrs
import pytest

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._util.api_key_shapes import MASK, looks_like_key, mask_keys
from ctxbackends.errors import ConfigError
from tests.key_samples import KEYS

FIELDS = [field.name for field in attrs.fields(BackendConfig) if field.name != "api_key"]


def refusal(text: str) -> str:
    """The error of a `.ctxrc`; empty where it is accepted, as a model may have any name."""
    try:
        parse_ctxrc(text, path=".ctxrc")
    except ConfigError as error:
        return f"{error} {error!r}"
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_masked_in_texts(key: str) -> None:
    assert (f"it is {MASK}, keep it", 1) == mask_keys(f"it is {key}, keep it")


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_recognised_in_a_configuration(key: str) -> None:
    assert looks_like_key(key)
    assert looks_like_key(f"Bearer {key}")


@pytest.mark.parametrize(
    "text",
    [
        *(f'backends: [{{name: vllm, {field}: "KEY"}}]' for field in FIELDS if field != "name"),
        'backends: [{name: vllm, "KEY": 1}]',
        'backends: [{name: "KEY"}]',
        'backends: [{name: "KEY", type: vllm, timeout: soon}]',
        'backends: [{name: "KEY", type: vllm}, {name: "KEY", type: vllm}]',
        'backends: [{name: "KEY", type: vllm}]\ndefault_backend: ollama',
        'backends: "KEY"',
        'backends: ["KEY"]',
        'default_backend: "KEY"',
        'airgap: "KEY"',
        'privacy: "KEY"',
        'privacy: {"KEY": 1}',
        'privacy: {redact: "KEY"}',
        'privacy: {redact: ["!KEY"]}',
        'backends: "KEY',
        'backends: &KEY [*KEY, *"KEY"]',
    ],
)
def test_no_error_of_a_file_shows_a_key(text: str) -> None:
    assert [] == [key for key in KEYS if key in refusal(text.replace("KEY", key))]


def test_a_key_as_duration_is_not_shown() -> None:
    with pytest.raises(ConfigError) as exc_info:
        parse_ctxrc("backends:\n- name: vllm\n  timeout: glpat-ABCDEFGHIJKLMNOPQRST", path=".ctxrc")
    assert (
        ".ctxrc:3: backends[0].timeout: not a duration: (not shown: looks like a key); "
        "write a number with a unit, such as 300ms, 30s, 2m or 1h30m"
    ) == str(exc_info.value)


def test_a_key_in_any_other_value_is_masked() -> None:
    error = ConfigError("file not found: /models/glpat-ABCDEFGHIJKLMNOPQRST", key="model_path")
    assert f"model_path: file not found: /models/{MASK}" == str(error)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sk-a", True),
        ("Bearer sk-a", True),
        ("gsk_1234567890123456789", True),
        ("0123456789abcdef0123456789abcdef", True),
        ("OPENAI_API_KEY", False),
        ("MY_TEAMS_OPENAI_API_KEY_2", False),
        ("hf_token", False),
        ("qwen3-4b-instruct-2507", False),
        ("http://localhost:8080/v1", False),
        ("", False),
    ],
)
def test_texts_that_look_like_a_key(text: str, key: bool) -> None:
    assert key == looks_like_key(text)
