"""Writing `.ctxrc`: entries are added or changed, everything else stays, and a failure changes nothing."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.ctxrc_file import MAX_FILE_SIZE
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._config.writer import SetupResult, setup_backend
from ctxbackends.errors import ConfigError, InvalidEndpointError, UnknownBackendTypeError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".ctxrc"


def set_up(path: Path, before: str | None, **options: Any) -> str:
    """The file after setup_backend, which is run twice: the second run must find nothing to do and touch nothing."""
    if before is not None:
        path.write_bytes(before.encode())
    first = setup_backend(path, **options)
    after, status = path.read_bytes(), path.stat()
    second = setup_backend(path, **options)
    assert attrs.evolve(first, created=False, changed=False) == second
    assert (after, status.st_mtime_ns, status.st_ino) == (
        path.read_bytes(),
        path.stat().st_mtime_ns,
        path.stat().st_ino,
    )
    assert [path.name] == os.listdir(path.parent)
    return after.decode()


def setup_error(path: Path, before: str, **options: Any) -> ConfigError:
    path.write_bytes(before.encode())
    status = path.stat()
    with pytest.raises(ConfigError) as exc_info:
        setup_backend(path, **options)
    assert (before.encode(), status.st_mtime_ns) == (path.read_bytes(), path.stat().st_mtime_ns)
    assert [path.name] == os.listdir(path.parent)
    assert str(path) == exc_info.value.path
    return exc_info.value


# --- a new entry --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"type": "vllm"},
            "backends:\n  - name: vllm\n    type: vllm\n    endpoint: http://localhost:8000\n",
        ),
        (
            {"type": "llamacpp", "name": "local", "set_default": True},
            (
                "default_backend: local\nbackends:\n  - name: local\n    type: llamacpp\n"
                "    endpoint: http://localhost:8080\n"
            ),
        ),
        (
            {
                "type": "openai-compatible",
                "name": "gpu",
                "default_model": "qwen3:4b",
                "api_key_env": "GPU_KEY",
                "endpoint": "https://gpu/api/v1/",
            },
            (
                "backends:\n  - name: gpu\n    type: openai-compatible\n    endpoint: https://gpu/api\n"
                "    api_key_env: GPU_KEY\n    default_model: qwen3:4b\n"
            ),
        ),
        (
            {"type": "llamacpp", "model_path": "models/m.gguf", "api_key_env": ""},
            'backends:\n  - name: llamacpp\n    type: llamacpp\n    model_path: models/m.gguf\n    api_key_env: ""\n',
        ),
        (
            {"type": "openai-compatible", "endpoint": "http://h/v1/v1"},
            "backends:\n  - name: openai-compatible\n    type: openai-compatible\n    endpoint: http://h/v1/v1\n",
        ),
        (
            {"type": "mine", "types": ("vllm", "mine")},
            "backends:\n  - name: mine\n    type: mine\n",
        ),
    ],
)
def test_the_first_entry_of_a_new_file(path: Path, options: dict[str, Any], text: str) -> None:
    assert text == set_up(path, None, **options)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("qwen3-4b", "qwen3-4b"),
        ("hf.co/org/Model_1:Q4_K_M", "hf.co/org/Model_1:Q4_K_M"),
        ("yes", '"yes"'),
        ("Null", '"Null"'),
        ("4", '"4"'),
        ("1e3", '"1e3"'),
        ("~", '"~"'),
        ("a b", '"a b"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("a:", '"a:"'),
        ("[a]", '"[a]"'),
        ("*a", '"*a"'),
        ("-", '"-"'),
        ("it's", '"it\'s"'),
        ('"', '"\\""'),
        ("\\", '"\\\\"'),
        ("é😀", '"é😀"'),
    ],
)
def test_ambiguous_text_is_quoted(path: Path, model: str, text: str) -> None:
    assert set_up(path, None, type="vllm", default_model=model).endswith(f"    default_model: {text}\n")
    assert model == load_ctxrc(path).backends[0].default_model


ENTRY = "- name: vllm\n  type: vllm\n  endpoint: http://localhost:8000\n"


def entry(indent: int, *, key: int = 2) -> str:
    first = " " * indent + "-" + " " * (key - 1)
    rest = " " * (indent + key)
    return f"{first}name: vllm\n{rest}type: vllm\n{rest}endpoint: http://localhost:8000\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # no backends yet
        ("", "backends:\n" + entry(2)),
        ("# mine", "# mine\nbackends:\n" + entry(2)),
        ("---\n# mine\n", "---\n# mine\nbackends:\n" + entry(2)),
        ("a: 1\n# end\n", "a: 1\n# end\nbackends:\n" + entry(2)),
        ("a: 1\n# end\n...\n# after\n", "a: 1\n# end\nbackends:\n" + entry(2) + "...\n# after\n"),
        ("a:\n- 1\n", "a:\n- 1\nbackends:\n" + entry(0)),
        ("a:\n    - 1\n", "a:\n    - 1\nbackends:\n" + entry(4)),
        ("x: &l [1]\na: *l\n", "x: &l [1]\na: *l\nbackends:\n" + entry(2)),
        ("  a: 1", "  a: 1\n  backends:\n" + entry(4)),
        ("backends:\n", "backends:\n" + entry(2)),
        ("backends:", "backends:\n" + entry(2)),
        ("backends: ~  # none\nz: 1\n", "backends:  # none\n" + entry(2) + "z: 1\n"),
        ("backends: []\n\nz: 1\n", "backends:\n" + entry(2) + "\nz: 1\n"),
        ("backends: [ # x\n]\nz: 1\n", "backends:\n" + entry(2) + "z: 1\n"),
        ("backends:\n  # - name: x\n\n  # y\n\nz: 1\n", "backends:\n  # - name: x\n\n  # y\n" + entry(2) + "\nz: 1\n"),
        # behind other entries
        ("backends:\n  - name: ollama\n", "backends:\n  - name: ollama\n" + entry(2)),
        ("backends:\n  - name: ollama", "backends:\n  - name: ollama\n" + entry(2)),
        ("backends:\n- name: ollama\nz: 1\n", "backends:\n- name: ollama\n" + entry(0) + "z: 1\n"),
        ("backends:\n    -   name: ollama\n", "backends:\n    -   name: ollama\n" + entry(4, key=4)),
        ("backends:\n  -\n      name: ollama\n", "backends:\n  -\n      name: ollama\n" + entry(2)),
        ("backends: &b # x\n   - name: ollama\n", "backends: &b # x\n   - name: ollama\n" + entry(3)),
        ("backends:\n- {name: ollama}\n\n\n", "backends:\n- {name: ollama}\n" + entry(0) + "\n\n"),
        ("x: &x {name: ollama}\nbackends:\n - *x\n", "x: &x {name: ollama}\nbackends:\n - *x\n" + entry(1)),
        (
            "backends:\n- name: ollama\n  # timeout: 5s\n\n  # more\n\n# next\nz: 1\n",
            "backends:\n- name: ollama\n  # timeout: 5s\n\n  # more\n" + entry(0) + "\n# next\nz: 1\n",
        ),
        ("backends:\n- name: |-\n    ollama\n", "backends:\n- name: |-\n    ollama\n" + entry(0)),
    ],
)
def test_an_entry_is_added_in_the_style_of_the_file(path: Path, before: str, after: str) -> None:
    assert after == set_up(path, before, type="vllm")


VLLM = '{"name": "vllm", "type": "vllm", "endpoint": "http://localhost:8000"}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{"default_backend": "vllm", "backends": [' + VLLM + "]}"),
        ('{\n "a": 1,\n}\n', '{\n "a": 1, "default_backend": "vllm", "backends": [' + VLLM + "]\n}\n"),
        ('{"backends": []}', '{"backends": [' + VLLM + '], "default_backend": "vllm"}'),
        ('{"backends": null}', '{"backends":  [' + VLLM + '], "default_backend": "vllm"}'),
        (
            '{"default_backend": "a", "backends": [{"name": "a", "type": "ollama"}]}',
            '{"default_backend": "vllm", "backends": [{"name": "a", "type": "ollama"}, ' + VLLM + "]}",
        ),
        ("backends: [{name: ollama}]  # x\n", "default_backend: vllm\nbackends: [{name: ollama}, " + VLLM + "]  # x\n"),
        (
            "backends: [\n {name: ollama},\n]\n",
            "default_backend: vllm\nbackends: [\n {name: ollama}, " + VLLM + "\n]\n",
        ),
    ],
)
def test_an_entry_is_added_to_json_as_json(path: Path, before: str, after: str) -> None:
    assert after == set_up(path, before, type="vllm", set_default=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# c\nbackends:\n- name: vllm\n", "# c\ndefault_backend: vllm\nbackends:\n- name: vllm\n"),
        ("  a: 1\n  backends:\n  - name: vllm\n", "  a: 1\n  default_backend: vllm\n  backends:\n  - name: vllm\n"),
        (
            "backends: [{name: vllm}, {name: ollama}]\ndefault_backend: ollama  # x\n",
            "backends: [{name: vllm}, {name: ollama}]\ndefault_backend: vllm  # x\n",
        ),
        (
            "backends: [{name: vllm}, {name: ollama}]\ndefault_backend: 'ollama'\n",
            "backends: [{name: vllm}, {name: ollama}]\ndefault_backend: 'vllm'\n",
        ),
        (
            "backends: [name: vllm, name: &o ollama]\ndefault_backend: *o # x\n",
            "backends: [name: vllm, name: &o ollama]\ndefault_backend: vllm # x\n",
        ),
    ],
)
def test_the_default_is_set(path: Path, before: str, after: str) -> None:
    assert after == set_up(path, before, type="vllm", set_default=True)


def test_a_default_that_is_set_stays(path: Path) -> None:
    before = "default_backend: vllm\nbackends:\n- name: vllm\n"
    after = before + "- name: ollama\n  type: ollama\n  endpoint: http://localhost:11434\n"
    assert after == set_up(path, before, type="ollama")


# --- an entry that is there ---------------------------------------------------------------------------


FILE = """\
# The file of somebody else,   too
theme:   dark      # kept
list: [ 1,2,   3 ]
text: >
  folded
  text

backends:
    # the fast one
    - name: gpu        # in the cellar
      type: "vllm"
      endpoint: 'http://gpu:8000/v1/'   # do not change

      timeout:    2m
    - {name: ollama, timeout: 90s}  # one line
odd: 0o17
"""


@pytest.mark.parametrize(
    ("options", "old", "new"),
    [
        ({}, "", ""),
        ({"endpoint": "http://gpu:8000"}, "", ""),  # says the same
        ({"endpoint": "http://new:1/v1"}, "'http://gpu:8000/v1/'", "'http://new:1'"),
        ({"type": "openai-compatible"}, '"vllm"', '"openai-compatible"'),
        ({"default_model": "m"}, "    2m\n", "    2m\n      default_model: m\n"),
        (
            {"api_key_env": "", "default_model": "m"},
            "    2m\n",
            '    2m\n      api_key_env: ""\n      default_model: m\n',
        ),
        ({"name": "ollama", "type": "ollama"}, "", ""),
        ({"name": "ollama", "type": "ollama", "endpoint": "http://localhost:11434"}, "", ""),
        (
            {"name": "ollama", "type": "ollama", "endpoint": "http://h:1", "default_model": "m"},
            "timeout: 90s}",
            'timeout: 90s, "endpoint": "http://h:1", "default_model": "m"}',
        ),
        ({"name": "ollama", "type": "lmstudio"}, "timeout: 90s}", 'timeout: 90s, "type": "lmstudio"}'),
    ],
)
def test_only_passed_fields_change(path: Path, options: dict[str, Any], old: str, new: str) -> None:
    after = set_up(path, FILE, **{"name": "gpu", "type": "vllm"} | options)
    assert FILE.replace(old, new) == after if old else FILE == after


def test_the_result_describes_the_change(path: Path) -> None:
    result = SetupResult(path=path, name="local", created=True, changed=True)
    assert result == setup_backend(path, type="llamacpp", name="local")
    assert attrs.evolve(result, created=False, changed=False) == setup_backend(path, type="llamacpp", name="local")
    assert attrs.evolve(result, created=False) == setup_backend(path, type="llamacpp", name="local", default_model="m")


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        (
            "backends:\n- name: llamacpp\n  endpoint: http://h:1  # where\n",
            {"model_path": "m.gguf"},
            "backends:\n- name: llamacpp\n  model_path: m.gguf  # where\n",
        ),
        (
            "backends:\n- name: llamacpp\n",
            {"model_path": "/a b/m.gguf"},
            'backends:\n- name: llamacpp\n  model_path: "/a b/m.gguf"\n',
        ),
        (
            "backends:\n- name: llamacpp\n  model_path: m.gguf\n",
            {"model_path": "other.gguf"},
            "backends:\n- name: llamacpp\n  model_path: other.gguf\n",
        ),
        (
            (
                "backends:\n- threads: 2 # t\n  # keep\n  name: llamacpp\n  ctx_size: 1\n  model_path: m.gguf # f\n"
                "  embeddings: true"
            ),
            {"endpoint": "http://h:1", "default_model": "m"},
            "backends:\n- # keep\n  name: llamacpp\n  endpoint: http://h:1 # f\n  default_model: m\n",
        ),
        (
            "backends: [{threads: 2, name: llamacpp, model_path: m.gguf, ctx_size: 1}]",
            {"endpoint": "http://h:1"},
            'backends: [{name: llamacpp, "endpoint": "http://h:1"}]',
        ),
    ],
)
def test_a_model_file_and_an_endpoint_replace_each_other(
    path: Path, before: str, options: dict[str, Any], after: str
) -> None:
    assert after == set_up(path, before, type="llamacpp", **options)


def test_a_relative_model_path_is_relative_to_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(path, None, type="llamacpp", model_path="models/m.gguf")
    monkeypatch.chdir("/")
    assert str(path.parent / "models" / "m.gguf") == load_ctxrc(path).backends[0].model_path


ANCHORS = """\
url: &url http://a:1
base: &base {timeout: 5s, endpoint: http://base:1}
backends:
  - &one
    name: one
    type: vllm
    endpoint: *url
  - <<: *base
    name: two
    type: llamacpp
  - name: three
    type: &type vllm
    endpoint: http://a:1
four: *type
"""


@pytest.mark.parametrize(
    ("options", "old", "new"),
    [
        ({"name": "one", "type": "vllm", "endpoint": "http://n:1"}, "endpoint: *url", "endpoint: http://n:1"),
        ({"name": "one", "type": "vllm", "default_model": "m"}, "*url\n", "*url\n    default_model: m\n"),
        (
            {"name": "two", "type": "llamacpp", "endpoint": "http://n:1"},
            "llamacpp\n",
            "llamacpp\n    endpoint: http://n:1\n",
        ),
        ({"name": "three", "type": "vllm", "endpoint": "http://n:1"}, "endpoint: http://a:1", "endpoint: http://n:1"),
    ],
)
def test_anchors_and_aliases_stay(path: Path, options: dict[str, Any], old: str, new: str) -> None:
    assert ANCHORS.replace(old, new) == set_up(path, ANCHORS, **options)


@pytest.mark.parametrize(
    ("before", "options"),
    [
        # another place has the value by its anchor
        (ANCHORS, {"name": "three", "type": "ollama"}),
        (ANCHORS + "five: *one\n", {"name": "one", "type": "vllm", "default_model": "m"}),
        (ANCHORS + "five: [*one]\n", {"name": "one", "type": "vllm", "endpoint": "http://n:1"}),
        ("x: &x {name: vllm}\nbackends: [*x]\n", {"type": "vllm", "default_model": "m"}),
        ("x: &x [{name: vllm}]\nbackends: *x\n", {"type": "ollama"}),
        ("backends:\n- &a\n  name: vllm\n  type: vllm\n- <<: *a\n  name: b\n", {"type": "vllm", "default_model": "m"}),
        # what comes from a merge cannot be taken away, and an entry of merges alone has no line to add to
        (ANCHORS, {"name": "two", "type": "llamacpp", "model_path": "m.gguf"}),
        ("x: &x {name: vllm}\nbackends:\n- <<: *x\n", {"type": "vllm", "default_model": "m"}),
        (
            "x: &x {name: llamacpp, model_path: m}\nbackends: [{threads: 1, <<: *x}]",
            {"type": "llamacpp", "endpoint": "http://h"},
        ),
        # layouts that are not known
        ("? backends\n: - name: vllm\n", {"type": "ollama"}),
        ("? backends\n", {"type": "ollama"}),
        ("backends:\n- ? name\n  : vllm\n", {"type": "vllm", "default_model": "m"}),
        ("{a: [1, # x\n2], # y\n}", {"type": "ollama"}),
        ("null", {"type": "ollama"}),
        ("---\n...\n", {"type": "ollama"}),
        ("a: |\n  the end of this text has no line break", {"type": "ollama"}),
    ],
)
def test_unusual_layouts_are_not_edited(path: Path, before: str, options: dict[str, Any]) -> None:
    error = setup_error(path, before, **options)
    assert (ConfigError, "backends", "edit the file by hand") == (type(error), error.key, error.problem[-21:])


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"type": "openai-compatible"}, InvalidEndpointError, "required for type openai-compatible"),
        ({"type": "vllm", "endpoint": ""}, InvalidEndpointError, "must be a non-empty string"),
        (
            {"type": "vllm", "endpoint": "gpu:8000"},
            InvalidEndpointError,
            "'gpu:8000' must start with http:// or https://",
        ),
        ({"type": "vllm", "name": ""}, ConfigError, "must not be empty"),
        ({"type": "vllm", "default_model": "a\nb"}, ConfigError, "must not contain control characters"),
        ({"type": "vllm", "default_model": "\ud800"}, ConfigError, "must not contain control characters"),
        ({"type": "vllm", "api_key_env": "sk-123"}, ConfigError, "must be the name of an environment variable"),
        ({"type": "vllm", "model_path": "m"}, ConfigError, "requires type llamacpp"),
        ({"type": "llamacpp", "model_path": "\0"}, ConfigError, "must not contain control characters"),
        (
            {"type": "llamacpp", "model_path": "m", "endpoint": "http://h"},
            ConfigError,
            "model_path and endpoint are mutually exclusive; remove one",
        ),
    ],
)
def test_invalid_values_are_rejected(
    path: Path, options: dict[str, Any], kind: type[ConfigError], problem: str
) -> None:
    error = setup_error(path, "# mine\n", **options)
    assert (kind, problem) == (type(error), error.problem[: len(problem)])


def test_unknown_types_are_rejected(path: Path) -> None:
    with pytest.raises(UnknownBackendTypeError) as exc_info:
        setup_backend(path, type="vlm")
    assert ("vlm", False) == (exc_info.value.type_name, path.exists())


@pytest.mark.parametrize(
    ("before", "problem"),
    [
        ("backends: 5\n", ':1: backends: must be a list; begin each item with "- name:"'),
        ("a: [\n", ":2: invalid YAML at column 1, while parsing a flow node"),
        (
            "x:\nbackends:\n- name: vllm\n  timeout: 60\n",
            ":4: backends[0].timeout: duration has no unit: 60; write 60s",
        ),
    ],
)
def test_an_invalid_file_is_not_changed(path: Path, before: str, problem: str) -> None:
    assert f"{path}{problem}" == str(setup_error(path, before, type="vllm"))


def test_a_file_does_not_grow_beyond_the_size_limit(path: Path) -> None:
    error = setup_error(path, "#" * MAX_FILE_SIZE, type="vllm")
    assert f"would become too large: more than {MAX_FILE_SIZE} bytes" == error.problem


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as exc_info:
        setup_backend(tmp_path, type="vllm")
    assert f"{tmp_path}: is a directory; .ctxrc must be a text file" == str(exc_info.value)


def test_no_directory_no_file(tmp_path: Path) -> None:
    path = tmp_path / "no" / ".ctxrc"
    with pytest.raises(ConfigError) as exc_info:
        setup_backend(path, type="vllm")
    assert f"{path}: cannot be written: No such file or directory" == str(exc_info.value)


# --- the file itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("eol", ["\r\n", "\r"])
def test_line_ends_stay_as_they_are(path: Path, eol: str) -> None:
    before = "# c\nbackends:\n- name: ollama\n\nz: 1\n"
    after = "# c\nbackends:\n- name: ollama\n- name: vllm\n  type: vllm\n  endpoint: http://localhost:8000\n\nz: 1\n"
    assert after.replace("\n", eol) == set_up(path, before.replace("\n", eol), type="vllm")


def test_a_byte_order_mark_stays(path: Path) -> None:
    before = "\ufeffbackends:\n- name: vllm\n"
    assert before + "  default_model: m\n" == set_up(path, before, type="vllm", default_model="m")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_the_mode_of_a_file_stays(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    setup_backend(path, type="vllm")
    assert oct(mode) == oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o644)])
def test_the_umask_counts_for_a_new_file(path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        setup_backend(path, type="vllm")
    finally:
        os.umask(before)
    assert oct(mode) == oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.posix
def test_the_owner_of_a_file_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    owners: list[tuple[int, int]] = []

    def chown(_: object, user: int, group: int) -> None:
        owners.append((user, group))
        raise PermissionError  # who may not give a file away keeps it

    monkeypatch.setattr(os, "chown", chown)
    assert setup_backend(path, type="vllm").changed
    assert [(path.stat().st_uid, path.stat().st_gid)] == owners


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "dotfiles" / "ctxrc"
    target.parent.mkdir()
    if there:
        target.write_text("# mine\n")
    link = tmp_path / ".ctxrc"
    link.symlink_to(Path("dotfiles") / "ctxrc")
    setup_backend(link, type="vllm")
    assert (True, "vllm") == (link.is_symlink(), load_ctxrc(target).backends[0].name)
    assert ["ctxrc"] == os.listdir(target.parent)


def test_a_link_to_itself_is_an_error(path: Path) -> None:
    path.symlink_to(path.name)
    with pytest.raises(ConfigError) as exc_info:
        setup_backend(path, type="vllm")
    assert f"{path}: cannot be read: Too many levels of symbolic links" == str(exc_info.value)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    error = setup_error(path, "# mine\n", type="vllm")
    assert f"{path}: cannot be written: No space left on device" == str(error)


def test_an_interrupted_write_leaves_no_temporary_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        setup_backend(path, type="vllm")
    assert [] == os.listdir(path.parent)


def test_the_content_is_never_readable_by_more_people_than_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch(mode=0o600)
    modes: list[str] = []

    def record_modes(_: object) -> None:
        modes.extend(oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.iterdir())

    monkeypatch.setattr(os, "fsync", record_modes)
    setup_backend(path, type="vllm")
    assert {"0o600"} == set(modes)


# --- any file -----------------------------------------------------------------------------------------


COMMENT = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="\ufeff"), max_size=20).map(
    "# {}".format
)
FOREIGN = st.sampled_from(
    [
        "",
        "theme{}:   dark  # x",
        "list{}: [ 1,2 ]",
        "seq{}:\n- a\n-   b # y",
        "text{}: |\n  # no comment\n   - x\n",
        "m{}:\n  n: 1",
    ]
)
FIELD = st.sampled_from(["default_model: 'm'", "timeout:   5s", "api_key_env: K", 'endpoint: "http://h:1/v1"'])


@st.composite
def files(draw: st.DrawFn) -> str:
    lines: list[str] = []

    def others(prefix: str) -> None:
        for index, foreign in enumerate(draw(st.lists(FOREIGN | COMMENT, max_size=3))):
            lines.append(foreign.replace("{}", f"{prefix}{index}") if foreign[:1] != "#" else foreign)

    others("a")
    dash, key = draw(st.integers(0, 4)), draw(st.integers(2, 4))
    lines.append("backends:" + draw(st.just("") | COMMENT.map(" {}".format)))
    for index in range(draw(st.integers(0, 3))):
        fields = ["type: vllm", *draw(st.lists(FIELD, max_size=3, unique=True))]
        start = " " * dash + "-" + " " * (key - 1)
        for field in draw(st.permutations([f"name: b{index}", *fields])):
            lines.append(start + field + draw(st.just("") | COMMENT.map("  {}".format)))
            start = " " * (dash + key)
            lines += draw(
                st.lists(st.just("") | COMMENT.map(f"{' ' * draw(st.integers(0, 6))}{{}}".format), max_size=1)
            )
    others("b")
    text = "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


OPTIONS = st.fixed_dictionaries(
    {"type": st.sampled_from(["vllm", "ollama", "llamacpp"]), "name": st.sampled_from(["b0", "b2", "new"])},
    optional={
        "endpoint": st.sampled_from(["http://n:1", "https://n/api/v1/"]),
        "api_key_env": st.sampled_from(["", "KEY"]),
        "default_model": st.sampled_from(["m", "it's", "a: b"]),
        "set_default": st.booleans(),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(files(), OPTIONS)
def test_any_file_keeps_its_other_lines_and_a_second_run_does_nothing(before: str, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ".ctxrc"
        path.write_bytes(before.encode())
        old = {config.name: config for config in load_ctxrc(path).backends}
        try:
            after = set_up(path, before, **options)
        except ConfigError as error:
            # Only a block text at the end of the file without a line break, which a line behind it would change.
            assert (False, "edit the file by hand") == (before.endswith("\n"), error.problem[-21:])  # noqa: PT017  # not every file
            return
        new = {config.name: config for config in load_ctxrc(path).backends}
    name = options["name"]
    option_fields = {field: options[field] for field in ("api_key_env", "default_model") if field in options}
    assert {**old, name: new[name]} == new
    assert (options["type"], option_fields) == (
        new[name].type,
        {field: getattr(new[name], field) for field in option_fields},
    )
    remaining = iter(after.splitlines())
    missing = (
        [line for line in before.splitlines() if not any(line == other for other in remaining)]
        if name not in old
        else []
    )
    assert [] == missing
    assert before.count("#") == after.count("#")
    assert ("\r\n" in before) <= (after.count("\n") == after.count("\r\n"))


def test_the_written_backend_has_the_options(path: Path) -> None:
    setup_backend(path, type="llamacpp", name="local", endpoint="http://h:1/v1", default_model="m", set_default=True)
    expected = BackendConfig(name="local", type="llamacpp", endpoint="http://h:1", default_model="m")
    assert ((expected,), "local") == (load_ctxrc(path).backends, load_ctxrc(path).default_backend)
