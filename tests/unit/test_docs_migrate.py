"""docs/migrate: both sides of each example run and print the same, and the tables are those of both packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import attrs
import ollama
import openai
import pytest

from ctxbackends import PROFILES, open_backend
from ctxbackends._client.retry import MAX_RETRIES
from ctxbackends.testing import AnthropicStandIn, OllamaStandIn, OpenAIStandIn
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.migration import FAILURES, Ask, Row, answer, name_in, outcome_of, read, rows_of, run_page, sections

KEY = "any-key-of-the-tests"
SECONDS = 0.5  # of a request to a server that never answers
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


async def ask_openai(url: str, is_streamed: bool) -> object:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, timeout=SECONDS) as client:
        if is_streamed:
            return [_ async for _ in await client.chat.completions.create(model="m", messages=HELLO, stream=True)]
        return (await client.chat.completions.create(model="m", messages=HELLO)).choices[0].message.content


async def ask_anthropic(url: str, is_streamed: bool) -> object:
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0, timeout=SECONDS) as client:
        if is_streamed:
            async with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
                return [_ async for _ in stream.text_stream]
        return (await client.messages.create(model="m", max_tokens=9, messages=HELLO)).content[0]


async def ask_ollama(url: str, is_streamed: bool) -> object:
    async with ollama.AsyncClient(host=url, timeout=SECONDS) as client:
        if is_streamed:
            return [_ async for _ in await client.chat(model="m", messages=HELLO, stream=True)]
        return await client.chat(model="m", messages=HELLO)


@attrs.frozen
class Page:
    name: str
    stand_in: Callable[[], StandIn]
    ask: Ask
    variable: str  # from which the vendor's client reads the address
    path: str = ""

    async def ask_ours(self, url: str, is_streamed: bool) -> object:
        settings: Any = {"timeout": SECONDS, "first_token_timeout": SECONDS, "max_retries": 0, "api_key": KEY}
        async with open_backend(self.name, endpoint=url, default_model="m", **settings) as backend:
            if is_streamed:
                async with backend.stream(HELLO, max_tokens=9) as stream:
                    return await stream.get_final_completion()
            return await backend.complete(HELLO, max_tokens=9)


PAGES = {
    page.name: page
    for page in (
        Page("openai", lambda: OpenAIStandIn(answer=answer), ask_openai, "OPENAI_BASE_URL", "/v1"),
        Page("anthropic", lambda: AnthropicStandIn(answer=answer), ask_anthropic, "ANTHROPIC_BASE_URL"),
        Page("ollama", lambda: OllamaStandIn(answer=answer), ask_ollama, "OLLAMA_HOST"),
    )
}


@pytest.mark.parametrize("name", PAGES)
async def test_both_sides_print_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGES[name]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    async with page.stand_in() as server:
        monkeypatch.setenv(page.variable, server.url + page.path)
        printed = await run_page(name, name, server)
    assert {2} == {len(outputs) for outputs in printed.values()}
    assert {title: vendor for title, (vendor, _) in printed.items()} == {
        title: ours for title, (_, ours) in printed.items()
    }
    assert {"Create a client", "Close"} == {title for title, (vendor, _) in printed.items() if not vendor}


@pytest.mark.parametrize(("name", "row"), [(name, row) for name in PAGES for row in rows_of(name)], ids=str)
async def test_a_row_of_errors(name: str, row: Row) -> None:
    assert name_in(row.vendor) == await outcome_of(PAGES[name].ask, row.failure)
    assert name_in(row.ours) == await outcome_of(PAGES[name].ask_ours, row.failure)


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_errors_is_tested(name: str) -> None:
    table = read(name).partition("## Errors")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(rows_of(name)) >= 10
    assert {row.failure for row in rows_of(name)} <= FAILURES.keys()


def defaults_of(name: str) -> dict[str, list[str]]:
    table = read(name).partition("| default |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return {title: cells for title, *cells in rows}


@pytest.mark.parametrize("name", PAGES)
def test_our_defaults(name: str) -> None:
    profile, ours = PROFILES[name], {title: cells[-1] for title, cells in defaults_of(name).items()}
    assert f"{profile.connect_timeout:g} s" == ours["to connect"]
    assert f"{profile.first_token_timeout:g} s" == ours["until the first token"]
    assert (
        f"{profile.idle_timeout:g} s; {profile.silent_idle_timeout:g} s with tools or a schema"
        == (ours["between two tokens"])
    )
    assert ("none" if profile.timeout is None else f"{profile.timeout:g} s") == ours["the whole request"]
    assert str(MAX_RETRIES) == ours["retries"]


@pytest.mark.parametrize("vendor", [openai, anthropic])
def test_the_defaults_of_a_vendor(vendor: Any) -> None:
    theirs = {title: cells[0] for title, cells in defaults_of(vendor.__name__).items()}
    assert f"{vendor.DEFAULT_TIMEOUT.connect:g} s" == theirs["to connect"]
    assert {f"{vendor.DEFAULT_TIMEOUT.read:g} s without a byte"} == {
        theirs["until the first token"],
        theirs["between two tokens"],
    }
    assert str(vendor.DEFAULT_MAX_RETRIES) == theirs["retries"]


@pytest.mark.parametrize("name", PAGES)
def test_each_section_has_both_sides(name: str) -> None:
    assert [] == [title for title, blocks in sections(name).items() if len(blocks) != 2]
