"""The nox session ``release_dry_run``: a release without its upload."""

from __future__ import annotations

import filecmp
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nox

from tests.nox_bootstrap import ROOT
from tests.nox_installs import PYPROJECT, run_of_tests, runnable_pythons
from tests.release.index import serve_index
from tests.release.notes import find_notes

PACKAGES = ROOT / "dist" / "packages"  # the files to upload
RELEASE = ROOT / "dist" / "release"  # the SBOM and the release notes
# On the other Pythons: an adapter is the same code, and its tests run with `nox -s integrations --force-python`.
EXTRAS_ON_EACH_PYTHON = ("", "cli")


def build(session: nox.Session) -> tuple[Path, Path]:
    """Build the wheel and the sdist, and check that a clone elsewhere gives the same bytes."""
    if session.venv_backend != "uv":
        session.error("this session requires uv; install it, or run python3 noxfile.py, which brings it")
    changes = git("status", "--porcelain")
    if changes:
        session.error(f"a release has no uncommitted changes; commit or remove these:\n{changes}")
    session.env["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct")
    for directory in (PACKAGES, RELEASE):
        directory.mkdir(parents=True, exist_ok=True)
        for file in directory.iterdir():
            file.unlink()
    session.run("uv", "build", "--quiet", "--out-dir", str(PACKAGES), str(ROOT))  # the wheel is built from the sdist
    (PACKAGES / ".gitignore").unlink(missing_ok=True)
    (wheel,), (sdist,) = PACKAGES.glob("*.whl"), PACKAGES.glob("*.tar.gz")
    check_tag(session, version_of(wheel))
    with tempfile.TemporaryDirectory() as elsewhere, umask(0o077):
        clone = Path(elsewhere, "clone")
        session.run("git", "clone", "--quiet", str(ROOT), str(clone), external=True)
        session.run("uv", "build", "--quiet", "--sdist", "--wheel", "--out-dir", elsewhere, str(clone))
        for file in (wheel, sdist):
            if not filecmp.cmp(file, Path(elsewhere, file.name), shallow=False):
                session.error(f"{file.name}: two builds differ; compare the one in {PACKAGES} with that of a new clone")
    return wheel, sdist


def check_tag(session: nox.Session, version: str) -> None:
    """In the workflow of a tag, check that the version and the repository are those of the release."""
    if os.environ.get("GITHUB_REF_TYPE") != "tag":
        return
    source = "/".join([os.environ["GITHUB_SERVER_URL"], os.environ["GITHUB_REPOSITORY"]])
    if source != PYPROJECT["project"]["urls"]["Source"]:
        session.error(f"this repository is not that of pyproject.toml: {source}; correct every URL there")
    tag = os.environ["GITHUB_REF_NAME"]
    if tag != f"v{version}":
        session.error(f"the tag does not fit the version {version}: {tag}; name it v{version}")


def check(session: nox.Session, wheel: Path, sdist: Path) -> None:
    """Check the metadata, the files and the README."""
    session.run("twine", "--no-color", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", str(wheel))
    run_of_tests(session, "tests.release.contents", str(wheel), str(sdist))


def write_sbom(session: nox.Session, wheel: Path) -> None:
    """Write the SBOM: the dependencies that the wheel gets today, without extras."""
    version = version_of(wheel)
    sbom = RELEASE / f"ctxbackends-{version}.cdx.json"
    with tempfile.TemporaryDirectory() as directory:
        session.run("uv", "venv", "--quiet", "--no-project", directory)
        session.run("uv", "pip", "install", "--quiet", "--python", directory, str(wheel))
        options = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible"]
        session.run("cyclonedx-py", "environment", *options, "--output-file", str(sbom), directory)
    content = json.loads(sbom.read_text("utf-8"))
    component = content["metadata"]["component"]
    component |= {"version": version, "purl": f"pkg:pypi/ctxbackends@{version}"}  # pyproject.toml has no version
    sbom.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    direct = {re.split(r"[^\w.-]", item)[0] for item in PYPROJECT["project"]["dependencies"]}
    missing = direct - {one["name"] for one in content["components"]}
    if missing:
        session.error(f"{sbom.name}: dependencies missing: {', '.join(sorted(missing))}")


def write_notes(session: nox.Session, version: str) -> None:
    """Write the section of CHANGELOG.md; for a development version, the draft of the next one."""
    release, _, is_development = version.partition(".dev")
    if is_development:
        draft = session.run("towncrier", "build", "--draft", "--version", release, silent=True, stderr=None)
        notes = str(draft)
    else:
        notes = find_notes((ROOT / "CHANGELOG.md").read_text("utf-8"), version)
        fragments = [file for file in (ROOT / "docs" / "changes").iterdir() if file.suffix == ".md"]
        if not notes or fragments:
            session.error(f"the changelog of {version} is not built; run towncrier build --version {version}")
    (RELEASE / "notes.md").write_text(notes.strip() + "\n", "utf-8")


def install_and_try(session: nox.Session, wheel: Path, sdist: Path) -> None:
    """Install the release from an index on loopback into empty environments, and run the smoke test in each."""
    version = version_of(wheel)
    project = PYPROJECT["project"]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    extras = ["", *project["optional-dependencies"]]
    cases = [(python, extra) for python in runnable_pythons() for extra in extras]
    with serve_index(project["name"], [wheel, sdist], requires_python=project["requires-python"]) as index:
        uv = ["--quiet", "--index", index, "--refresh-package", project["name"]]
        for python, extra in cases:
            if python == own or extra in EXTRAS_ON_EACH_PYTHON:
                try_one(session, version, python, extra, uv)
        try_one(session, version, own, "", [*uv, "--no-binary", project["name"]])
        try_one(session, version, own, "cli", ["-qq", "--extra-index-url", index], installer="pip")


def try_one(
    session: nox.Session, version: str, python: str, extra: str, options: Sequence[str], *, installer: str = "uv"
) -> None:
    requirement = f"ctxbackends[{extra}]=={version}" if extra else f"ctxbackends=={version}"
    session.log(f"Python {python}, {installer}: {requirement}{' from the sdist' if '--no-binary' in options else ''}")
    with tempfile.TemporaryDirectory(dir=ROOT / ".nox") as directory:
        interpreter = str(Path(directory, "Scripts" if os.name == "nt" else "bin", "python"))
        seed = ["--seed"] if installer == "pip" else []
        session.run("uv", "venv", "--quiet", "--no-project", *seed, "--python", python, directory)
        install = {
            "uv": ["uv", "pip", "install", "--python", interpreter],
            "pip": [interpreter, "-m", "pip", "install"],
        }
        session.run(*install[installer], *options, requirement, external=True)
        session.run("uv", "pip", "check", "--quiet", "--python", interpreter)
        smoke = ROOT / "tests" / "release" / "smoke.py"
        session.run(interpreter, "-I", str(smoke), version, extra, external=True)


def version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
