"""The tree of the public exceptions. Needs no Sphinx."""

from __future__ import annotations

from collections.abc import Iterator

from ctxbackends import BackendError, errors


def walk_exceptions(
    kind: type[BaseException] = BackendError, depth: int = 0
) -> Iterator[tuple[int, type[BaseException]]]:
    """Yield each public exception with its depth. One with two bases is below both."""
    yield depth, kind
    for child in kind.__subclasses__():
        if getattr(errors, child.__name__, None) is child:  # not those of ctxbackends.batch and ctxbackends.knowledge
            yield from walk_exceptions(child, depth + 1)
