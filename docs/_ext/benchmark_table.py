"""The medians in docs/benchmarks/table.md."""

from __future__ import annotations

from pathlib import Path

TABLE = Path(__file__).parents[1] / "benchmarks" / "table.md"


def read_figures() -> dict[str, dict[str, str]]:
    """Return the median of each client, by the measure."""
    figures: dict[str, dict[str, str]] = {}
    measure = ""
    for line in TABLE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) > 2:
            measure = cells[0] or measure
            figures.setdefault(measure, {})[cells[1]] = cells[2]
    return figures
