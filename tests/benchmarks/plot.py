"""The plot: CPU time of each client relative to the hand-written one, a panel for each of the cases that say most.

Needs matplotlib, which is imported by nothing else here. The same figures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.benchmarks.cases import CASES, HAND_WRITTEN, SDK
from tests.benchmarks.environments import CLIENTS
from tests.benchmarks.report import Row

PANELS = ("c1k", "c1k-100", "many", "one", "streams-200", "first", "anthropic-many", "ollama-many")
COLOURS = {HAND_WRITTEN: "#8a8f98", SDK: "#1f6feb"}
PEER = "#d4a072"
SETTINGS = {
    "svg.hashsalt": "ctxbackends",  # else the names in the file are made by chance
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
}


def draw(rows_: Sequence[Row], path: Path) -> None:
    """Write the plot. A client that failed a case has no bar."""
    panels = {name: [row for row in rows_ if row.measure.case == name and not row.error] for name in PANELS}
    panels = {name: rows for name, rows in panels.items() if any(row.ratio is not None for row in rows)}
    if not panels:
        return
    with mpl.rc_context(SETTINGS):
        lines = (len(panels) + 1) // 2
        heights = [max(len(rows) for rows in list(panels.values())[at * 2 : at * 2 + 2]) + 2.5 for at in range(lines)]
        figure = Figure(figsize=(11, 0.27 * sum(heights) + 0.9), layout="constrained", facecolor="white")
        grid = figure.subplots(lines, 2, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
        most = max(row.ratio or 1.0 for rows in panels.values() for row in rows)
        axes = list(grid.flat)
        for axis, (name, rows) in zip(axes, panels.items(), strict=False):
            _panel(axis, CASES[name].title, rows, most)
        for axis in axes[len(panels) :]:
            axis.remove()
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.06)
        figure.suptitle("CPU time relative to the hand-written limit (aiohttp + msgspec), log scale: less is better")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _panel(axis: Axes, title: str, rows: Sequence[Row], most: float) -> None:
    ratios = [1.0 if row.client == HAND_WRITTEN else row.ratio or 1.0 for row in rows]
    positions = range(len(rows))
    # The bars begin left of 1, so that what needs as much as the limit has one too.
    axis.barh(
        positions,
        [ratio - 0.5 for ratio in ratios],
        left=0.5,
        color=[COLOURS.get(row.client.removesuffix("_uvloop"), PEER) for row in rows],
        height=0.72,
    )
    axis.set_xscale("log")
    axis.set_xlim(0.5, most * 2.2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelbottom=True)
    axis.axvline(1.0, color="#57606a", linewidth=0.8, linestyle=":")
    axis.set_yticks(positions, [CLIENTS[row.client].title for row in rows])
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for position, ratio in zip(positions, ratios, strict=True):
        text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
        axis.text(ratio * 1.06, position, text, va="center", fontsize=8)
