"""``nox -s demo``: the main features of the SDK with a real server, step by step, as a user would write them."""

from __future__ import annotations

import argparse
import asyncio
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
    Loading,
    Message,
    StructuredOutputError,
    TextDelta,
    extract,
    open_backend,
    serve_model,
)

TEXT = "We chose YAML for .ctxrc, because people edit it by hand and want to leave comments in it."
ATTEMPTS = 5


@attrs.frozen
class Decision:
    """The type to extract. Its limits are part of the schema, so the server enforces them too."""

    title: Annotated[str, msgspec.Meta(max_length=60)]
    rationale: Annotated[str, msgspec.Meta(max_length=120)]


def say(text: str) -> None:
    print(text, flush=True)


class StatusLine:
    """Shows the progress of a cold start: one live line in a terminal, separate lines elsewhere."""

    def __init__(self) -> None:
        self._last_state: str | None = None

    def __call__(self, progress: Loading) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K   {progress}", end="", file=sys.stderr, flush=True)
        elif progress.state != self._last_state:
            print(f"   {progress}", file=sys.stderr, flush=True)
        self._last_state = progress.state

    def end(self) -> None:
        if self._last_state is not None and sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@asynccontextmanager
async def open_demo_backend(arguments: argparse.Namespace) -> AsyncIterator[Backend]:
    """Open a backend for the server in the arguments; by default the embedded server with a generated model."""
    line = StatusLine()
    if arguments.endpoint is not None:
        settings = {"endpoint": arguments.endpoint, "default_model": arguments.model}
        async with open_backend(arguments.type, **settings) as backend:
            await backend.wait_ready(on_progress=line)
            line.end()
            yield backend
        return
    if arguments.model_path is not None:
        path = Path(arguments.model_path)
    else:
        from ctxbackends.testing._tiny_gguf import VARIANTS, cached_model  # noqa: PLC0415

        started = time.monotonic()
        path = cached_model(VARIANTS["slow-load"])
        say(f"1. A model with random weights: {path}")
        say(f"   {path.stat().st_size / 1e6:.0f} MB, there after {time.monotonic() - started:.1f} s")
    say("2. The embedded llama.cpp server loads it; the SDK waits:")
    started = time.monotonic()
    async with serve_model(path, alias=None if arguments.model_path else "random", on_progress=line) as backend:
        line.end()
        say(f"   ready at {backend.endpoint} after {time.monotonic() - started:.2f} s")
        yield backend


async def show(backend: Backend, *, random_weights: bool) -> None:
    models = await backend.models()
    say("3. Its models:")
    for model in models:
        say(f"   {model.id} ({model.context_length or 'unknown'} tokens of context)")
    model_name = backend.default_model or models[0].id

    say("4. A streamed chat completion:")
    started, count = time.monotonic(), 0
    print("   > ", end="", flush=True)
    async with backend.stream(
        [Message.system("Be brief."), Message.user("Why a registry?")], model=model_name, max_tokens=48
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
    decision = await extract_decision(backend, model_name)
    say(f"   {decision}")
    if random_weights:
        say("\nThe words are noise, because the weights are random; everything around them is real.")
    say("With a real model:   nox -s demo -- path/to/model.gguf     (or: ctxbackends serve path/to/model.gguf)")
    say("With your server:    nox -s demo -- --endpoint http://localhost:8000 --type vllm --model NAME")
    say("In your project:     ctxbackends setup --backend llamacpp  (writes .ctxrc; then: ctxbackends chat 'Hello')")


async def extract_decision(backend: Backend, model: str) -> Decision:
    """Return the decision. With random weights, the model may reach ``max_tokens``, an error; then try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await extract(backend, Decision, TEXT, model=model, max_tokens=400, seed=attempt)
        except StructuredOutputError as error:
            say(f"   attempt {attempt}: {error}")
    raise SystemExit(f"no valid object in {ATTEMPTS} attempts")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="nox -s demo --", description="The main job of ctxbackends on a real server.")
    parser.add_argument("model_path", nargs="?", help="a GGUF file to serve; by default a generated one")
    parser.add_argument("--endpoint", help="the URL of a running server")
    parser.add_argument(
        "--type", default=BackendType.OPENAI_COMPATIBLE, choices=[str(name) for name in BackendType], help="its type"
    )
    parser.add_argument("--model", help="its model; by default the first one it lists")
    arguments = parser.parse_args()
    async with open_demo_backend(arguments) as backend:
        await show(backend, random_weights=arguments.endpoint is None and arguments.model_path is None)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except BackendError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
