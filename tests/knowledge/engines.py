"""Workers for the tests of extraction on an engine: in this process, whose values are pickled, or in real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic

from ctxbackends import BackendConfig
from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import Engine, EngineError, Item, Result, WorkerDiedError, WorkerSpec
from ctxbackends._engines.hosting import WorkerHost, decode_outcome, encode_items, encode_spec
from ctxbackends.knowledge import Workers
from tests.knowledge.scripted_model import MODEL, ScriptedModel


class LocalWorker(Generic[Item, Result]):
    """A worker in this process."""

    host = ""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.process = WorkerHost()
        self.blocks = 0
        self.has_died = False

    async def answer(self, items: Sequence[Item], /) -> Sequence[Result]:
        self.blocks += 1
        outcome = await self.process.answer(encode_items(items))
        if self.has_died or self._engine.kills(self):
            self.has_died = True
            raise WorkerDiedError("worker ended: killed", settle=0)
        results: Sequence[Result] = decode_outcome(outcome)
        return results

    async def aclose(self) -> None:
        await self.process.aclose()


class LocalEngine:
    """An engine without processes, for fast tests. All that would be sent to a process is pickled.

    Args:
        kills: Called after a block was answered: whether the worker dies before its outcome arrives.
        resources: The most workers.
    """

    def __init__(
        self, *, kills: Callable[[LocalWorker[Any, Any]], bool] = lambda _: False, resources: int = 100
    ) -> None:
        self.kills = kills
        self.specs: list[bytes] = []
        self.workers: list[LocalWorker[Any, Any]] = []
        self.is_closed = False
        self._resources = resources

    async def open(self, workers: int) -> None:
        if workers > self._resources:
            raise EngineError(f"too few CPUs for {workers} workers: {self._resources}; use fewer")

    async def start(self, spec: WorkerSpec[Item, Result], _: str) -> LocalWorker[Item, Result]:
        self.specs.append(encode_spec(spec))
        worker = LocalWorker[Item, Result](self)
        self.workers.append(worker)
        decode_outcome(await worker.process.open(self.specs[-1]))
        return worker

    async def aclose(self) -> None:
        self.is_closed = True


def config(model: ScriptedModel, **settings: Any) -> BackendConfig:
    return BackendConfig(name="model", type="openai", endpoint=model.url, default_model=MODEL, **settings)


def workers(model: ScriptedModel, count: int, engine: Engine | None = None, **settings: Any) -> Workers:
    """Workers for a model that needs no key."""
    return Workers(engine or LocalEngine(), count, BackendOpener(config(model, **{"api_key_env": "", **settings})))
