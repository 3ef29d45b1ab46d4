"""Measure how well a model extracts: ``python -m tests.quality``, with SmolLM2 or the model that you name."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import typing
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import attrs

from ctxbackends import Backend, Registry, __version__, open_backend, serve_model
from ctxbackends.errors import BackendError
from ctxbackends.knowledge import Kind, RunOptions
from ctxbackends.knowledge._records import kinds_of
from ctxbackends.local import find_model, pull_model
from tests.quality.cases import GROUPS, Case, load_cases
from tests.quality.report import build_json, format_result, format_table
from tests.quality.runs import Meter, Result, run_cases

MODEL = "smollm2"
"""The model if none is named; it is downloaded to the cache."""

CONTEXT = 4096
"""Tokens of each slot of the server that is started here. A quarter of it is for the answer, which bounds the time."""

KINDS = (Kind.DECISION, Kind.TASK)
"""The kinds that each group is asked for by default."""

DESCRIPTION = """Measure how well a model extracts. It reads the labelled texts of tests/quality/cases, compares the
rows with the labels, and prints the figures. The options at the end are those of a run."""

_OWN = ("kinds", "model", "skip_failed")
"""Fields of RunOptions that are set here."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, with an option for each field of RunOptions."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--model-path", help=f"a GGUF file or a downloaded model to serve (default: {MODEL})")
    parser.add_argument("--backend", help="a backend of .ctxrc, or with --endpoint the type of the server")
    parser.add_argument("--endpoint", help="URL of a server that runs")
    parser.add_argument("--api-key-env", default="", help="environment variable with the API key of --endpoint")
    parser.add_argument("--model", help="name of the model; the default of the backend or the server otherwise")
    parser.add_argument("--ctx-size", type=int, default=CONTEXT, help=f"context of a served model (default: {CONTEXT})")
    parser.add_argument("--parallel", type=int, default=1, help="slots of a served model (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads of a served model")
    parser.add_argument("--cases", metavar="WORD", help="only the cases with this word in their names")
    parser.add_argument(
        "--groups", metavar="LIST", type=_parse_groups, default=tuple(GROUPS), help=f"of {', '.join(GROUPS)}"
    )
    parser.add_argument(
        "--kinds",
        metavar="KINDS",
        type=_parse_kinds,
        default=KINDS,
        help=f"kinds to extract, or all for those of each group (default: {','.join(KINDS)})",
    )
    parser.add_argument("--together", action="store_true", help="read each group as one directory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, rows and missed labels to a file")
    run = parser.add_argument_group("options of a run")
    hints = typing.get_type_hints(RunOptions)
    for field in attrs.fields(RunOptions):
        if field.name not in _OWN:
            _add_option(run, field.name, hints[field.name])
    return parser


def _add_option(parser: Any, name: str, hint: Any) -> None:
    types = {NoneType, *(typing.get_args(hint) or (hint,))}
    flag = f"--{name.replace('_', '-')}"
    settings: dict[str, Any] = {"dest": f"run_{name}", "default": argparse.SUPPRESS}
    convert: Callable[[str], Any] = str
    if bool in types:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
        return
    if any(typing.get_origin(one) is tuple for one in (hint, *types)):
        convert = _split
    elif int in types:
        convert = int
    elif Path in types:
        convert = Path
    parser.add_argument(
        flag, type=convert, metavar="LIST" if convert is _split else convert.__name__.upper(), **settings
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _parse_kinds(text: str) -> tuple[Kind, ...] | None:
    try:
        return None if text == "all" else kinds_of(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse_groups(text: str) -> tuple[str, ...]:
    groups = _split(text)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown group: {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    return groups


def run_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of RunOptions that are set."""
    options = {name.removeprefix("run_"): value for name, value in vars(arguments).items() if name.startswith("run_")}
    return {**options, "model": arguments.model}


def select_cases(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases to run."""
    return [case for case in load_cases() if case.group in arguments.groups and (arguments.cases or "") in case.name]


@asynccontextmanager
async def open_model(arguments: argparse.Namespace, meter: Meter) -> AsyncIterator[Backend]:
    """Open the backend, and start a server for a model file."""
    if arguments.endpoint is not None:
        settings: Any = {"endpoint": arguments.endpoint, "api_key_env": arguments.api_key_env}
        async with open_backend(arguments.backend or "openai-compatible", observers=[meter], **settings) as backend:
            yield backend
    elif arguments.backend is not None:
        async with Registry.from_ctxrc(observers=[meter]) as registry:
            yield registry.resolve(arguments.backend)
    else:
        name = arguments.model_path or MODEL
        path = await asyncio.to_thread(pull_model, name) if name == MODEL else find_model(name)
        async with serve_model(
            path,
            ctx_size=arguments.ctx_size * arguments.parallel,
            parallel=arguments.parallel,
            threads=arguments.threads,
            observers=[meter],
        ) as backend:
            yield backend


async def measure(arguments: argparse.Namespace) -> int:
    """Run the cases, print the figures, and return the exit code: 1 if all cases failed."""
    meter, options, cases = Meter(), run_options(arguments), select_cases(arguments)
    if not cases:
        print("no cases are selected; use other --cases or --groups", file=sys.stderr)
        return 2
    results: list[Result] = []
    async with open_model(arguments, meter) as backend:
        facts = await _describe(arguments, backend, options)

        def write() -> None:
            if arguments.json is not None:
                text = json.dumps(build_json(results, facts), ensure_ascii=False, indent=1)
                arguments.json.write_text(f"{text}\n", encoding="utf-8")

        def add(result: Result) -> None:
            results.append(result)
            print(format_result(result), flush=True)
            write()  # each time, so that a run that is interrupted leaves what it has

        write()
        await run_cases(
            backend,
            cases,
            meter=meter,
            options=options,
            kinds=arguments.kinds,
            together=arguments.together,
            on_result=add,
        )
    print(
        f"\n{facts['model']} on {facts['backend_type']}, context {facts['context_length']}\n\n{format_table(results)}"
    )
    return int(all(result.failure is not None for result in results))


async def _describe(arguments: argparse.Namespace, backend: Backend, options: dict[str, Any]) -> dict[str, Any]:
    status = await backend.status()
    return {
        "version": __version__,
        "backend_type": str(backend.type),
        "endpoint": backend.endpoint,
        "model": arguments.model or backend.default_model,
        "server_version": status.version,
        "context_length": status.context_length,
        "kinds": arguments.kinds or "all",
        "together": arguments.together,
        "options": {name: str(value) for name, value in options.items() if value is not None},
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run the program with these words of a command line."""
    parser = build_parser()
    arguments = parser.parse_args(words)
    if arguments.model_path is not None and (arguments.backend or arguments.endpoint) is not None:
        parser.error("--model-path is mutually exclusive with --backend and --endpoint")
    try:
        return asyncio.run(measure(arguments))
    except (BackendError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
