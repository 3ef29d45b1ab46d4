"""Another platform, as the package sees it: the modules of the standard library without the names that the platform
lacks. Modules outside the package get the real ones.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

import pytest

PACKAGE = "ctxbackends"


class Platform:
    """A pytest plugin that runs the package as on another platform, whose ``sys.platform`` is ``name``.

    ``hidden`` has patterns of names by module, ``absent`` the modules that the platform lacks, ``replacements`` other
    values by module, and ``skip_markers`` the markers of tests that need another platform.
    """

    def __init__(
        self,
        name: str,
        *,
        hidden: Mapping[str, str],
        absent: str = "",
        replacements: Mapping[str, Mapping[str, Any]] | None = None,
        skip_markers: Sequence[str],
    ) -> None:
        self.name = name
        self._absent = frozenset(absent.split())
        self._skip_markers = skip_markers
        values = {**(replacements or {}), "sys": {"platform": name}}
        self._modules = {
            module: PartialModule(module, hidden.get(module, "").split(), values.get(module, {}))
            for module in {*hidden, *values}
        }

    def install(self) -> None:
        """Replace the modules for everything that the package imports from now on."""
        early = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
        assert not early, f"imported before the platform was replaced: {early}"
        original = builtins.__import__

        def import_(
            name: str,
            globals: Mapping[str, object] | None = None,  # noqa: A002  # as __import__ names it
            locals: Mapping[str, object] | None = None,  # noqa: A002
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            if level == 0 and globals is not None and str(globals.get("__name__")).partition(".")[0] == PACKAGE:
                if name in self._absent:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
                if name in self._modules:
                    return self._modules[name]
            return original(name, globals, locals, fromlist, level)

        builtins.__import__ = import_

    def pytest_report_header(self) -> str:
        return f"{PACKAGE} runs as on {self.name}"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in self._skip_markers:
                if item.get_closest_marker(marker) is not None:
                    item.add_marker(pytest.mark.skip(reason=f"{marker}: {PACKAGE} runs as on {self.name}"))


class PartialModule(ModuleType):
    """A module without some of its names. Whatever else is read, set or deleted is the real module's, so that a test
    can patch it."""

    def __init__(self, name: str, hidden: Sequence[str], replacements: Mapping[str, Any]) -> None:
        super().__init__(name)
        __import__(name)
        vars(self).update(_real=sys.modules[name], _hidden=hidden, _replacements=dict(replacements))

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        if name in own["_replacements"]:
            return own["_replacements"][name]
        if any(fnmatchcase(name, pattern) for pattern in own["_hidden"]):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(own["_real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self)["_replacements"]:
            vars(self)["_replacements"][name] = value
        else:
            setattr(vars(self)["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(vars(self)["_real"], name)

    def __dir__(self) -> list[str]:
        return [name for name in dir(vars(self)["_real"]) if hasattr(self, name)]
