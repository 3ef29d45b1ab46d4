"""Extraction from documents on Ray: the proposal is that of one process, also after an actor was killed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from ctxbackends._engines.ray import RayEngine
from tests.knowledge.engines import answer, propose, read, workers, write_documents
from tests.knowledge.scripted_model import ScriptedModel
from tests.processes import kill
from tests.scale.cluster import LoopbackCluster
from tests.scale.test_batch import find_actors


def find_parts(directory: Path) -> list[Path]:
    return [*(directory / "proposals" / ".journal").glob("*.part-*")]


async def test_a_killed_actor_changes_nothing(cluster: LoopbackCluster, tmp_path: Path, key_variable: str) -> None:
    async with ScriptedModel(answer, seconds=0.05) as model:
        write_documents(tmp_path, 60)
        alone = await propose(model, tmp_path)
        requests, model.prompts, model.max_in_flight = len(model.prompts), [], 0
        on_ray = workers(model, 2, RayEngine(cluster.address), api_key_env=key_variable)
        running = asyncio.create_task(propose(model, tmp_path, workers=on_ray))
        while len(find_parts(tmp_path)) < 2 and not running.done():  # a worker creates its part with its first answer
            await asyncio.sleep(0.01)
        parts = find_parts(tmp_path)
        kill(min(find_actors()))
        outcome = await running
    assert read(alone) == read(outcome)
    assert 2 == len(parts)
    assert requests + 2 >= len(model.prompts)  # half of the requests in flight
    assert 4 >= model.max_in_flight
    key = os.environ[key_variable].encode()
    files = [file for root in (cluster.directory, tmp_path) for file in root.rglob("*") if file.is_file()]
    assert [] == [file for file in files if key in file.read_bytes()]
