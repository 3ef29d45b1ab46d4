"""docs/tutorial.md: its programs print what the page shows, with the answers that SmolLM2 gives.

tests/words/test_tutorial.py runs the page with SmolLM2 itself.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import ctxbackends
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends.testing import Answer, LMStudioStandIn, Question
from tests.integrations.stand_in_threads import serve
from tests.programs import run_program
from tests.tutorial import outputs_of, questions_in, sessions, texts, write_files

SMALL_MODEL = {
    "What is the capital of France? Answer in one sentence.": "The capital of France is Paris.",
    "And of Italy?": "The capital of Italy is Rome.",
    "What is the weather in Lisbon? Answer in one sentence.": (
        "Lisbon is known for its vibrant culture and delicious food."
    ),
    "What is the weather in Lisbon?": '{"city": "Lisbon"}',
    "The weather service says: sunny, 21 degrees in Lisbon. What is the weather in Lisbon? Answer in one sentence.": (
        "The weather in Lisbon is sunny, with a temperature of 21 degrees."
    ),
}


def answer_as_small_model(question: Question) -> Answer:
    return Answer(text=SMALL_MODEL[question.prompt])


def answer_with_tools(question: Question) -> Answer:
    if not question.tool_results:
        return Answer(tool_calls=[("get_weather", '{"city": "Lisbon"}')])
    assert "sunny, 21 degrees in Lisbon" == question.tool_results[0].text
    return Answer(text="The weather in Lisbon is sunny, with 21 degrees.")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the files of the page, as the working directory of the programs."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("chat", None)


def run(name: str, server: LMStudioStandIn, *lines: str) -> str:
    """Run a program of the page with the stand-in as its server."""
    Path(".ctxrc").write_text(
        f"backends: [{{name: local, type: lmstudio, endpoint: '{server.url}', default_model: smollm2}}]\n"
    )
    return run_program(Path(name).read_text(), lines)


def small_model() -> LMStudioStandIn:
    return LMStudioStandIn(models=["smollm2"], answer=answer_as_small_model)


@pytest.mark.parametrize("name", ["ask.py", "weather.py"])
def test_a_program(name: str) -> None:
    [output] = outputs_of(f"python {name}")
    with serve(small_model()) as server:
        assert output == run(name, server)


def test_the_chat_with_the_small_model() -> None:
    output, _ = outputs_of("python chat.py")
    with serve(small_model()) as server:
        assert output == run("chat.py", server, *questions_in(output))
    sent = [request.json for request in server.requests if request.path.endswith("/chat/completions")]
    assert [1, 3, 5] == [len(body["messages"]) for body in sent]
    assert [["get_weather"]] * 3 == [[tool["function"]["name"] for tool in body["tools"]] for body in sent]


def test_the_chat_with_a_model_that_calls_tools() -> None:
    _, output = outputs_of("python chat.py")
    with serve(LMStudioStandIn(models=["smollm2"], answer=answer_with_tools)) as server:
        assert output == run("chat.py", server, *questions_in(output))


def test_the_tests_pass(project: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "ctxbackends.testing.plugin", "-p", "pytest_asyncio.plugin"],
        cwd=project,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the same plugins, installed or not
            "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    [output] = outputs_of("python -m pytest -q")
    assert output.strip() in result.stdout, result.stdout + result.stderr
    assert 0 == result.returncode


def test_setup_writes_the_file_of_the_page(project: Path) -> None:
    [(command, output)] = [
        (command, output)
        for command, output in sessions()
        if command.startswith("ctxbackends setup --backend llamacpp")
    ]
    result = CliRunner().invoke(ctxbackends_group, shlex.split(command)[1:], prog_name="ctxbackends")
    assert 0 == result.exit_code, result.output
    assert output.replace("/home/ada/hello", str(project)) in result.output
    assert texts("yaml") == [(project / ".ctxrc").read_text()]
