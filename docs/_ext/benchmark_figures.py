"""The directive ``figures``: rows of docs/benchmarks/table.md, which the benchmarks write."""

from __future__ import annotations

from typing import Any

from benchmark_table import TABLE, read_figures
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLIENTS = ("hand-written", "ctxbackends", "openai")


class Figures(SphinxDirective):
    """The measures of the content, one in a line, with the medians of three clients."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(TABLE))
        figures = read_figures()
        unknown = [measure for measure in self.content if measure not in figures]
        if unknown:
            raise self.error(f"no such measures: {'; '.join(unknown)}")
        rows = [[measure, *(figures[measure].get(client, "") for client in CLIENTS)] for measure in self.content]
        table = [["CPU time", *CLIENTS], ["---"] * 4, *rows]
        [result] = self.parse_text_to_nodes("\n".join(f"| {' | '.join(row)} |" for row in table))
        assert isinstance(result, nodes.table)
        result["classes"].append("figures")
        return [result]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("figures", Figures)
    return {"parallel_read_safe": True}
