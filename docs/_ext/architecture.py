"""The directives ``layers`` and ``modules``: the architecture from the import contracts and from the docstrings."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from import_layers import PACKAGE, ROOT, find_module, list_modules, list_packages, list_rules, read_layers, read_summary
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Layers(SphinxDirective):
    """The diagram of a contract: a row for each layer, with boxes for its modules. Boxes wrap on a narrow screen."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "pyproject.toml"))
        container, layers = read_layers(self.arguments[0])
        diagram = nodes.container(classes=["layers"])
        for names in layers:
            row = nodes.container(classes=["layer"])
            for name in names:
                if (file := find_module(f"{container}.{name}")) is not None:
                    row += self.box(name, read_summary(file))
            diagram += row
        return [diagram]

    def box(self, name: str, summary: str) -> nodes.Node:
        box = nodes.container(classes=["layer-box"])
        box += self.parse_text_to_nodes(f"`{name}`\n\n{summary}")
        return box


class Modules(SphinxDirective):
    """Every module with the first line of its docstring."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for package in list_packages():
            name = package.relative_to(PACKAGE.parent).as_posix()
            lines += [f"`{name}/`", f": {read_summary(package / '__init__.py')}", ""]
            lines += [f"  - `{file.name}`: {read_summary(file)}" for file in list_modules(package)]
            lines += [""]
        return self.parse_text_to_nodes("\n".join(lines))


class Contracts(SphinxDirective):
    """The names of the contracts that are not layers."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "pyproject.toml"))
        return self.parse_text_to_nodes("\n".join(f"- {name}." for name in list_rules()))


class Steps(SphinxDirective):
    """The functions of a way through the code: lines such as ``_client.retry:RetryPolicy.retry: decides ...``."""

    required_arguments = 1  # its name for the tests
    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = []
        for line in self.content:
            module, name, text = line.split(":", 2)
            if find_module(f"ctxbackends.{module}") is None:
                raise self.error(f"no such module: {module}")
            lines.append(f"1. `{name}` in `{module.replace('.', '/')}.py`:{text}")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("layers", Layers)
    app.add_directive("contracts", Contracts)
    app.add_directive("modules", Modules)
    app.add_directive("steps", Steps)
    return {"parallel_read_safe": True}
