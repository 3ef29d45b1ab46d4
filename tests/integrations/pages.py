"""The examples of a page in docs/frameworks, which run in the tests of its adapter.

A test file imports the fixtures and has one test::

    @pytest.mark.real
    @pytest.mark.parametrize("block", blocks_of("pydantic-ai"), ids=str)
    def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:
        run_block(block, project)
"""

from __future__ import annotations

import re

from ctxbackends import BackendError
from ctxbackends.testing.plugin import llama_server as llama_server
from ctxbackends.testing.plugin import tiny_model as tiny_model
from tests.unit.test_docs import ROOT, blocks
from tests.unit.test_docs import Block as Block
from tests.unit.test_docs import project as project
from tests.unit.test_docs import run_block as run_block


def blocks_of(page: str) -> list[Block]:
    """Return the Python blocks of docs/frameworks/<page>.md."""
    return [block for block in blocks("python") if block.page.parent.name == "frameworks" and block.page.stem == page]


def categories_of(page: str, error: BackendError) -> set[str]:
    """Return the classes in the row of an error in the table of docs/frameworks/<page>.md.

    The row has the class of the error, or the nearest of its base classes.
    """
    text = (ROOT / "docs" / "frameworks" / f"{page}.md").read_text("utf-8")
    cells = [line.split("|")[1:3] for line in text.partition("## Errors")[2].splitlines() if line.startswith("|")]
    rows = {kind: set(re.findall(r"`(?:\w+\.)*(\w+)`", right)) for left, right in cells for kind in _words(left)}
    return next(rows[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in rows)


def _words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)
