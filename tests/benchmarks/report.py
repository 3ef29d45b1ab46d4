"""Computes the figures from the samples: for each measure and client the median, the ratio to the hand-written client,
the factor over the SDK, and the bound with whether it is met. Formats them as a Markdown table.

A ratio compares two samples of one round, which ran one after the other; the result is the median of the rounds.
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
    """One line of the table for each client.

    ``value`` returns the figure of one sample in seconds, bytes or a number, None without one. ``unit`` says how it is
    formatted. ``limit`` and ``less`` are those of a case. ``maximum`` bounds the value of the client ``bound_for``.
    ``combine`` computes one value from those of the rounds. ``ratios``: whether clients are compared.
    """

    case: str
    title: str
    value: Callable[[Sample], float | None]
    unit: str
    limit: float | None = None
    less: Mapping[str, float] = field(default_factory=dict)
    maximum: float | None = None
    bound_for: str = SDK  # a client's name, or "peers"
    combine: Callable[[Sequence[float]], float] = statistics.median
    ratios: bool = True


def measures() -> Iterator[Measure]:
    for case in CASES.values():
        if case.do == "first":
            yield Measure(case.name, case.title, lambda sample: sample["wait"], "time", case.limit, case.less)
        elif case.do == "idle":
            yield Measure(
                case.name,
                f"{case.title}, per {case.unit}",
                lambda sample: sample["bytes"] / sample["units"],
                "bytes",
                case.limit,
            )
        else:
            yield Measure(case.name, f"{case.title}, per {case.unit}", _cpu, "time", case.limit, case.less)
    yield Measure("ready", "start to imported (wall)", lambda sample: sample["import"], "time")
    yield Measure(
        "ready", "start to ready-to-use (wall)", lambda sample: sample["ready"], "time", None, READY, maximum=0.20
    )
    yield Measure("ready", "start to ready-to-use (CPU)", lambda sample: sample["ready_cpu"], "time")
    yield Measure("ready", "start to first answer (wall)", lambda sample: sample["answer"], "time")
    yield Measure(
        "ready", "most memory until ready (resident)", lambda sample: sample["ready_bytes"], "bytes", maximum=40e6
    )
    yield Measure("installed", "distributions", lambda sample: sample["distributions"], "", maximum=20)
    yield Measure("installed", "installed", lambda sample: sample["bytes"], "bytes")
    for name, title in (
        ("import", "`import ctxbackends`"),
        ("help", "`ctxbackends --help`"),
        ("ai_help", "`ctxbackends chat --help`"),
    ):
        yield Measure("commands", f"{title}, over `python -c pass`", _over_pass(name), "time", ratios=False)
    for kind, title in KINDS:
        late = _value_of_kind(kind, "late")
        yield Measure(
            "cold", f"cold start, {title}: answer after ready (wall)", late, "time", maximum=0.15, ratios=False
        )
        yield Measure(
            "cold", f"cold start, {title}: the same, 9 of 10", late, "time", maximum=0.3, combine=_ninth, ratios=False
        )
        cpu = _value_of_kind(kind, "cpu")
        yield Measure(
            "cold", f"cold start, {title}: CPU per second of waiting", cpu, "time", maximum=0.01, ratios=False
        )
    for kind, title in KINDS:
        title = f"cold start, {title}: gives up after (wall)"
        seconds = _value_of_kind(kind, "seconds")
        yield Measure("give-up", title, seconds, "time", maximum=GIVE_UP, bound_for="peers", ratios=False)
    title = "cold start, llama-server: wait ends after ready (wall)"
    yield Measure("real", title, lambda sample: sample["late"], "time", maximum=0.15, ratios=False)


def _cpu(sample: Sample) -> float:
    return float(sample["cpu"] / sample["units"])


def _ninth(values: Sequence[float]) -> float:
    """Return the value that nine of ten are not above."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def _over_pass(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample[name] - sample["pass"]


def _value_of_kind(kind: str, name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name] if sample["kind"] == kind else None


@dataclass(frozen=True)
class Row:
    """A measure of one client.

    ``ratio`` is relative to the hand-written client, ``factor`` to the SDK. ``bound`` is a text; ``is_met`` is None
    without one. With an ``error``, there are no figures.
    """

    measure: Measure
    client: str
    value: float = math.nan
    quartiles: tuple[float, float] = (math.nan, math.nan)
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    factor: float | None = None
    bound: str = ""
    is_met: bool | None = None
    stub: float | None = None
    reads: float | None = None
    error: str = ""


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Return the rows, ordered by measure, then by client."""
    result = []
    for measure in measures():
        own_samples = [sample for sample in samples if sample["case"] == measure.case]
        by_client = {
            name: [own_sample for own_sample in own_samples if own_sample["client"] == name] for name in CLIENTS
        }
        values = {name: _values(measure, of_client) for name, of_client in by_client.items()}
        for name, of_client in by_client.items():
            errors = [sample["error"] for sample in of_client if "error" in sample]
            if errors:
                result.append(Row(measure, name, error=errors[0]))
            elif values[name]:
                result.append(_row(measure, name, of_client, values))
    return result


def _values(measure: Measure, samples: Sequence[Sample]) -> list[tuple[int, float]]:
    """Return each value with its round."""
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
    value = measure.combine(own)
    bound, is_met = _bound(measure, name, value, ratio, factor)
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
        is_met=is_met,
        stub=statistics.median(stub) if stub and CASES[measure.case].do != "first" else None,
        reads=statistics.median(reads) if reads else None,
    )


def _per_round(values: Sequence[tuple[int, float]], others_: Sequence[tuple[int, float]]) -> list[float]:
    others = dict(others_)
    return [value / others[number] for number, value in values if others.get(number)]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _bound(
    measure: Measure, name: str, value: float, ratio: float | None, factor: float | None
) -> tuple[str, bool | None]:
    """Return the bound as a text, and whether it is met.

    The SDK is compared with the hand-written client, a peer with the SDK.
    """
    parts: list[str] = []
    checks: list[bool] = []
    if name == SDK and measure.limit is not None and ratio is not None:
        parts.append(f"≤ {measure.limit:g} ×")
        checks.append(ratio <= measure.limit)
    if measure.maximum is not None and (
        name == measure.bound_for or (measure.bound_for == "peers" and CLIENTS[name].peer)
    ):
        parts.append(f"≤ {format_value(measure.maximum, measure.unit)}")
        checks.append(value <= measure.maximum)
    if name in measure.less and factor is not None:
        parts.append(f"≥ {measure.less[name]:g} ×")
        checks.append(factor >= measure.less[name])
    return ", ".join(parts), all(checks) if checks else None


# --- the table -----------------------------------------------------------------------------------------


def format_value(value: float, unit: str) -> str:
    number, name = _scale(value, unit)
    return f"{number(value)} {name}".rstrip()


def _scale(value: float, unit: str) -> tuple[Callable[[float], str], str]:
    """Return the format and the unit for numbers of this size."""
    if unit == "time":
        scale, name = next((item for item in ((1e6, "µs"), (1e3, "ms")) if abs(value) * item[0] < 1000), (1.0, "s"))
    elif unit == "bytes":
        scale, name = (1e-3, "KB") if value < 1e6 else (1e-6, "MB")
    else:
        return lambda number: f"{number:.3g}", ""
    return lambda number: _digits(number * scale), name


def _digits(value: float) -> str:
    """Format with at most three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


HEADINGS = ("measure", "client", "median", "× hand-written", "× ctxbackends", "bound", "met", "quartiles", "stub's CPU")


def table(rows_: Sequence[Row]) -> str:
    lines = [_line(HEADINGS), _line(["---"] * 2 + ["---:"] * 4 + ["---"] + ["---:"] * 2)]
    before = None
    for row in rows_:
        title = "" if row.measure == before else row.measure.title
        before = row.measure
        lines.append(_line([title, CLIENTS[row.client].title, *_cells(row)]))
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    if row.error:
        return [f"failed: {_plain(row.error)}", *[""] * 6]
    ratio = ""
    if row.ratio is not None and row.ratio_quartiles is not None:
        low, high = row.ratio_quartiles
        ratio = f"{row.ratio:.2f}" if low == high else f"{row.ratio:.2f} ({low:.2f}–{high:.2f})"
    cells = [
        format_value(row.value, row.measure.unit),
        ratio,
        "" if row.factor is None else f"{row.factor:.1f}",
        row.bound,
        "" if row.is_met is None else ("yes" if row.is_met else "**no**"),
        _spread(row),
        "" if row.stub is None else f"{row.stub:.0%}",
    ]
    return [cell.replace(" ", NO_BREAK) for cell in cells]


NO_BREAK = "\u00a0"


def _spread(row: Row) -> str:
    low, high = row.quartiles
    if low == high:
        return ""
    number, name = _scale(high, row.measure.unit)
    return f"{number(low)}–{number(high)} {name}".rstrip()


def _plain(text: str) -> str:
    """Return the text without the characters that end a cell or format it."""
    short = " ".join(text.split())[:120]
    return short.replace("|", "/").replace("`", "'").replace("<", "(").replace(">", ")").replace("*", "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def unmet_bounds(rows_: Sequence[Row]) -> list[Row]:
    return [row for row in rows_ if row.is_met is False]


def notes(results: Mapping[str, Any], rows_: Sequence[Row]) -> str:
    """Return the list below the table: versions, machine, and how the streams arrived."""
    lines = [f"- {results['date']}, {results['rounds']} round{'s' * (results['rounds'] != 1)}, {results['machine']}"]
    lines.append(f"- Python {results['python']}, kernel {results['kernel']}")
    for name, versions in results["versions"].items():
        distributions = ", ".join(f"{what} {version}" for what, version in versions.items() if what != "python")
        lines.append(f"- {CLIENTS[name].title}: {distributions}")
    lines += [
        f"- {row.measure.title}: the hand-written client read {row.reads:.2f} times for each chunk"
        for row in rows_
        if row.reads is not None and row.client == HAND_WRITTEN and row.measure.case.endswith("one")
    ]
    bounds_ = [row for row in rows_ if row.is_met is not None]
    lines.append(f"- of {len(bounds_)} bounds, {len(bounds_) - len(unmet_bounds(rows_))} are met")
    return "\n".join(lines) + "\n"
