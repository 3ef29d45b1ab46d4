"""What is measured, by name: the cases, what the stub is asked in each, and the bounds that the figures are held to.

Knows no process and no client's code.
"""

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
    """``do``: the command of the worker. ``count`` batches of ``at_once`` each; ``peers``: how many batches for a peer,
    which is slower. ``limit``: how many times of what the hand-written client needs the SDK may need. ``less``: how
    many times less than a peer the SDK must need. ``only``: the clients, where it is not for all that speak the wire.
    ``instead``: the wire for a client that does not know ``wire``. ``fresh``: each sample is a process of its own.
    ``peer_rounds``: after how many rounds peers take no part any more; 0: in all."""

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
    instead: str = ""
    fresh: bool = False
    peer_rounds: int = 0

    @property
    def warm_up(self) -> bool:
        """Whether it is run once before the first round. Streams that take a second have the code of those that do
        not."""
        return not (self.fresh or self.model == "s1000-one")

    @property
    def unit(self) -> str:
        return {"complete": "request", "stream": "chunk", "first": "", "idle": "stream"}[self.do]

    def units(self, count: int) -> int:
        """How many requests, chunks or streams so many batches are."""
        return count * self.at_once * (len(MODELS[self.model].pieces()) if self.do == "stream" else 1)

    def text(self, count: int) -> str:
        """What so many batches must read."""
        return "".join(MODELS[self.model].pieces()) * (count * self.at_once)


def _of_wire(wire: str, title: str, less: tuple[float, float, float, float, float]) -> list[Case]:
    """The cases that each wire has, with how many times less than its own client the SDK must need in each."""
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


_LOOPED = [
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
        instead="openai",
    ),
    Case(
        "llamacpp-c1k",
        "1 KB, one after the other, type `llamacpp`",
        "complete",
        "c1k",
        "llamacpp",
        count=100,
        only=(HAND_WRITTEN, SDK),
        instead="openai",
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
CASES = {case.name: case for case in _LOOPED}
"""What workers are told in every round."""

OTHERS = {
    "ready": "a fresh process: imported, ready to use, and answered",
    "commands": "CPU of `ctx --help` and of the import, over `python -c pass`",
    "installed": "distributions and megabytes in the client's environment",
    "cold": "cold start: how late the SDK's first answer is, and how often it looked",
    "give-up": "cold start: when the peers give up",
    "real": "cold start of a real llama-server, where the wheel of llama.cpp is installed",
}
"""What is measured in another way."""
NAMES = (*CASES, *OTHERS)
