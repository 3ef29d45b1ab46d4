"""The layers of the import contracts in pyproject.toml, and the modules with their docstrings. Needs no Sphinx."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ctxbackends"


def read_contracts() -> list[dict[str, Any]]:
    """Return the contracts as pyproject.toml has them."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def list_rules() -> list[str]:
    """Return the names of the contracts that have no layers."""
    return [contract["name"] for contract in read_contracts() if contract["type"] != "layers"]


def read_layers(contract: str) -> tuple[str, list[list[str]]]:
    """Return the container of a contract and its layers, from high to low."""
    [found] = [one for one in read_contracts() if one["id"] == contract]
    [container] = found["containers"]
    return container, [[name.strip().strip("()") for name in layer.split("|")] for layer in found["layers"]]


def find_module(name: str) -> Path | None:
    """Return the file of a module, by its name relative to the root; None if it is missing."""
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


def read_summary(file: Path) -> str:
    """Return the first line of a module's docstring, without roles such as ``:class:``."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return re.sub(r":\w+:(?=`)", "", " ".join(text.partition("\n\n")[0].split()))


def list_modules(package: Path) -> list[Path]:
    """Return the files of a package, without those in the packages below it and without ``__init__``."""
    return sorted(file for file in package.glob("*.py") if file.name != "__init__.py")


def list_packages() -> list[Path]:
    """Return the directories with modules, the root first."""
    return [PACKAGE, *sorted(file.parent for file in PACKAGE.rglob("__init__.py") if file.parent != PACKAGE)]
