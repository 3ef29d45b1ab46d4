from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.knowledge.scripted_model import Script, ScriptedModel


@contextmanager
def serving(model: ScriptedModel) -> Iterator[ScriptedModel]:
    """The model in a thread of its own, for clients in other processes."""
    ready, done = threading.Event(), None
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        nonlocal done
        done = asyncio.Event()
        async with model:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield model
    finally:
        assert done is not None
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedModel]]:
    """Starts a model that answers by a script; it ends with the test."""
    with ExitStack() as models:

        def start(script: Script, **settings: Any) -> ScriptedModel:
            return models.enter_context(serving(ScriptedModel(script, **settings)))

        yield start
