"""docs/cookbook.md: each recipe runs against a server with fixed answers, and prints what the page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from ctxbackends import ToolResult
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends.testing import Answer, FaultServer, LMStudioStandIn, OllamaStandIn, OpenAIStandIn, Question, faults
from ctxbackends.testing._stand_ins.compat_openai import embedding_list
from ctxbackends.testing.faults import Do, ResponseBuilder, Step
from tests.integrations.stand_in_threads import serve
from tests.pages import read_page
from tests.programs import run_program, sections

RECIPES = sections("cookbook")
TESTS: dict[str, Callable[..., None]] = {}
LONGEST = 24  # lines with code, including the imports
FASTAPI = "Stream into a FastAPI response"  # tests/integrations/test_services_cookbook.py


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty working directory of the programs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_ctxrc(url: str, type_: str, model: str, *, more: str = "") -> None:
    text = f"backends:\n  - name: one\n    type: {type_}\n    endpoint: {url}\n    default_model: {model}\n{more}"
    Path(".ctxrc").write_text(text)


def check(title: str, *lines: str, address: str = "") -> None:
    """Run a recipe, and compare its output with that of the page."""
    printed = run_program(RECIPES[title].program, lines)
    assert RECIPES[title].output == (printed.replace(address, "http://localhost:8080") if address else printed)


def recipe_test(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(test: Callable[..., None]) -> Callable[..., None]:
        TESTS[title] = test
        return test

    return register


def ask_lmstudio(answer: Callable[[Question], Answer]) -> LMStudioStandIn:
    return LMStudioStandIn(answer=answer)


def say(response: ResponseBuilder, text: str) -> Iterator[Step]:
    """A correct response with a text."""
    yield from faults.respond(attrs.evolve(response, pieces=[text]))


@recipe_test("Wait until a model is loaded")
def test_wait_until_a_model_is_loaded() -> None:
    with FaultServer(model="qwen3-4b") as server:
        server.play(faults.swap_proxy(0.2), faults.loading(0.2), probes=True)
        write_ctxrc(server.url, "llamacpp", "qwen3-4b")
        check("Wait until a model is loaded", address=server.url)
    assert [] == server.generations


@recipe_test("Chat, and keep the history")
def test_chat_and_keep_the_history(directory: Path) -> None:
    def answer(question: Question) -> Answer:
        if "name" in question.prompt and question.prompt.endswith("?"):
            told = any("Ada" in message.text for message in question.messages)
            return Answer(text="Your name is Ada." if told else "I do not know.")
        return Answer(text="Hello, Ada.")

    title = "Chat, and keep the history"
    with serve(ask_lmstudio(answer)) as server:
        write_ctxrc(server.url, "lmstudio", "qwen/qwen3-4b")
        check(title, "My name is Ada.", "What is my name?", "")
        # The next run knows the conversation of the one before it.
        assert "Your name is Ada." in run_program(RECIPES[title].program, ["And what is my name?", ""])
    roles = [values["role"] for values in json.loads((directory / "chat.json").read_text())]
    assert ["user", "assistant"] * 3 == roles


@recipe_test("Stop a stream early")
def test_stop_a_stream_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    story = "Once upon a time, a keeper lived in a lighthouse on a rock. " * 20
    with serve(OpenAIStandIn(answer=lambda _: Answer(text=story))) as server:
        write_ctxrc(server.url, "openai", "gpt-5-mini")
        check("Stop a stream early")
    streams = [request for request in server.requests if request.path.endswith("/chat/completions")]
    assert [True] == [request.json["stream"] for request in streams]


@recipe_test("Go on when a stream was cut")
def test_go_on_when_a_stream_was_cut() -> None:
    def cut(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        yield response.frame(response.stream_start + response.text_event("Tea is made of "))
        yield Do.CLOSE

    with FaultServer() as server:
        server.play(cut, lambda response: say(response, "the leaves of a shrub."))
        write_ctxrc(server.url, "vllm", "m")
        check("Go on when a stream was cut")
        first, second = [request.json["messages"] for request in server.generations]
    assert ["user"] == [message["role"] for message in first]
    assert ["What is tea made of?", "Tea is made of ", "Continue exactly where you stopped."] == [
        message["content"] for message in second
    ]


@recipe_test("Summarize a long file")
def test_summarize_a_long_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    paragraphs = [f"Part {number}. " + "The harbour was rebuilt. " * 150 for number in range(6)]
    (directory / "report.txt").write_text("\n\n".join(paragraphs))
    seen: list[str] = []

    def answer(question: Question) -> Answer:
        seen.append(question.prompt)
        is_last = "Part" not in question.prompt
        return Answer(text="The harbour was rebuilt. It cost less than planned." if is_last else "It was rebuilt.")

    with serve(OpenAIStandIn(answer=answer)) as server:
        write_ctxrc(server.url, "openai", "gpt-5-mini")
        check("Summarize a long file")
    *pieces, last = seen
    assert [f"Part {number}." for number in range(6)] == re.findall(r"Part \d\.", "".join(sorted(pieces)))
    assert last.count("It was rebuilt.") == len(pieces) == 3


@recipe_test("Get objects out of a text")
def test_get_objects_out_of_a_text() -> None:
    def answer(question: Question) -> Answer:
        count = 0 if question.options["seed"] == 0 else 2
        rice = {"product": "rice", "count": count, "unit": "kg"}
        return Answer(text=json.dumps({"items": [rice, {"product": "pan", "count": 1, "unit": "piece"}]}))

    with serve(ask_lmstudio(answer)) as server:
        write_ctxrc(server.url, "lmstudio", "qwen/qwen3-4b")
        check("Get objects out of a text")


@recipe_test("Let the model call my functions")
def test_let_the_model_call_my_functions() -> None:
    def answer(question: Question) -> Answer:
        results = [part.text for message in question.messages for part in message.parts if isinstance(part, ToolResult)]
        if not results:
            return Answer(tool_calls=[("count_stock", {"product": "tea"})])
        if results == ["0"]:
            return Answer(tool_calls=[("order", {"product": "tea", "count": 5})])
        is_ordered = results[-1] == "ordered 5 packages of tea"
        return Answer(text=f"There was no tea. I {'ordered' if is_ordered else 'did not order'} 5 packages.")

    title = "Let the model call my functions"
    with serve(ask_lmstudio(answer)) as server:
        write_ctxrc(server.url, "lmstudio", "qwen/qwen3-4b")
        check(title, "y")
        denied = run_program(RECIPES[title].program, ["n"])
    assert 'order {"product": "tea", "count": 5} denied\nThere was no tea. I did not order 5 packages.\n' in denied


@recipe_test("Classify the rows of a CSV file")
def test_classify_the_rows_of_a_csv_file(directory: Path) -> None:
    title = "Classify the rows of a CSV file"
    (directory / "reviews.csv").write_text(RECIPES[title].texts("text")[0])

    def answer(question: Question) -> Answer:
        labels = {"boils": "praise", "leaks": "complaint", "fit": "question"}
        return Answer(text=json.dumps({"label": next(labels[word] for word in labels if word in question.prompt)}))

    with serve(ask_lmstudio(answer)) as server:
        write_ctxrc(server.url, "lmstudio", "qwen/qwen3-4b")
        check(title)
        sent = len(server.requests)
        check(title)  # from the journal
        assert sum("chat" in request.path for request in server.requests[sent:]) == 0


class WordVectors(LMStudioStandIn):
    """Its vectors count words, so that texts with the same words are similar."""

    WORDS = ("kettle", "clean", "vinegar", "rice", "water", "boil")

    async def _embeddings(self, _: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        vectors = [[1.0, *(float(text.lower().count(word)) for word in self.WORDS)] for text in body["input"]]
        return web.json_response(embedding_list(body["model"], vectors, 1))


@recipe_test("Search a folder by meaning")
def test_search_a_folder_by_meaning(directory: Path) -> None:
    (directory / "notes").mkdir()
    for name, text in {
        "coffee.md": "Clean the filter of the machine once a week.",
        "limescale.md": "Vinegar cleans the kettle.",
        "rice.md": "Boil the rice in twice as much water.",
    }.items():
        (directory / "notes" / name).write_text(text)
    with serve(WordVectors()) as server:
        write_ctxrc(server.url, "lmstudio", "text-embedding-nomic-embed-text-v1.5")
        check("Search a folder by meaning")


@recipe_test("Ask many prompts at once")
def test_ask_many_prompts_at_once() -> None:
    homes = {"fox": "in a den", "owl": "in old trees", "whale": "in the sea", "ant": "in a hill", "mole": "in the soil"}

    def script(response: ResponseBuilder) -> Iterator[Step]:
        animal = response.request.json["messages"][-1]["content"].removeprefix("Where does the ").split()[0]
        if animal == "crane":
            yield from faults.context_overflow()(response)
        else:
            yield from say(response, f"It lives {homes[animal]}.")

    with FaultServer() as server:
        server.play_always(script)
        write_ctxrc(server.url, "vllm", "m", more="    max_concurrency: 2\n")
        check("Ask many prompts at once")
    assert 6 == len(server.generations)
    assert 2 == len({request.connection for request in server.generations})  # never more than 2 at once


@recipe_test("Compare two models")
def test_compare_two_models() -> None:
    def answer(question: Question) -> Answer:
        is_large = question.model == "qwen3:32b"
        if "9.11" in question.prompt:
            return Answer(text="9.9 is larger." if is_large else "9.11 is larger.")
        return Answer(text="yrrebwarts" if is_large else "yrrebwart")

    title = "Compare two models"
    with serve(OllamaStandIn(models=("qwen3:4b", "qwen3:32b"), answer=answer)) as server:
        [ctxrc] = RECIPES[title].texts("yaml")
        Path(".ctxrc").write_text(ctxrc.replace("type: ollama", f"type: ollama\n    endpoint: {server.url}"))
        assert 2 == len(parse_ctxrc(Path(".ctxrc").read_text(), path=".ctxrc").backends)
        check(title)


def test_every_recipe_is_tested() -> None:
    assert RECIPES.keys() == TESTS.keys() | {FASTAPI}
    assert 12 == len(RECIPES)


def test_a_recipe_is_short() -> None:
    lengths = {title: sum(bool(line) for line in recipe.program.splitlines()) for title, recipe in RECIPES.items()}
    assert {} == {title: length for title, length in lengths.items() if length > LONGEST}


def test_the_list_links_to_every_recipe() -> None:
    links = re.findall(r"^\d+\. \[.+?\]\(#(.+?)\)", read_page("cookbook"), re.MULTILINE)
    assert [re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-") for title in RECIPES] == links
