"""The check of ``setup --check``: one short request. It needs a backend, which setup does without."""

from __future__ import annotations

import asyncio

import attrs
import click

from ctxbackends._cli.backends import Choice, open_choice
from ctxbackends._cli.terminal import print_json, say
from ctxbackends.errors import APITimeoutError

_SECONDS = 5.0


def check_backend(name: str, *, as_json: bool) -> None:
    """Ask the server of a backend in ``.ctxrc`` for its models, without waiting, and print the answer.

    Raises:
        BackendError: The server cannot be reached or has no models, or the backend cannot be used.
        ClickException: It does not answer in time.
    """
    asyncio.run(_check(name, as_json=as_json))


async def _check(name: str, *, as_json: bool) -> None:
    choice = Choice(backend=name, endpoint=None, api_key_env=None, source="file")
    async with open_choice(choice) as backend:
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await backend.ping(wait=False)
        except APITimeoutError:  # a shorter timeout of the backend, which it names
            raise
        except TimeoutError:
            raise click.ClickException(f"no answer from {backend.endpoint} within {_SECONDS:.0f} s") from None
    if as_json:
        print_json(attrs.asdict(answer))
        return
    text = f"the server at {answer.endpoint} answers; its first model is {answer.model}"
    say(text)
    if answer.default_model_listed is False:
        say(f"it does not list the default_model {answer.default_model}")
