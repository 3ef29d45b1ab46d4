"""The benchmark's clients, cases and report. The benchmark itself is a nox session."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, Registry, TextDelta
from tests.benchmarks import environments, guard, parts, report
from tests.benchmarks.answers import MODELS, all_answers
from tests.benchmarks.cases import CASES, HAND_WRITTEN, NAMES, SDK, Case
from tests.benchmarks.clients import handwritten, sdk
from tests.benchmarks.environments import CLIENTS, HERE
from tests.benchmarks.run import Run, wire_of
from tests.benchmarks.stub import Listener, bind_port, listen

CHEAP = ["c1k", "c1k-100", "many", "first", "anthropic-many", "ollama-c1k", "ready"]
answers = functools.cache(all_answers)
ENDING = [name for name, model in MODELS.items() if not model.hangs]


# --- the stub -----------------------------------------------------------------------------------------


@pytest.fixture
async def stub() -> AsyncIterator[str]:
    listener = Listener(ready_at=0.0)
    server = await listen(listener, answers(), bind_port())
    yield f"http://127.0.0.1:{listener.port}"
    server.close()


@pytest.mark.full
@pytest.mark.parametrize("wire", handwritten.WIRES)
async def test_every_client_reads_every_model(stub: str, wire: str) -> None:
    async def reads(client: Any, name: str) -> None:
        pieces = MODELS[name].pieces()
        assert "".join(pieces) == await client.complete(name)
        received_pieces: list[str] = []
        await client.stream(name, received_pieces.append)
        assert pieces == received_pieces

    clients = [await module.open_client(wire, stub) for module in (handwritten, sdk)]
    await asyncio.gather(*[reads(client, name) for client in clients for name in ENDING])
    for client in clients:
        await client.close()


async def test_the_sdk_reads_the_vllm_wire(stub: str) -> None:
    client = await sdk.open_client("vllm", stub)
    assert "".join(MODELS["c1k"].pieces()) == await client.complete("c1k")
    await client.close()


@pytest.mark.parametrize(("wire", "kind"), [("openai", "openai-compatible"), ("anthropic", "anthropic")])
async def test_the_counts_of_tokens_are_read(stub: str, wire: str, kind: str) -> None:
    key = "sk-made-up" if wire == "anthropic" else None
    async with Registry([BackendConfig(name="b", type=kind, endpoint=stub, api_key=key)]) as registry:
        reply = await registry.resolve("b").complete("Hello", model="tiny", max_tokens=10)
    assert reply.usage is not None
    assert (12, 2) == (reply.usage.input_tokens, reply.usage.output_tokens)


def test_segments_follow_the_models() -> None:
    bodies = answers()
    for path in (b"/v1/chat/completions", b"/v1/messages", b"/api/chat"):
        assert 1000 == len(bodies[path, b"s1000-one", True].writes)
        assert 5 == len(bodies[path, b"s50-burst", True].writes)
        assert 1 < len(bodies[path, b"s1000-many", True].writes) < 20
        own = b"".join(bodies[path, b"s1000-own", True].writes).partition(b"\r\n\r\n")[2]
        assert 1001 == len(re.findall(rb"^[0-9a-f]+\r$", own, re.MULTILINE))  # with the one that ends them
        together = b"".join(bodies[path, b"s1000-many", True].writes).partition(b"\r\n\r\n")[2]
        assert len(bodies[path, b"s1000-many", True].writes) + 1 == len(
            re.findall(rb"^[0-9a-f]+\r$", together, re.MULTILINE)
        )
    assert 1000 == len("".join(MODELS["c1k"].pieces()))
    assert 20_000 == len("".join(MODELS["c20k"].pieces()))


# --- the environments ---------------------------------------------------------------------------------


def test_the_hand_written_client_gets_the_versions_of_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environments, "_commands", lambda home, _: [[sys.executable, "-c", f"import os; os.makedirs({str(home)!r})"]]
    )
    installed = {"ctxbackends": "0.1.0", "aiohttp": "3.14.5", "yarl": "1.25.1"}
    monkeypatch.setattr(environments.Environment, "installed", lambda _: installed)
    environments.make_environment(CLIENTS[HAND_WRITTEN], tmp_path, None, HERE)
    assert "aiohttp==3.14.5\nyarl==1.25.1\n" == (tmp_path / "handwritten-limits.txt").read_text()


# --- the report ---------------------------------------------------------------------------------------


def samples(client: str, cpu: list[float], case: str = "c1k", **more: Any) -> list[dict[str, Any]]:
    """One for each round, of ten units."""
    return [
        {"case": case, "client": client, "round": number, "cpu": one, "wall": 2.0, "units": 10, "stub_cpu": 0.5, **more}
        for number, one in enumerate(cpu, 1)
    ]


def row_of(rows: list[report.Row], client: str) -> report.Row:
    (match,) = [row for row in rows if row.client == client]
    return match


def test_a_ratio_is_of_one_round_and_then_the_median() -> None:
    rows = report.rows(
        [
            *samples(HAND_WRITTEN, [1.0, 2.0, 10.0]),
            *samples(SDK, [1.2, 2.4, 11.0]),
            *samples("openai_client", [9.0, 20.0, 80.0]),
        ]
    )
    own = row_of(rows, SDK)
    assert pytest.approx(0.24) == own.value
    assert pytest.approx(1.2) == own.ratio
    assert pytest.approx((1.15, 1.2)) == own.ratio_quartiles
    assert ("≤ 1.3 ×", True) == (own.bound, own.is_met)
    assert 0.25 == own.stub
    peer = row_of(rows, "openai_client")
    assert pytest.approx(9.0) == peer.ratio
    assert pytest.approx(7.5) == peer.factor
    assert ("≥ 8 ×", False) == (peer.bound, peer.is_met)
    assert row_of(rows, HAND_WRITTEN).ratio is None
    assert [peer] == report.unmet_bounds(rows)


def test_bounds_without_a_ratio() -> None:
    cold = {"case": "cold", "client": SDK, "round": 0}
    rows = report.rows(
        [
            {"case": "installed", "client": SDK, "round": 0, "distributions": 21, "bytes": 20_000_000},
            {**cold, "kind": "refused", "after": 60, "late": 0.05, "cpu": 0.008},
            {**cold, "kind": "refused", "after": 3, "late": 0.35, "cpu": 0.008},
            {"case": "give-up", "client": "openai_client", "round": 0, "kind": "loading", "seconds": 1.2},
        ]
    )
    cells = {
        row.measure.title: (report.format_value(row.value, row.measure.unit), row.bound, row.is_met) for row in rows
    }
    assert {
        "distributions": ("21", "≤ 20", False),
        "installed": ("20.0 MB", "", None),
        "cold start, refused: answer after ready (wall)": ("200 ms", "≤ 150 ms", False),
        "cold start, refused: the same, 9 of 10": ("350 ms", "≤ 300 ms", False),
        "cold start, refused: CPU per second of waiting": ("8.00 ms", "≤ 10.0 ms", True),
        "cold start, 503: gives up after (wall)": ("1.20 s", "≤ 1.50 s", True),
    } == cells


def test_a_fresh_process_has_separate_bounds() -> None:
    ready = {"case": "ready", "round": 1, "import": 0.1, "ready_cpu": 0.1, "ready_bytes": 50e6, "answer": 0.2}
    rows = report.rows([{**ready, "client": SDK, "ready": 0.1}, {**ready, "client": "openai_client", "ready": 0.4}])
    results = {(row.measure.title, row.client): row.is_met for row in rows if row.bound}
    assert {
        ("start to ready-to-use (wall)", SDK): True,
        ("start to ready-to-use (wall)", "openai_client"): True,
        ("most memory until ready (resident)", SDK): False,
    } == results


def test_every_bound_is_measured() -> None:
    assert {measure.case for measure in report.measures()} == set(NAMES)
    clients = {name for case in CASES.values() for name in (*case.less, *case.only)}
    assert clients <= set(CLIENTS)


def test_clients_of_a_case() -> None:
    parts = {
        name: [client.name for client in CLIENTS.values() if wire_of(case, client)] for name, case in CASES.items()
    }
    assert [HAND_WRITTEN, SDK] == parts["vllm-c1k"]
    assert "openai" == wire_of(CASES["vllm-c1k"], CLIENTS[HAND_WRITTEN])
    assert [HAND_WRITTEN, SDK, "ollama_client"] == parts["ollama-many"]
    assert "litellm_client" in parts["c1k"]


# --- a run --------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_small_run() -> None:
    run = Run({HAND_WRITTEN: HERE, SDK: HERE}, rounds=1, divide=50)
    results = run(CHEAP)
    assert [] == [sample for sample in results.samples if "error" in sample]
    rows = report.rows(results.samples)
    ratios = {row.measure.case: row.ratio for row in rows if row.client == SDK}
    assert set(CHEAP) == set(ratios)
    assert all(ratio is not None and ratio > 0 for ratio in ratios.values())
    assert {"aiohttp", "msgspec"} <= set(results.versions[HAND_WRITTEN])


@pytest.mark.full
def test_a_failing_client_is_a_row_and_the_run_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Case, "text", lambda _case, _count: "another text")
    results = Run({HAND_WRITTEN: HERE}, rounds=1, divide=100, report=lines.append)(["c1k", "ready"])
    (failed,) = [sample for sample in results.samples if "error" in sample]
    assert failed["error"].startswith("12 characters were sent, and 1000 read")
    assert [1] == [sample["round"] for sample in results.samples if sample["case"] == "ready"]
    assert any(line.startswith("handwritten fails c1k") for line in lines)


# --- the guard ----------------------------------------------------------------------------------------


def test_the_guard_names_exceeded_bounds() -> None:
    case = guard.CASES[0]
    assert [] == guard.Comparison(case, case.instructions, case.cpu).exceeded_bounds()
    (lines,) = guard.Comparison(case, case.instructions + 0.5, 0.1).exceeded_bounds()
    assert lines.startswith("completion of 1 KB: 1.90 times the instructions of the hand-written client; at most 1.4")
    assert 2 == len(guard.Comparison(case, 100.0, 100.0).exceeded_bounds())


def test_instructions_are_the_same_in_every_run() -> None:
    async def count(to: int) -> None:
        for _ in range(to):
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        _, first, second, more = (guard.instructions(functools.partial(count, to), loop) for to in (100, 100, 100, 200))
    assert first == second
    assert 1.8 < more / first < 2.0


def test_both_implementations_of_each_part_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROUNDS", 1)
    assert all(parts.ratio(*pair) > 0 for pair in parts.PAIRS.values())
    texts = [event.text for event in parts.decode_fast() if isinstance(event, TextDelta)]
    assert texts == [event.text for event in parts.decode_generally() if isinstance(event, TextDelta)] != []
