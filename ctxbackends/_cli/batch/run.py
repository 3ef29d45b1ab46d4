"""A batch of the command line: from the arguments to the output and the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import click

from ctxbackends._cli.batch.arguments import BatchArguments
from ctxbackends._cli.batch.backends import open_choices, read_configs
from ctxbackends._cli.batch.display import TICK, JSONLines, Output, TextOutput
from ctxbackends._cli.batch.progress import Meter, count_rows
from ctxbackends._cli.error_messages import format_error
from ctxbackends._cli.signals import on_terminate
from ctxbackends._util.text import pluralize
from ctxbackends.batch import (
    BatchInput,
    BatchInputError,
    BatchOptions,
    BatchOutputError,
    BatchReport,
    BatchRow,
    BatchRun,
    Problem,
    run_batch,
)
from ctxbackends.batch._errors import format_problem
from ctxbackends.batch._inputs import validate
from ctxbackends.batch._output import is_stream, write_output
from ctxbackends.batch._threads import run_in_thread
from ctxbackends.errors import BackendError, NoBackendConfiguredError

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after a Ctrl-C and after SIGTERM."""


async def run(arguments: BatchArguments) -> None:
    """Ask all rows and write the output. Raises click's exceptions for an exit code other than 0."""
    with (
        JSONLines() if arguments.as_json else TextOutput(is_quiet=arguments.quiet) as output,
        _input_errors(arguments.name),
    ):
        rows = BatchInput(
            arguments.source,
            prompt=arguments.prompt,
            operation="embed" if arguments.embed else "chat",
            id_column=arguments.id_column,
        )
        rows.name = arguments.name
        if arguments.dry_run:
            await _check(rows, output)
        else:
            await _run(arguments, rows, output)


async def _check(rows: BatchInput, output: Output) -> None:
    output.phase(f"checking {rows.name}")
    count, problems = await run_in_thread(validate, rows.read())
    if problems:
        raise BatchInputError(rows.name, problems)
    output.plan(count)


async def _run(arguments: BatchArguments, rows: BatchInput, output: Output) -> None:
    report = BatchReport()
    with _cancel_on_terminate() as is_terminated:
        try:
            async with _open_batch(arguments, rows) as (batch, names):
                report = batch.report
                output.start(
                    input=rows.name,
                    output=str(arguments.output),
                    journal=str(arguments.journal),
                    backends=names,
                )
                await _ask(arguments, batch, output)
                await _write(arguments, rows, batch, output)
        except asyncio.CancelledError:
            # A second Ctrl-C ends the loop at once, which would print all that was not closed.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            code = TERMINATED if is_terminated() else INTERRUPTED
            output.stop(f"interrupted: {_describe_resume(report)}", code)
            raise click.exceptions.Exit(code) from None
        except NoBackendConfiguredError as error:
            if _is_debug():
                raise
            raise click.ClickException(
                f"{format_error(error)}\n  or use --endpoint URL, or --model-path smollm2"
            ) from None
        except BackendError as error:
            if isinstance(error, BatchInputError | BatchOutputError) or not report.answered or _is_debug():
                raise
            raise click.ClickException(f"{format_error(error)}\n  {_describe_resume(report)}") from None
    if report.failed:
        raise click.exceptions.Exit(1)


@asynccontextmanager
async def _open_batch(arguments: BatchArguments, rows: BatchInput) -> AsyncIterator[tuple[BatchRun, list[str]]]:
    """Open the batch. Yield it with the names of the backends."""
    run_on = partial(
        run_batch,
        rows=rows,
        options=BatchOptions(**arguments.options),
        journal=arguments.journal,
        fresh=arguments.fresh,
    )
    if arguments.engine is None:
        async with (
            open_choices(arguments.choices, private=arguments.private) as backends,
            run_on(backends) as batch,
        ):
            yield batch, [backend.name for backend in backends]
        return
    engine = arguments.engine
    async with (
        read_configs(arguments.choices, private=arguments.private) as (configs, airgap),
        run_on(configs, engine=engine.create(), workers=engine.workers, airgap=airgap) as batch,
    ):
        yield batch, [config.name for config in configs]


async def _ask(arguments: BatchArguments, batch: BatchRun, output: Output) -> None:
    meter = Meter()
    is_counted = bool(arguments.options["validate"])
    workers = 0 if arguments.engine is None else arguments.engine.workers
    starting = "" if arguments.engine is None else f"starting {arguments.engine.name} and "
    deaths = 0

    def show_deaths() -> None:
        nonlocal deaths
        for message in batch.report.worker_deaths[deaths:]:
            output.worker_died(message)
        deaths = len(batch.report.worker_deaths)

    async def show() -> None:
        while True:
            if is_counted and not batch.report.rows:
                output.phase(f"{starting}checking {arguments.name}")
            elif batch.report.workers < workers and not arguments.as_json:
                output.phase(f"starting {pluralize(workers, 'worker')}")
            else:
                output.progress(meter.measure(batch.report, is_counted=is_counted))
            show_deaths()
            await asyncio.sleep(TICK)

    showing = asyncio.create_task(show())
    try:
        async for answer in batch:
            if answer.error is not None:
                output.row_error(answer)
    finally:
        showing.cancel()
        show_deaths()


async def _write(arguments: BatchArguments, rows: BatchInput, batch: BatchRun, output: Output) -> None:
    path, journal = arguments.output, batch.journal
    assert path is not None, "required without --dry-run"
    assert journal is not None, "a directory is passed"
    output.phase("" if is_stream(path) else f"writing {path}")

    def write(rows: Iterable[BatchRow]) -> None:
        journal.note_outputs(one for one in (path, arguments.errors) if one is not None and not is_stream(one))
        write_output(journal, rows, path, key=batch.key, format=arguments.format, errors=arguments.errors)

    await run_in_thread(write, rows)
    is_kept = arguments.keep or batch.report.failed > 0
    if not is_kept:
        journal.remove()
    output.finish(batch.report, path, arguments.errors, arguments.journal if is_kept else None)


def _describe_resume(report: BatchReport) -> str:
    of_all = f" of {count_rows(report.rows)}" if report.rows else ""
    return f"{report.answered:,}{of_all} answered; run the same command again to continue"


def _is_debug() -> bool:
    return bool(click.get_current_context().find_root().meta.get("ctxbackends.debug"))


@contextmanager
def _cancel_on_terminate() -> Iterator[Callable[[], bool]]:
    """Cancel the current task at a SIGTERM. Yields a function that tells whether there was one."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "called in a coroutine"
    is_terminated = False

    def cancel() -> None:
        nonlocal is_terminated
        is_terminated = True
        loop.call_soon_threadsafe(task.cancel)

    with on_terminate(cancel):
        yield lambda: is_terminated


@contextmanager
def _input_errors(name: str) -> Iterator[None]:
    """Show all problems of the input, and exit as after a wrong usage."""
    try:
        yield
    except BatchInputError as error:
        raise _InputProblems(name, error.problems) from None


class _InputProblems(click.ClickException):
    exit_code = 2

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        lines = [format_problem(name, problem) for problem in problems]
        heading = [f"{len(lines)} problems in {name}:"] if len(lines) > 1 else []
        super().__init__("\n".join([*heading, *lines]))
