"""The inputs of chat: standard input, the prompt, files and images."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.unit.test_cli import (
    WITHIN,
    Result,
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    command,
    ctx,
    ctxrc,
    environment,
    script,  # noqa: F401  # a fixture
    usage_error,
)

PNG = b"\x89PNG\r\n\x1a\n and the rest"
PDF = b"%PDF-1.7\n and the rest"


@pytest.fixture(autouse=True)
def _configured(script: Script) -> None:
    ctxrc(backend(script.endpoint))


def content(script: Script) -> Any:
    """What the one user message of the one request has."""
    (message,) = script.chat_body["messages"]
    assert "user" == message["role"]
    return message["content"]


# --- standard input and the prompt ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["Sum it up"], b"one\ntwo\n", "one\ntwo\n Sum it up"),
        (["Sum it up"], "Grüße".encode(), "Grüße Sum it up"),
        (["Sum it up"], b"  indented\n", "  indented\n Sum it up"),
        (["Sum it up"], b"", "Sum it up"),
        (["Sum it up"], b" \n", "Sum it up"),
        (["--no-stdin", "Sum it up"], b"one\n", "Sum it up"),
        (["-"], b"one\n", "one\n"),
        ([], b"one\n", "one\n"),
    ],
)
def test_standard_input_comes_before_the_prompt(
    script: Script,
    arguments: list[str],
    stdin: bytes,
    expected: str,
) -> None:
    assert Result(0, "Héllo\n", "") == ctx("chat", *arguments, stdin=stdin)
    assert expected == content(script)


def test_a_terminal_is_not_read_before_the_prompt(script: Script) -> None:
    assert 0 == ctx("chat", "--quiet", "Hi", stdin=b"typed\n", tty="stdin").code
    assert "Hi" == content(script)


@pytest.mark.parametrize("arguments", [["--no-stdin"], ["--no-stdin", "--quiet"]])
def test_no_prompt_is_left(script: Script, arguments: list[str]) -> None:
    expected = usage_error("no prompt; pass it as an argument or on standard input")
    assert expected == ctx("chat", *arguments, stdin=b"one\n")
    assert [] == script.requests


def test_standard_input_is_named_and_skipped() -> None:
    assert usage_error("- names standard input; remove it or --no-stdin") == ctx("chat", "--no-stdin", "-")


def test_both_must_be_utf8(script: Script) -> None:
    advice = "convert it, for example with iconv -t UTF-8"
    expected = f"ctxbackends: the prompt on standard input is not UTF-8 (byte 3); {advice}\n"
    assert Result(1, "", expected) == ctx("chat", "Hi", stdin=b"Gr\xfc\xdfe")
    assert [] == script.requests


def start(*arguments: str, stdin: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("chat", *arguments),
        env=environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pipe_of(program: subprocess.Popen[str]) -> IO[str]:
    assert program.stdin is not None
    return program.stdin


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["Sum it up"], "reading standard input, which comes before the prompt; --no-stdin skips it\n"),
        ([], "reading the prompt from standard input\n"),
    ],
)
def test_silent_input_is_reported(script: Script, arguments: list[str], line: str) -> None:
    with start(*arguments, stdin=subprocess.PIPE) as program:
        assert program.stderr is not None
        assert line == program.stderr.readline()
        assert [] == script.requests
        out, err = program.communicate("one", timeout=WITHIN)
    assert (0, "Héllo\n", "") == (program.returncode, out, err)
    assert " ".join(["one", *arguments]) == content(script)


def test_input_that_falls_silent_is_reported_once(script: Script) -> None:
    with start("Sum it up", stdin=subprocess.PIPE) as program:
        pipe_of(program).write("one ")
        pipe_of(program).flush()
        assert program.stderr is not None
        assert "--no-stdin skips it\n" in program.stderr.readline()
        _, err = program.communicate("two", timeout=WITHIN)
    assert (0, "") == (program.returncode, err)
    assert "one two Sum it up" == content(script)


def test_input_that_never_ends_is_skipped(script: Script) -> None:
    with start("--no-stdin", "Hi", stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert "Héllo\n" == program.stdout.read()  # while the pipe is open
        pipe_of(program).close()
        assert 0 == program.wait(WITHIN)
    assert "Hi" == content(script)


def test_no_input_at_all(script: Script) -> None:
    with start("Hi", stdin=subprocess.DEVNULL) as program:
        out, err = program.communicate(timeout=WITHIN)
    assert (0, "Héllo\n", "") == (program.returncode, out, err)
    assert "Hi" == content(script)


@pytest.mark.posix
@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null"], ids=["closed", "as nohup opens it"])
def test_input_that_cannot_be_read(script: Script, redirection: str) -> None:
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *command("chat", "Hi")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert Result(0, "Héllo\n", "") == Result(result.returncode, result.stdout, result.stderr)
    assert "Hi" == content(script)


# --- files ------------------------------------------------------------------------------------------------


def test_files_come_first_with_their_names(script: Script) -> None:
    Path("a.txt").write_text("one", encoding="utf-8")
    Path("b.py").write_bytes(b"\xef\xbb\xbfprint('\xc3\xbc')\n")
    assert 0 == ctx("chat", "-f", "a.txt", "--file", "b.py", "Compare", stdin=b"piped\n").code
    expected = '<file name="a.txt">\none\n</file>\n<file name="b.py">\nprint(\'ü\')\n</file>\npiped\n Compare'
    assert expected == content(script)


def test_a_file_alone_is_a_prompt(script: Script) -> None:
    Path("a.txt").write_text("one\n", encoding="utf-8")
    assert 0 == ctx("chat", "-q", "-f", "a.txt", tty="stdin").code
    assert '<file name="a.txt">\none\n</file>\n' == content(script)


def test_a_pdf_is_sent_as_a_document(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="openai-compatible"))
    Path("paper.pdf").write_bytes(PDF)
    assert Result(0, "Héllo\n", "") == ctx("chat", "-f", "paper.pdf", "Summarize")
    document, text = content(script)
    assert "paper.pdf" == document["file"]["filename"]
    assert document["file"]["file_data"].endswith(base64.b64encode(PDF).decode())
    assert {"type": "text", "text": "Summarize"} == text


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.txt", None, "none.txt: no such file"),
        ("data.bin", b"a\0b", "data.bin: not a text file"),
        ("photo.png", PNG, "photo.png: an image; pass it with --image"),
        ("old.txt", b"Gr\xfc\xdfe", "old.txt: is not UTF-8 (byte 3); convert it, for example with iconv -t UTF-8"),
        (".", None, ".: Is a directory"),
        ("-", None, "-: no such file; standard input is read without an option"),
    ],
)
def test_a_file_that_is_not_text(script: Script, name: str, data: bytes | None, problem: str) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    if sys.platform == "win32":
        problem = problem.replace("Is a directory", "Permission denied")
    assert Result(1, "", f"ctxbackends: {problem}\n") == ctx("chat", "-f", name, "Hi")
    assert [] == script.requests


# --- images -------------------------------------------------------------------------------------------------


def test_images_come_before_the_text(script: Script) -> None:
    Path("photo.jpg").write_bytes(PNG)  # the bytes decide, not the name
    url = "https://example.org/cat.png"
    assert Result(0, "Héllo\n", "") == ctx("chat", "-a", "photo.jpg", "--image", url, "Compare")
    data_url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert [
        {"type": "image_url", "image_url": {"url": data_url}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Compare"},
    ] == content(script)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.png", None, "none.png: no such file"),
        ("text.png", b"text", "text.png: not a PNG, JPEG, GIF or WebP image"),
        ("empty.png", b"", "empty.png: not a PNG, JPEG, GIF or WebP image"),
        ("data:image/png;base64,!", None, "--image: invalid data: URL; write data:image/png;base64,<data>"),
    ],
)
def test_an_image_that_is_none(script: Script, name: str, data: bytes | None, problem: str) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    assert Result(1, "", f"ctxbackends: {problem}\n") == ctx("chat", "-a", name, "Hi")
    assert [] == script.requests


def test_an_image_url_that_the_server_does_not_fetch(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="ollama"))
    result = ctx("chat", "-a", "https://example.org/cat.png", "Hi")
    assert (1, "") == (result.code, result.out)
    assert "message: image url" in result.err
    assert [] == script.requests
