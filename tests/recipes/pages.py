"""The recipes in docs/frameworks: a test runs the block of a page against a stand-in, with the package of the page.

`nox -s recipes` runs them. Without the package, the tests of a page are skipped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends import BackendType
from ctxbackends.testing import Answer, AnthropicStandIn, OllamaStandIn, OpenAIStandIn, Question
from ctxbackends.testing._stand_ins.stand_in import StandIn
from tests.integrations.pages import blocks_of
from tests.integrations.stand_in_threads import serve


@attrs.frozen
class Server:
    """A stand-in, and the backend in `.ctxrc` for it."""

    stand_in: type[StandIn]
    type: BackendType
    model: str


OLLAMA = Server(OllamaStandIn, BackendType.OLLAMA, "qwen3:4b")
OPENAI = Server(OpenAIStandIn, BackendType.OPENAI, "gpt-4.1-mini")
ANTHROPIC = Server(AnthropicStandIn, BackendType.ANTHROPIC, "claude-haiku-4-5")

every_server = pytest.mark.parametrize("server", [OLLAMA, OPENAI, ANTHROPIC], ids=lambda server: server.type)


def needs(package: str, session: str) -> list[pytest.MarkDecorator]:
    """Return the marks of the tests of a page. Its package is imported by the block, with the warnings that it has."""
    try:
        is_installed = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        is_installed = False
    reason = f"needs {package}: nox -s \"recipes(package='{session}')\""
    return [pytest.mark.skipif(not is_installed, reason=reason), pytest.mark.filterwarnings("default")]


@contextmanager
def serve_backend(
    server: Server, answer: Callable[[Question], Answer], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> Iterator[StandIn]:
    """Serve a stand-in, in a directory whose `.ctxrc` names it `local`."""
    monkeypatch.setenv("RECIPE_KEY", "any")
    monkeypatch.chdir(directory)
    with serve(server.stand_in(answer=answer)) as stand_in:
        (directory / ".ctxrc").write_text(
            f"backends:\n  - name: local\n    type: {server.type}\n    endpoint: {stand_in.url}\n"
            f"    default_model: {server.model}\n    api_key_env: RECIPE_KEY\n    ready_timeout: 1s\n"
        )
        yield stand_in


def answer_with_tool(question: Question) -> Answer:
    """Call the tool of the page, and answer with its result; without tools, answer with a text."""
    if question.tool_results:
        return Answer(text=f"Yes: {question.tool_results[0].text}")
    if question.tools:
        return Answer(tool_calls=[("get_weather", {"city": "Oslo"})])
    return Answer(text="Deep blue.")


class Recorder:
    """Answers like ``answer``, and keeps the questions."""

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self.questions: list[Question] = []
        self._answer = answer

    def __call__(self, question: Question) -> Answer:
        self.questions.append(question)
        return self._answer(question)


def run_page(page: str) -> dict[str, Any]:
    """Run the one Python block of docs/frameworks/<page>.md, and return its names."""
    [block] = blocks_of(page)
    names: dict[str, Any] = {"__name__": "__main__"}
    code = "\n" * (block.line - 1) + block.text  # a traceback then names the line of the page
    exec(compile(code, str(block.page), "exec", dont_inherit=True), names)  # noqa: S102
    return names
