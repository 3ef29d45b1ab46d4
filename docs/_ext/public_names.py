"""The directives ``public-names`` and ``exception-tree``: the API from the code."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from exception_tree import walk_exceptions
from exports import public_names
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


class PublicNames(SphinxDirective):
    """Describe public names, in the order of their package's list.

    The arguments are names, or modules that define them. The option ``package`` is the package that exports the names
    (default: ``ctxbackends``).
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"package": directives.unchanged}  # noqa: RUF012  # as docutils has it

    def run(self) -> list[nodes.Node]:
        package = self.options.get("package", "ctxbackends")
        names = public_names(package)
        lines: list[str] = []
        for argument in self.arguments[0].split():
            selected = {
                name: home for name, home in names.items() if argument == name or home == f"{package}.{argument}"
            }
            if not selected:
                raise self.error(f"no public name of {package}: {argument}")
            for name, home in selected.items():
                lines += self.describe(package, name, home)
        return self.parse_text_to_nodes("\n".join(["````{eval-rst}", *lines, "````"]))

    def describe(self, package: str, name: str, home: str) -> list[str]:
        value = getattr(import_module(package), name)
        if isinstance(value, type):
            kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
            # A private base class has some of the members.
            inherits = any(
                base.__module__.startswith(("ctxbackends._client.", "ctxbackends.sync.")) for base in value.__mro__[1:]
            )
            return [
                f".. {kind}:: {package}.{name}",
                "   :members:",
                *(["   :inherited-members:"] if inherits else []),
                "",
            ]
        if inspect.isfunction(value):
            return [f".. autofunction:: {package}.{name}", ""]
        comments = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name), [])
        return [f".. py:data:: {package}.{name}", "", *(f"   {line}" for line in comments), ""]


class ExceptionTree(SphinxDirective):
    """The tree of exceptions, as nested lists with links."""

    def run(self) -> list[nodes.Node]:
        lines = [
            f"{'  ' * depth}- {{exc}}`~ctxbackends.{kind.__name__}`"
            f"{', also a `TimeoutError`' if issubclass(kind, TimeoutError) else ''}"
            for depth, kind in walk_exceptions()
        ]
        return self.parse_text_to_nodes("\n".join(lines))


def hide_signature(_app: Sphinx, what: str, *_rest: Any) -> tuple[str, str] | None:
    return ("", "") if what == "exception" else None  # only the SDK creates them


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("exception-tree", ExceptionTree)
    app.connect("autodoc-process-signature", hide_signature)
    return {"parallel_read_safe": True}
