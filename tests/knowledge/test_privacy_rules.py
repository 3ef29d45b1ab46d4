from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from ctxbackends import ConfigError
from ctxbackends._config.reader import load_ctxrc, redact_of
from ctxbackends.knowledge._privacy.redaction import is_redacted
from ctxbackends.knowledge._privacy.rules import is_private


@pytest.mark.parametrize(
    ("endpoint", "private"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://gpu.localhost", True),
        ("http://10.0.0.7:8000", True),
        ("http://192.168.1.2", True),
        ("http://[fd00::1]", True),
        ("http://8.8.8.8", False),
        ("https://[2001:4860:4860::8888]", False),
        ("http://172.32.0.1", False),
        ("http://100.64.0.1", False),
        ("", False),
    ],
)
async def test_addresses(endpoint: str, private: bool) -> None:
    assert private == await is_private(endpoint)


@pytest.mark.parametrize(
    ("addresses", "private"),
    [(["10.0.0.1"], True), (["10.0.0.1", "fe80::1%eth0"], True), (["10.0.0.1", "8.8.8.8"], False), ([], False)],
)
async def test_a_name_is_private_if_all_its_addresses_are(
    addresses: list[str], private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    assert private == await is_private("http://gpu:8000")


async def test_a_name_that_does_not_resolve_is_not_private(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failed(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(anyio, "getaddrinfo", failed)
    assert not await is_private("http://nowhere.example")


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.pem", "a.pem", True),
        ("*.pem", "deep/down/a.PEM", True),
        ("*.pem", "a.pem.md", False),
        ("private", "private/a.md", True),
        ("private", "docs/private/deep/a.md", True),
        ("private", "docs/private.md", False),
        ("private/", "docs/private/a.md", True),
        ("docs/private", "docs/private/a.md", True),
        ("docs/private/**", "docs/private/deep/a.md", True),
        ("docs/private/*", "docs/private/deep/a.md", True),
        ("/docs/private", "docs/private/a.md", True),
        ("docs/private", "other/docs/private/a.md", False),
        ("**/private/*.md", "private/a.md", True),
        ("**/private/*.md", "x/y/private/a.md", True),
        ("docs/**/a.md", "docs/a.md", True),
        ("docs/[ab].md", "docs/b.md", True),
        ("docs/[ab].md", "docs/c.md", False),
    ],
)
def test_globs(tmp_path: Path, glob: str, path: str, matches: bool) -> None:
    assert matches == is_redacted(tmp_path / path, [glob], root=tmp_path)


def test_links_match_by_path_and_target(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.md").write_text("x")
    (tmp_path / "open.md").symlink_to("secret/a.md")
    (tmp_path / "door").symlink_to("secret")
    for path in ("open.md", "door/a.md", "secret/a.md", "secret/../secret/a.md"):
        assert is_redacted(tmp_path / path, ["secret"], root=tmp_path)
    assert not is_redacted(tmp_path / "other.md", ["secret"], root=tmp_path)


def test_paths_are_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert is_redacted(Path("a.md"), ["sub/*.md"], root=tmp_path)
    assert not is_redacted(Path("a.md"), [], root=tmp_path)


def ctxrc(tmp_path: Path, text: str) -> Path:
    path = tmp_path / ".ctxrc"
    path.write_text(text)
    return path


def test_redact_of_ctxrc(tmp_path: Path) -> None:
    path = ctxrc(tmp_path, "privacy:\n  redact:\n    - '*.pem'\n    - secrets/**\n")
    assert ("*.pem", "secrets/**") == redact_of(path) == load_ctxrc(path).redact
    for text in ("", "privacy: {redact: []}\n", "privacy: {}\n", "backends: nonsense\n"):
        assert () == redact_of(ctxrc(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("privacy: yes\n", ":1: privacy: must be a mapping, such as redact:"),
        ("privacy:\n  redcat: [a]\n", ":2: privacy.redcat: unknown key; the only key is redact"),
        ("privacy:\n  redact: a\n", ":2: privacy.redact: must be a list of globs"),
        ("privacy:\n  redact: [a, 7]\n", ":2: privacy.redact[1]: must be a glob, such as secrets/** or *.pem"),
        ("privacy:\n  redact: ['/']\n", ":2: privacy.redact[0]: must be a glob"),
        ("privacy:\n  redact:\n    - a\n    - '!b'\n", ":4: privacy.redact[1]: negation (!) is not supported"),
        ("privacy:\n  redact: [a]\n  redact: [b]\n", ":3: privacy.redact: duplicate key"),
    ],
)
def test_invalid_redact(tmp_path: Path, text: str, problem: str) -> None:
    path = ctxrc(tmp_path, text)
    for load in (redact_of, load_ctxrc):
        with pytest.raises(ConfigError) as exc_info:
            load(path)
        assert problem in str(exc_info.value)
