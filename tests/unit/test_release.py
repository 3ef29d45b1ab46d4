"""The version, the README on PyPI, and the checks of a release. The nox session ``release_dry_run`` makes one."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

import ctxbackends
from tests.release.contents import describe_difference, expected_in_sdist, expected_in_wheel, relative_links
from tests.release.index import serve_index
from tests.release.notes import find_notes

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
BLOB = "https://github.com/ctxbackends/ctxbackends/blob/v1.2"
RAW = "https://raw.githubusercontent.com/ctxbackends/ctxbackends/v1.2"


def test_the_version_without_an_installation(tmp_path: Path) -> None:
    package = Path(str(ctxbackends.__file__)).parent
    shutil.copytree(package, tmp_path / "ctxbackends", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ctxbackends; print(ctxbackends.__version__)"
    # Without site-packages, where the metadata is.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert ("0+unknown\n", "") == (done.stdout, done.stderr)


# --- the README on PyPI -------------------------------------------------------------------------------


def on_pypi(text: str) -> str:
    for one in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"].replace("$HFPR_VERSION", "1.2"), text)
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/x.md)", f"[a]({BLOB}/docs/x.md)"),
        ("[a\nb](docs/x.md#y)", f"[a\nb]({BLOB}/docs/x.md#y)"),
        ("[a](SECURITY.md), [b](LICENSE)", f"[a]({BLOB}/SECURITY.md), [b]({BLOB}/LICENSE)"),
        ("[a](CHANGELOG.md#b)", f"[a]({BLOB}/CHANGELOG.md#b)"),
        ("[a](.github/workflows/tests.yml)", f"[a]({BLOB}/.github/workflows/tests.yml)"),
        ('<a href="docs/x.md">', f'<a href="{BLOB}/docs/x.md">'),
        ("![a](docs/a.svg)", f"![a]({RAW}/docs/a.svg)"),
        ("[![a](docs/a.svg)](docs/x.md)", f"[![a]({RAW}/docs/a.svg)]({BLOB}/docs/x.md)"),
        ('<img alt="a" src="docs/a.svg">', f'<img alt="a" src="{RAW}/docs/a.svg">'),
        ('<source srcset="docs/a.svg">', f'<source srcset="{RAW}/docs/a.svg">'),
        ("[a](#install)", "[a](#install)"),
        ("[a](https://a.example/docs/x.md)", "[a](https://a.example/docs/x.md)"),
        ("handlers[0](docs, SECURITY)", "handlers[0](docs, SECURITY)"),
    ],
)
def test_links(text: str, expected: str) -> None:
    assert expected == on_pypi(text)


def test_the_links_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s#:]+(?:#[^)\s]*)?)\)", readme)]
    assert len(targets) > 5
    assert [] == [target for target in targets if not (ROOT / target).exists()]
    links = re.findall(r"\]\(([^)\s]+)\)", on_pypi(readme))
    assert [] == [link for link in links if not link.startswith(("https://", "#"))]


def test_one_repository() -> None:
    source = PYPROJECT["project"]["urls"]["Source"]
    assert source.startswith("https://github.com/")
    urls = [
        *PYPROJECT["project"]["urls"].values(),
        *(
            one["replacement"]
            for one in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
        ),
        *re.findall(r"https://github\.com/[^)\s]*", (ROOT / "SECURITY.md").read_text("utf-8")),
    ]
    repository = source.removeprefix("https://github.com/")
    assert [] == [url for url in urls if f"/{repository}" not in f"{url}/"]


# --- the checks ---------------------------------------------------------------------------------------

TRACKED = ["README.md", "ctxbackends/__init__.py", "ctxbackends/py.typed", "docs/a.md", "tests/test_a.py", ".ci/run"]


def test_a_wheel_has_the_package_and_its_metadata() -> None:
    info = "ctxbackends-1.2.dist-info"
    expected = {"ctxbackends/__init__.py", "ctxbackends/py.typed", f"{info}/METADATA", f"{info}/RECORD"}
    expected |= {f"{info}/WHEEL", f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"}
    assert expected == expected_in_wheel(TRACKED, "1.2")


def test_an_sdist_has_the_files_that_are_included() -> None:
    names = {".gitignore", "PKG-INFO", "README.md", "tests/test_a.py", "docs/a.md"}
    assert {f"ctxbackends-1.2/{name}" for name in names} == expected_in_sdist(
        TRACKED, "1.2", ["README.md", "docs", "tests"]
    )


def test_differences() -> None:
    assert [] == describe_difference("a.whl", {"a", "b"}, ["b", "a"])
    expected = ["a.whl: missing: b", "a.whl: not expected: c", "a.whl: twice: a"]
    assert expected == describe_difference("a.whl", {"a", "b"}, ["a", "c", "a"])


def test_links_that_lead_nowhere() -> None:
    html = (
        '<h1 id="user-content-a">A<a href="#user-content-a"></a></h1> <a href="https://a.example/b">b</a>'
        '<a href="docs/x.md">x</a> <a href="#user-content-b">b</a> <img src="docs/a.svg"> <a href="mailto:a@b.c">c</a>'
    )
    assert ["docs/x.md", "#user-content-b", "docs/a.svg"] == relative_links(html)


def test_notes() -> None:
    changelog = (
        "# Changelog\n\n<!-- start -->\n\n## 1.2.1 (2026-12-02)\n\n### Fixed\n\n- b\n\n## 1.2 (2026-12-01)\n\n- a\n"
    )
    assert "### Fixed\n\n- b" == find_notes(changelog, "1.2.1")
    assert "- a" == find_notes(changelog, "1.2")
    assert "" == find_notes(changelog, "1")
    assert "" == find_notes(changelog, "1.2.10")


def test_the_index(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1.2-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    with serve_index("a", [wheel], requires_python=">=3.11") as index:
        assert index.startswith("http://127.0.0.1:")
        page = urllib.request.urlopen(f"{index}a/").read().decode()  # noqa: S310  # on loopback
        (link,) = re.findall(r'href="([^"]*)" data-requires-python="&gt;=3.11"', page)
        name, _, fragment = link.partition("#")
        assert f"sha256={hashlib.sha256(b'wheel').hexdigest()}" == fragment
        assert b"wheel" == urllib.request.urlopen(f"{index}a/{name}").read()  # noqa: S310
