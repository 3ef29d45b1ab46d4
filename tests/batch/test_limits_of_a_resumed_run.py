"""The limits of a minute, for a batch that goes on within the minute of its last request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxbackends._engines.processes import ProcessEngine
from ctxbackends.batch import BatchOptions, _limits, _run, run_batch
from tests.batch.test_distribution import config
from tests.batch.test_servers import EchoServer, opened, rows

LIMIT = 10


@pytest.mark.parametrize("has_engine", [False, True], ids=["here", "engine"])
@pytest.mark.parametrize("fresh", [False, True], ids=["resume", "fresh"])
async def test_a_run_waits_for_the_end_of_the_minute_of_the_one_before(
    has_engine: bool, fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_limits, _run):
        monkeypatch.setattr(module, "WINDOW", 3.0)
    monkeypatch.setattr(_run, "USE_INTERVAL", 0.1)
    settings: dict[str, Any] = {
        "options": BatchOptions(requests_per_minute=LIMIT),
        "journal": tmp_path / "journal",
    }
    async with EchoServer() as server, opened(server) as backends:
        async with run_batch(backends, rows(30), **settings) as run:
            answers = aiter(run)
            for _ in range(LIMIT):
                await anext(answers)
        again: Any = backends
        new = LIMIT
        if has_engine:
            again = config(server)
            new = LIMIT // 2  # one block, for the share of one worker
            settings |= {"engine": ProcessEngine(), "workers": 2}
        async with run_batch(again, rows(new if fresh else LIMIT + new), fresh=fresh, **settings) as run:
            assert (0 if fresh else LIMIT) == [answer.is_resumed async for answer in run].count(True)
        times = sorted(request.received_at for request in server.generations)
    assert LIMIT + new == len(times)
    assert all(last - first > 2.5 for first, last in zip(times, times[LIMIT:], strict=False))
