"""Setting and removing one setting of `.ctxrc`: the text around it stays, and a failure changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

with suppress(ImportError):  # not on Windows
    import fcntl

from ctxbackends._config.ctxrc_file import MAX_FILE_SIZE, no_backend_error
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._config.setting_edits import Removal, remove_setting, set_setting
from ctxbackends._config.writer import open_to_edit
from ctxbackends._config.yaml_edits import Literal
from ctxbackends._util import files as files_module
from ctxbackends.errors import ConfigError
from tests.unit.test_config_write import files

FILE = """\
# our servers
theme: dark # of another program
default_backend: local

backends:
  # on this machine
  - name: local
    type: llamacpp   # b10452
    endpoint: 'http://localhost:8080'
    timeout: "90s"
    headers:
      X-Team: search
      X-Trace: on

  # the big one
  - name: gpu
    type: vllm
    endpoint: http://gpu:8000
    # timeout: 3m
    max_retries: 1

last: [1,2]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".ctxrc"


def set_text(path: Path, before: str, key: str, value: str) -> str:
    """The file after set_setting, which is run twice: the second run must find nothing to do."""
    path.write_bytes(before.encode())
    assert set_setting(path, key, value)
    after, inode = path.read_bytes(), path.stat().st_ino
    assert not set_setting(path, key, value)
    assert (after, inode) == (path.read_bytes(), path.stat().st_ino)
    assert [path.name] == os.listdir(path.parent)
    return after.decode()


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("gpu.max_retries", "3", "max_retries: 1", "max_retries: 3"),
        ("local.timeout", "2m", '"90s"', '"2m"'),
        ("local.endpoint", "http://h:1/v1/", "'http://localhost:8080'", "'http://h:1'"),
        ("local.type", "vllm", "llamacpp   # b10452", "vllm   # b10452"),
        ("gpu.idle_timeout", "60s", "    max_retries: 1\n", "    max_retries: 1\n    idle_timeout: 60s\n"),
        (
            "gpu.default_model",
            "qwen3:4b",
            "    max_retries: 1\n",
            "    max_retries: 1\n    default_model: qwen3:4b\n",
        ),
        ("gpu.default_model", "123", "    max_retries: 1\n", '    max_retries: 1\n    default_model: "123"\n'),
        ("gpu.trust_env", "true", "    max_retries: 1\n", "    max_retries: 1\n    trust_env: true\n"),
        ("gpu.api_key_env", "", "    max_retries: 1\n", '    max_retries: 1\n    api_key_env: ""\n'),
        ("gpu.served_as", "[a, 'b c']", "    max_retries: 1\n", '    max_retries: 1\n    served_as: ["a", "b c"]\n'),
        (
            "gpu.served_as",
            "{a: b}",
            "    max_retries: 1\n",
            '    max_retries: 1\n    served_as: {"a": ["b"]}\n',
        ),
        (
            "local.headers",
            "{X-Team: infra}",
            "headers:\n      X-Team: search\n      X-Trace: on\n",
            'headers: {"X-Team": "infra"}\n',
        ),
        ("local.name", "here", "name: local", "name: here"),
        ("default_backend", "gpu", "default_backend: local", "default_backend: gpu"),
        ("airgap", "false", "\nbackends:", "\nairgap: false\nbackends:"),
        ("context_dir", "docs/context", "\nbackends:", "\ncontext_dir: docs/context\nbackends:"),
        ("privacy.redact", '["*.pem"]', "\nbackends:", '\nprivacy: {"redact": ["*.pem"]}\nbackends:'),
    ],
)
def test_only_the_value_changes(path: Path, key: str, value: str, old: str, new: str) -> None:
    expected = FILE.replace(old, new)
    if key == "local.name":  # the default follows
        expected = expected.replace("default_backend: local", "default_backend: here")
        path.write_text(FILE)
        assert set_setting(path, key, value)
        assert expected == path.read_text()
        return
    assert expected == set_text(path, FILE, key, value)


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ("", "airgap", "true", "airgap: true\n"),
        ("# a comment", "airgap", "true", "# a comment\nairgap: true\n"),
        ("theme: dark\n", "context_dir", "c", "context_dir: c\ntheme: dark\n"),
        ("{}", "airgap", "true", '{"airgap": true}'),
        ('{"airgap": false}', "airgap", "true", '{"airgap": true}'),
        ("context_dir:\n", "context_dir", "c", "context_dir: c\n"),
        (
            "privacy:\n  redact:\n    - a\n    - b\n\n# more\n",
            "privacy.redact",
            "[c]",
            'privacy:\n  redact: ["c"]\n\n# more\n',
        ),
        ("privacy: {}\n", "privacy.redact", "[c]", 'privacy: {"redact": ["c"]}\n'),
        (
            '{"backends": [{"name": "vllm"}]}',
            "vllm.timeout",
            "3s",
            '{"backends": [{"name": "vllm", "timeout": "3s"}]}',
        ),
        (
            "backends: [{name: vllm, max_retries: 1}]\n",
            "vllm.max_retries",
            "2",
            "backends: [{name: vllm, max_retries: 2}]\n",
        ),
        ("backends:\r\n- name: vllm\r\n", "vllm.timeout", "3s", "backends:\r\n- name: vllm\r\n  timeout: 3s\r\n"),
        (
            "backends:\n- name: gpt-4.1\n  type: openai\n",
            "gpt-4.1.timeout",
            "3s",
            "backends:\n- name: gpt-4.1\n  type: openai\n  timeout: 3s\n",
        ),
    ],
)
def test_other_layouts(path: Path, before: str, key: str, value: str, after: str) -> None:
    assert after == set_text(path, before, key, value)


def test_a_new_file_is_created(path: Path) -> None:
    assert set_setting(path, "airgap", "true")
    assert "airgap: true\n" == path.read_text()


def test_a_byte_order_mark_stays(path: Path) -> None:
    assert "\ufeffairgap: true\n" == set_text(path, "\ufeffairgap: false\n", "airgap", "true")


def test_a_relative_path_is_relative_to_the_file(path: Path) -> None:
    set_text(path, "backends:\n- name: llamacpp\n", "llamacpp.model_path", "models/m.gguf")
    assert str(path.parent / "models" / "m.gguf") == load_ctxrc(path).backends[0].model_path


# --- removing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "removed", "default"),
    [
        ("local.timeout", '    timeout: "90s"\n', "local"),
        ("local.headers", "    headers:\n      X-Team: search\n      X-Trace: on\n", "local"),
        ("gpu.endpoint", "    endpoint: http://gpu:8000\n", "local"),
        ("default_backend", "default_backend: local\n", None),
        (
            "gpu",
            "  - name: gpu\n    type: vllm\n    endpoint: http://gpu:8000\n    # timeout: 3m\n    max_retries: 1\n",
            "local",
        ),
    ],
)
def test_only_the_setting_is_removed(path: Path, key: str, removed: str, default: str | None) -> None:
    path.write_text(FILE)
    removal = remove_setting(path, key)
    assert FILE.replace(removed, "") == path.read_text()
    assert default == removal.default == load_ctxrc(path).default_backend


def test_the_default_backend_is_removed(path: Path) -> None:
    path.write_text(FILE)
    assert Removal(backend=True, was_default=True, names=("gpu",), default=None) == remove_setting(path, "local")
    start, end = FILE.index("  - name: local"), FILE.index("  # the big one")
    assert (FILE[:start] + FILE[end:]).replace("default_backend: local\n", "") == path.read_text()


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("backends:\n  - name: vllm\n", "vllm", "backends:\n"),
        ("backends:\n  - name: vllm\nx: 1\n", "vllm", "backends:\nx: 1\n"),
        ("backends:\n-\n  # one\n  name: vllm\n- name: ollama\n", "vllm", "backends:\n- name: ollama\n"),
        ("backends: [{name: vllm}, {name: ollama}]\n", "vllm", "backends: [{name: ollama}]\n"),
        ("backends: [{name: vllm}, {name: ollama}]\n", "ollama", "backends: [{name: vllm}]\n"),
        ("backends: [{name: vllm}]\n", "vllm", "backends: []\n"),
        ('{"default_backend": "vllm", "backends": [{"name": "vllm"}]}', "vllm", '{"backends": []}'),
        ("backends:\n  - {name: vllm}\n\n  - {name: ollama}\n", "ollama", "backends:\n  - {name: vllm}\n"),
        ("backends:\n- name: vllm\n  timeout: 3s\n", "vllm.timeout", "backends:\n- name: vllm\n"),
        ("backends:\n- timeout: 3s\n  name: vllm\n", "vllm.timeout", "backends:\n- name: vllm\n"),
        ("backends: [{name: vllm, timeout: 3s}]\n", "vllm.timeout", "backends: [{name: vllm}]\n"),
        ("a: 1\nairgap: true # why\nb: 2\n", "airgap", "a: 1\nb: 2\n"),
        ("privacy:\n  redact:\n    - a\n# below\n", "privacy.redact", "# below\n"),
    ],
)
def test_removing_in_other_layouts(path: Path, before: str, key: str, after: str) -> None:
    path.write_bytes(before.encode())
    remove_setting(path, key)
    assert after == path.read_bytes().decode()


# --- errors -----------------------------------------------------------------------------------------


KEY = "sk-proj-0123456789abcdefghijkl"
NO_KEYS = "API keys aren't allowed in .ctxrc; set an environment variable and name it in api_key_env"
BY_HAND = "edit the file by hand"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("gpu.timeuot", "3s", "gpu.timeuot: unknown key; did you mean timeout?"),
        ("gpu.base_url", "http://h", "gpu.base_url: unknown key; did you mean endpoint?"),
        ("gpu.api_key", "x", f"gpu.api_key: {NO_KEYS}"),
        ("gpu.api_key_env", KEY, f"gpu.api_key_env: the value looks like an API key (not shown); {NO_KEYS}"),
        ("gpu.default_model", KEY, f"gpu.default_model: the value looks like an API key (not shown); {NO_KEYS}"),
        ("gpu.timeout", "30", "gpu.timeout: duration has no unit: 30; write 30s"),
        ("gpu.timeout", "", "gpu.timeout: not a value; write a list as [a, b] and a mapping as {name: value}"),
        ("gpu.max_retries", "many", "gpu.max_retries: must be an integer from 0 to 2147483647, without quotes"),
        ("gpu.trust_env", "yes", "gpu.trust_env: must be true or false, without quotes"),
        ("gpu.served_as", "a", "gpu.served_as: must be a list of names, such as [name], or a mapping, such as"),
        ("gpu.served_as", "[a", "gpu.served_as: not a value; write a list as [a, b]"),
        ("gpu.headers", "{Authorization: Basic abc}", "gpu.headers: Authorization: a secret isn't allowed here"),
        ("gpu.type", "vlm", 'gpu.type: unknown backend type: "vlm"'),
        ("gpu.name", "local", 'gpu.name: duplicate backend: "local"'),
        ("gpu.endpoint", "gpu:8000", "gpu.endpoint: 'gpu:8000' must start with http:// or https://"),
        ("gpu.endpoint", "http://u:p@h", "gpu.endpoint: invalid URL: it contains a user name or password"),
        ("gpu.model_path", "m.gguf", "gpu.model_path: "),
        ("gpu", "x", "gpu: is a backend; write gpu.KEY, such as gpu.timeout"),
        ("cpu.timeout", "3s", 'unknown backend: "cpu"; configured: local, gpu'),
        ("timeout", "3s", "timeout: is a key of a backend; write BACKEND.timeout; backends: local, gpu"),
        ("airgpa", "true", "airgpa: unknown setting; did you mean airgap?"),
        ("colour", "red", "colour: unknown setting; use one of local, gpu, default_backend, airgap"),
        ("token_budget", "1", "token_budget: belongs to the Go tool ctx; change it there, or in an editor"),
        ("backends", "[]", "backends: add backends with ctxbackends setup --backend TYPE, or use an editor"),
        ("default_backend", "cpu", 'default_backend: unknown backend: "cpu"; configured: local, gpu'),
        ("airgap", "yes", "airgap: must be true or false, without quotes"),
        ("airgap", "true\nx: 1", "airgap: "),
        ("privacy.redact", "*.pem", "privacy.redact: not a value; write a list as [a, b]"),
        ("privacy.redact", '["!a"]', "privacy.redact[0]: negation (!) is not supported"),
        ("context_dir", "", "context_dir: must be the path of a directory, such as docs/context"),
    ],
)
def test_an_invalid_change_is_an_error(path: Path, key: str, value: str, problem: str) -> None:
    path.write_text(FILE)
    with pytest.raises(ConfigError) as exc_info:
        set_setting(path, key, value)
    assert str(exc_info.value).startswith(f"{path}: {problem}")
    assert KEY not in str(exc_info.value)
    assert FILE == path.read_text()
    assert [path.name] == os.listdir(path.parent)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("cpu", "cpu: unknown setting; did you mean gpu?"),
        ("gpu.timeout", "gpu.timeout: is not set"),
        ("gpu.name", "gpu.name: every backend needs a name; remove the backend with its name gpu"),
        ("gpu.type", 'name: unknown backend type: "gpu"'),
        ("airgap", "airgap: is not set"),
    ],
)
def test_an_invalid_removal_is_an_error(path: Path, key: str, problem: str) -> None:
    path.write_text(FILE)
    with pytest.raises(ConfigError) as exc_info:
        remove_setting(path, key)
    assert str(exc_info.value).startswith(f"{path}: {problem}")
    assert FILE == path.read_text()


@pytest.mark.parametrize(
    ("before", "key"),
    [
        ("backends:\n- &base {name: vllm}\n- {<<: *base, name: ollama}\n", "vllm"),
        ("base: &base {timeout: 3s}\nbackends:\n- {<<: *base, name: vllm}\n", "vllm.timeout"),
        ("base: &base {airgap: true}\n<<: *base\n", "airgap"),
    ],
)
def test_what_is_shared_is_not_removed(path: Path, before: str, key: str) -> None:
    path.write_text(before)
    with pytest.raises(ConfigError) as exc_info:
        remove_setting(path, key)
    assert exc_info.value.problem.endswith(BY_HAND)
    assert before == path.read_text()


def test_comments_inside_a_value_are_not_lost(path: Path) -> None:
    before = "backends:\n- name: vllm\n  headers:\n    X-A: a  # why\n    X-B: b\n"
    path.write_text(before)
    with pytest.raises(ConfigError, match="cannot be changed without losing the comments inside"):
        set_setting(path, "vllm.headers", "{X-A: c}")
    assert before == path.read_text()


def test_an_invalid_file_is_not_changed(path: Path) -> None:
    path.write_text("airgpa: true\n")
    with pytest.raises(ConfigError, match="did you mean airgap"):
        set_setting(path, "airgap", "true")
    assert "airgpa: true\n" == path.read_text()


def test_a_file_does_not_grow_beyond_the_size_limit(path: Path) -> None:
    before = "#" * (MAX_FILE_SIZE - 4)
    path.write_text(before)
    with pytest.raises(ConfigError, match="would become too large"):
        set_setting(path, "airgap", "true")
    assert before == path.read_text()


def test_the_error_without_a_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", fail)
    assert str(no_backend_error(None)).endswith("(no .ctxrc: the working directory was deleted)")


# --- any file ---------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.sampled_from(["b0", "b1", "b2"]))
def test_any_file_keeps_the_lines_of_others_when_a_backend_is_removed(before: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ".ctxrc"
        path.write_bytes(before.encode())
        old = load_ctxrc(path).backends
        if name not in [config.name for config in old]:
            return
        try:
            remove_setting(path, name)
        except ConfigError as error:
            assert error.problem.endswith(BY_HAND)  # noqa: PT017  # not every file
            assert before.encode() == path.read_bytes()
            return
        after = path.read_bytes().decode()
        assert [config for config in old if config.name != name] == list(load_ctxrc(path).backends)
    # It is one piece that is gone, from the line of its dash on.
    removed = len(before) - len(after)
    start = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), len(after))
    assert any(before[:at] + before[at + removed :] == after for at in range(start, -1, -1))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.sampled_from(["b0", "b1"]), st.sampled_from([("timeout", "7s"), ("default_model", "it's")]))
def test_any_file_keeps_its_other_lines_when_a_setting_is_set(before: str, name: str, setting: tuple[str, str]) -> None:
    field, value = setting
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ".ctxrc"
        path.write_bytes(before.encode())
        old = load_ctxrc(path).backends
        if name not in [config.name for config in old]:
            return
        try:
            set_setting(path, f"{name}.{field}", value)
        except ConfigError as error:
            assert error.problem.endswith(BY_HAND)  # noqa: PT017  # not every file
            return
        after = path.read_bytes().decode()
    old_lines, new_lines = before.splitlines(), after.splitlines()
    changed = [line for line in new_lines if line not in old_lines]
    assert len(changed) <= 1
    assert len(new_lines) - len(old_lines) in (0, 1)
    assert before.count("#") == after.count("#")
    assert ("\r\n" in before) <= (after.count("\n") == after.count("\r\n"))


# --- several processes ------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from ctxbackends._config.setting_edits import set_setting
sys.stdin.readline()
for name in sys.argv[2:]:
    set_setting(Path(sys.argv[1]), f"{name}.timeout", "7s")
"""


@pytest.mark.posix
def test_two_processes_lose_nothing(path: Path) -> None:
    names = [f"b{number}" for number in range(16)]
    path.write_text("backends:\n" + "".join(f"- name: {name}\n  type: vllm\n" for name in names))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), *names[half::2]], stdin=subprocess.PIPE)
        for half in (0, 1)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [0, 0] == [writer.wait(60) for writer in writers]
    assert dict.fromkeys(names, 7.0) == {config.name: config.timeout for config in load_ctxrc(path).backends}
    assert [path.name] == os.listdir(path.parent)


def test_an_editor_that_knows_no_lock_loses_nothing(path: Path) -> None:
    path.write_text("airgap: true\n")
    with pytest.raises(ConfigError, match="was changed by another program in the meantime"), open_to_edit(path) as file:
        path.write_text("airgap: true\n# saved by an editor\n")
        file.edit.set_key("airgap", Literal("false"))
        file.write([], default=None, key="airgap", new="false")
    assert "airgap: true\n# saved by an editor\n" == path.read_text()


@pytest.mark.posix
def test_a_lock_that_is_never_released_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("airgap: true\n")
    if sys.platform == "win32":
        raise NotImplementedError
    monkeypatch.setattr(files_module, "LOCK_TIMEOUT", 0.0)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being changed by another process; try again"):
            set_setting(path, "airgap", "false")
    finally:
        os.close(descriptor)
    assert set_setting(path, "airgap", "false")
