"""The Sphinx configuration.

The directives in _ext and below write the tables from the code, and those of outcomes from the table of the tests, so
they cannot go stale. Needs no network: intersphinx is off, so names of other packages are not links.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

from ctxbackends.testing import faults
from ctxbackends.testing._fault_server.answers import KINDS, WIRES
from ctxbackends.testing._fault_server.catalogue import FACTORIES, GENERATIONS

sys.path.insert(0, str(Path(__file__).with_name("_ext")))
from server_tables import NO, YES, table  # in _ext

project = "ctxbackends"
author = "the ctxbackends authors"
copyright = author  # noqa: A001  # Sphinx names it so
version = release = metadata.version("ctxbackends")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "architecture",
    "benchmark_figures",
    "command_reference",
    "ctxrc_settings",
    "field_lists",
    "public_names",
    "server_tables",
]
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else each attribute is documented twice
default_role = "code"  # single backticks in docstrings
smartquotes = False  # options such as --json, and quotes in commands, are shown as they are typed
# Else the text before a colon in the first line of a property becomes its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # type: ignore[method-assign]
# Fragments: towncrier puts those of changes/ into CHANGELOG.md, performance.md includes the table of benchmarks/, and
# knowledge.md shows a file of examples/.
exclude_patterns = ["_build", "_ext", "changes", "benchmarks", "examples"]
nitpicky = True
nitpick_ignore_regex = [
    # Not links here, since intersphinx would need a network.
    ("py:.*", r"(aiohttp|anyio|asyncio|collections|contextlib|enum|numpy|os|pathlib|types|typing|weakref)\..*"),
    ("py:.*", r"(Any|Awaitable|Callable|Literal|Mapping|Path|Sequence|TracebackType|Unpack|T|optional)"),
    # Keyword arguments, whose fields the page of the value describes.
    ("py:.*", r"(ctxbackends\.\w+\.\w+\.)?(BackendSettings|RunKeywords|ServerKeywords|ServeModelKeywords)"),
    # Inner values that no page describes.
    ("py:.*", r"ctxbackends\.([a-z]+\.)?_\w+\..*"),
    ("py:.*", r"(Kind|Step|WireName|ssl\.SSLContext|dict\[str)"),
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
pygments_dark_style = "a11y-high-contrast-dark"  # as the theme's light style; the theme's dark one underlines modules
html_title = f"ctxbackends {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css", "design.css"]
html_show_copyright = False
html_show_sphinx = False


class CoverageTable(SphinxDirective):
    """The table of docs/coverage-by-server.json, which the shared tests write and check."""

    marks = {"tested": YES, "not supported": "○"}  # noqa: RUF012  # read only

    def run(self) -> list[nodes.Node]:
        path = Path(__file__).with_name("coverage-by-server.json")
        self.env.note_dependency(str(path))
        coverage = {name.replace(", ", " "): rows for name, rows in json.loads(path.read_text("utf-8")).items()}
        columns = coverage.items()
        rows = sorted({row for _, cells in columns for row in cells})
        lines = table(
            [
                {
                    "": row,
                    **{name: self.marks.get(cells.get(row, ""), cells.get(row, "")) for name, cells in columns},
                }
                for row in rows
            ]
        )
        return self.parse_text_to_nodes("\n".join(lines))


def list_group(group: str) -> list[str]:
    """Return the faults of one module of the catalogue, in its order."""
    modules = {name: factory.__module__.rpartition(".")[2] for name, factory in FACTORIES.items()}
    return [name for name, module in modules.items() if group == module]


def first_sentence(fault: str) -> str:
    text = " ".join((inspect.getdoc(FACTORIES[fault]) or "").split())
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


class FaultsTable(SphinxDirective):
    """The faults of one group: their arguments with the defaults, and the responses that they apply to."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = [
            {
                "fault": f"`{name}`",
                "description": first_sentence(name),
                "arguments": self.arguments_of(name),
                "applies to": self.scope_of(name),
            }
            for name in list_group(self.arguments[0])
        ]
        return self.parse_text_to_nodes("\n".join(table(rows)))

    def arguments_of(self, name: str) -> str:
        parameters = inspect.signature(FACTORIES[name]).parameters.values()
        return ", ".join(f"`{one.name}={one.default!r}`" for one in parameters) or NO

    def scope_of(self, name: str) -> str:
        fault = faults.CATALOGUE[name]
        kinds = {tuple(KINDS): "all", GENERATIONS: "generations", ("stream",): "streams"}[tuple(fault.kinds)]
        others = [f"`{wire}`" for wire in WIRES if wire not in fault.wires]
        return f"{kinds}, not on {', '.join(others)}" if others else kinds


def load_outcomes(note_dependency: Any) -> ModuleType:
    """Import tests/faults/outcomes.py, which is not part of a package."""
    path = Path(__file__).parents[1] / "tests" / "faults" / "outcomes.py"
    note_dependency(str(path))
    spec = importlib.util.spec_from_file_location("fault_outcomes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # attrs looks up the module of a class
    spec.loader.exec_module(module)
    return module


class OutcomesTable(SphinxDirective):
    """The outcome of each fault of one group, and below it the exceptions."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        outcomes = load_outcomes(self.env.note_dependency)
        rows, exceptions = [], []
        for name in list_group(self.arguments[0]):
            row = outcomes.TABLE[name]
            rows.append({"fault": f"`{name}`: {first_sentence(name)}", **self.cells(name, row)})
            if row.cold is not None:
                exceptions.append(f"- `{name}`, with a type that expects a cold start: {self.words(row.cold)}.")
            if row.embed is not None:
                exceptions.append(f"- `{name}`, embeddings: {self.words(row.embed)}.")
            for wire_api, others in outcomes.WIRE_ROWS.items():
                if name in others:
                    cells = self.cells(name, others[name])
                    outcome = "; ".join(f"{kind}: {words}" for kind, words in cells.items() if words != NO)
                    exceptions.append(f"- `{name}` in `{wire_api}`, {outcome}.")
        differing = ["", "Exceptions:", "", *exceptions] if exceptions else []
        return self.parse_text_to_nodes("\n".join([*table(rows), *differing]))

    def cells(self, name: str, row: Any) -> dict[str, str]:
        has_plain = "plain" in faults.CATALOGUE[name].kinds  # several faults share a row that has more outcomes
        plain = "the same" if row.plain == row.streamed else self.words(row.plain) if row.plain else NO
        return {"stream": self.words(row.streamed), "one body": plain if has_plain else NO}

    def words(self, outcome: Any) -> str:
        if not hasattr(outcome, "error"):
            return self.describe_success(outcome)
        parts = [f"{{exc}}`~ctxbackends.{outcome.error.__name__}`"]
        parts += [f"`{name}={value!r}`" for name, value in outcome.attributes.items()]
        if outcome.pieces is not None:
            parts.append("`partial` with the text so far" if outcome.pieces else "`partial` without text")
        if outcome.cause is not None:
            parts.append(f"cause {{exc}}`~ctxbackends.{outcome.cause.__name__}`")
        return ", ".join(parts)

    def describe_success(self, outcome: Any) -> str:
        parts = ["the complete response"]
        if outcome.finish_reason != "stop":
            parts.append(f'`finish_reason="{outcome.finish_reason}"`')
        if outcome.calls:
            parts.append(f"{len(outcome.calls)} calls")
        if outcome.requests is None:
            parts.append("retried until it is ready")
        elif outcome.requests > 1:
            parts.append("after a retry")
        return ", ".join(parts)


class Unreleased(SphinxDirective):
    """The changes since the last release: the fragments, as towncrier would put them into CHANGELOG.md."""

    def run(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased", "--date", ""]
        root = Path(__file__).parents[1]
        draft = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        return self.parse_text_to_nodes(draft.replace("Unreleased ()", "Unreleased"), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("coverage-by-server", CoverageTable)
    app.add_directive("faults", FaultsTable)
    app.add_directive("outcomes", OutcomesTable)
    app.add_directive("unreleased", Unreleased)
    return {"parallel_read_safe": True}
