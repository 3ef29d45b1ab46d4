"""``python3 noxfile.py -s demo``: the main features of the SDK with a real server, step by step."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import attrs
import msgspec

from ctxbackends import (
    Backend,
    BackendError,
    BackendType,
    Completion,
    ConfigError,
    Loading,
    Message,
    ModelDownloadError,
    StructuredOutputError,
    TextDelta,
    extract,
    open_backend,
    serve_model,
    tool_of,
)
from ctxbackends.local import find_model, list_models, pull_model
from ctxbackends.local._models import CHAT_ARGUMENTS

MODEL = "smollm2"
QUESTION = "What is a database? Answer in one sentence."
TEXT = "Maria Lopez is 34 years old and lives in Lisbon."
TOOL_QUESTION = "What is the weather in Lisbon?"
ATTEMPTS = 5
MAX_TOKENS = 48


@attrs.frozen
class Person:
    """The type to extract. Its limits are part of the schema, so the server enforces them too."""

    name: Annotated[str, msgspec.Meta(max_length=40)]
    age: Annotated[int, msgspec.Meta(ge=0, le=150)]
    city: Annotated[str, msgspec.Meta(max_length=40)]


def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"


def say(text: str) -> None:
    print(text, flush=True)


class StatusLine:
    """Shows the progress of a wait: one live line in a terminal, separate lines elsewhere."""

    def __init__(self) -> None:
        self._last_step: object = None

    def show(self, text: str, step: object) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K   {text}", end="", file=sys.stderr, flush=True)
        elif step != self._last_step:
            print(f"   {text}", file=sys.stderr, flush=True)
        self._last_step = step

    def __call__(self, progress: Loading) -> None:
        self.show(str(progress), progress.state)

    def show_download(self, done: int, total: int) -> None:
        self.show(f"downloading {MODEL}: {100 * done // total}%", 4 * done // total)

    def end(self) -> None:
        if self._last_step is not None and sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@attrs.frozen
class ServedModel:
    """A model file for the embedded server."""

    path: Path
    is_noise: bool = False


def choose_model(arguments: argparse.Namespace) -> ServedModel:
    """Return the model in the arguments; by default the small one, or noise if it cannot be downloaded."""
    if arguments.model_path is not None:
        return ServedModel(find_model(arguments.model_path))
    started = time.monotonic()
    if not arguments.noise:
        line = StatusLine()
        model = next(one for one in list_models() if one.name == MODEL)
        say(f"1. A small model: {model.description}, {model.license}, {model.size / 1e6:.0f} MB")
        try:
            path = pull_model(MODEL, on_progress=line.show_download)
        except (ConfigError, ModelDownloadError) as error:
            line.end()
            say(f"   {error}\n   So the demo uses random weights, and the words are noise.")
        else:
            line.end()
            say(f"   {path}, there after {time.monotonic() - started:.1f} s")
            return ServedModel(path)
    from ctxbackends.testing._tiny_gguf import VARIANTS, cached_model  # noqa: PLC0415  # needs numpy

    path = cached_model(VARIANTS["slow-load"])
    say(f"{'1. A' if arguments.noise else '   The'} model with random weights: {path}")
    return ServedModel(path, is_noise=True)


@asynccontextmanager
async def open_demo_backend(arguments: argparse.Namespace, served: ServedModel | None) -> AsyncIterator[Backend]:
    """Open a backend for the server in the arguments, or the embedded server for a model."""
    line = StatusLine()
    if served is None:
        settings = {"endpoint": arguments.endpoint, "default_model": arguments.model}
        async with open_backend(arguments.type, **settings) as backend:
            await backend.wait_ready(on_progress=line)
            line.end()
            yield backend
        return
    say("2. The embedded llama.cpp server loads it; the SDK waits:")
    started = time.monotonic()
    alias = "random" if served.is_noise else None
    # Half of the cores: llama.cpp is many times slower where its threads have to share a core with another program.
    threads = None if arguments.model_path else max(1, (os.cpu_count() or 1) // 2)
    async with serve_model(served.path, alias=alias, threads=threads, on_progress=line) as backend:
        line.end()
        say(f"   ready at {backend.endpoint} after {time.monotonic() - started:.2f} s")
        yield backend


async def show(backend: Backend) -> None:
    models = await backend.models()
    say("3. Its models:")
    for model in models:
        say(f"   {model.id} ({model.context_length or 'unknown'} tokens of context)")
    model_name = backend.default_model or models[0].id

    say(f"4. A streamed answer to: {QUESTION}")
    started, count = time.monotonic(), 0
    print("   > ", end="", flush=True)
    async with backend.stream(
        [Message.system("Be brief."), Message.user(QUESTION)], model=model_name, max_tokens=MAX_TOKENS, temperature=0
    ) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                count += 1
                print(event.text.replace("\n", " "), end="", flush=True)
    answer = stream.completion
    used = answer.usage
    tokens = f"{used.input_tokens} tokens in, {used.output_tokens} out, " if used else ""
    say(f"\n   {count} pieces in {time.monotonic() - started:.2f} s, {tokens}finish_reason {answer.finish_reason}")
    say(f"   answered by {answer.served_model}")

    say("5. An attrs class extracted from text, with a JSON Schema that the server enforces:")
    say(f'   text: "{TEXT}"')
    say(f"   {await extract_person(backend, model_name)}")

    say(f"6. A tool, offered with: {TOOL_QUESTION}")
    answer = await backend.complete(
        TOOL_QUESTION, model=model_name, tools=[tool_of(weather)], max_tokens=MAX_TOKENS, temperature=0
    )
    say(f"   {describe_tool_use(answer)}")


def describe_tool_use(answer: Completion) -> str:
    """Return whether the model called the tool; small models often answer in words."""
    if answer.tool_calls:
        return ", ".join(f"the model calls {call.name}({call.arguments})" for call in answer.tool_calls)
    return f'the model did not call it and answered: "{" ".join(answer.text.split())}"'


async def extract_person(backend: Backend, model: str) -> Person:
    """Return the person. With random weights, the model may reach ``max_tokens``, an error; then try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await extract(backend, Person, TEXT, model=model, max_tokens=200, seed=attempt, temperature=0.2)
        except StructuredOutputError as error:
            say(f"   attempt {attempt}: {error}")
    raise SystemExit(f"no valid object in {ATTEMPTS} attempts")


def say_what_next(served: ServedModel | None) -> None:
    if served is not None and served.is_noise:
        say("\nThe words are noise, because the weights are random; everything around them is real.")
    say("\nWith your model:  python3 noxfile.py -s demo -- path/to/model.gguf")
    say("With your server: python3 noxfile.py -s demo -- --endpoint http://localhost:8000 --type vllm --model NAME")
    say("To go on:         pip install '.[cli,llamacpp]'")
    say(f"                  ctxbackends pull {MODEL}")
    say(f"                  ctxbackends chat --model-path {MODEL} {CHAT_ARGUMENTS}")
    say("In your project:  ctxbackends setup --backend llamacpp    (writes .ctxrc)")


async def run(arguments: argparse.Namespace, served: ServedModel | None) -> None:
    async with open_demo_backend(arguments, served) as backend:
        await show(backend)
    say_what_next(served)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python3 noxfile.py -s demo --", description="The main job of ctxbackends on a real server."
    )
    parser.add_argument("model_path", nargs="?", help=f"a GGUF file to serve; by default {MODEL}, which is downloaded")
    parser.add_argument("--noise", action="store_true", help="use a model with random weights; download nothing")
    parser.add_argument("--endpoint", help="the URL of a running server")
    parser.add_argument(
        "--type", default=BackendType.OPENAI_COMPATIBLE, choices=[str(name) for name in BackendType], help="its type"
    )
    parser.add_argument("--model", help="its model; by default the first one it lists")
    arguments = parser.parse_args()
    if sum(map(bool, (arguments.model_path, arguments.endpoint, arguments.noise))) > 1:
        parser.error("choose one of a model file, --noise and --endpoint")
    # Before the event loop starts, which would delay a Ctrl-C until the download has ended.
    served = choose_model(arguments) if arguments.endpoint is None else None
    asyncio.run(run(arguments, served))


if __name__ == "__main__":
    try:
        main()
    except BackendError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
