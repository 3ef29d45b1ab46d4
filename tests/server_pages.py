"""The pages of docs/servers, and the servers that their programs and errors are tested with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from ctxbackends import Backend, BackendConfig, open_backend
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._profiles.builtin import SERVERS
from ctxbackends.testing import AnthropicStandIn, FaultServer, LMStudioStandIn, OllamaStandIn, OpenAIStandIn
from ctxbackends.testing._fault_server.answers import dump, plain
from ctxbackends.testing._stand_ins.stand_in import StandIn
from ctxbackends.testing.faults import ResponseBuilder, Step
from tests.pages import code_blocks, read_page

KEY = "any-key-of-the-tests"
PAGES = {"compatible": "openai-compatible"} | {name: name for name in SERVERS if name != "openai-compatible"}
"""The pages, with their types."""
STAND_INS: Mapping[str, Callable[[], StandIn]] = {
    "ollama": OllamaStandIn,
    "lmstudio": LMStudioStandIn,
    "openai": lambda: OpenAIStandIn(api_key=KEY),
    "anthropic": lambda: AnthropicStandIn(api_key=KEY),
    "compatible": lambda: OpenAIStandIn(api_key=KEY, models=["big-model"]),
}
"""Servers for the programs of the pages. Those of the other pages run with the tiny model (tests/unit/test_docs.py)."""

Call = Callable[[Backend], Awaitable[object]]
Script = Callable[[ResponseBuilder], Any]
Raise = Callable[[], Awaitable[object]]
"""Provokes an error."""
_ERROR = re.compile(r"^\| (`{1,2}) ?(.+?) ?\1 \| \{class\}`~ctxbackends\.(\w+)` \| ", re.MULTILINE)


def read(page: str) -> str:
    return read_page(f"servers/{page}")


def first_block(page: str, language: str) -> str:
    return code_blocks(read(page), language)[0]


def configured(page: str) -> BackendConfig:
    """Return the first backend in the first `.ctxrc` of a page."""
    return parse_ctxrc(first_block(page, "yaml"), path=".ctxrc").backends[0]


def errors_of(page: str) -> dict[str, str]:
    """Return the messages in the table of errors of a page, and their exceptions."""
    return {match[2]: match[3] for match in _ERROR.finditer(read(page).partition("## If it fails")[2])}


# --- errors -------------------------------------------------------------------------------------------


def complete(prompt: Any = "Hello", **options: Any) -> Call:
    return lambda backend: backend.complete(prompt, **options)


async def ask(page: str, call: Call, **settings: Any) -> object:
    """Call a backend of the type of a page, without a retry."""
    defaults: dict[str, Any] = {"api_key": KEY, "default_model": "m", "max_retries": 0}
    async with open_backend(PAGES[page], **{**defaults, **settings}) as backend:
        return await call(backend)


def at_nobody(page: str) -> Raise:
    """Ask where nothing listens."""
    return lambda: ask(page, complete(), endpoint="http://127.0.0.1:9", ready_timeout=0)


def at_stand_in(page: str, call: Call, *, server: Callable[[], StandIn] | None = None, **settings: Any) -> Raise:
    """Ask a stand-in for the model of the page."""

    async def run() -> object:
        async with (server or STAND_INS[page])() as stand_in:
            model = configured(page).default_model
            return await ask(page, call, **{"endpoint": stand_in.url, "default_model": model, **settings})

    return run


def at_faults(page: str, *scripts: Script, call: Call | None = None, probes: bool = False, **settings: Any) -> Raise:
    """Ask a server that answers with ``scripts``, the last one for ever."""

    async def run() -> object:
        async with FaultServer() as server:
            server.play(*scripts[:-1], probes=probes)
            if scripts:
                server.play_always(scripts[-1], probes=probes)
            return await ask(page, call or complete(), **{"endpoint": server.url, "max_concurrency": 9, **settings})

    return run


def respond(status: int, body: Any) -> Script:
    """Respond with a body, or with an error of this message."""
    members = {"error": {"message": body, "type": "error", "code": status}} if isinstance(body, str) else body

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield plain(status, dump(members))

    return script
