"""The command chat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._chat.events import Loading, PromptProgress, TextDelta
from ctxbackends._cli.backends import Choice, backend_options, open_choice
from ctxbackends._cli.options import json_option
from ctxbackends._cli.terminal import Waiting, print_json, printable, read_prompt, utf8, waiting

if TYPE_CHECKING:
    from ctxbackends._chat.responses import Completion


def _prompt(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
    # Read before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again.
    return value if context.resilient_parsing else read_prompt(value)


class _LineDisplay:
    """Writes the text of an answer to standard output, and the wait to standard error."""

    def __init__(self, line: Waiting, *, is_hidden: bool) -> None:
        self.progress = line
        self._is_hidden = is_hidden
        self._last_text = ""

    def event(self, event: Any) -> None:
        if isinstance(event, PromptProgress):
            self.progress.reading(event)
        elif not isinstance(event, Loading):
            self.progress.stop()
        if isinstance(event, TextDelta) and not self._is_hidden:
            self._last_text = event.text or self._last_text
            click.echo(printable(event.text), nl=False, color=True)  # or click takes text out
            sys.stdout.flush()

    def finish(self, answer: Completion | None) -> None:
        if not self._is_hidden and not self._last_text.endswith("\n") and (self._last_text or answer is not None):
            click.echo()  # an error in the middle begins on a line of its own


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

    from ctxbackends._chat.messages import Message  # noqa: PLC0415
    from ctxbackends._cli.chat.session import ChatSession  # noqa: PLC0415

    options = {"max_tokens": max_tokens, "temperature": temperature}
    async with open_choice(choice) as backend:
        session = ChatSession(backend=backend, model=model, system=system, options=options)
        with waiting() as line:
            answer = await session.ask(Message.user(prompt), _LineDisplay(line, is_hidden=as_json))
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
