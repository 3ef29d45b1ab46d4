"""The commands ping, status, models and chat: each is one call of the library and its output."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice, registry_of
from ctxbackends._cli.options import json_option
from ctxbackends._cli.terminal import print_json, print_table, printable, read_prompt, utf8, waiting


def _prompt(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
    # Read before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again.
    return value if context.resilient_parsing else read_prompt(value)


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait for a server that is starting.")
@click.option("--probe", is_flag=True, help="Test with one request whether the server enforces schemas.")
@json_option
@backend_options
async def ping(choice: Choice, no_wait: bool, probe: bool, as_json: bool) -> None:
    """Wait until the server is ready; print backend, endpoint and first model."""
    from ctxbackends._structured import probe_schema  # noqa: PLC0415

    async with open_choice(choice) as backend:
        with waiting() as line:
            answer = await backend.ping(wait=not no_wait, on_progress=line)
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
    from ctxbackends.errors import NoBackendConfiguredError  # noqa: PLC0415

    async with registry_of(choice) as registry:
        if not registry.names:
            raise NoBackendConfiguredError("no backend configured; run ctx setup --backend <name>")
        backend_name = choice.backend if choice.endpoint is None else None
        statuses = (
            await registry.statuses() if backend_name is None else (await registry.resolve(backend_name).status(),)
        )
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
@json_option
@backend_options
async def models(choice: Choice, as_json: bool) -> None:
    """List the server's models."""
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


@click.command()
@click.argument("prompt", required=False, callback=_prompt)
@click.option("--system", metavar="TEXT", callback=utf8, help="The system message.")
@click.option("--model", metavar="NAME", callback=utf8, help="Model to use instead of the backend's default_model.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum number of tokens to generate.")
@click.option("--temperature", type=click.FloatRange(min=0), help="Sampling temperature.")
@json_option
@backend_options
async def chat(
    choice: Choice,
    prompt: str,
    system: str | None,
    model: str | None,
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
) -> None:
    """Send a prompt and print the answer as it arrives.

    PROMPT is read from standard input when it is omitted or "-".
    """
    import msgspec  # noqa: PLC0415

    from ctxbackends._chat.events import Loading, PromptProgress, TextDelta  # noqa: PLC0415
    from ctxbackends._chat.messages import Message  # noqa: PLC0415

    messages = [Message.user(prompt)]
    if system is not None:
        messages.insert(0, Message.system(system))
    async with open_choice(choice) as backend:
        with waiting() as line:
            stream = backend.stream(
                messages, model=model, max_tokens=max_tokens, temperature=temperature, on_progress=line
            )
            last_text = ""
            try:
                async with stream:
                    async for event in stream:
                        if isinstance(event, PromptProgress):
                            line.reading(event)
                        elif not isinstance(event, Loading):
                            line.stop()
                        if isinstance(event, TextDelta) and not as_json:
                            last_text = event.text or last_text
                            click.echo(printable(event.text), nl=False, color=True)  # or click takes text out
                            sys.stdout.flush()
            finally:
                if not as_json and not last_text.endswith("\n") and (last_text or stream.is_complete):
                    click.echo()  # an error in the middle begins on a line of its own
    answer = stream.completion
    if as_json:
        fields = msgspec.to_builtins(answer)
        print_json({name: value for name, value in fields.items() if name not in ("raw", "parts", "logprobs")})
        return
    if answer.refusal:
        click.echo(f"the model refused: {printable(answer.refusal, err=True)}", err=True)
    if answer.finish_reason != "stop":
        is_truncated = answer.finish_reason == "length" and max_tokens is not None
        reason = "max_tokens reached" if is_truncated else f"finish_reason {answer.finish_reason}"
        click.echo(f"(truncated: {reason})", err=True)
