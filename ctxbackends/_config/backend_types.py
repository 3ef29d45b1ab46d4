"""The names of the backend types. Plug-ins are looked up only for an unknown name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ctxbackends._profiles.builtin import PROFILES

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGIN_GROUP = "ctxbackends.backends"
"""The group of the entry points of plug-ins. The name of an entry point is the name of its backend type."""


def find_plugins() -> list[EntryPoint]:
    """Return the entry points of all installed plug-ins. Nothing of them is imported."""
    from importlib.metadata import entry_points  # noqa: PLC0415  # reads the metadata of every distribution

    return sorted(entry_points(group=PLUGIN_GROUP), key=lambda plugin: plugin.name)


class BackendTypes(Collection[str]):
    """The known types, then those of plug-ins.

    Args:
        known: The types that are found without the plug-ins.
    """

    def __init__(self, known: Collection[str] = tuple(PROFILES)) -> None:
        self._known = known

    def __contains__(self, name: object) -> bool:
        return name in self._known or any(name == plugin.name for plugin in find_plugins())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*map(str, self._known), *(plugin.name for plugin in find_plugins())]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


ALL_TYPES = BackendTypes()
"""The built-in types and those of plug-ins."""
