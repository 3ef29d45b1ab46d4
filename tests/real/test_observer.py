"""Observers of a server that the SDK starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ctxbackends import Observer, RequestFacts, serve_model


class Ends(Observer):
    def __init__(self) -> None:
        self.facts: list[RequestFacts] = []

    def finished(self, facts: RequestFacts) -> None:
        self.facts.append(facts)


async def test_serve_model_reports_each_request(model: Callable[[str], Path], environment: Mapping[str, str]) -> None:
    ends = Ends()
    async with serve_model(model("tiny"), environment=environment, alias="tiny", observers=[ends]) as backend:
        completion = await backend.complete("Hello", max_tokens=2)
        async with backend.stream("Hello", max_tokens=2) as stream:
            await stream.get_final_completion()
        await backend.count_tokens("Hello")
        port = int(backend.endpoint.rpartition(":")[2])
    assert ["chat", "chat", "count_tokens"] == [facts.operation for facts in ends.facts]
    whole, streamed, _ = ends.facts
    assert (completion.usage, "tiny", 1) == (whole.usage, whole.served_model, whole.attempts)
    assert (False, True) == (whole.stream, streamed.stream)
    for facts in ends.facts:
        assert facts.server is not None
        assert ("127.0.0.1", port) == (facts.server.host, facts.server.port)
