"""The command trees of the two programs, their exit codes, and the output of errors.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from ctxbackends._cli import raise_on_interrupt
from ctxbackends._cli.commands import ADVICE, AI, OTHER_NAMES, TOP_LEVEL, VERBS
from ctxbackends._cli.dispatch import find_next
from ctxbackends._cli.live_line import LINE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Source: TypeAlias = Literal["file", "type", "endpoint", "model"]
"""Where the settings of a backend come from: .ctxrc, the defaults of a type without a .ctxrc, ``--endpoint``, or the
options of a server that the command starts."""

SOURCE = "ctxbackends.source"
"""The key of the source in the context of a command, for the advice after an error."""


def current_source() -> Source:
    """Return where the settings of the backend come from, for the command that runs."""
    context = click.get_current_context(silent=True)
    source: Source = context.find_root().meta.get(SOURCE, "file") if context is not None else "file"
    return source


class LazyGroup(click.Group):
    """A group that imports a command when it is called. Help imports none, since their summaries are given here."""

    def __init__(self, *args: object, lazy_commands: Mapping[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]  # passed through
        self._lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in self._lazy_commands:
            return None
        module, attribute = self._lazy_commands[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        raise_on_interrupt()  # all is imported that click needs
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options of the group. An unknown one that precedes the command may be that of ``chat``."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "chat" not in self._lazy_commands or error.possibilities:
                raise
            problem = error.format_message().rstrip(".")
            example = f"{ctx.command_path} chat -m NAME 'Hello'"
            raise click.UsageError(f"{problem}; options follow the name of a command, as in {example}", ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the arguments. Raise UsageError, with a suggestion, if there is none of that name."""
        if args[0] not in self._lazy_commands and not ctx.resilient_parsing:
            from shlex import quote  # needed only after a mistake

            from ctxbackends._suggestions import find_similar

            if "chat" in self._lazy_commands and args[0] in ADVICE:
                ctx.fail(f"No such command {args[0]!r}; {ADVICE[args[0]]}")
            known = {name: meant for name, meant in OTHER_NAMES.items() if meant in self._lazy_commands}
            meant = find_similar(args[0], self._lazy_commands, known)
            if meant is not None:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {meant!r}?")
            if "chat" in self._lazy_commands and " " in args[0].strip():
                ctx.fail(f"No such command {args[0]!r}; to ask a model, run {ctx.command_path} chat {quote(args[0])}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with ``incomplete``. Commands are not imported, as in the help."""
        from click.shell_completion import CompletionItem  # needed only to complete

        commands = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in self._lazy_commands.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._lazy_commands.items()])


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta["ctxbackends.debug"] = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    # Not an import statement: what the package imports lazily would count as imported by every command.
    version = import_module("ctxbackends").__version__
    if ctx.info_name == "ctxbackends":
        click.echo(f"ctxbackends {version}")
    else:
        click.echo(f"ctx (ctxbackends) {version}")
        other = find_next()
        if other is not None:
            click.echo(f"other commands are passed to {other}")
    ctx.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
_COMPLETE = "_CTXBACKENDS_COMPLETE"
"""Environment variable that a shell sets to ask for completions, with click's name."""
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _CtxGroup(LazyGroup):
    """Adds the program that other commands are passed to."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        other = find_next()
        if other is not None:
            formatter.write_paragraph()
            formatter.write_text(f"Other commands are passed to {other}.")


@click.group(cls=_CtxGroup, context_settings=_SETTINGS, lazy_commands=AI | TOP_LEVEL)
@version_option
@debug_option
def ctx_group() -> None:
    """Talk to the model server that you already run.

    Backends are configured in .ctxrc. This is the ctx of the Python package ctxbackends.
    """


@click.group(cls=LazyGroup, context_settings=_SETTINGS, lazy_commands=VERBS | TOP_LEVEL)
@version_option
@debug_option
def ctxbackends_group() -> None:
    """Talk to the model server that you already run.

    Backends are configured in .ctxrc.
    """


@click.group(cls=LazyGroup, lazy_commands=VERBS)
def ai() -> None:
    """Use a model, serve one, and review proposals."""


def run(program: str) -> None:
    """Run ``ctx`` or ``ctxbackends`` with ``sys.argv`` and leave the process with its exit code."""
    group = ctx_group if program == "ctx" else ctxbackends_group
    context: click.Context | None = None
    if sys.stdout is None:
        sys.exit(f"{program}: cannot write: standard output is closed")
    if program == "ctxbackends" and _COMPLETE in os.environ:
        from ctxbackends._cli.completion import complete  # needed only to complete

        sys.exit(complete(group, os.environ[_COMPLETE]))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal's encoding does not have are escaped, instead of an exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with LINE, warnings.catch_warnings(), group.make_context(program, sys.argv[1:]) as context:
            warnings.showwarning = functools.partial(_print_warning, program, set())
            group.invoke(context)
        code = 0
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.UsageError as error:
        _print_usage_error(error)
        code = error.exit_code
    except click.ClickException as error:
        _print_error(program, error.format_message())
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\ninterrupted\n")
        code = 130
    except BrokenPipeError:
        _drop_output()  # the reader has exited
        code = 1
    except Exception as error:
        if _is_interrupt(error):
            sys.stderr.write("\ninterrupted\n")
            sys.exit(130)
        if context is not None and context.meta.get("ctxbackends.debug"):
            raise
        from ctxbackends._cli.error_messages import format_error  # only needed on failure

        text = format_error(error, context.meta.get(SOURCE, "file") if context is not None else "file")
        if text is None:
            raise
        _print_error(program, text)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            _drop_output()  # the disk is full
        code = 1
    sys.exit(code)


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether a Ctrl-C caused ``error``: an import that it interrupts can end with another exception."""
    seen: list[BaseException] = []  # an error can be its own cause
    while error is not None and error not in seen and not isinstance(error, KeyboardInterrupt):
        seen.append(error)
        error = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt)


def _drop_output() -> None:
    """Discard the buffered output: Python would try to write it at exit, fail, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_warning(program: str, texts: set[str], message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning, if its text was not printed before: worker processes repeat those of the command."""
    from ctxbackends._cli.error_messages import format_warning  # only needed for a warning

    text = format_warning(message, current_source())
    if text not in texts:
        texts.add(text)
        LINE.erase()
        _print_error(program, f"warning: {text}")


def _print_error(program: str, text: str) -> None:
    from ctxbackends._cli.terminal import printable, wrap  # only needed on failure

    click.echo(wrap(f"{program}: {printable(text, err=True)}", err=True), err=True)  # it may contain text of a server


def _print_usage_error(error: click.UsageError) -> None:
    from ctxbackends._cli.terminal import wrap  # only needed on failure

    text = io.StringIO()
    error.show(text)
    click.echo(wrap(text.getvalue(), err=True), err=True, nl=False)
