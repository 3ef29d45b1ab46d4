"""From samples to figures: for each measure and client the median, the ratio to the hand-written client, the factor
over the SDK, and the bound with whether it is met. Writes them as one table in Markdown.

A ratio is taken within each round, between two samples that were taken one after the other; then the median of the
rounds. Starts no process.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.benchmarks.cases import CASES, HAND_WRITTEN, SDK
from tests.benchmarks.environments import CLIENTS

Sample: TypeAlias = dict[str, Any]
READY = {"openai_client": 3.0}
GIVE_UP = 1.5
KINDS = (("refused", "refused"), ("loading", "503"))


@dataclass(frozen=True)
class Measure:
    """``value``: of one sample, in seconds, bytes or a number; None where the sample has none. ``unit``: how it is
    shown. ``limit`` and ``less`` as in a case. ``most``: what the value of ``bounded`` may be at most. ``together``:
    how the values of the rounds become one. ``ratios``: whether it is compared with other clients'."""

    case: str
    title: str
    value: Callable[[Sample], float | None]
    unit: str
    limit: float | None = None
    less: Mapping[str, float] = field(default_factory=dict)
    most: float | None = None
    bounded: str = SDK  # a client's name, or "peers"
    together: Callable[[Sequence[float]], float] = statistics.median
    ratios: bool = True


def measures() -> Iterator[Measure]:
    for case in CASES.values():
        if case.do == "first":
            yield Measure(case.name, case.title, lambda one: one["wait"], "time", case.limit, case.less)
        elif case.do == "idle":
            yield Measure(
                case.name,
                f"{case.title}, per {case.unit}",
                lambda one: one["bytes"] / one["units"],
                "bytes",
                case.limit,
            )
        else:
            yield Measure(case.name, f"{case.title}, per {case.unit}", _cpu, "time", case.limit, case.less)
    yield Measure("ready", "start to imported (wall)", lambda one: one["import"], "time")
    yield Measure("ready", "start to ready-to-use (wall)", lambda one: one["ready"], "time", None, READY, most=0.20)
    yield Measure("ready", "start to ready-to-use (CPU)", lambda one: one["ready_cpu"], "time")
    yield Measure("ready", "start to first answer (wall)", lambda one: one["answer"], "time")
    yield Measure("ready", "most memory until ready (resident)", lambda one: one["ready_bytes"], "bytes", most=40e6)
    yield Measure("installed", "distributions", lambda one: one["distributions"], "", most=20)
    yield Measure("installed", "installed", lambda one: one["bytes"], "bytes")
    for name, title in (
        ("import", "`import ctxbackends`"),
        ("help", "`ctxbackends --help`"),
        ("ai_help", "`ctxbackends chat --help`"),
    ):
        yield Measure("commands", f"{title}, over `python -c pass`", _over_pass(name), "time", ratios=False)
    for kind, title in KINDS:
        late = _of_kind(kind, "late")
        yield Measure("cold", f"cold start, {title}: answer after ready (wall)", late, "time", most=0.15, ratios=False)
        yield Measure(
            "cold", f"cold start, {title}: the same, 9 of 10", late, "time", most=0.3, together=_ninth, ratios=False
        )
        cpu = _of_kind(kind, "cpu")
        yield Measure("cold", f"cold start, {title}: CPU per second of waiting", cpu, "time", most=0.01, ratios=False)
    for kind, title in KINDS:
        title = f"cold start, {title}: gives up after (wall)"
        seconds = _of_kind(kind, "seconds")
        yield Measure("give-up", title, seconds, "time", most=GIVE_UP, bounded="peers", ratios=False)
    title = "cold start, llama-server: wait ends after ready (wall)"
    yield Measure("real", title, lambda one: one["late"], "time", most=0.15, ratios=False)


def _cpu(sample: Sample) -> float:
    return float(sample["cpu"] / sample["units"])


def _ninth(values: Sequence[float]) -> float:
    """Return the value that nine of ten are not above."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def _over_pass(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample[name] - sample["pass"]


def _of_kind(kind: str, name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name] if sample["kind"] == kind else None


@dataclass(frozen=True)
class Row:
    """A measure of one client. ``ratio`` to the hand-written client, with its quartiles; ``factor`` over the SDK.
    ``bound``: in words; ``met``: None where there is none. ``failed``: the error, and nothing else holds."""

    measure: Measure
    client: str
    value: float = math.nan
    quartiles: tuple[float, float] = (math.nan, math.nan)
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    factor: float | None = None
    bound: str = ""
    met: bool | None = None
    stub: float | None = None
    reads: float | None = None
    failed: str = ""


def rows(samples: Sequence[Sample]) -> list[Row]:
    """In the order of the measures, and within one in that of the clients."""
    found = []
    for measure in measures():
        ours = [sample for sample in samples if sample["case"] == measure.case]
        by_client = {name: [one for one in ours if one["client"] == name] for name in CLIENTS}
        values = {name: _values(measure, of_client) for name, of_client in by_client.items()}
        for name, of_client in by_client.items():
            errors = [sample["error"] for sample in of_client if "error" in sample]
            if errors:
                found.append(Row(measure, name, failed=errors[0]))
            elif values[name]:
                found.append(_row(measure, name, of_client, values))
    return found


def _values(measure: Measure, samples: Sequence[Sample]) -> list[tuple[int, float]]:
    """With the round of each."""
    good = [(sample["round"], measure.value(sample)) for sample in samples if "error" not in sample]
    return [(number, value) for number, value in good if value is not None]


def _row(
    measure: Measure, name: str, samples: Sequence[Sample], values: Mapping[str, Sequence[tuple[int, float]]]
) -> Row:
    own = [value for _, value in values[name]]
    ratios = _per_round(values[name], values[HAND_WRITTEN]) if measure.ratios and name != HAND_WRITTEN else []
    factors = _per_round(values[name], values[SDK]) if measure.ratios and CLIENTS[name].peer else []
    ratio = statistics.median(ratios) if ratios else None
    factor = statistics.median(factors) if factors else None
    value = measure.together(own)
    bound, met = _bound(measure, name, value, ratio, factor)
    stub = [sample["stub_cpu"] / sample["wall"] for sample in samples if sample.get("wall") and "stub_cpu" in sample]
    reads = [sample["reads"] / sample["units"] for sample in samples if sample.get("reads")]
    return Row(
        measure,
        name,
        value=value,
        quartiles=_quartiles(own),
        ratio=ratio,
        ratio_quartiles=_quartiles(ratios) if ratios else None,
        factor=factor,
        bound=bound,
        met=met,
        stub=statistics.median(stub) if stub and CASES[measure.case].do != "first" else None,
        reads=statistics.median(reads) if reads else None,
    )


def _per_round(ours: Sequence[tuple[int, float]], theirs: Sequence[tuple[int, float]]) -> list[float]:
    others = dict(theirs)
    return [value / others[number] for number, value in ours if others.get(number)]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _bound(
    measure: Measure, name: str, value: float, ratio: float | None, factor: float | None
) -> tuple[str, bool | None]:
    """In words, and whether it is met. The SDK's factor is of the hand-written client, and a peer's is of the SDK."""
    parts: list[str] = []
    met: list[bool] = []
    if name == SDK and measure.limit is not None and ratio is not None:
        parts.append(f"≤ {measure.limit:g} ×")
        met.append(ratio <= measure.limit)
    if measure.most is not None and (name == measure.bounded or (measure.bounded == "peers" and CLIENTS[name].peer)):
        parts.append(f"≤ {shown(measure.most, measure.unit)}")
        met.append(value <= measure.most)
    if name in measure.less and factor is not None:
        parts.append(f"≥ {measure.less[name]:g} ×")
        met.append(factor >= measure.less[name])
    return ", ".join(parts), all(met) if met else None


# --- in words -----------------------------------------------------------------------------------------


def shown(value: float, unit: str) -> str:
    number, name = _scaled(value, unit)
    return f"{number(value)} {name}".rstrip()


def _scaled(value: float, unit: str) -> tuple[Callable[[float], str], str]:
    """How numbers of the size of this one are written, and in what."""
    if unit == "time":
        scale, name = next((one for one in ((1e6, "µs"), (1e3, "ms")) if abs(value) * one[0] < 1000), (1.0, "s"))
    elif unit == "bytes":
        scale, name = (1e-3, "KB") if value < 1e6 else (1e-6, "MB")
    else:
        return lambda number: f"{number:.3g}", ""
    return lambda number: _digits(number * scale), name


def _digits(value: float) -> str:
    """Three that count, at most."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


HEADINGS = ("what", "client", "median", "× hand-written", "× ctxbackends", "bound", "met", "quartiles", "stub's CPU")


def table(found: Sequence[Row]) -> str:
    lines = [_line(HEADINGS), _line(["---"] * 2 + ["---:"] * 4 + ["---"] + ["---:"] * 2)]
    before = None
    for row in found:
        title = "" if row.measure == before else row.measure.title
        before = row.measure
        lines.append(_line([title, CLIENTS[row.client].title, *_cells(row)]))
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    if row.failed:
        return [f"failed: {_plain(row.failed)}", *[""] * 6]
    ratio = ""
    if row.ratio is not None and row.ratio_quartiles is not None:
        low, high = row.ratio_quartiles
        ratio = f"{row.ratio:.2f}" if low == high else f"{row.ratio:.2f} ({low:.2f}–{high:.2f})"
    cells = [
        shown(row.value, row.measure.unit),
        ratio,
        "" if row.factor is None else f"{row.factor:.1f}",
        row.bound,
        "" if row.met is None else ("yes" if row.met else "**no**"),
        _spread(row),
        "" if row.stub is None else f"{row.stub:.0%}",
    ]
    return [cell.replace(" ", NO_BREAK) for cell in cells]


NO_BREAK = "\u00a0"


def _spread(row: Row) -> str:
    low, high = row.quartiles
    if low == high:
        return ""
    number, name = _scaled(high, row.measure.unit)
    return f"{number(low)}–{number(high)} {name}".rstrip()


def _plain(text: str) -> str:
    """What a cell can hold."""
    short = " ".join(text.split())[:120]
    return short.replace("|", "/").replace("`", "'").replace("<", "(").replace(">", ")").replace("*", "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def unmet(found: Sequence[Row]) -> list[Row]:
    return [row for row in found if row.met is False]


def notes(results: Mapping[str, Any], found: Sequence[Row]) -> str:
    """Of what the figures are: the versions, the machine, and how the streams came."""
    lines = [f"- {results['date']}, {results['rounds']} round{'s' * (results['rounds'] != 1)}, {results['machine']}"]
    lines.append(f"- Python {results['python']}, kernel {results['kernel']}")
    for name, versions in results["versions"].items():
        listed = ", ".join(f"{what} {version}" for what, version in versions.items() if what != "python")
        lines.append(f"- {CLIENTS[name].title}: {listed}")
    for row in found:
        if row.reads is not None and row.client == HAND_WRITTEN and row.measure.case.endswith("one"):
            lines.append(f"- {row.measure.title}: the hand-written client read {row.reads:.2f} times for each chunk")
    bounded = [row for row in found if row.met is not None]
    lines.append(f"- of {len(bounded)} bounds, {len(bounded) - len(unmet(found))} are met")
    return "\n".join(lines) + "\n"
