"""Reading `.ctxrc`: values, invalid values, and the position in each error."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxbackends._config import reader as config_module
from ctxbackends._config.api_key import find_api_key
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.ctx_config import CtxConfig
from ctxbackends._config.ctxrc_file import MAX_FILE_SIZE, find_ctxrc
from ctxbackends._config.duration import parse_duration
from ctxbackends._config.endpoint import normalise_endpoint
from ctxbackends._config.reader import airgap_of, load_ctxrc, parse_ctxrc, redact_of
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType
from ctxbackends._registry import Registry
from ctxbackends.errors import (
    ConfigError,
    DuplicateBackendError,
    InvalidEndpointError,
    MissingKeyError,
    UnknownBackendError,
    UnknownBackendTypeError,
)

KEY = "sk-proj-Ab3dEf6hIj9kLmN0"
PATH = "/home/me/project/.ctxrc"
HINT = "write a number with a unit, such as 300ms, 30s, 2m or 1h30m"
HIDDEN = "(not shown: looks like a key)"
QUOTES = "must be a string; put it in quotes"
MAPPING = "must be a mapping with keys such as name: and type:"
LIKE = "write it like http://localhost:8080"


def parse(text: str, **options: Any) -> CtxConfig:
    return parse_ctxrc(text, path=PATH, **options)


def parse_error(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as exc_info:
        parse(text)
    error = exc_info.value
    assert error.path == PATH
    assert KEY not in str(error)
    assert KEY not in repr(error.__context__)
    return error


# --- durations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1h0m0.5s", 3600.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("+5s", 5.0),
        ("0", 0.0),
        ("+0", 0.0),
        ("0s", 0.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("1ns", 1e-9),
        ("1m1m", 120.0),
        ("2562047h47m16.854775807s", 9223372036.854775807),
    ],
)
def test_durations_in_go_format(text: str, seconds: float) -> None:
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60", "duration has no unit: 60; write 60s"),
        ("1.5", "duration has no unit: 1.5; write 1.5s"),
        ("1h30", f"not a duration: '1h30'; {HINT}"),
        ("1.2.3s", f"not a duration: '1.2.3s'; {HINT}"),
        ("", f"not a duration: ''; {HINT}"),
        ("s", f"not a duration: 's'; {HINT}"),
        (".s", f"not a duration: '.s'; {HINT}"),
        ("1d", "unknown unit in duration: '1d'; use ns, us, ms, s, m or h"),
        ("60 s", "unknown unit in duration: '60 s'; use ns, us, ms, s, m or h"),
        ("60S", "unknown unit in duration: '60S'; use ns, us, ms, s, m or h"),
        ("-1s", f"duration must not be negative: '-1s'; {HINT}"),
        ("٣s", f"not a duration: '٣s'; {HINT}"),
        (
            "2562047h47m16.854775808s",
            f"duration is longer than 292 years: '2562047h47m16.854775808s'; {HINT}",
        ),
        ("1" * 65, f"duration is too long: 65 characters; {HINT}"),
        (KEY, f"not a duration: {HIDDEN}; {HINT}"),
    ],
)
def test_invalid_durations(text: str, message: str) -> None:
    with pytest.raises(ValueError) as exc_info:  # noqa: PT011  # the whole sentence is compared below
        parse_duration(text)
    assert message == str(exc_info.value)


@given(st.integers(min_value=0, max_value=2**62))
def test_every_number_of_nanoseconds_is_a_duration(nanoseconds: int) -> None:
    assert nanoseconds / 10**9 == parse_duration(f"{nanoseconds}ns")


@given(st.text(alphabet="0123456789.+-nsuµmh ", max_size=12) | st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds


QUERY = "write only scheme, host, port and path, and the query in the setting query"
PASSWORD = "put the key in an environment variable, or user:password in one that basic_auth_env names"

# --- endpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint_text", "endpoint"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://localhost:8080/v1", "http://localhost:8080"),
        ("http://localhost:8080/v1/", "http://localhost:8080"),
        ("http://localhost:8080//v1//", "http://localhost:8080"),
        ("https://host/api", "https://host/api"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://host/v1/v1", "https://host/v1"),
        ("https://host/xv1", "https://host/xv1"),
        ("HTTPS://Host.Example/API", "https://host.example/API"),
        ("http://my_service:80", "http://my_service:80"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
        ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_normalised_endpoints(endpoint_text: str, endpoint: str) -> None:
    assert endpoint == normalise_endpoint(endpoint_text)


@pytest.mark.parametrize(
    ("endpoint_text", "message"),
    [
        ("", f"must be a non-empty string; {LIKE}"),
        (
            "localhost:8080",
            f"'localhost:8080' must start with http:// or https://; {LIKE}",
        ),
        (
            "localhost:8080/v1?to=ftp://x",
            f"invalid URL 'localhost:8080': it contains a query or a fragment; {QUERY}",
        ),
        (
            "ftp://host",
            f"'ftp://host' must start with http:// or https://; {LIKE}",
        ),
        ("http://", f"invalid URL 'http://': the host or port is invalid; {LIKE}"),
        ("http:///v1", f"invalid URL 'http://': the host or port is invalid; {LIKE}"),
        ("http://:80", f"invalid URL 'http://:80': the host or port is invalid; {LIKE}"),
        ("http://h:", f"invalid URL 'http://h:': the host or port is invalid; {LIKE}"),
        ("http://h:0", f"invalid URL 'http://h:0': the host or port is invalid; {LIKE}"),
        ("http://h:65536", f"invalid URL 'http://h:65536': the host or port is invalid; {LIKE}"),
        ("http://h:x", f"invalid URL 'http://h:x': the host or port is invalid; {LIKE}"),
        ("http://-h", f"invalid URL 'http://-h': the host or port is invalid; {LIKE}"),
        ("http://h%41", f"invalid URL 'http://h%41': the host or port is invalid; {LIKE}"),
        ("http://é", f"invalid URL 'http://é': the host or port is invalid; {LIKE}"),
        ("http://[::1", f"invalid URL 'http://[::1': the host or port is invalid; {LIKE}"),
        (
            "http://[::1]x:8",
            f"invalid URL 'http://[::1]x:8': the host or port is invalid; {LIKE}",
        ),
        ("http://[v1.h]", f"invalid URL 'http://[v1.h]': the host or port is invalid; {LIKE}"),
        (
            "http://[::1%25e]",
            f"invalid URL 'http://[::1%25e]': the host or port is invalid; {LIKE}",
        ),
        ("http://h\\x", f"invalid URL 'http://h': the host or port is invalid; {LIKE}"),
        (
            "http://h/?",
            f"invalid URL 'http://h': it contains a query or a fragment; {QUERY}",
        ),
        (
            "http://h/#",
            f"invalid URL 'http://h': it contains a query or a fragment; {QUERY}",
        ),
        ("http://h /", "invalid URL 'http://h ': it contains white space or control characters"),
        ("http://h\n", "invalid URL 'http://h\\n': it contains white space or control characters"),
        ("http://h/\x00", "invalid URL 'http://h': it contains white space or control characters"),
        (
            "http://me:secret@h",
            f"invalid URL: it contains a user name or password; {PASSWORD}",
        ),
        ("me:secret@h", f"invalid URL: it must start with http:// or https://; {LIKE}"),
        (
            f"http://h/?key={KEY}@",
            f"invalid URL: it contains a query or a fragment; {QUERY}",
        ),
        (f"http://h:{KEY}", f"invalid URL: the host or port is invalid; {LIKE}"),
    ],
)
def test_invalid_endpoints_hide_secrets(endpoint_text: str, message: str) -> None:
    with pytest.raises(InvalidEndpointError) as exc_info:
        normalise_endpoint(endpoint_text)
    assert (message, "endpoint", None) == (exc_info.value.problem, exc_info.value.key, exc_info.value.__context__)


# --- values built in code -----------------------------------------------------------------------------


def test_a_type_with_a_default_endpoint_needs_no_endpoint() -> None:
    built = {name: BackendConfig(name=name) for name in PROFILES if name not in ("openai-compatible", "azure-openai")}
    assert {name: (name, PROFILES[name].default_endpoint) for name in built} == {
        name: (config.type, config.endpoint) for name, config in built.items()
    }


def test_known_types_become_the_enumeration() -> None:
    own = BackendConfig(name="mine", type="my-server")
    assert (BackendType, BackendType.VLLM) == (
        type(BackendConfig(name="a", type="vllm").type),
        BackendConfig(name="a", type="vllm").type,
    )
    assert (str, "my-server", None) == (type(own.type), own.type, own.endpoint)


def test_numbers_of_seconds_become_floats() -> None:
    config = BackendConfig(name="vllm", timeout=60, ready_timeout=0)
    assert (60.0, float, 0.0) == (config.timeout, type(config.timeout), config.ready_timeout)


def test_model_path_replaces_the_endpoint() -> None:
    config = BackendConfig(
        name="l", type="llamacpp", model_path="m.gguf", ctx_size=8192, parallel=2, threads=4, embeddings=True
    )
    assert (None, "m.gguf") == (config.endpoint, config.model_path)


def test_a_config_can_be_evolved() -> None:
    config = BackendConfig(name="a", type="openai-compatible", endpoint="http://h/api/v1/")
    assert ("http://h/api", 5.0) == (attrs.evolve(config, timeout=5).endpoint, attrs.evolve(config, timeout=5).timeout)


def test_repr_hides_the_key() -> None:
    config = BackendConfig(name="openai", api_key=KEY)
    assert (KEY, False) == (config.api_key, KEY in repr(config))


@pytest.mark.parametrize(
    ("fields", "kind", "key", "message"),
    [
        ({"name": "x"}, UnknownBackendTypeError, "name", 'unknown backend type: "x"; choose one of '),
        ({"name": KEY}, UnknownBackendTypeError, "name", 'unknown backend type: "(not shown)"; choose one of '),
        ({"name": 1}, ConfigError, "name", "must be a string"),
        ({"name": "", "type": "vllm"}, ConfigError, "name", "must not be empty"),
        (
            {"name": " a", "type": "vllm"},
            ConfigError,
            "name",
            "must not be empty or have leading or trailing white space",
        ),
        ({"name": "a\nb", "type": "vllm"}, ConfigError, "name", "must not contain control characters"),
        ({"name": "a\ud800", "type": "vllm"}, ConfigError, "name", "must not contain control characters"),
        ({"name": "a", "type": None}, ConfigError, "type", "must be a string"),
        ({"name": "a", "type": ["vllm"]}, ConfigError, "type", "must be a string"),
        ({"name": "a", "type": ""}, ConfigError, "type", "must not be empty"),
        ({"name": "vllm", "default_model": ""}, ConfigError, "default_model", "must not be empty"),
        ({"name": "llamacpp", "model_path": ""}, ConfigError, "model_path", "must not be empty"),
        ({"name": "openai-compatible"}, InvalidEndpointError, "endpoint", "required for type openai-compatible"),
        ({"name": "vllm", "endpoint": "h"}, InvalidEndpointError, "endpoint", "'h' must start with http"),
        ({"name": "vllm", "endpoint": 5}, InvalidEndpointError, "endpoint", "must be a non-empty string"),
        (
            {"name": "mine", "type": "own", "endpoint": "h"},
            InvalidEndpointError,
            "endpoint",
            "'h' must start with",
        ),
        (
            {"name": "vllm", "api_key_env": "A-B"},
            ConfigError,
            "api_key_env",
            "must be the name of an environment variab",
        ),
        ({"name": "vllm", "api_key_env": KEY}, ConfigError, "api_key_env", "must be the name of an environment variab"),
        ({"name": "vllm", "api_key_env": 5}, ConfigError, "api_key_env", "must be the name of an environment variable"),
        ({"name": "vllm", "api_key": ""}, ConfigError, "api_key", "must be a non-empty string"),
        ({"name": "vllm", "api_key": KEY.encode()}, ConfigError, "api_key", "must be a non-empty string"),
        (
            {"name": "vllm", "api_key": KEY + "\n"},
            ConfigError,
            "api_key",
            "invalid API key in the api_key argument: it cont",
        ),
        (
            {"name": "vllm", "timeout": 0},
            ConfigError,
            "timeout",
            "must be greater than zero; write a number with a unit",
        ),
        ({"name": "vllm", "timeout": -1}, ConfigError, "timeout", "must be greater than zero"),
        ({"name": "vllm", "ready_timeout": -1}, ConfigError, "ready_timeout", "must be greater than zero"),
        ({"name": "vllm", "idle_timeout": True}, ConfigError, "idle_timeout", "must be a number of seconds"),
        ({"name": "vllm", "idle_timeout": "5"}, ConfigError, "idle_timeout", "duration has no unit: 5; write 5s"),
        ({"name": "vllm", "timeout": float("nan")}, ConfigError, "timeout", "must be a number of seconds"),
        ({"name": "vllm", "timeout": float("inf")}, ConfigError, "timeout", "must be a number of seconds"),
        ({"name": "vllm", "timeout": 10**400}, ConfigError, "timeout", "must be a number of seconds"),
        ({"name": "vllm", "model_mismatch": "no"}, ConfigError, "model_mismatch", "must be error, warn or ignore"),
        ({"name": "vllm", "model_path": "m"}, ConfigError, "model_path", "requires type llamacpp"),
        (
            {"name": "llamacpp", "model_path": "m", "endpoint": "http://h"},
            ConfigError,
            "model_path",
            "model_path and endpoint are mutually exclusive; remove one",
        ),
        ({"name": "llamacpp", "ctx_size": 1}, ConfigError, "ctx_size", "requires model_path"),
        ({"name": "llamacpp", "embeddings": True}, ConfigError, "embeddings", "requires model_path"),
        (
            {"name": "llamacpp", "model_path": "m", "threads": 0},
            ConfigError,
            "threads",
            "must be an integer from 1",
        ),
        ({"name": "llamacpp", "model_path": "m", "threads": True}, ConfigError, "threads", "must be an integer"),
        ({"name": "llamacpp", "model_path": "m", "parallel": 2**31}, ConfigError, "parallel", "must be an integer"),
        ({"name": "llamacpp", "model_path": "m", "embeddings": 1}, ConfigError, "embeddings", "must be true or false"),
    ],
)
def test_invalid_values_in_code(fields: dict[str, Any], kind: type[ConfigError], key: str, message: str) -> None:
    with pytest.raises(ConfigError) as exc_info:
        BackendConfig(**fields)
    error = exc_info.value
    assert (kind, key, message) == (type(error), error.key, error.problem[: len(message)])
    assert KEY not in str(error)
    assert str(error) == str(pickle.loads(pickle.dumps(error)))  # noqa: S301  # what this test pickled


# --- copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_config_with_a_key_is_not_pickled(protocol: int) -> None:
    config = BackendConfig(name="cloud", type="openai", api_key=KEY)
    for value in (config, [config], CtxConfig(backends=(config,))):
        with pytest.raises(TypeError) as exc_info:
            pickle.dumps(value, protocol)
        expected = (
            "cannot pickle the configuration of cloud: it contains an api_key; "
            "set an environment variable and name it in api_key_env"
        )
        assert expected == str(exc_info.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("variable", [None, "", "SOME_KEY"])
def test_a_config_without_a_key_is_pickled(variable: str | None, protocol: int) -> None:
    for config in (
        BackendConfig(name="cloud", type="openai", api_key_env=variable, timeout=5, model_mismatch="warn"),
        BackendConfig(name="llamacpp", api_key_env=variable, model_path="m.gguf", parallel=2),
        BackendConfig(name="own", type="of-my-own", api_key_env=variable),
    ):
        copy_ = pickle.loads(pickle.dumps(config, protocol))  # noqa: S301  # what this test pickled
        assert (config, variable, type(config.type)) == (copy_, copy_.api_key_env, type(copy_.type))
        with pytest.raises(AttributeError):
            copy_.name = "changed"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("key", [{"api_key": KEY}, {"api_key_env": "SOME_KEY"}, {}])
def test_a_copy_of_a_config_keeps_the_key(key: dict[str, Any], duplicate: Callable[[Any], Any]) -> None:
    config = BackendConfig(name="cloud", type="openai", **key)
    for copy_ in (duplicate(config), duplicate([config])[0], duplicate(CtxConfig(backends=(config,))).backends[0]):
        assert (config, key.get("api_key")) == (copy_, copy_.api_key)


# --- keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "environ", "expected"),
    [
        ({"name": "openai"}, {"OPENAI_API_KEY": "k"}, ("k", "OPENAI_API_KEY")),
        ({"name": "openai"}, {}, None),
        ({"name": "openai"}, {"OPENAI_API_KEY": ""}, None),
        ({"name": "openai", "api_key_env": ""}, {"OPENAI_API_KEY": "k"}, None),
        ({"name": "openai", "api_key_env": "MINE"}, {"OPENAI_API_KEY": "k", "MINE": "m"}, ("m", "MINE")),
        ({"name": "openai", "api_key": "a"}, {"OPENAI_API_KEY": "k"}, ("a", "api_key argument")),
        ({"name": "vllm"}, {"OPENAI_API_KEY": "k"}, None),
        ({"name": "vllm", "api_key_env": "MINE"}, {"MINE": "m"}, ("m", "MINE")),
    ],
)
def test_key_sources(fields: dict[str, Any], environ: dict[str, str], expected: tuple[str, str] | None) -> None:
    config = BackendConfig(**fields)
    assert expected == find_api_key(config, PROFILES[config.type], environ)


@pytest.mark.parametrize("environ", [{}, {"MINE": ""}])
def test_a_named_variable_without_a_key_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(MissingKeyError) as exc_info:
        find_api_key(BackendConfig(name="openai", api_key_env="MINE"), PROFILES["openai"], environ)
    assert ("MINE", "openai") == (exc_info.value.variable, exc_info.value.backend)


@pytest.mark.parametrize("junk", ["\n", "\r\nX-Evil: 1", " ", "\t", "\x00", "\x7f", "é", "\ud800"])
def test_invalid_keys_are_not_shown(junk: str) -> None:
    with pytest.raises(ConfigError) as exc_info:
        find_api_key(BackendConfig(name="openai"), PROFILES["openai"], {"OPENAI_API_KEY": KEY + junk})
    assert (
        "invalid API key in the variable OPENAI_API_KEY: it contains spaces, a line break or non-ASCII characters; "
        "check the variable" == exc_info.value.problem
    )
    assert KEY not in repr(exc_info.value)


# --- finding and reading the file ---------------------------------------------------------------------


def test_the_nearest_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_ctxrc(deep) is None
    (tmp_path / ".ctxrc").touch()
    assert tmp_path / ".ctxrc" == find_ctxrc(deep)
    (tmp_path / "a" / ".ctxrc").touch()
    monkeypatch.chdir(deep)
    assert tmp_path / "a" / ".ctxrc" == find_ctxrc()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("directory", "is a directory; .ctxrc must be a text file"),
        ("pipe", "is not a regular file; .ctxrc must be a text file"),
        ("socket", "is not a regular file; .ctxrc must be a text file"),
        ("device", "is not a regular file; .ctxrc must be a text file"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("dangling link", "is a link to a file that does not exist"),
    ],
)
def test_a_ctxrc_that_is_not_a_file_hides_none_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, problem: str
) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    (tmp_path / ".ctxrc").write_text("airgap: false\n")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    path = Path(".ctxrc")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to({"device": "/dev/zero", "loop": ".ctxrc", "dangling link": "nowhere"}[kind])
    found = find_ctxrc()
    assert tmp_path / "project" / ".ctxrc" == found
    with pytest.raises(ConfigError) as exc_info:
        Registry.from_ctxrc()
    assert f"{found}: {problem}" == str(exc_info.value)


def test_no_working_directory_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", fail)
    assert find_ctxrc() is None


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text("default_backend: local\nbackends:\n  - {name: local, type: llamacpp, timeout: 60s}\n")
    local = BackendConfig(name="local", type="llamacpp", timeout=60.0)
    assert CtxConfig(backends=(local,), default_backend="local", path=path) == load_ctxrc(path)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(ConfigError) as exc_info:
            load_ctxrc(path)
        return str(exc_info.value)

    path = tmp_path / "f"
    assert f"{path}: cannot be read: No such file or directory" == message(path)
    assert f"{tmp_path}: is a directory; .ctxrc must be a text file" == message(tmp_path)
    assert "'a\\x00b': is not a valid path" == message(Path("a\0b"))
    if sys.platform != "win32":
        os.mkfifo(path)
        assert f"{path}: is not a regular file; .ctxrc must be a text file" == message(path)
        path.unlink()
    path.write_bytes(b"# ok\n# caf\xe9\n")
    assert f"{path}:2: is not UTF-8 text" == message(path)
    path.write_bytes("a: b\n".encode("utf-16"))
    assert f"{path}:1: is not UTF-8 text" == message(path)
    path.write_bytes(b"#" * (MAX_FILE_SIZE + 1))
    assert f"{path}: is too large: more than 131072 bytes; is it the right file?" == message(path)
    path.write_bytes(b"#" * MAX_FILE_SIZE)
    assert () == load_ctxrc(path).backends


def test_the_decoders_error_is_not_chained(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_bytes(b"x: " + KEY.encode() + b"\xff")
    with pytest.raises(ConfigError) as exc_info:
        load_ctxrc(path)
    assert (None, None) == (exc_info.value.__cause__, exc_info.value.__context__)


# --- what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeff",
        "# a comment\n",
        "---\n",
        "null",
        "~",
        "{}",
        "backends:\n",
        "backends: []",
        "backends: ~ # x",
        "a: 1",
    ],
)
def test_an_empty_file_has_no_backends(text: str) -> None:
    assert CtxConfig(path=Path(PATH)) == parse(text)


def test_every_field_is_read() -> None:
    text = """
        default_backend: files
        backends:
          - name: net
            type: openai-compatible
            endpoint: https://host/api/v1/
            api_key_env: MY_KEY
            timeout: 1h30m
            connect_timeout: 500ms
            ready_timeout: 0
            first_token_timeout: "2m"
            idle_timeout: 30s
            default_model: 'qwen3:4b'
            model_mismatch: warn
            embeddings: false
          - name: files
            type: llamacpp
            model_path: models/m.gguf
            ctx_size: 8192
            parallel: 2
            threads: 4
            embeddings: true
            api_key_env: ""
          - name: anthropic
    """
    net = BackendConfig(
        name="net",
        type="openai-compatible",
        endpoint="https://host/api",
        api_key_env="MY_KEY",
        timeout=5400.0,
        connect_timeout=0.5,
        ready_timeout=0.0,
        first_token_timeout=120.0,
        idle_timeout=30.0,
        default_model="qwen3:4b",
        model_mismatch="warn",
    )
    files = BackendConfig(
        name="files",
        type="llamacpp",
        model_path="/home/me/project/models/m.gguf",
        ctx_size=8192,
        parallel=2,
        threads=4,
        embeddings=True,
        api_key_env="",
    )
    expected = (net, files, BackendConfig(name="anthropic"))
    assert CtxConfig(backends=expected, default_backend="files", path=Path(PATH)) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "backends:\n- name: vllm",
        "backends:\n- name: vllm\n",
        "backends:\r\n- name: vllm\r\n",
        "\ufeffbackends:\n- name: vllm\n",
        "---\nbackends:\n    -   name: vllm\n...\n",
        '{"backends": [{"name": "vllm"}]}',
        "%YAML 1.2\n---\nbackends: [{name: vllm}]",
        "? backends\n: - ? name\n    : vllm",
        "backends:\n- name: |-\n    vllm\n",
        "backends:\n- !!map {name: !!str vllm}\n",
        "backends:\n-\n  name: vllm # \t\n",
        "backends:\n- &a {name: vllm}\nother: *a\n",
        "x: &a vllm\nbackends:\n- name: *a\n",
        "x: &l [{name: vllm}]\nbackends: *l\n",
        "x: &a {name: vllm}\nbackends:\n- <<: *a\n",
        "x: &a {name: vllm}\nbackends:\n- <<: [*a, {name: no}]\n",
        "x: &a {name: no}\nbackends:\n- <<: *a\n  name: vllm\n",
        "x: &a {name: vllm}\ny: &b {<<: *a}\nbackends:\n- <<: [*b, *a, *b]\n",
        "x: &a {backends: [{name: vllm}], default_backend: vllm}\n<<: [1, *a]\ndefault_backend: vllm\n",
    ],
)
def test_equivalent_yaml(text: str) -> None:
    assert (BackendConfig(name="vllm"),) == parse(text).backends


@pytest.mark.parametrize(
    "foreign",
    [
        "theme: {a: 1, a: 2}",
        "theme: !custom [1, !x 2]",
        "theme: 0o17",
        "theme: 2024-13-45",
        "theme: &a [*a]",
        "? [1, 2]\n: 3",
        "1: 2\n1: 3",
        "<<: 5",
        "<<: [5]",
        "theme: &a 1\nother: &a 2",
        'theme: "\\ud800"',
        f"api_key: {KEY}",
    ],
)
def test_other_top_level_keys_are_ignored(foreign: str) -> None:
    assert (BackendConfig(name="vllm"),) == parse(f"{foreign}\nbackends: [{{name: vllm}}]\n").backends


def test_exponentially_nested_aliases_cost_nothing() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 50)]
    merges = ["m0: &m0 {type: vllm}"]
    merges += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 2)}]}}" for i in range(1, 40)]
    text = "\n".join([*lines, *merges, "backends:", "- <<: *m39", "  name: a"])
    assert (BackendConfig(name="a", type="vllm"),) == parse(text).backends


def test_home_and_absolute_model_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    def model_path(text: str) -> str | None:
        return parse(f"backends: [{{name: llamacpp, model_path: {text}}}]").backends[0].model_path

    assert "/home/me/m.gguf" == model_path('"~/m.gguf"')
    assert "/srv/m.gguf" == model_path("/srv/m.gguf")
    assert "/home/me/m.gguf" == model_path("../m.gguf")
    assert "/home/me/project/$HOME" == model_path("$HOME")  # the environment is not looked at


def test_custom_types_can_be_used() -> None:
    types = (*PROFILES, "mine")
    text = "backends: [{name: mine}, {name: b, type: mine, endpoint: 'http://h/v1'}]"
    expected = (
        BackendConfig(name="mine", type="mine"),
        BackendConfig(name="b", type="mine", endpoint="http://h"),
    )
    assert expected == parse(text, types=types).backends


# --- what is refused, and where -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("timeout: 60", "duration has no unit: 60; write 60s"),
        ("timeout: '60'", "duration has no unit: 60; write 60s"),
        ("timeout: 1.5", "duration has no unit: 1.5; write 1.5s"),
        ("timeout: true", f"must be a duration; {HINT}"),
        ("timeout: null", f"must be a duration; {HINT}"),
        ("timeout:", f"must be a duration; {HINT}"),
        ("timeout: [1s]", f"must be a duration; {HINT}"),
        ("timeout: -5s", f"duration must not be negative: '-5s'; {HINT}"),
        ("timeout: 5 s", "unknown unit in duration: '5 s'; use ns, us, ms, s, m or h"),
        (
            f"timeout: {KEY}",
            f"not a duration: {HIDDEN}; {HINT}",
        ),
        (
            "timeout: 0",
            f"must be greater than zero; {HINT}, or omit it for the default",
        ),
        ("endpoint: localhost", f"'localhost' must start with http:// or https://; {LIKE}"),
        ("endpoint: ''", f"must be a non-empty string; {LIKE}"),
        ("endpoint: 8080", QUOTES),
        (
            f"endpoint: http://me:{KEY}@h",
            f"invalid URL: it contains a user name or password; {PASSWORD}",
        ),
        ("default_model: 5", QUOTES),
        ("default_model: {a: b}", QUOTES),
        ("default_model: !env X", QUOTES),
        ("default_model: ''", "must not be empty or have leading or trailing white space"),
        ("model_mismatch: maybe", "must be error, warn or ignore"),
        ("model_path: m.gguf", "requires type llamacpp"),
        ('model_path: "a\\0b"', "must not contain control characters"),
        ("model_path: ''", "must not be empty or have leading or trailing white space"),
        ("ctx_size: 5", "requires model_path"),
        ("ctx_size: 0", "must be an integer from 1 to 2147483647"),
        ("ctx_size: '5'", "must be an integer from 1 to 2147483647, without quotes"),
        ("ctx_size: -5", "must be an integer from 1 to 2147483647, without quotes"),
        ("ctx_size: 0x5", "must be an integer from 1 to 2147483647, without quotes"),
        ("ctx_size: 5.5", "must be an integer from 1 to 2147483647, without quotes"),
        ("ctx_size: !!int [5]", "must be an integer from 1 to 2147483647, without quotes"),
        ("ctx_size: 99999999999", "must be an integer from 1 to 2147483647, without quotes"),
        ("embeddings: yes", "must be true or false, without quotes"),
        ("embeddings: !!bool yes", "must be true or false, without quotes"),
        ("embeddings: !!bool [true]", "must be true or false, without quotes"),
        ("api_key_env: 5", QUOTES),
    ],
)
def test_invalid_values_have_line_and_key(value: str, message: str) -> None:
    field = value.partition(":")[0]
    error = parse_error(
        f"x: 1\n\nbackends:\n  - name: ok\n    type: vllm\n  - name: a\n    {value}  # c\n    type: vllm\n"
    )
    assert (7, f"backends[1].{field}", message) == (error.line, error.key, error.problem)
    assert f"{PATH}:7: backends[1].{field}: {message}" == str(error)


@pytest.mark.parametrize(
    "value",
    [
        f"api_key_env: {KEY}",
        "api_key_env: MY-KEY",
        "api_key_env: $MY_KEY",
        "api_key_env: 0123456789abcdef0123456789abcdef",
    ],
)
def test_a_key_in_api_key_env_is_not_shown(value: str) -> None:
    error = parse_error(f"backends:\n- name: openai\n  {value}\n")
    assert (
        3,
        "backends[0].api_key_env",
        (
            "must be the name of an environment variable (letters, digits and _), such as OPENAI_API_KEY, "
            "not the key itself; the value is not shown"
        ),
    ) == (error.line, error.key, error.problem)


@pytest.mark.parametrize("member", ["api_key", "apiKey", "api-key", "token", "password"])
def test_keys_are_not_allowed_in_the_file(member: str) -> None:
    error = parse_error(f"backends:\n- name: openai\n  {member}: {KEY}\n")
    assert (
        3,
        f"backends[0].{member}",
        "API keys aren't allowed in .ctxrc; set an environment variable and name it in api_key_env",
    ) == (error.line, error.key, error.problem)


FIELDS = (
    "name, type, endpoint, api_key_env, default_model, model_mismatch, wire_api, served_as, timeout, connect_timeout, "
    "ready_timeout, first_token_timeout, idle_timeout, max_retries, context_length, max_concurrency, keep_alive, "
    "organization, project, model_path, ctx_size, parallel, threads, complete_streams, embeddings, trust_env, "
    "ca_bundle, client_cert, client_key, api_path, basic_auth_env, unix_socket, query, headers, headers_env, rename, "
    "omit, json_mode, allow_missing_finish_reason"
)


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("[1]", 1, None, "the file must be a mapping with keys such as backends:"),
        ("\n\njust text", 3, None, "the file must be a mapping with keys such as backends:"),
        ("backends: 5", 1, "backends", 'must be a list; begin each item with "- name:"'),
        ("backends:\n  name: a", 2, "backends", 'must be a list; begin each item with "- name:"'),
        ("a: 1\nbackends: []\nbackends: []", 3, "backends", "duplicate key"),
        ("a: 1\n'a': 2", 2, "a", "duplicate key"),
        (f"{KEY}: 1\n{KEY}: 2", 2, "(not shown)", "duplicate key"),
        ("backends:\n- vllm", 2, "backends[0]", MAPPING),
        (f"backends:\n- {KEY}", 2, "backends[0]", MAPPING),
        ("backends:\n- name: vllm\n-\n\n\nz: 1", 1, "backends[1]", MAPPING),
        ("backends:\n- !!set {name}", 2, "backends[0]", MAPPING),
        ("backends:\n- type: vllm", 2, "backends[0].name", "required; every backend needs a name"),
        ("backends:\n- name:\n\n  type: vllm", 2, "backends[0].name", QUOTES),
        ("backends:\n- name: a\n  type: vllm\n  name: b", 4, "backends[0].name", "duplicate key"),
        ("backends:\n- name: a\n  <<: {}\n  <<: {}", 4, "backends[0].<<", "duplicate key"),
        ("backends:\n- name: vllm\n  tiemout: 5s", 3, "backends[0].tiemout", "unknown key; did you mean timeout?"),
        ("backends:\n- name: vllm\n  zzz: 5s", 3, "backends[0].zzz", f"unknown key; the keys are {FIELDS}"),
        (
            "backends:\n- name: vllm\n  1: 5s",
            3,
            "backends[0]",
            "keys must be plain names, such as name: and type:",
        ),
        (f"backends:\n- name: vllm\n  {KEY}: 5s", 3, "backends[0]", "contains an unknown key (not shown)"),
        (f"backends:\n- name: vllm\n  {'z' * 101}: 5s", 3, "backends[0]", "contains an unknown key (not shown)"),
        ('backends:\n- name: vllm\n  "\\n": 5s', 3, "backends[0]", "contains an unknown key (not shown)"),
        ("backends:\n- name: vllm\n  <<: 5", 3, "backends[0].<<", "must be a mapping or a list of mappings"),
        (
            "backends:\n- name: vllm\n  <<: [{},\n    5]",
            4,
            "backends[0].<<",
            "must be a mapping or a list of mappings",
        ),
        ("backends:\n- name: vllm\n  <<: {x: 5}", 3, "backends[0].x", f"unknown key; the keys are {FIELDS}"),
        (
            "x: &a {timeout: 5}\nbackends:\n- name: vllm\n  <<: *a",
            1,
            "backends[0].timeout",
            "duration has no unit: 5; write 5s",
        ),
        ("default_backend: 5", 1, "default_backend", "must be the name of a backend; omit it for none"),
        ("default_backend:\n\nx: 1", 1, "default_backend", "must be the name of a backend; omit it for none"),
        ("default_backend: ''", 1, "default_backend", "must be the name of a backend; omit it for none"),
    ],
)
def test_invalid_shapes_have_line_and_key(text: str, line: int, key: str | None, message: str) -> None:
    error = parse_error(text)
    assert (ConfigError, line, key, message) == (type(error), error.line, error.key, error.problem)


OTHER_KEYS = (
    *("context_dir", "token_budget", "priority_order", "auto_archive", "archive_after_days", "scratchpad_encrypt"),
    *("allow_outside_cwd", "event_log", "entry_count_learnings", "entry_count_decisions", "convention_line_count"),
    *("injection_token_warn", "context_window", "billing_token_warn", "key_rotation_days", "freshness_files", "notify"),
)


@pytest.mark.parametrize(
    ("misspelling", "suggestion"),
    [
        *[
            ("airgpa", "airgap"),
            ("airgap2", "airgap"),
            ("air-gap", "airgap"),
            ("irgap", "airgap"),
            ("aigrap", "airgap"),
        ],
        *[("Airgap", "airgap"), ("AIRGAP", "airgap"), ("air_gaps", "airgap"), ("rgap", "airgap")],
        *[("backend", "backends"), ("bakcends", "backends"), ("Backends", "backends"), ("backedns", "backends")],
        *[("default-backend", "default_backend"), ("defaultbackend", "default_backend")],
        *[("default_backends", "default_backend"), ("defalt_bakend", "default_backend")],
        *[("privcy", "privacy"), ("privacies", None), ("pirvacy", "privacy"), ("private", "privacy")],
        *[("context-dir", "context_dir"), ("contextdir", "context_dir"), ("context_dirs", "context_dir")],
        *[("airline", None), ("gap", None), ("air_gapped", None), ("back", None), ("default", None), ("a", None)],
        *[("", None), ("airgap_mode", None), ("backends_of_mine", None), ("context", None), ("x" * 1000, None)],
        *((name, None) for name in OTHER_KEYS),
    ],
)
@pytest.mark.parametrize("before", ["", "# a comment\nother: {airgpa: 1}\n\n"])
def test_a_misspelt_key_at_the_top_is_an_error(
    before: str, misspelling: str, suggestion: str | None, tmp_path: Path
) -> None:
    """In everything that reads the file, also where only the airgap or the privacy is asked for."""
    path = tmp_path / ".ctxrc"
    path.write_text(f'{before}"{misspelling}": true\n')
    for load in (load_ctxrc, airgap_of, redact_of):
        if suggestion is None:
            assert load(path) in (CtxConfig(path=path), False, ())
            continue
        with pytest.raises(ConfigError) as exc_info:
            load(path)
        error = exc_info.value
        assert (str(path), before.count("\n") + 1, misspelling) == (error.path, error.line, error.key)
        assert f"unknown key; did you mean {suggestion}?" == error.problem


def test_a_misspelt_key_next_to_the_right_one() -> None:
    assert "airgpa" == parse_error("airgap: true\nbackends: []\nairgpa: true").key


def test_a_misspelt_key_that_is_merged() -> None:
    error = parse_error("base: &base\n  airgpa: true\n<<: *base")
    assert (2, "airgpa") == (error.line, error.key)
    assert parse("base: &base\n  airgpa: true\nbackends: []").backends == (), "nobody merges it"


def test_a_misspelt_key_with_a_control_character_is_not_shown() -> None:
    assert "(not shown)" == parse_error('"airgap\\e": true').key


def test_an_unknown_type_is_rejected() -> None:
    error = parse_error("backends:\n- name: a\n  type: vlm\n")
    assert isinstance(error, UnknownBackendTypeError)
    assert ("vlm", tuple(PROFILES), 3, "backends[0].type") == (error.type_name, error.types, error.line, error.key)
    assert error.problem.endswith("infinity")


def test_a_name_that_should_be_a_type() -> None:
    error = parse_error("backends:\n- name: local\n")
    assert isinstance(error, UnknownBackendTypeError)
    assert ("local", 2, "backends[0].name") == (error.type_name, error.line, error.key)
    assert error.problem.endswith("use the type openai-compatible; to use another name, set type")


def test_a_type_that_looks_like_a_key_is_not_shown() -> None:
    assert "(not shown)" in parse_error(f"backends:\n- name: a\n  type: {KEY}\n").problem
    assert "(not shown)" in parse_error(f"backends: [{{name: {KEY}}}]").problem
    assert "(not shown)" in parse_error(f"backends: []\ndefault_backend: {KEY}").problem
    assert "(not shown)" in parse_error(f"backends: [{{name: {KEY}, type: vllm}}, {{name: {KEY}, type: vllm}}]").problem


def test_an_empty_type() -> None:
    error = parse_error("backends:\n- name: a\n  type: ''\n")
    assert (3, "backends[0].type", "must not be empty or have leading or trailing white space") == (
        error.line,
        error.key,
        error.problem,
    )


def test_two_backends_of_one_name() -> None:
    error = parse_error("backends:\n- name: a\n  type: vllm\n- type: ollama\n  name: a\n")
    assert isinstance(error, DuplicateBackendError)
    assert ("a", 5, "backends[1].name") == (error.name, error.line, error.key)


def test_a_default_that_names_no_backend() -> None:
    error = parse_error("default_backend: b\nbackends:\n- name: vllm\n- name: ollama\n")
    assert isinstance(error, UnknownBackendError)
    assert ("b", ("vllm", "ollama"), 1, "default_backend") == (error.name, error.names, error.line, error.key)


def test_a_missing_endpoint_points_to_the_entry() -> None:
    error = parse_error("backends:\n- name: vllm\n- name: openai-compatible\n  timeout: 5s\n")
    assert (InvalidEndpointError, 3, "backends[1].endpoint") == (type(error), error.line, error.key)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: b\nc: d: e\n", 2, "invalid YAML at column 5, mapping values are not allowed here"),
        ("a: b\n\tc: d\n", 2, "invalid YAML: tab in the indentation; use spaces"),
        ("a: [1, 2\nb: 3\n", 2, "invalid YAML at column 2, while parsing a flow sequence"),
        ('a: "x\n', 2, "invalid YAML at column 1, while scanning a quoted scalar, found unexpected end of stream"),
        (f"a: *{KEY}\n", 1, "invalid YAML at column 4"),
        (f"a: !{KEY}!x y\n", 1, "invalid YAML at column 4, while parsing a node"),
        (
            "a: b\n---\nc: d\n",
            2,
            "invalid YAML at column 1, expected a single document in the stream, but found another document",
        ),
        ("a: 1\nb: \x07\n", 2, "invalid YAML: control character"),
        ("a: [" * 65, 1, "nested too deeply: more than 64 levels"),
        ("- " * 100000, 1, "nested too deeply: more than 64 levels"),
        ('a: "\\U99999999"\n', None, "invalid YAML: unreadable directive or escape"),
        ("%YAML 1.9\n---\na: b\n", None, "invalid YAML: unreadable directive or escape"),
    ],
)
def test_a_syntax_error_is_one_sentence_with_a_line(text: str, line: int | None, message: str) -> None:
    error = parse_error(text)
    assert (ConfigError, line, None, message) == (type(error), error.line, error.key, error.problem)
    assert (None, None) == (error.__cause__, error.__context__)


def test_merges_have_a_limit() -> None:
    chain = ["m0: &m0 {}", *(f"m{i}: &m{i} {{<<: *m{i - 1}}}" for i in range(1, 200))]
    error = parse_error("\n".join([*chain, "backends:", "- name: vllm", "  <<: *m199"]))
    assert (202, "backends[0]", "merges more than 100 mappings") == (error.line, error.key, error.problem)
    error = parse_error("backends:\n- &a\n  name: vllm\n  <<: [" + "*a, " * 101 + "]")
    assert (2, "backends[0]", "merges more than 100 mappings") == (error.line, error.key, error.problem)


def test_a_mapping_that_merges_itself() -> None:
    assert (BackendConfig(name="vllm"),) == parse("backends:\n- &a\n  name: vllm\n  <<: *a\n").backends


PIECES = st.sampled_from(
    [
        *"[]{}:,?-!&*#|>'\"%@`\\~\n\t\r ",
        *(
            "backends:",
            "default_backend: ",
            "\n- ",
            "\n  ",
            "name: ",
            "type: ",
            "vllm",
            "endpoint: ",
            "http://",
            "h",
            "5s",
        ),
        *(
            "timeout: ",
            "model_path: ",
            "llamacpp",
            "ctx_size: ",
            "<<: ",
            "&a ",
            "*a",
            "!!int ",
            "!!map ",
            "---\n",
            "null",
        ),
        *(
            "\ufeff",
            "\x85",
            "\u2028",
            '"\\U99999999"',
            '"\\ud800"',
            "%YAML 1.1\n---\n",
            "%YAML 9.9\n---\n",
            "api_key_env: ",
        ),
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join) | st.text())
@example('backends: [{name: "\\ud800"}]')
@example('backends: [{name: llamacpp, model_path: "\\ud800"}]')
@example('default_backend: "\\ud800"')
@example('backends: [{"\\ud800": 1}]')
def test_any_text_is_read_or_rejected_with_its_position(text: str) -> None:
    try:
        path = str(parse(text).path)
    except ConfigError as error:
        path = str(error.path)
        str(error).encode()
    assert PATH == path


def test_reading_imports_no_transport_and_the_import_loads_no_yaml() -> None:
    code = (
        "import sys, ctxbackends._config.backend_config, ctxbackends._config.writer\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('aiohttp', 'tenacity', 'ruamel', 'anyio')))"
    )
    root = str(Path(config_module.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "[]\n" == done.stdout
