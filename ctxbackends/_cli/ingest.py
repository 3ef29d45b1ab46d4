"""The commands extract, compact and ingest: options and output of a run of extraction."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import attrs
import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice, read_config
from ctxbackends._cli.completers import complete_files
from ctxbackends._cli.engine_options import EngineChoice, choose_engine, engine_options
from ctxbackends._cli.hook import HOOKS, run_hook
from ctxbackends._cli.kind_options import get_prompt_files, kind_options, select_kinds
from ctxbackends._cli.numbers import Integer, Number
from ctxbackends._cli.options import model_option, out_option
from ctxbackends._cli.sessions import add_sub_agents, newest_session, speakers_options
from ctxbackends.knowledge._extract.options import RunOptions

_SESSION = "decisions,learnings,tasks,open-questions"
_DOCUMENTS = "decisions,tasks,risks,terms"


RATES = 400.0, 20.0
"""The default of ``--rate``, such as of a model with 8 billion parameters on a small GPU."""


@attrs.frozen(kw_only=True)
class Options:
    """The options that the three commands share."""

    run: RunOptions
    out: Path | None
    dry_run: bool
    rate: tuple[float, float] | None
    resume: bool | None
    as_json: bool
    quiet: bool
    engine: EngineChoice | None = None


def run_options(flag: str, kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a run; ``flag`` is the option for the kinds."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @kind_options(flag, kinds)
        @model_option
        @out_option
        @click.option(
            "--dry-run",
            is_flag=True,
            help="Show what would be read and sent; send no prompt, write nothing. Tokens are estimated without a "
            "server, unless an option selects one.",
        )
        @click.option(
            "--rate",
            type=Number(min=0.1),
            nargs=2,
            metavar="READ WRITE",
            help="With --dry-run: tokens per second that the server reads and writes, for the estimated time. "
            f"{RATES[0]:g} {RATES[1]:g} by default.",
        )
        @click.option(
            "--resume/--no-resume",
            default=None,
            help="Continue an interrupted run of the same inputs, or start over.",
        )
        @click.option(
            "--max-concurrency",
            type=Integer(min=1),
            help="Maximum number of concurrent requests; the server's slots by default.",
        )
        @click.option("--chunk-tokens", type=Integer(min=1), help="Maximum number of input tokens per request.")
        @speakers_options
        @click.option(
            "--context-lines",
            type=Integer(min=0),
            default=0,
            show_default=True,
            help="Send this many lines of the chunk before with each chunk, as context.",
        )
        @click.option(
            "--passes",
            type=Integer(min=1),
            default=1,
            show_default=True,
            help="How often to ask about each chunk; after the first time, for the rows that are missing.",
        )
        @click.option("--allow-unenforced", is_flag=True, help="Use a server that does not enforce schemas.")
        @click.option("--skip-failed", is_flag=True, help="Skip chunks for which the model returns no valid answer.")
        @click.option("--second-look", is_flag=True, help="Ask once more for quotes that are not in the source.")
        @click.option("--quiet", "-q", is_flag=True, help="Print only errors on standard error.")
        @click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one per line.")
        @backend_options
        @wraps(command)
        async def run(choice: Choice, *arguments: Any, **values: Any) -> None:
            values["kinds"] = select_kinds(values["kinds"], values.pop("own_kinds"))
            names = [name for name in attrs.fields_dict(RunOptions) if name in values]
            try:
                run_options = RunOptions(**{name: values.pop(name) for name in names})
            except ValueError as error:
                raise click.ClickException(str(error)) from None
            names = [name for name in attrs.fields_dict(Options) if name in values and name != "engine"]
            options = Options(run=run_options, **{name: values.pop(name) for name in names})
            if options.rate is not None and not options.dry_run:
                raise click.UsageError("--rate requires --dry-run")
            await command(choice, options, *arguments, **values)

        return run

    return decorate


pack_option = click.option(
    "--pack/--no-pack", default=True, help="Send small files together in one request (default), or each alone."
)


def _paths(context: click.Context, _: click.Parameter, value: Sequence[str]) -> list[Any]:
    """Return the inputs; standard input is read to its end."""
    # Read before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again.
    return [_read_stdin() if one == "-" and not context.resilient_parsing else one for one in value]


def _read_stdin() -> Any:
    from ctxbackends.knowledge._sources.text import StdinSource  # help needs none of it

    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("no input; pass text on standard input, as in ctxbackends extract < notes.md")
    source = StdinSource(sys.stdin.buffer)
    source.spool()
    return source


@click.command()
@click.argument("paths", metavar="", nargs=-1, callback=lambda c, p, _: _paths(c, p, ["-"]))
@run_options("--kinds", _SESSION)
async def extract(choice: Choice, options: Options, paths: list[Any]) -> None:
    """Extract decisions and tasks from the text on standard input into one proposal."""
    await _find_and_run(choice, options, paths, command="ai extract")


@click.command()
@click.argument("paths", metavar="[INPUT]...", nargs=-1, shell_complete=complete_files, callback=_paths)
@click.option("--last", is_flag=True, help="Read the newest session that an agent had in this directory.")
@click.option(
    "--subagents/--no-subagents", default=True, help="Read the sub-agents of a session of Claude Code too (default)."
)
@click.option(
    "--hook", type=click.Choice(HOOKS), help="Read a hook's input on standard input; compact in the background."
)
@pack_option
@run_options("--emit", _SESSION)
async def compact(
    choice: Choice, options: Options, *, paths: list[Any], last: bool, subagents: bool, hook: str | None
) -> None:
    """Extract decisions and tasks from session transcripts into one proposal.

    INPUT is a transcript of Claude Code, Codex, Copilot CLI, Cursor, Gemini CLI, ChatGPT or aider, or text, or - for
    standard input. The content decides, not the name.
    """
    if bool(paths) + last + (hook is not None) != 1:
        raise click.UsageError("pass transcripts, --last or --hook, and only one of them")
    if hook is not None:
        run_hook()
        return
    from anyio.to_thread import run_sync

    inputs = [await run_sync(newest_session)] if last else paths
    if subagents:
        inputs = await run_sync(add_sub_agents, inputs)
    await _find_and_run(choice, options, inputs, command="compact")


@click.command()
@click.argument("paths", metavar="INPUT...", nargs=-1, required=True, shell_complete=complete_files, callback=_paths)
@click.option(
    "--include",
    metavar="GLOB",
    multiple=True,
    help="In directories and globs, read only matching files. *.py adds that type. May be repeated.",
)
@click.option("--exclude", metavar="GLOB", multiple=True, help="Do not read matching files. May be repeated.")
@pack_option
@engine_options
@run_options("--extract", _DOCUMENTS)
async def ingest(
    choice: Choice,
    options: Options,
    *,
    paths: list[Any],
    include: Sequence[str],
    exclude: Sequence[str],
    workers: int | None,
    address: str | None,
    engine: str | None,
) -> None:
    """Extract decisions and tasks from documents into one proposal.

    INPUT is a file (text, Markdown, HTML, PDF, DOCX and others, or a transcript), a directory, a glob, or - for
    standard input. Hidden files and files that .gitignore lists are left out in directories and globs.
    """
    serves_model = choice.source == "model"
    options = attrs.evolve(options, engine=choose_engine(engine, workers, address, serves_model=serves_model))
    await _find_and_run(choice, options, paths, command="ingest", include=include, exclude=exclude)


async def _find_and_run(
    choice: Choice,
    options: Options,
    paths: Sequence[Any],
    *,
    command: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> None:
    from anyio.to_thread import run_sync

    from ctxbackends._cli.run_output import JSONLines, TextOutput
    from ctxbackends.knowledge._extract.activity import Activity
    from ctxbackends.knowledge._sources.find import find_sources

    with JSONLines() if options.as_json else TextOutput(is_quiet=options.quiet) as output:
        output.event(Activity(phase="searching"))
        discovery = await run_sync(partial(find_sources, paths, include=include, exclude=exclude))
        await _run(choice, options, discovery.sources, output, command=command, skipped=discovery.skipped)


async def _run(
    choice: Choice,
    options: Options,
    sources: Sequence[Any],
    output: Any,
    *,
    command: str,
    skipped: Sequence[Any] = (),
) -> None:
    import asyncio  # not loaded before the first line on the terminal

    import msgspec
    from anyio.to_thread import run_sync

    from ctxbackends._config.ctxrc_file import find_ctxrc
    from ctxbackends._config.reader import redact_of
    from ctxbackends.knowledge._privacy.rules import is_private
    from ctxbackends.knowledge._proposals.store import DIRECTORY, context_directory, find_context
    from ctxbackends.knowledge._run import Privacy, Run

    # A dry run writes nothing, so it needs no directory.
    directory = options.out or (Path(DIRECTORY) if options.dry_run else context_directory() / DIRECTORY)
    ctxrc = find_ctxrc()
    run = Run(
        command=command,
        sources=tuple(sources),
        options=options.run,
        directory=directory,
        context=find_context(),
        privacy=Privacy(redact_of(ctxrc), ctxrc.absolute().parent) if ctxrc is not None else Privacy(),
        resume=options.resume,
        skipped=tuple(skipped),
        prompt_files=get_prompt_files(),
    )
    if options.dry_run and not choice.is_explicit:
        loop = asyncio.get_running_loop()
        on_event = partial(loop.call_soon_threadsafe, output.event)
        output.plan(await run_sync(partial(run.estimate, on_event=on_event)), options.rate or RATES)
        return
    only_private = False
    if run.has_redacted:
        # Redacted files are sent only with airgap on: a host name could resolve to another address later, and a proxy
        # could send them elsewhere.
        async with open_choice(choice) as candidate:
            only_private = await is_private(candidate.endpoint)
    if options.engine is not None and not options.dry_run:
        run = msgspec.structs.replace(run, workers=await _create_workers(options.engine, choice, airgap=only_private))
    async with open_choice(choice, airgap=only_private) as backend:
        if options.dry_run:
            output.plan(await run.plan(backend, on_event=output.event), options.rate or RATES)
        else:
            output.outcome(await run.propose(backend, on_event=output.event, on_row=output.row))


async def _create_workers(engine: EngineChoice, choice: Choice, *, airgap: bool) -> Any:
    from ctxbackends._engines.backends import BackendOpener
    from ctxbackends.knowledge._extract.distributed import Workers

    config, airgap = await read_config(choice, airgap=airgap)
    return Workers(engine.create(), engine.workers, BackendOpener(config, airgap=airgap))
