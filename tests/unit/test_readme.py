"""The README: its figures are those of the benchmarks and the tests, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from ctxbackends.testing import faults
from tests.benchmarks.cases import NAMES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
WORDS = " ".join(README.split())


def table() -> dict[str, dict[str, list[str]]]:
    """Return the cells of docs/benchmarks/table.md by measure and client: the median, and the ratios."""
    rows: dict[str, dict[str, list[str]]] = {}
    measure = ""
    for line in (ROOT / "docs/benchmarks/table.md").read_text("utf-8").splitlines():
        if line.startswith("| "):
            name, client, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            measure = name or measure
            rows.setdefault(measure, {})[client] = cells
    return rows


def seconds(cell: str) -> float:
    number, unit = cell.split()
    return float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]


def test_cold_start() -> None:
    answer = seconds(table()["cold start, refused: answer after ready (wall)"]["ctxbackends"][0])
    assert f"In the median, the answer arrives {answer * 1000:.0f} ms after the server is ready." in WORDS
    gives_up = [
        seconds(cells[0])
        for status in ("refused", "503")
        for cells in table()[f"cold start, {status}: gives up after (wall)"].values()
    ]
    assert len(gives_up) == 14
    assert f"Other clients give up within {max(gives_up):.1f} s" in WORDS


def test_faults() -> None:
    assert f"The tests simulate {len(faults.CATALOGUE)} failures" in WORDS


def test_cost() -> None:
    row = table()["1 KB, one after the other, per request"]
    openai, litellm = (round(float(row[name][2])) for name in ("openai", "litellm"))
    ratio = row["ctxbackends"][1].split()[0]
    assert f"{openai} times less CPU than with the openai package, {litellm} times less than with LiteLLM" in WORDS
    assert f"{ratio} times as much as a hand-written aiohttp client needs" in WORDS


def test_its_sessions_exist() -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    sessions = set(re.findall(r"noxfile\.py -s (\w+)", README))
    assert {"demo", "tests", "bench"} <= sessions
    assert [] == [name for name in sessions if f"\ndef {name}(session" not in noxfile]
    cases = [name for cases in re.findall(r"--cases ([\w,-]+)", README) for name in cases.split(",")]
    assert cases
    assert set(cases) <= {*NAMES}
    assert all((ROOT / path).exists() for path in re.findall(r"-- (tests/\w+)", README))


def test_ci_runs_its_test_command() -> None:
    (command,) = re.findall(r"`(python3 noxfile\.py -s tests)`", README)
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert command in [line.partition("#")[0].strip() for line in lines]


def test_its_length() -> None:
    """A screen and a half: what a page of GitHub shows of it."""
    assert len(README.splitlines()) < 90
