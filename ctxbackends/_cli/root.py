"""The command trees of the two programs, and the way out: exit codes, and one line for each error. Knows the commands
by name only; each is loaded on use.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from importlib import import_module

import click

from ctxbackends._cli.commands import AI, TOP_LEVEL, VERBS
from ctxbackends._cli.dispatch import find_next


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; their help lines stand here, so that help imports none
    of them."""

    def __init__(self, *args: object, homes: Mapping[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]  # passed through
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in self._homes:
            return None
        module, attribute = self._homes[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._homes.items()])


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
            click.echo(f"other commands go to {other}")
    ctx.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _CtxGroup(LazyGroup):
    """Says where all other commands go."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        other = find_next()
        if other is not None:
            formatter.write_paragraph()
            formatter.write_text(f"Other commands go to {other}.")


@click.group(cls=_CtxGroup, context_settings=_SETTINGS, homes=AI | TOP_LEVEL)
@version_option
@debug_option
def ctx_group() -> None:
    """Talk to the model server that you already run. Backends are configured in .ctxrc. This ctx belongs to the Python
    package ctxbackends."""


@click.group(cls=LazyGroup, context_settings=_SETTINGS, homes=VERBS | TOP_LEVEL)
@version_option
@debug_option
def ctxbackends_group() -> None:
    """Talk to the model server that you already run. Backends are configured in .ctxrc."""


@click.group(cls=LazyGroup, homes=VERBS)
def ai() -> None:
    """Ask a model, serve one, and review proposals."""


def run(program: str) -> None:
    """Run ``ctx`` or ``ctxbackends`` with ``sys.argv`` and leave the process with its exit code."""
    group = ctx_group if program == "ctx" else ctxbackends_group
    context: click.Context | None = None
    if sys.stdout is None:
        sys.exit(f"{program}: standard output is closed; there is nowhere to write to")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding cannot show is shown as its escape, and not as a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with group.make_context(program, sys.argv[1:]) as context:
            group.invoke(context)
        code = 0
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        _complain(program, error.format_message())
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\ninterrupted\n")
        code = 130
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        code = 1
    except Exception as error:
        if context is not None and context.meta.get("ctxbackends.debug"):
            raise
        from ctxbackends._cli.messages import worded  # noqa: PLC0415  # only who fails pays for it

        text = worded(error)
        if text is None:
            raise
        _complain(program, text)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            _drop_output()  # the disk is full
        code = 1
    sys.exit(code)


def _drop_output() -> None:
    """What is left in the buffer cannot be written: Python would try again at exit, and turn the exit code into 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(program: str, text: str) -> None:
    from ctxbackends._cli.terminal import printable  # noqa: PLC0415  # only who fails pays for it

    click.echo(f"{program}: {printable(text, err=True)}", err=True)  # servers' words are in it
