"""The examples of a page in docs/frameworks, which run in the tests of its adapter.

A test file imports the fixtures and has one test::

    @pytest.mark.real
    @pytest.mark.parametrize("block", blocks_of("pydantic-ai"), ids=str)
    def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:
        run_block(block, project)
"""

from __future__ import annotations

from ctxbackends.testing.plugin import llama_server as llama_server
from ctxbackends.testing.plugin import tiny_model as tiny_model
from tests.unit.test_docs import Block as Block
from tests.unit.test_docs import blocks
from tests.unit.test_docs import project as project
from tests.unit.test_docs import run_block as run_block


def blocks_of(page: str) -> list[Block]:
    """Return the Python blocks of docs/frameworks/<page>.md."""
    return [block for block in blocks("python") if block.page.parent.name == "frameworks" and block.page.stem == page]
