"""The cases of the benchmark by name: what is requested in each, and the bounds of its figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.benchmarks.answers import MODELS

HAND_WRITTEN = "handwritten"
SDK = "sdk"
OWN_CLIENTS = {"openai": "openai_client", "anthropic": "anthropic_client", "ollama": "ollama_client"}
"""By wire: the vendor's client, which bounds are named for."""

MANY = "many events in a segment"


@dataclass(frozen=True)
class Case:
    """One case.

    ``do`` is the command of the worker: ``count`` batches of ``at_once`` each, ``peers`` batches for a peer, which is
    slower. ``limit`` is the largest ratio of the SDK to the hand-written client, ``less`` the smallest factor of a peer
    over the SDK. ``only`` names the clients, if not all with the wire; ``other_wire`` is for a client without ``wire``.
    ``fresh``: each sample is a separate process. ``peer_rounds``: the rounds with peers, 0 for all.
    """

    name: str
    title: str
    do: str
    model: str
    wire: str = "openai"
    count: int = 1
    peers: int = 1
    at_once: int = 1
    limit: float | None = None
    less: dict[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    other_wire: str = ""
    fresh: bool = False
    peer_rounds: int = 0

    @property
    def warm_up(self) -> bool:
        """Whether it is run once before the first round. Slow streams run the code of the others."""
        return not (self.fresh or self.model == "s1000-one")

    @property
    def unit(self) -> str:
        return {"complete": "request", "stream": "chunk", "first": "", "idle": "stream"}[self.do]

    def units(self, count: int) -> int:
        """Return the number of requests, chunks or streams in ``count`` batches."""
        return count * self.at_once * (len(MODELS[self.model].pieces()) if self.do == "stream" else 1)

    def text(self, count: int) -> str:
        """Return the text that a client must read in ``count`` batches."""
        return "".join(MODELS[self.model].pieces()) * (count * self.at_once)


def _of_wire(wire: str, title: str, less: tuple[float, float, float, float, float]) -> list[Case]:
    """Return the cases of a wire, with the factor of its vendor's client over the SDK in each."""
    prefix = "" if wire == "openai" else f"{wire}-"
    own = OWN_CLIENTS[wire]
    c1k, c1k_100, many, one, streams = ({own: factor} for factor in less)

    def case(name: str, what: str, do: str, model: str, limit: float, less: dict[str, float], **amounts: int) -> Case:
        return Case(f"{prefix}{name}", f"{title}{what}", do, model, wire, limit=limit, less=less, **amounts)  # type: ignore[arg-type]  # all of them are numbers

    return [
        case("c1k", "1 KB, one after the other", "complete", "c1k", 1.3, c1k, count=200, peers=30),
        case("c1k-100", "1 KB, 100 at once", "complete", "c1k", 1.3, c1k_100, count=4, at_once=100),
        case("many", f"stream, {MANY}", "stream", "s1000-many", 2.5, many, count=20, peers=2),
        case("one", "stream, one event in a segment", "stream", "s1000-one", 1.3, one),
        case("streams-200", "200 streams at once", "stream", "s50-burst", 2.0, streams, count=3, at_once=200),
    ]


_WORKER_CASES = [
    *_of_wire("openai", "", (8, 10, 30, 4, 20)),
    Case("c20k", "20 KB, one after the other", "complete", "c20k", count=100, peers=20),
    Case("c20k-100", "20 KB, 100 at once", "complete", "c20k", count=2, peers=1, at_once=100),
    Case(
        "many-chunks",
        f"stream, {MANY}, each an HTTP chunk",
        "stream",
        "s1000-own",
        count=10,
        peers=2,
        limit=2.5,
    ),
    Case(
        "vllm-c1k",
        "1 KB, one after the other, type `vllm`",
        "complete",
        "c1k",
        "vllm",
        count=100,
        only=(HAND_WRITTEN, SDK),
        other_wire="openai",
    ),
    Case(
        "llamacpp-c1k",
        "1 KB, one after the other, type `llamacpp`",
        "complete",
        "c1k",
        "llamacpp",
        count=100,
        only=(HAND_WRITTEN, SDK),
        other_wire="openai",
    ),
    *_of_wire("anthropic", "Anthropic: ", (8, 8, 8, 8, 8)),
    *_of_wire("ollama", "Ollama: ", (8, 8, 8, 8, 8)),
    Case(
        "first",
        "time to the first event (wall)",
        "first",
        "first",
        count=60,
        peers=10,
        limit=1.3,
        less={"openai_client": 5},
    ),
    Case(
        "idle",
        "1,000 idle streams: memory",
        "idle",
        "idle",
        count=1000,
        peers=1000,
        limit=1.3,
        fresh=True,
        peer_rounds=3,  # it takes them up to 20 s, and hardly differs from round to round
    ),
]
CASES = {case.name: case for case in _WORKER_CASES}
"""The cases that workers run in every round."""

OTHERS = {
    "ready": "a fresh process: imported, ready to use, and answered",
    "commands": "CPU of `ctx --help` and of the import, over `python -c pass`",
    "installed": "distributions and megabytes in the client's environment",
    "cold": "cold start: how late the SDK's first answer is, and how often it looked",
    "give-up": "cold start: when the peers give up",
    "real": "cold start of a real llama-server, where the wheel of llama.cpp is installed",
}
"""Measured in other ways."""
NAMES = (*CASES, *OTHERS)
