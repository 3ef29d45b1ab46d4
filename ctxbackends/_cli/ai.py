"""The commands ping, status and models: each is one call of the library and its output."""

from __future__ import annotations

from typing import Any

import attrs
import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice, registry_of
from ctxbackends._cli.options import json_option
from ctxbackends._cli.terminal import print_json, print_table, waiting


@click.command()
@click.option("--probe", is_flag=True, help="Test with one request whether the server enforces schemas.")
@json_option
@backend_options
async def ping(choice: Choice, probe: bool, as_json: bool) -> None:
    """Wait until the server is ready; print backend, endpoint and first model."""
    from ctxbackends._structured import probe_schema

    # Each probe of a ping is as short with --no-wait as without.
    async with open_choice(choice._replace(no_wait=False)) as backend:
        with waiting() as line:
            answer = await backend.ping(wait=not choice.no_wait, on_progress=line)
            if probe:
                line.show("waiting for the answer")
            probe_result = await probe_schema(backend, model=backend.default_model or answer.model) if probe else None
    if as_json:
        print_json(attrs.asdict(answer) | ({"schema": attrs.asdict(probe_result)} if probe_result is not None else {}))
        return
    click.echo(f"backend   {answer.backend}\nendpoint  {answer.endpoint}\nmodel     {answer.model}")
    if answer.default_model_listed is False:
        click.echo(f"default   {answer.default_model} (not in the server's list; see ctxbackends models)")
    if probe_result is not None:
        click.echo(f"schemas   {_PROBE_OUTCOMES[probe_result.outcome]}")


_PROBE_OUTCOMES = {
    "enforced": "enforced: the answer matches the schema",
    "ignored": "ignored: the answer does not match the schema",
    "inconclusive": "inconclusive: the answer was truncated",
}


@click.command()
@json_option
@backend_options
async def status(choice: Choice, as_json: bool) -> None:
    """Show the state of every configured backend, without waiting."""
    statuses: tuple[Any, ...] = ()
    async with registry_of(choice) as registry:
        with waiting() as line:
            line.show("asking the servers ...")
            if choice.source == "file" and choice.backend is not None:
                statuses = (await registry.resolve(choice.backend).status(),)
            elif registry.names:
                statuses = await registry.statuses()
            else:
                registry.resolve()  # raises the error that says where a file was looked for
    if as_json:
        print_json([attrs.asdict(status_) for status_ in statuses])
    else:
        print_table([_row(status_) for status_ in statuses])


def _row(status_: Any) -> dict[str, str]:
    state = status_.state if status_.progress is None else f"{status_.state} {status_.progress:.0%}"
    busy = "" if status_.busy_slots is None else f"{status_.busy_slots} of "
    return {
        "backend": status_.backend,
        "endpoint": status_.endpoint,
        "state": state,
        "model": status_.model or "",
        "context": f"{status_.context_length or ''}{' shared' if status_.shared_context else ''}".strip(),
        "slots": "" if status_.slots is None else f"{busy}{status_.slots}",
        "version": status_.version or "",
        "problem": " ".join((status_.problem or "").split()),
    }


@click.command()
@click.option(
    "--local", is_flag=True, help="List the downloaded models of this machine, and those that pull can download."
)
@json_option
@backend_options
async def models(choice: Choice, local: bool, as_json: bool) -> None:
    """List the server's models."""
    if local:
        if choice != Choice(None, None, None):
            raise click.UsageError("--local asks no server: remove --no-wait and the options that select a backend")
        from ctxbackends._cli.pull import print_local_models

        print_local_models(as_json=as_json)
        return
    async with open_choice(choice) as backend:
        with waiting() as line:
            await backend.wait_ready(on_progress=line)
            models_ = await backend.models()
    if as_json:
        print_json([attrs.asdict(model) for model in models_])
        return
    width = max(len(model.id) for model in models_)
    for model in models_:
        details = [f"{model.context_length} tokens" if model.context_length else "", model.state or ""]
        click.echo(f"{model.id:{width}}  {', '.join(part for part in details if part)}".rstrip())
