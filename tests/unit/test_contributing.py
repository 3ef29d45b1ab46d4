"""CONTRIBUTING.md, the workflows and the hooks agree with the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
IS_CHECKOUT = (ROOT / ".github").exists()

pytestmark = pytest.mark.skipif(not IS_CHECKOUT, reason="an sdist has no .github and no hooks")


def load_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text("utf-8"))


def test_the_files_that_contributing_names_exist() -> None:
    names = re.findall(r"`((?:\w+/)*_?\w+/|(?:[\w.]+/)*\w+\.(?:py|md|toml))`", CONTRIBUTING)
    places = (ROOT, ROOT / "ctxbackends")
    assert len(names) > 15
    assert [] == [name for name in names if not any((place / name).exists() for place in places)]


def test_the_names_of_code_that_contributing_names_exist() -> None:
    """In the file that its sentence is about, since the names are private."""
    for file, names in {
        "ctxbackends/_chat/requests.py": ("OptionsWithoutTools", "ChatOptions", "ChatRequest"),
        "ctxbackends/_wire/options.py": ("SCALAR_OPTIONS", "Transform"),
        "ctxbackends/_config/backend_settings.py": ("BackendSettings",),
        "ctxbackends/_profiles/profile.py": ("BackendType", "WireAPI", "def codec("),
        "tests/unit/test_option_tables.py": ("EXAMPLES",),
        "tests/unit/test_presets.py": ("URLS",),
        "tests/unit/test_recordings.py": ("WIRES",),
    }.items():
        text = (ROOT / file).read_text("utf-8")
        for name in names:
            assert name in text, (file, name)
            assert name.removeprefix("def ").removesuffix("(") in CONTRIBUTING, name
    checks = (ROOT / "ctxbackends/_chat/requests.py").read_text("utf-8")
    for name in ("_NUMBERS", "_MINIMUMS", "_CHECKS"):
        assert f"\n{name}" in checks
        assert f"`{name}`" in CONTRIBUTING


def test_contributing_names_groups_and_sessions_that_exist() -> None:
    groups = set(re.findall(r"--group (\S+)", CONTRIBUTING))
    assert groups
    assert groups <= PYPROJECT["dependency-groups"].keys()
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    named = {
        name for line in re.findall(r"nox -s ([a-z_ ]+?)(?:  |$)", CONTRIBUTING, re.MULTILINE) for name in line.split()
    }
    assert named
    assert named <= {*sessions}


# --- hooks and workflows ------------------------------------------------------------------------------


def test_hooks_have_the_versions_of_the_sessions() -> None:
    groups = PYPROJECT["dependency-groups"]
    expected = {Requirement(item).name: item for item in (*groups["lint"], *groups["docs"]) if isinstance(item, str)}
    hooks = load_yaml(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    used = [item for hook in hooks for item in hook["additional_dependencies"]]
    assert used
    assert used == [expected[Requirement(item).name] for item in used]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_have_hashes_and_versions(path: Path) -> None:
    lines = re.findall(r"uses: (.*)", path.read_text("utf-8"))
    assert lines
    assert [] == [line for line in lines if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", line)]


def test_an_action_has_the_same_hash_everywhere() -> None:
    uses = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text("utf-8"))}
    assert len({line.partition("@")[0] for line in uses}) == len(uses)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_sessions_that_exist(path: Path) -> None:
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    steps = [step for job in load_yaml(path)["jobs"].values() for step in job["steps"]]
    commands = [match[1] for step in steps if (match := re.search(r" -s ([a-z_ ]*[a-z_])", step.get("run", "")))]
    assert commands
    assert [] == [name for command in commands for name in command.split() if name not in sessions]


def test_the_lowest_python_is_the_same_everywhere() -> None:
    lowest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    tool = PYPROJECT["tool"]
    assert [lowest, lowest] == [tool["mypy"]["python_version"], tool["pyright"]["pythonVersion"]]
    assert f"Programming Language :: Python :: {lowest}" in PYPROJECT["project"]["classifiers"]
    assert f"Python {lowest} or newer" in CONTRIBUTING


def test_each_requirement_has_one_lowest_version() -> None:
    """Also where an extra and a group both need it. The lowest versions of adapters have groups for themselves."""
    project, groups = PYPROJECT["project"], PYPROJECT["dependency-groups"]
    names = [name for name in groups if not name.startswith("recipe-") and not name.endswith("-lowest")]
    items = [
        *PYPROJECT["build-system"]["requires"],
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
        *(item for name in names for item in groups[name] if isinstance(item, str)),
    ]
    found: dict[str, set[str]] = {}
    for requirement in map(Requirement, items):
        if requirement.specifier and requirement.name != "ctxbackends":
            found.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {} == {name: versions for name, versions in found.items() if len(versions) > 1}


def test_git_ignores_what_the_sessions_make() -> None:
    command = ["git", "check-ignore", ".nox/coverage-data/data.3.11", "dist/packages", "docs/_build/html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert command[2:] == done.stdout.split()
