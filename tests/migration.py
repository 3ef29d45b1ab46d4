"""The pages of docs/migrate: their code runs against a stand-in, in the order of the page.

In each section, the first Python block uses the vendor's client and the second one ctxbackends. Both print the same.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

import attrs

from ctxbackends.testing import Answer, FaultServer, Question, faults
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.pages import code_blocks, read_page, read_sections

Ask = Callable[[str, bool], Awaitable[object]]
"""Sends one request to a URL, streamed or not, without a retry and with short timeouts."""

FAILURES: Mapping[str, tuple[faults.Fault, bool]] = {
    "the key is rejected": (faults.unauthorized(), False),
    "the model does not exist": (faults.model_not_found(), False),
    "too many requests": (faults.rate_limited(), False),
    "the server is overloaded (503)": (faults.busy(), False),
    "the server fails (500)": (faults.server_error(), False),
    "the prompt is too long": (faults.context_overflow(), False),
    "a timeout": (faults.no_response(), False),
    "the connection is closed without a response": (faults.close_before_headers(), False),
    "a redirect to another address": (faults.redirect(), False),
    "an HTML page instead of JSON": (faults.html_page(), False),
    "another model answers": (faults.other_model(), False),
    "the connection breaks in a stream": (faults.close_in_chunk(), True),
    "a stream ends without its end marker": (faults.no_terminal_marker(), True),
}
"""The faults behind the first column of the tables of errors, and whether the request is streamed."""


def answer(question: Question) -> Answer:
    """Answer with a tool call if there are tools, with a person if there is a schema, else with a text."""
    if question.tool_results:
        return Answer(text=f"It is {question.tool_results[0].text}.")
    if question.tools:
        return Answer(tool_calls=[("get_weather", {"city": "Oslo"})])
    if question.response_format is not None:
        return Answer(text='{"name": "Maria Lopez", "age": 34}')
    return Answer(text="Deep blue.")


def read(page: str) -> str:
    return read_page(f"migrate/{page}")


def sections(page: str) -> dict[str, list[str]]:
    """Return the Python blocks of each section that has some."""
    blocks = {title: code_blocks(text, "python") for title, text in read_sections(f"migrate/{page}").items()}
    return {title: found for title, found in blocks.items() if found}


async def run_page(page: str, type_: str, stand_in: StandIn) -> dict[str, tuple[str, ...]]:
    """Run the blocks of a page, and return what those of each section printed.

    Args:
        page: The name of the page.
        type_: The backend type in the page's configuration, whose endpoint is the stand-in here.
        stand_in: The server.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: dict[str, tuple[str, ...]] = {}
    for title, blocks in sections(page).items():
        outputs = []
        for block in blocks:
            code = block.replace(f'type="{type_}"', f'type="{type_}", endpoint="{stand_in.url}"')
            with redirect_stdout(io.StringIO()) as output:
                await run_block(code, f"{page}.md: {title}", names)
            outputs.append(output.getvalue())
        printed[title] = tuple(outputs)
    return printed


async def run_block(code: str, name: str, names: dict[str, Any]) -> None:
    """Run code with `await` at the top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    result = eval(compile(code, name, "exec", flags=flags, dont_inherit=True), names)  # noqa: S307
    if inspect.iscoroutine(result):
        await result


@attrs.frozen
class Row:
    """A row of a table of errors: the failure, and the cells of the vendor and of ctxbackends."""

    failure: str
    vendor: str
    ours: str


def rows_of(page: str) -> list[Row]:
    table = read(page).partition("## Errors")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return [Row(*row) for row in rows if row[0] in FAILURES]


async def outcome_of(ask: Ask, failure: str) -> str:
    """Return the name of the exception of a failure, and an empty text if there is an answer."""
    fault, is_streamed = FAILURES[failure]
    async with FaultServer() as server:
        server.play(fault)
        try:
            await ask(server.url, is_streamed)
        except Exception as error:  # any exception is the outcome
            return type(error).__name__
    return ""


def name_in(cell: str) -> str:
    """Return the class in a cell of a table, and an empty text if there is none."""
    match = re.search(r"`(?:~?\w+\.)*(\w+)`", cell)
    return match[1] if match else ""
