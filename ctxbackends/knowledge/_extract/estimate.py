"""The plan of a run without a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from ctxbackends.knowledge._extract.activity import Activity
from ctxbackends.knowledge._extract.budget import estimate_budget, estimate_tokens
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.progress import OnEvent, Plan
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._extract.reading import Reader
from ctxbackends.knowledge._sources.base import Input, SkippedInput, Source

_INTERVAL = 0.1  # seconds between two events


def estimate_plan(sources: Sequence[Source], options: RunOptions, *, on_event: OnEvent) -> Plan:
    """Read and split the sources, and return the requests that a run would send, with estimated tokens.

    Raises:
        SourceError: A source cannot be read.
    """
    prompt = Prompt(options.kinds, options.kinds_per_question, instructions=options.instructions)
    budget = estimate_budget(prompt.frames, chunk_tokens=options.chunk_tokens)
    inputs: list[Input] = []
    skipped: list[SkippedInput] = []
    chunks = tokens = masked = 0

    reported_at = 0.0

    def prepare_sources() -> Iterator[Source]:
        nonlocal reported_at
        for number, source in enumerate(sources):
            if time.monotonic() - reported_at >= _INTERVAL:
                reported_at = time.monotonic()
                name = source.name
                on_event(Activity(phase="preparing", source=name, sources=len(sources), sources_done=number))
            inputs.append(source.prepare())
            yield source

    reader = Reader(prepare_sources(), budget, options)
    while True:
        chunk = reader.next_chunk()
        news, count = reader.drain()
        masked += count
        skipped += news
        for one in news:
            on_event(one)
        if chunk is None:
            break
        chunks += 1
        tokens += budget.sum_tokens(estimate_tokens(chunk.render()))
    return Plan(
        backend=None,
        endpoint=None,
        model=options.model,
        context_length=None,
        chunk_tokens=budget.chunk_tokens,
        inputs=tuple(inputs),
        skipped=tuple(skipped),
        chunks=chunks,
        requests=chunks * len(prompt.questions) * options.passes,
        tokens=tokens * options.passes,
        is_counted=False,
        masked=masked,
    )
