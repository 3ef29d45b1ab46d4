"""The directive ``settings``: keys of a backend in `.ctxrc`."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from field_lists import Definitions
from setting_texts import describe_setting, describe_value
from sphinx.application import Sphinx

from ctxbackends._config.reader import FIELDS


class Settings(Definitions):
    """The keys that are the arguments."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        names = self.arguments[0].split()
        if not FIELDS.keys() >= {*names}:
            raise self.error(f"no such settings: {', '.join({*names} - FIELDS.keys())}")
        return self.build({name: describe_setting(name) for name in names}, {n: describe_value(n) for n in names})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
