"""The commands extract, compact and ingest: options and output of a :class:`ctxbackends.knowledge.Run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import attrs
import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice
from ctxbackends._cli.completers import complete_files
from ctxbackends._cli.hook import HOOKS, run_hook
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.options import model_option, out_option, parse_kinds
from ctxbackends._cli.sessions import add_sub_agents, newest_session, speakers_options
from ctxbackends._cli.terminal import PlainInterval, Waiting, print_json, printable, waiting
from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._records import PLURALS

_SESSION = "decisions,learnings,tasks,open-questions"
_DOCUMENTS = "decisions,tasks,risks,terms"


@attrs.frozen(kw_only=True)
class Options:
    """The options that the three commands share."""

    run: RunOptions
    out: Path | None
    dry_run: bool
    resume: bool | None
    as_json: bool


def run_options(flag: str, kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a run; ``flag`` is the option for the kinds."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            flag,
            "kinds",
            metavar="KINDS",
            default=kinds,
            show_default=True,
            callback=parse_kinds,
            help=f"Kinds to extract: any of {', '.join(PLURALS)}.",
        )
        @click.option(
            "--kinds-per-question",
            type=Integer(min=1),
            help="Maximum number of kinds per request; each chunk is sent once for each group of kinds. 1 for small "
            "models by default.",
        )
        @model_option
        @out_option
        @click.option(
            "--dry-run",
            is_flag=True,
            help="Show what would be read and sent; send no prompt, write nothing. Tokens are estimated without a "
            "server, unless an option selects one.",
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
        @click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one per line.")
        @backend_options
        @wraps(command)
        async def run(choice: Choice, *arguments: Any, **values: Any) -> None:
            names = [name for name in attrs.fields_dict(RunOptions) if name in values]
            run_options = RunOptions(**{name: values.pop(name) for name in names})
            options = Options(
                run=run_options, **{name: values.pop(name) for name in ("out", "dry_run", "resume", "as_json")}
            )
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
    from ctxbackends.knowledge._sources.text import StdinSource  # noqa: PLC0415  # help needs none of it

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
    choice: Choice, options: Options, paths: list[Any], last: bool, subagents: bool, hook: str | None
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
    from anyio.to_thread import run_sync  # noqa: PLC0415

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
@run_options("--extract", _DOCUMENTS)
async def ingest(
    choice: Choice, options: Options, paths: list[Any], include: Sequence[str], exclude: Sequence[str]
) -> None:
    """Extract decisions and tasks from documents into one proposal.

    INPUT is a file (text, Markdown, HTML, PDF, DOCX and others, or a transcript), a directory, a glob, or - for
    standard input. Hidden files and files that .gitignore lists are left out in directories and globs.
    """
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
    from anyio.to_thread import run_sync  # noqa: PLC0415

    from ctxbackends.knowledge._sources.find import find_sources  # noqa: PLC0415

    discovery = await run_sync(partial(find_sources, paths, include=include, exclude=exclude))
    await _run(choice, options, discovery.sources, command=command, skipped=discovery.skipped)


async def _run(
    choice: Choice, options: Options, sources: Sequence[Any], *, command: str, skipped: Sequence[Any] = ()
) -> None:
    from anyio.to_thread import run_sync  # noqa: PLC0415

    from ctxbackends._config.ctxrc_file import find_ctxrc  # noqa: PLC0415
    from ctxbackends._config.reader import redact_of  # noqa: PLC0415
    from ctxbackends.knowledge._privacy.rules import is_private  # noqa: PLC0415
    from ctxbackends.knowledge._proposals.store import DIRECTORY, context_directory, find_context  # noqa: PLC0415
    from ctxbackends.knowledge._run import Privacy, Run  # noqa: PLC0415

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
    )
    if options.dry_run and not choice.is_explicit:
        with waiting() as line:
            estimate: TextOutput | JSONLines = JSONLines() if options.as_json else TextOutput(line)
            plan = await run_sync(partial(run.estimate, on_event=estimate.event))
            line.stop()
            estimate.plan(plan)
        return
    only_private = False
    if run.has_redacted:
        # Redacted files are sent only with airgap on: a host name could resolve to another address later, and a proxy
        # could send them elsewhere.
        async with open_choice(choice) as candidate:
            only_private = await is_private(candidate.endpoint)
    async with open_choice(choice, airgap=only_private) as backend:
        with waiting() as line:
            output: TextOutput | JSONLines = JSONLines() if options.as_json else TextOutput(line)
            if options.dry_run:
                plan = await run.plan(backend, on_event=output.event)
                line.stop()
                output.plan(plan)
                return
            outcome = await run.propose(backend, on_event=output.event, on_row=output.row)
            line.stop()
            output.outcome(outcome)


# --- output ---------------------------------------------------------------------------------------------


class TextOutput:
    """Output for people: a live line on a terminal, a line every few seconds elsewhere."""

    def __init__(self, line: Waiting) -> None:
        self._line = line
        self._interval = PlainInterval()
        self._interval.is_due()  # the first line comes after an interval

    def event(self, event: Any) -> None:
        """Show the progress of a run."""
        from ctxbackends._chat.events import Loading  # noqa: PLC0415
        from ctxbackends.knowledge._extract.progress import Progress, ResumePoint  # noqa: PLC0415
        from ctxbackends.knowledge._sources.base import SkippedInput  # noqa: PLC0415

        if isinstance(event, Loading):
            self._line(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, SkippedInput):
            self._line.stop()
            click.echo(f"skipped: {printable(str(event), err=True)}", err=True)
        elif isinstance(event, ResumePoint):
            self._line.stop()
            click.echo(
                f"{pluralize(event.chunks, 'finished chunk')} in the journal; use --resume to continue", err=True
            )

    def _progress(self, progress: Any) -> None:
        if self._line.is_live:
            self._line.show(str(progress))
        elif self._interval.is_due():
            click.echo(str(progress), err=True)

    def row(self, row: Any) -> None:
        """Print nothing: rows are in the proposal."""

    def plan(self, plan: Any) -> None:
        """Show the plan of a dry run."""
        for one in plan.inputs:
            click.echo(f"{printable(one.name)}  {one.size:,} bytes")
        context = f"{plan.context_length} tokens" if plan.context_length else "unknown"
        chunks = f"{pluralize(plan.chunks, 'chunk')} of at most {plan.chunk_tokens} tokens"
        requests = f" in {pluralize(plan.requests, 'request')}" if plan.requests != plan.chunks else ""
        if plan.endpoint is None:
            click.echo(f"{chunks} would be sent{requests}; use --backend to ask a server")
        else:
            model = plan.model or "no model"
            click.echo(f"{chunks} would be sent{requests} to {model} at {plan.endpoint} (context: {context})")
        click.echo(
            f"{plan.tokens:,} tokens in all prompts, counted by the server"
            if plan.is_counted
            else f"about {plan.tokens:,} tokens in all prompts (3 bytes count as one)"
        )
        if plan.masked:
            click.echo(f"{pluralize(plan.masked, 'secret')} would be masked")

    def outcome(self, outcome: Any) -> None:
        """Show the report; print the path of the proposal."""
        report = outcome.report
        if report.masked:
            click.echo(f"{pluralize(report.masked, 'secret')} masked before sending", err=True)
        if outcome.path is None:
            click.echo(f"nothing found in {pluralize(report.chunks, 'chunk')}; no proposal written", err=True)
            return
        known_count = sum(row.known_at is not None for row in outcome.rows)
        parts = [pluralize(len(outcome.rows), "row")]
        parts += [f"{known_count} already in .context"] if known_count else []
        parts += [f"{report.recovered} recovered by a second look"] if report.recovered else []
        parts += [f"{report.quarantined} quarantined"] if report.quarantined else []
        parts += [f"{pluralize(len(report.skipped), 'part')} skipped"] if report.skipped else []
        chunks = pluralize(report.chunks, "chunk")
        chunks += f" ({pluralize(report.requests, 'request')})" if report.requests > report.chunks else ""
        click.echo(f"{', '.join(parts)} in {chunks}, {report.elapsed:.1f} s", err=True)
        click.echo(str(outcome.path))
        if outcome.rows:
            click.echo(f"review them: ctxbackends proposals review {outcome.path.stem}", err=True)
        else:
            click.echo(f"show them: ctxbackends proposals show {outcome.path.stem} --quarantined", err=True)


_EVENT_NAMES = {"SkippedInput": "skipped", "QuarantinedRow": "quarantined", "ResumePoint": "resume_point"}


class JSONLines:
    """Output for programs: one JSON object per line, with its kind in ``event``."""

    def event(self, event: Any) -> None:
        """Print the progress of a run."""
        name = _EVENT_NAMES.get(type(event).__name__) or type(event).__name__.lower()
        more = {}
        if name == "progress":
            more = {"tokens_per_second": event.tokens_per_second, "seconds_left": event.seconds_left}
        self._print(name, event, **more)

    def row(self, row: Any) -> None:
        """Print a row that was found."""
        self._print("row", row)

    def plan(self, plan: Any) -> None:
        """Print the plan of a dry run."""
        self._print("plan", plan)

    def outcome(self, outcome: Any) -> None:
        """Print the report."""
        path = None if outcome.path is None else str(outcome.path)
        self._print("done", {"proposal": path, "report": outcome.report})

    def _print(self, name: str, value: Any, **more: Any) -> None:
        import msgspec  # noqa: PLC0415

        print_json({"event": name, **msgspec.to_builtins(value), **more})
        sys.stdout.flush()
