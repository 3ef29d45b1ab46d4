"""The options that run a command on worker processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ctxbackends._cli.numbers import Integer

if TYPE_CHECKING:
    from ctxbackends._engines.contract import Engine

ENGINES = ("processes", "ray")


class EngineChoice(NamedTuple):
    """An engine, and the number of its workers."""

    name: str
    workers: int
    address: str | None

    def create(self) -> Engine:
        """Create the engine."""
        if self.name == "processes":
            from ctxbackends._engines.processes import ProcessEngine  # help needs none of it

            return ProcessEngine()
        from ctxbackends._engines.ray import RayEngine

        return RayEngine(self.address)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an engine. :func:`choose_engine` reads them."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            help="Run on worker processes: of this machine, or of a Ray cluster. This process alone by default.",
        ),
        click.option("--workers", type=Integer(min=1), help="Number of workers, with --engine."),
        click.option("--address", metavar="HOST:PORT", help="Ray cluster; RAY_ADDRESS or a local one by default."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def choose_engine(
    engine: str | None, workers: int | None, address: str | None, *, serves_model: bool
) -> EngineChoice | None:
    """Return the engine, None for this process.

    Args:
        engine: The name of the engine.
        workers: Number of workers.
        address: The Ray cluster.
        serves_model: Whether the command starts the server itself.

    Raises:
        UsageError: The options do not fit together.
    """
    if engine is None:
        if workers is not None or address is not None:
            raise click.UsageError("--workers and --address require --engine processes or --engine ray")
        return None
    if workers is None:
        raise click.UsageError(f"--engine {engine} requires --workers N")
    if address is not None and engine != "ray":
        raise click.UsageError("--address is for --engine ray; remove it")
    if serves_model:
        raise click.UsageError("--model-path serves a model in this process: remove --engine, or start a server")
    return EngineChoice(engine, workers, address)
