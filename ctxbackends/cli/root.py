"""The command tree and the way out of it: exit codes, and one line for each error. Knows the commands by name only;
each is loaded on use.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from importlib import import_module

import click

_PROGRAM = "ctx"


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


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    homes={
        "ai": ("ctxbackends.cli.ai:ai", "Ask a model: ping, status, models, chat, extract."),
        "compact": ("ctxbackends.cli.ingest:compact", "Take decisions and the like out of a session transcript."),
        "ingest": ("ctxbackends.cli.ingest:ingest", "Take decisions and the like out of documents."),
        "proposals": ("ctxbackends.cli.proposals:proposals", "Review what was taken out, and export it."),
        "serve": ("ctxbackends.cli.serve:serve", "Serve a GGUF model with llama.cpp on this machine."),
        "setup": ("ctxbackends.cli.setup:setup", "Write a backend into .ctxrc."),
    },
)
@click.version_option(package_name="ctxbackends", prog_name=_PROGRAM)
@debug_option
def root() -> None:
    """Talk to the model server that you already run. Backends are configured in .ctxrc."""


def run() -> None:
    """Run the program with ``sys.argv`` and leave the process with its exit code."""
    context: click.Context | None = None
    if sys.stdout is None:
        sys.exit(f"{_PROGRAM}: standard output is closed; there is nowhere to write to")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding cannot show is shown as its escape, and not as a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with root.make_context(_PROGRAM, sys.argv[1:]) as context:
            root.invoke(context)
        code = 0
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
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
        from ctxbackends.cli.wording import worded  # noqa: PLC0415  # only who fails pays for it

        text = worded(error)
        if text is None:
            raise
        _complain(text)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            _drop_output()  # the disk is full
        code = 1
    sys.exit(code)


def _drop_output() -> None:
    """What is left in the buffer cannot be written: Python would try again at exit, and turn the exit code into 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    from ctxbackends.cli.terminal import printable  # noqa: PLC0415  # only who fails pays for it

    click.echo(f"{_PROGRAM}: {printable(text, err=True)}", err=True)  # servers' words are in it
