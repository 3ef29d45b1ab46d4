"""`ctxbackends config`: what it prints, what it writes, and that no key and no password is shown."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._config.summary import format_setting, summarise
from tests.unit.test_cli import Result, command, ctx, environment

with suppress(ImportError):  # not on Windows
    import pty

KEY = "sk-test-0123456789abcdef"
WITHIN = 60.0
CTXRC = """\
default_backend: local
backends:
  - name: local  # on this machine
    type: llamacpp
    default_model: tiny
    ready_timeout: 2m

  - name: cloud
    type: openai
    max_retries: 0
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    path = tmp_path / ".ctxrc"
    path.write_text(CTXRC, encoding="utf-8")
    return path


# --- list and show ----------------------------------------------------------------------------------


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (
        "name   type      default  endpoint                model  key\n"
        "local  llamacpp  yes      http://localhost:8080   tiny\n"
        "cloud  openai             https://api.openai.com         OPENAI_API_KEY{}\n"
    )
    assert Result(0, expected.format(" (not set)"), "") == ctx("config", "list")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Result(0, expected.format(""), "") == ctx("config", "list")


def test_list_json(path: Path) -> None:
    local = {
        "name": "local",
        "type": "llamacpp",
        "endpoint": "http://localhost:8080",
        "default_model": "tiny",
        "ready_timeout": 120.0,
    }
    cloud = {
        "name": "cloud",
        "type": "openai",
        "endpoint": "https://api.openai.com",
        "api_key_env": "OPENAI_API_KEY",
        "api_key_set": False,
        "max_retries": 0,
    }
    expected = {"path": str(path), "default_backend": "local", "backends": [local, cloud]}
    assert expected == json.loads(ctx("config", "list", "--json").out)
    assert expected == json.loads(ctx("config", "show", "--json").out)
    assert cloud == json.loads(ctx("config", "show", "cloud", "--json").out)


def test_show(path: Path) -> None:
    local = (
        "name           local\ntype           llamacpp\nendpoint       http://localhost:8080\n"
        "default_model  tiny\nready_timeout  120s\n"
    )
    cloud = (
        "name         cloud\ntype         openai\nendpoint     https://api.openai.com\n"
        "max_retries  0\napi_key_env  OPENAI_API_KEY (not set)\n"
    )
    top = f"path             {path}\ndefault_backend  local\n"
    assert Result(0, local, "") == ctx("config", "show", "local")
    assert Result(0, f"{top}\n{local}\n{cloud}", "") == ctx("config", "show")


def test_show_of_the_settings_of_no_backend(path: Path) -> None:
    path.write_text("airgap: true\ncontext_dir: c\nprivacy: {redact: [a, b]}\n")
    expected = (
        f"path            {path}\nairgap          true\ncontext_dir     {path.parent / 'c'}\nprivacy.redact  [a, b]\n"
    )
    assert Result(0, expected, "") == ctx("config", "show")


def test_no_secret_is_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", KEY)
    monkeypatch.setenv("HOST", "h")
    path.write_text(
        "backends:\n- name: vllm\n  endpoint: http://me:hunter2@${HOST}:8000\n  api_key_env: CLOUD_KEY\n"
        "  headers: {X-Token: '${CLOUD_KEY}'}\n",
    )
    for arguments in (("list",), ("show",), ("show", "vllm"), ("list", "--json"), ("show", "--json")):
        result = ctx("config", *arguments)
        assert 0 == result.code
        assert "http://[masked]@${HOST}:8000" in result.out
        assert not [secret for secret in ("hunter2", KEY) if secret in result.out + result.err]
    assert "headers      {X-Token: ${CLOUD_KEY}}\n" in ctx("config", "show", "vllm").out


@pytest.mark.parametrize(
    ("settings", "field", "text"),
    [
        ({"keep_alive": float("inf"), "type": "ollama"}, "keep_alive", "forever"),
        ({"timeout": 0.3}, "timeout", "0.3s"),
        ({"timeout": "1h30m"}, "timeout", "5400s"),
        ({"trust_env": True}, "trust_env", "true"),
        ({"served_as": ["a", "b"]}, "served_as", "[a, b]"),
        ({"served_as": {"a": "b"}}, "served_as", "{a: [b]}"),
        ({"omit": ["stream_options"]}, "omit", "[stream_options]"),
        ({"max_retries": 0}, "max_retries", "0"),
    ],
)
def test_a_value_is_shown_as_it_is_written(settings: dict[str, object], field: str, text: str) -> None:
    values = summarise(BackendConfig(**{"name": "b", "type": "vllm", **settings}), {})  # type: ignore[arg-type]
    assert text == format_setting(field, values[field])


def test_a_model_that_is_served_here_has_no_endpoint(path: Path) -> None:
    path.write_text("backends:\n- name: llamacpp\n  model_path: m.gguf\n")
    assert f"llamacpp  llamacpp  {path.parent / 'm.gguf'}\n" in ctx("config", "list").out
    assert "endpoint" not in ctx("config", "show", "llamacpp").out


def test_an_unknown_backend(path: Path) -> None:
    problem = 'unknown backend: "gpu"; configured: local, cloud'
    assert Result(1, "", f"ctxbackends: {path}: {problem}\n") == ctx("config", "show", "gpu")


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("show",), ("show", "local"), ("remove", "local"), ("default", "local"), ("edit",)],
    ids=" ".join,
)
def test_without_a_file(path: Path, arguments: tuple[str, ...]) -> None:
    path.unlink()
    sentence = "no backend configured; run ctx setup --backend <name>"
    expected = f"ctxbackends: {sentence} (no .ctxrc in {path.parent} or a directory above it)\n"
    assert Result(1, "", expected) == ctx("config", *arguments)


# --- set, remove, default ---------------------------------------------------------------------------


def test_set(path: Path) -> None:
    assert Result(0, "", f"local.idle_timeout set in {path}\n") == ctx("config", "set", "local.idle_timeout", "60s")
    after = CTXRC.replace("    ready_timeout: 2m\n", "    ready_timeout: 2m\n    idle_timeout: 60s\n")
    assert after == path.read_text()
    result = ctx("config", "set", "local.idle_timeout", "60s")
    assert Result(0, "", f"local.idle_timeout is unchanged in {path}\n") == result
    assert after == path.read_text()


def test_set_creates_the_file(path: Path) -> None:
    path.unlink()
    assert 0 == ctx("config", "set", "airgap", "true").code
    assert "airgap: true\n" == path.read_text()


def test_an_invalid_value_changes_nothing(path: Path) -> None:
    result = ctx("config", "set", "local.timeuot", "60s")
    assert Result(1, "", f"ctxbackends: {path}: local.timeuot: unknown key; did you mean timeout?\n") == result
    result = ctx("config", "set", "cloud.api_key_env", KEY)
    assert (1, "") == (result.code, result.out)
    assert "set an environment variable and name it in api_key_env" in result.err
    assert KEY not in result.err
    assert CTXRC == path.read_text()


def test_a_path_is_relative_to_the_working_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("backends:\n- name: llamacpp\n")
    (path.parent / "models").mkdir()
    (path.parent / "models" / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(path.parent / "models")
    result = ctx("config", "set", "llamacpp.model_path", "nothere.gguf")
    assert Result(1, "", "ctxbackends: llamacpp.model_path: nothere.gguf: no such file\n") == result
    assert 0 == ctx("config", "set", "llamacpp.model_path", "m.gguf").code
    assert "backends:\n- name: llamacpp\n  model_path: models/m.gguf\n" == path.read_text()
    path.write_text("backends:\n- name: llamacpp\n")
    outside = path.parent.parent / "s.sock"
    assert 0 == ctx("config", "set", "llamacpp.unix_socket", str(outside)).code
    assert str(outside) == load_ctxrc(path).backends[0].unix_socket


def test_remove_a_setting(path: Path) -> None:
    result = ctx("config", "remove", "local.ready_timeout")
    assert Result(0, "", f"local.ready_timeout removed from {path}\n") == result
    assert CTXRC.replace("    ready_timeout: 2m\n", "") == path.read_text()


def test_remove_a_backend_that_is_not_the_default(path: Path) -> None:
    assert Result(0, "", f'backend "cloud" removed from {path}\n') == ctx("config", "remove", "cloud")
    assert ["local"] == [config.name for config in load_ctxrc(path).backends]


def test_remove_the_default(path: Path) -> None:
    note = 'there is no default_backend now; "cloud" is used, as the only backend\n'
    assert Result(0, "", f'backend "local" removed from {path}\n{note}') == ctx("config", "remove", "local")
    note = "there is no default_backend now, and no backend; add one with ctxbackends setup --backend TYPE\n"
    assert 0 == ctx("config", "default", "cloud").code
    assert Result(0, "", f'backend "cloud" removed from {path}\n{note}') == ctx("config", "remove", "cloud")
    assert "backends:\n" == path.read_text()


def test_remove_the_default_of_several(path: Path) -> None:
    path.write_text(CTXRC + "  - name: ollama\n")
    note = (
        "there is no default_backend now; choose one of cloud, ollama with --backend, or with ctxbackends config "
        "default NAME\n"
    )
    assert Result(0, "", f'backend "local" removed from {path}\n{note}') == ctx("config", "remove", "local")
    assert "several backends configured: cloud, ollama" in ctx("ping").err


def test_default(path: Path) -> None:
    assert Result(0, "", f'"cloud" is the default backend in {path}\n') == ctx("config", "default", "cloud")
    assert Result(0, "", f'"cloud" was already the default backend in {path}\n') == ctx("config", "default", "cloud")
    assert CTXRC.replace("default_backend: local", "default_backend: cloud") == path.read_text()
    problem = 'default_backend: unknown backend: "gpu"; configured: local, cloud'
    assert Result(1, "", f"ctxbackends: {path}: {problem}\n") == ctx("config", "default", "gpu")


# --- path -------------------------------------------------------------------------------------------


def test_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "deep").mkdir()
    monkeypatch.chdir(path.parent / "deep")
    assert Result(0, f"{path}\n", "") == ctx("config", "path")
    expected = {"path": str(path), "searched_from": str(path.parent / "deep")}
    assert expected == json.loads(ctx("config", "path", "--json").out)
    path.unlink()
    advice = "ctxbackends setup --backend TYPE creates one"
    problem = f"ctxbackends: no .ctxrc in {path.parent / 'deep'} or a directory above it; {advice}\n"
    assert Result(1, "", problem) == ctx("config", "path")
    result = ctx("config", "path", "--json")
    assert (1, problem, None) == (result.code, result.err, json.loads(result.out)["path"])


# --- edit -------------------------------------------------------------------------------------------


def editor(monkeypatch: pytest.MonkeyPatch, directory: Path, *bodies: str) -> None:
    """Let $VISUAL be a program that runs the next body each time, with ``file`` as the file to edit."""
    program = directory / "my editor.py"
    program.write_text(
        "import pathlib, sys\n"
        f"count = pathlib.Path({str(directory / 'count')!r})\n"
        "number = len(count.read_text()) if count.exists() else 0\n"
        "count.write_text('x' * (number + 1))\n"
        "file = pathlib.Path(sys.argv[1])\n"
        f"exec({list(bodies)!r}[number])\n"
    )
    monkeypatch.setenv("VISUAL", f"'{sys.executable}' '{program}'")
    monkeypatch.setenv("EDITOR", "false")


REPLACE = "file.write_bytes(file.read_bytes().replace(b'2m', b'{}'))"


def test_edit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = CTXRC.replace("\n", "\r\n").rstrip().encode()
    path.write_bytes(before)
    path.chmod(0o640)
    editor(monkeypatch, path.parent, REPLACE.format("3m"))
    assert Result(0, "", f"{path} is changed\n") == ctx("config", "edit")
    assert before.replace(b"2m", b"3m") == path.read_bytes()
    assert 0o640 == path.stat().st_mode & 0o777


def test_edit_without_a_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(monkeypatch, path.parent, "pass")
    inode = path.stat().st_ino
    assert Result(0, "", f"{path} is unchanged\n") == ctx("config", "edit")
    assert inode == path.stat().st_ino


def test_edit_of_an_invalid_file_repairs_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"backends: [\xff")
    editor(monkeypatch, path.parent, "file.write_text('airgap: true\\n')")
    assert Result(0, "", f"{path} is changed\n") == ctx("config", "edit")
    assert "airgap: true\n" == path.read_text()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (REPLACE.format("soon"), ":6: backends[0].ready_timeout: not a duration: 'soon'"),
        ("file.write_text('backends: [')", ":1: invalid YAML"),
        ("file.write_text('context_dir: 3')", ":1: context_dir: must be the path of a directory"),
        ("file.write_bytes(b'\\xff')", ":1: is not UTF-8 text"),
        ("file.write_bytes(b'#' * 200000)", "is too large"),
        ("file.unlink()", "cannot be read: No such file or directory"),
        ("sys.exit(1)", "Editing failed"),
    ],
)
def test_an_invalid_edit_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str) -> None:
    """Without a terminal, nobody can be asked."""
    editor(monkeypatch, path.parent, body)
    result = ctx("config", "edit")
    assert (1, "") == (result.code, result.out)
    assert problem in result.err
    assert CTXRC == path.read_text()


def test_an_editor_that_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor")
    result = ctx("config", "edit")
    assert (1, "") == (result.code, result.out)
    assert "no-such-editor" in result.err
    assert CTXRC == path.read_text()


def test_a_file_that_changed_meanwhile_is_not_overwritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = f"import pathlib; pathlib.Path({str(path)!r}).write_text('airgap: true\\n'); {REPLACE.format('3m')}"
    editor(monkeypatch, path.parent, other)
    result = ctx("config", "edit")
    assert (1, "") == (result.code, result.out)
    start = f"ctxbackends: {path}: was changed by another program in the meantime; try again; your text is in "
    assert result.err.startswith(start)
    copy = Path(result.err.removeprefix(start).strip())
    assert CTXRC.replace("2m", "3m") == copy.read_text()
    assert "airgap: true\n" == path.read_text()
    copy.unlink()
    copy.parent.rmdir()


def run_in_terminal(*arguments: str, answers: list[str], prompt: str) -> tuple[int, str]:
    """The exit code and the output of the program on a pseudo-terminal, which types an answer after each prompt.

    Ctrl-C is typed again when the program does not react, as a person does: CPython's input() misses a signal between
    its prompt and its read, in about 1 % of the runs on a busy machine.
    """
    if sys.platform == "win32":
        raise NotImplementedError
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(*arguments), environment())  # noqa: S606  # the program under test
    output, answered, deadline = "", 0, time.monotonic() + WITHIN
    again = float("inf")
    while True:
        assert time.monotonic() < deadline, output
        if answered < len(answers) and output.count(prompt) > answered:
            os.write(terminal, answers[answered].encode())
            answered += 1
            again = time.monotonic() + 2 if answers[answered - 1] == "\x03" else float("inf")
        if time.monotonic() > again:
            os.write(terminal, b"\x03")
            again = float("inf")
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                text = os.read(terminal, 65536).decode()
            except OSError:  # Linux: the last process has closed it
                text = ""
            if not text:
                break
            output += text
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


@pytest.mark.posix
def test_edit_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the first attempt is still there in the second."""
    editor(monkeypatch, path.parent, REPLACE.format("soon"), "file.write_text(file.read_text().replace('soon', '4m'))")
    code, output = run_in_terminal("config", "edit", answers=["\n"], prompt="Edit again? [Y/n]: ")
    assert 0 == code, output
    assert ":6: backends[0].ready_timeout: not a duration: 'soon'" in output
    assert f"{path} is changed" in output
    assert CTXRC.replace("2m", "4m") == path.read_text()


@pytest.mark.posix
@pytest.mark.parametrize(("answer", "code", "message"), [("n\n", 1, "is unchanged"), ("\x03", 130, "interrupted")])
def test_giving_up(path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, message: str) -> None:
    monkeypatch.setenv("TMPDIR", str(path.parent / "tmp"))
    (path.parent / "tmp").mkdir()
    editor(monkeypatch, path.parent, REPLACE.format("soon"))
    result, output = run_in_terminal("config", "edit", answers=[answer], prompt="Edit again? [Y/n]: ")
    assert code == result, output
    assert message in " ".join(output.split())  # the terminal breaks lines
    assert CTXRC == path.read_text()
    assert [] == os.listdir(path.parent / "tmp")


# --- the other name ---------------------------------------------------------------------------------


def test_ctx_ai_config(path: Path) -> None:
    code = "import sys; sys.argv = ['ctx', *sys.argv[1:]]; from ctxbackends._cli import ctx; ctx()"
    arguments = [sys.executable, "-c", code, "ai", "config", "path"]
    result = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=WITHIN, check=True)
    assert f"{path}\n" == result.stdout
