"""docs/design: the diagrams show every module; functions, tests, paths and figures that the pages name exist."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Backend, open_backend
from ctxbackends.testing import FaultServer, faults
from tests.docs_extensions import load_extension
from tests.pages import read_page

ROOT = Path(__file__).parents[2]


def read(page: str) -> str:
    return read_page(f"design/{page}")


LAYERS = load_extension("import_layers")
DIAGRAMS = re.findall(r"^```\{layers\} (\S+)$", read("index"), re.MULTILINE)


def test_each_contract_of_layers_is_drawn() -> None:
    contracts = [contract["id"] for contract in LAYERS.read_contracts() if contract["type"] == "layers"]
    assert sorted(contracts) == sorted(DIAGRAMS)


@pytest.mark.parametrize("contract", DIAGRAMS)
def test_a_diagram_shows_each_module_of_its_package_once(contract: str) -> None:
    container, layers = LAYERS.read_layers(contract)
    package = ROOT.joinpath(*container.split("."))
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    drawn = [name for names in layers for name in names if LAYERS.find_module(f"{container}.{name}") is not None]
    assert sorted(modules - {"__init__"}) == sorted(drawn)


def test_the_layers_are_those_of_pyproject() -> None:
    container, layers = LAYERS.read_layers("layers")
    assert "ctxbackends" == container
    assert (["__main__"], ["_cli"]) == tuple(layers[:2])
    assert ["_util", "_chat"] in layers


def test_each_rule_has_a_name_that_reads_as_a_sentence() -> None:
    rules = LAYERS.list_rules()
    assert "Only the retry policy imports tenacity" in rules
    assert [] == [rule for rule in rules if not re.match(r"[A-Z][^.]+[^.]$", rule)]


def test_each_module_is_listed_with_one_sentence() -> None:
    packages = LAYERS.list_packages()
    files = [file for package in packages for file in (package / "__init__.py", *LAYERS.list_modules(package))]
    assert sorted(files) == sorted((ROOT / "ctxbackends").rglob("*.py"))
    assert [] == [file for file in files if not re.fullmatch(r".{10,120}\.", LAYERS.read_summary(file))]
    assert [] == [file for file in files if re.search(r":\w+:`", LAYERS.read_summary(file))]


def test_the_paths_of_changes_exist() -> None:
    table = read("index").partition("## Where a change goes")[2]
    paths = [path for path in re.findall(r"`([\w./]+/[\w./]*)`", table) if not path.startswith("tests/")]
    assert len(paths) > 15
    assert [] == [path for path in paths if not (ROOT / "ctxbackends" / path).exists()]


def test_the_tests_of_the_guarantees_exist() -> None:
    page = read("guarantees")
    guarantees = re.split(r"^\d+\. ", page, flags=re.MULTILINE)[1:]
    assert 10 == len(guarantees)
    for guarantee in guarantees:
        tests = re.findall(r"^ +- `(\S+)`: `(test_\w+)`$", guarantee, re.MULTILINE)
        assert tests, guarantee
        for file, name in tests:
            assert re.search(rf"^(?:async )?def {name}\(", (ROOT / "tests" / file).read_text("utf-8"), re.MULTILINE), (
                name
            )


def test_the_figures_are_in_the_table_of_the_benchmarks() -> None:
    figures = load_extension("benchmark_table").read_figures()
    measures = read("cost").partition("```{figures}\n")[2].partition("\n```")[0].splitlines()
    assert len(measures) >= 5
    for measure in measures:
        assert all(figures[measure].get(client) for client in ("hand-written", "ctxbackends", "openai")), measure


# --- the way of a request ---------------------------------------------------------------------------


def steps_of(name: str) -> list[str]:
    """Return the functions of a list of steps, as ``module:qualname``."""
    block = read("request").partition(f"```{{steps}} {name}\n")[2].partition("\n```")[0]
    steps = [line.split(": ", 1)[0] for line in block.splitlines()]
    assert len(steps) > 3
    return steps


@contextmanager
def trace() -> Iterator[list[str]]:
    """Record the functions of the package that this thread calls."""
    calls: list[str] = []

    def record(frame: types.FrameType, event: str, _: object) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if event == "call" and module.startswith("ctxbackends."):
            calls.append(f"{module.removeprefix('ctxbackends.')}:{frame.f_code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def complete(backend: Backend) -> None:
    assert (await backend.complete("Hello")).text


async def stream(backend: Backend) -> None:
    async with backend.stream("Hello") as answer:
        assert [event async for event in answer]


@pytest.mark.parametrize(
    ("name", "request_", "fault"),
    [
        ("complete", complete, None),
        ("retry", complete, faults.rate_limited()),
        ("stream", stream, faults.byte_by_byte()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_passes_the_steps_in_their_order(name: str, request_: Any, fault: faults.Fault | None) -> None:
    async with (
        FaultServer() as server,
        open_backend("openai", endpoint=server.url, api_key="any", default_model="m") as backend,
    ):
        if fault is not None:
            server.play(fault)
        with trace() as calls:
            await request_(backend)
    remaining = iter(calls)
    assert [] == [step for step in steps_of(name) if step not in remaining]
