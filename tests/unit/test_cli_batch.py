"""The command batch: whole runs, inputs, outputs, exit codes, and one clear line for each mistake."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.batch_server import MODEL, BatchServer, serve_batches
from tests.unit.test_cli import Result, _alone, ctx  # noqa: F401  # a fixture

BAD_LINES = (
    b'{"custom_id": "a", "prompt": "1"}\n{"custom_id": "a", "prompt": "2"}\nnope\n{"custom_id": "b", "prmpt": "3"}\n'
)


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def read(name: str) -> str:
    return Path(name).read_text()


def exists(name: str) -> bool:
    return Path(name).exists()


def mode(name: str) -> int:
    return Path(name).stat().st_mode & 0o777


def write_rows(path: Path, count: int, *, prefix: str = "r") -> None:
    rows = [{"custom_id": f"{prefix}{at}", "prompt": f"question {at}"} for at in range(count)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_texts(path: Path) -> dict[str, str]:
    """The answers of OpenAI's output by ID."""
    return {
        row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"]
        for row in read_rows(path)
        if row["response"] is not None
    }


async def batch(server: BatchServer | None, *arguments: str, stdin: bytes = b"", tty: str = "") -> Result:
    options = () if server is None else ("--endpoint", server.url, "-m", MODEL)
    return await asyncio.to_thread(ctx, "batch", *arguments, *options, stdin=stdin, tty=tty)


# --- whole runs -----------------------------------------------------------------------------------------


async def test_a_whole_batch(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 50)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl")
    assert (0, "") == (result.code, result.out)
    assert {f"r{at}": f"answer to question {at}" for at in range(50)} == read_texts(Path("out.jsonl"))
    assert [f"r{at}" for at in range(50)] == [row["custom_id"] for row in read_rows(Path("out.jsonl"))]
    assert {f"question {at}": 1 for at in range(50)} == server.counts
    assert ["in.jsonl", "out.jsonl"] == sorted(os.listdir())
    assert "50 rows: 50 answered\n" in result.err
    assert "; 150 tokens in, 100 out\n" in result.err
    assert result.err.endswith("answers in out.jsonl\n")


async def test_requests_are_in_one_piece_unless_the_file_says_otherwise(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 1)
    backend = f"backends:\n  - name: llamacpp\n    endpoint: {server.url}\n    default_model: {MODEL}\n"
    write(".ctxrc", backend)
    assert 0 == (await batch(None, "in.jsonl", "-o", "out.jsonl")).code
    write(".ctxrc", f"{backend}    complete_streams: true\n")
    await batch(None, "in.jsonl", "-o", "streamed.jsonl")
    assert [False, True] == [bool(body.get("stream")) for body in server.bodies[:2]]


async def test_the_options_reach_the_requests(server: BatchServer) -> None:
    write(
        "in.jsonl",
        '{"custom_id": "a", "prompt": "1"}\n'
        '{"custom_id": "b", "messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "2"}], '
        '"temperature": 0.5}\n',
    )
    options = ("--system", "Be brief.", "--option", "temperature=0", "--option", "max_tokens=7")
    await batch(server, "in.jsonl", "-o", "out.jsonl", *options)
    first, second = sorted(server.bodies, key=lambda body: body["messages"][-1]["content"])
    assert ("Be brief.", 0, 7, MODEL) == (
        first["messages"][0]["content"],
        first["temperature"],
        first["max_tokens"],
        first["model"],
    )
    assert ("Own.", 0.5, 7) == (second["messages"][0]["content"], second["temperature"], second["max_tokens"])


async def test_rows_on_standard_input(server: BatchServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = await batch(server, "-", "-o", "out.jsonl", stdin=b'{"custom_id": "a", "prompt": "1"}\n')
    assert (0, {"a": "answer to 1"}) == (result.code, read_texts(Path("out.jsonl")))
    assert ["out.jsonl"] == os.listdir()


@pytest.mark.posix
async def test_rows_in_a_pipe(server: BatchServer) -> None:
    if sys.platform == "win32":
        raise NotImplementedError("skipped there")
    os.mkfifo("rows")
    writing = asyncio.create_task(asyncio.to_thread(write, "rows", '{"custom_id": "a", "prompt": "1"}\n'))
    result = await batch(server, "rows", "-o", "out.jsonl")
    await writing
    assert (0, {"a": "answer to 1"}) == (result.code, read_texts(Path("out.jsonl")))


async def test_problems_of_standard_input(server: BatchServer) -> None:
    result = await batch(server, "-", "-o", "out.jsonl", stdin=BAD_LINES)
    assert (2, []) == (result.code, server.prompts)
    assert "standard input:3: not JSON" in result.err


async def test_a_csv_file(server: BatchServer) -> None:
    write("in.csv", 'name,text\nx,"a, b"\ny,{c}\n')
    result = await batch(server, "in.csv", "-o", "out.jsonl", "--prompt", "{{Sum up}} {text}", "--id-column", "name")
    assert 0 == result.code
    assert {"x": "answer to {Sum up} a, b", "y": "answer to {Sum up} {c}"} == read_texts(Path("out.jsonl"))


async def test_csv_on_standard_input(server: BatchServer) -> None:
    await batch(server, "-", "-o", "out.jsonl", "--prompt", "Sum up: {text}", stdin=b"id,text\nx,one\n")
    assert {"x": "answer to Sum up: one"} == read_texts(Path("out.jsonl"))


async def test_embeddings(server: BatchServer) -> None:
    write("in.csv", "id,text\nx,one\ny,three\n")
    result = await batch(server, "in.csv", "-o", "out.jsonl", "--prompt", "{text}", "--embed", "--format", "simple")
    assert 0 == result.code
    assert ["one", "three"] == sorted(server.prompts)
    assert "6 tokens in, 0 out" in result.err


async def test_a_schema(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    server.answer = lambda prompt: '{"label": "good"}' if prompt == "question 0" else '{"label": 7}'
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--errors", "errors.jsonl", "--schema", "label,")
    assert 1 == result.code
    assert ["r0"] == [row["custom_id"] for row in read_rows(Path("out.jsonl"))]
    assert ["r1"] == [row["custom_id"] for row in read_rows(Path("errors.jsonl"))]
    assert "label" in json.dumps(server.bodies[0]["response_format"])


async def test_several_servers(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 40)
    async with serve_batches() as other:
        arguments = ("in.jsonl", "-o", "out.jsonl", "--endpoint", other.url, "--max-concurrency", "2")
        server.delay = other.delay = 0.005
        result = await batch(server, *arguments)
    assert 0 == result.code
    assert 40 == len(server.prompts) + len(other.prompts)
    assert (2, 2) == (server.max_in_flight, other.max_in_flight)
    name, other_name = (one.url.removeprefix("http://") for one in (server, other))
    assert f"{name} {len(server.prompts)}" in result.err
    assert f"{other_name} {len(other.prompts)}" in result.err
    assert {name, other_name} == {row["response"]["body"]["backend"] for row in read_rows(Path("out.jsonl"))}


async def test_several_backends_of_the_file(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 20)
    async with serve_batches() as other:
        entry = "  - name: {}\n    type: vllm\n    default_model: tiny\n    endpoint: {}\n"
        entries = entry.format("one", server.url) + entry.format("two", other.url)
        write(".ctxrc", f"backends:\n{entries}")
        refusal = await batch(None, "in.jsonl", "-o", "out.jsonl")
        result = await batch(None, "in.jsonl", "-o", "out.jsonl", "-b", "one", "-b", "two")
    assert 1 == refusal.code
    assert "several backends configured: one, two; choose one with --backend" in refusal.err
    assert 0 == result.code
    assert {"one", "two"} == {row["response"]["body"]["backend"] for row in read_rows(Path("out.jsonl"))}


@pytest.mark.filterwarnings("ignore::ctxbackends.errors.ModelMismatchWarning")
async def test_servers_of_different_models(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 40)
    server.delay = 0.005
    async with serve_batches(model="other") as other:
        arguments = ("in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "--endpoint", other.url)
        result = await batch(None, *arguments, "-m", MODEL, "--max-concurrency", "1")
    assert (1, False) == (result.code, exists("out.jsonl"))
    assert "other" in result.err


# --- rows that fail -------------------------------------------------------------------------------------


async def test_failed_rows_are_in_the_errors_file(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 5)
    server.statuses = {"question 3": [(400, {})]}
    arguments = ("in.jsonl", "-o", "out.jsonl", "--errors", "errors.jsonl")
    result = await batch(server, *arguments)
    assert 1 == result.code
    assert ["r0", "r1", "r2", "r4"] == [row["custom_id"] for row in read_rows(Path("out.jsonl"))]
    [error] = read_rows(Path("errors.jsonl"))
    assert "r3" == error["custom_id"]
    assert "no answer to question 3" in json.dumps(error)
    assert "5 rows: 4 answered, 1 failed\n" in result.err
    assert "answers in out.jsonl, errors in errors.jsonl, journal in out.jsonl.journal\n" in result.err
    assert result.err.endswith("run the same command again to ask the failed rows again\n")

    server.prompts.clear()
    again = await batch(server, *arguments)
    assert (0, ["question 3"]) == (again.code, server.prompts)
    assert "5 rows: 5 answered, 4 of them in an earlier run\n" in again.err
    assert {f"r{at}": f"answer to question {at}" for at in range(5)} == read_texts(Path("out.jsonl"))
    assert [] == read_rows(Path("errors.jsonl"))
    assert ["errors.jsonl", "in.jsonl", "out.jsonl"] == sorted(os.listdir())


async def test_failed_rows_without_an_errors_file(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {"question 1": [(400, {})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl")
    assert 1 == result.code
    rows = read_rows(Path("out.jsonl"))
    assert ["r0", "r1", "r2"] == [row["custom_id"] for row in rows]
    assert "no answer to question 1" in json.dumps(rows[1]["error"])


async def test_a_row_is_asked_again_after_a_429(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {"question 1": [(429, {"Retry-After": "0"})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl")
    assert (0, 2) == (result.code, server.counts["question 1"])
    assert "3 rows: 3 answered, 1 asked more than once\n" in result.err


async def test_no_retries(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {"question 1": [(429, {"Retry-After": "0"})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--max-retries", "0")
    assert (1, 1) == (result.code, server.counts["question 1"])


async def test_a_wrong_key_ends_the_batch(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 10)
    server.statuses = {f"question {at}": [(401, {})] for at in range(5, 10)}
    arguments = ("in.jsonl", "-o", "out.jsonl", "--max-concurrency", "1")
    result = await batch(server, *arguments)
    assert (1, False) == (result.code, exists("out.jsonl"))
    assert "no API key was sent" in result.err
    assert result.err.endswith("  5 of 10 rows answered; run the same command again to continue\n")
    server.statuses = {}
    server.prompts.clear()
    assert 0 == (await batch(server, *arguments)).code
    assert [f"question {at}" for at in range(5, 10)] == server.prompts


# --- resume ---------------------------------------------------------------------------------------------


async def test_a_third_run_sends_nothing(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    first = await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    assert first.err.endswith("answers in out.jsonl, journal in out.jsonl.journal\n")
    content = read("out.jsonl")
    server.prompts.clear()
    again = await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    assert (0, [], content) == (again.code, server.prompts, read("out.jsonl"))
    assert "3 rows: 3 answered, 3 of them in an earlier run\n" in again.err


async def test_changed_rows_are_asked_and_others_not(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 4)
    await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    lines = read("in.jsonl").splitlines()
    changed = [lines[3], lines[0].replace("question 0", "another question"), lines[2]]
    write("in.jsonl", "\n".join([*changed, '{"custom_id": "r9", "prompt": "question 9"}']))
    server.prompts.clear()
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    assert (0, ["another question", "question 9"]) == (result.code, sorted(server.prompts))
    assert {
        "r3": "answer to question 3",
        "r0": "answer to another question",
        "r2": "answer to question 2",
        "r9": "answer to question 9",
    } == read_texts(Path("out.jsonl"))


async def test_fresh_asks_all_rows_again(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    server.answer = lambda prompt: f"new answer to {prompt}"
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--fresh")
    assert (0, 6) == (result.code, len(server.prompts))
    assert "new answer to question 0" == read_texts(Path("out.jsonl"))["r0"]
    assert ["in.jsonl", "out.jsonl"] == sorted(os.listdir())


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--option", "temperature=0.5"), "temperature"),
        (("--system", "Be brief."), "system message"),
        (("-m", "other"), "model"),
        (("--schema", "a,"), "schema"),
        (("--endpoint", "http://127.0.0.1:9"), "backends"),
    ],
    ids=str,
)
async def test_a_journal_of_another_run(server: BatchServer, options: Sequence[str], difference: str) -> None:
    write_rows(Path("in.jsonl"), 3)
    await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    content = read("out.jsonl")
    server.prompts.clear()
    arguments = ("--endpoint", server.url, "-m", MODEL, *options)
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", *arguments)
    assert (1, [], content) == (result.code, server.prompts, read("out.jsonl"))
    assert f"journal belongs to a batch with other {difference}: out.jsonl.journal; use the same" in result.err
    assert "--fresh" in result.err
    assert 1 == len(result.err.splitlines())


async def test_other_options_after_a_batch_without_answers(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    server.statuses = {f"question {at}": [(400, {})] for at in range(2)}
    assert 1 == (await batch(server, "in.jsonl", "-o", "out.jsonl")).code
    assert exists("out.jsonl.journal")
    assert 0 == (await batch(server, "in.jsonl", "-o", "out.jsonl", "--option", "temperature=0")).code
    assert ["in.jsonl", "out.jsonl"] == sorted(os.listdir())


async def test_a_journal_elsewhere(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--journal", "elsewhere", "--keep")
    assert 0 == result.code
    assert ["elsewhere", "in.jsonl", "out.jsonl"] == sorted(os.listdir())
    assert 0o700 == mode("elsewhere")


# --- before anything is sent ----------------------------------------------------------------------------


async def test_all_problems_of_the_input_at_once(server: BatchServer) -> None:
    write("in.jsonl", BAD_LINES)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl")
    assert (2, "", []) == (result.code, result.out, server.prompts)
    lines = result.err.splitlines()
    assert "ctxbackends: 3 problems in in.jsonl:" == lines[0]
    assert ["in.jsonl:2:", "in.jsonl:3:", "in.jsonl:4:"] == [line.partition(" ")[0] for line in lines[1:]]
    assert ["in.jsonl"] == os.listdir()


async def test_no_validation_begins_at_once(server: BatchServer) -> None:
    good = "".join(f'{{"custom_id": "r{at}", "prompt": "question {at}"}}\n' for at in range(3))
    write("in.jsonl", f"{good}nope\n")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--no-validate", "--max-concurrency", "1")
    assert 0 != result.code
    assert "in.jsonl:4: not JSON" in result.err
    write("in.jsonl", good)
    assert 0 == (await batch(server, "in.jsonl", "-o", "out.jsonl", "--no-validate", "--max-concurrency", "1")).code
    assert {f"question {at}": 1 for at in range(3)} == server.counts


async def test_a_dry_run_sends_and_writes_nothing() -> None:
    write_rows(Path("in.jsonl"), 1200)
    result = await batch(None, "in.jsonl", "--dry-run")
    assert (0, "1,200 rows, no problems\n", "") == (result.code, result.out, result.err)
    events = await batch(None, "in.jsonl", "--dry-run", "--json")
    assert {"event": "plan", "rows": 1200} == json.loads(events.out)
    write("in.jsonl", BAD_LINES)
    assert 2 == (await batch(None, "in.jsonl", "-o", "out.jsonl", "--dry-run")).code
    assert ["in.jsonl"] == os.listdir()


async def test_an_output_that_exists(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    write("out.jsonl", "mine")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl")
    assert (1, "mine", []) == (result.code, read("out.jsonl"), server.prompts)
    assert (
        "ctxbackends: out.jsonl exists; if this batch is complete, nothing is left to do; use --force to ask all rows "
        "again and replace it\n" == result.err
    )
    assert 0 == (await batch(server, "in.jsonl", "-o", "out.jsonl", "--force")).code
    assert {"r0", "r1"} == read_texts(Path("out.jsonl")).keys()


async def test_a_journal_is_only_for_the_files_that_were_written_from_it(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    arguments = ("in.jsonl", "-o", "out.jsonl", "--journal", "journal", "--keep")
    assert 0 == (await batch(server, *arguments)).code
    write("other", "mine")
    other = await batch(server, *arguments, "-o", "other")
    errors = await batch(server, *arguments, "--errors", "other")
    assert (1, 1, "mine") == (other.code, errors.code, read("other"))
    problem = "other exists, and was not written from this journal; use --force to replace it"
    assert [f"ctxbackends: {problem}\n"] * 2 == [other.err, errors.err]
    assert 0 == (await batch(server, *arguments, "--errors", "other", "--force")).code
    assert 0 == (await batch(server, *arguments, "--errors", "other")).code
    assert ({"r0", "r1"}, "") == ({*read_texts(Path("out.jsonl"))}, read("other"))


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("in.jsonl",), 2, "no output; add -o FILE"),
        (("in.jsonl", "-o", "nowhere/out"), 2, "cannot write the output: nowhere/out: no directory "),
        (("in.jsonl", "-o", "directory"), 2, "cannot write the output: directory: it is a directory; name a file"),
        (("in.jsonl", "-o", "/dev/stdout"), 2, "standard output cannot have a journal next to it; add"),
        (("in.jsonl", "-o", "-"), 2, "standard output cannot have a journal next to it; add --journal DIR"),
        (("in.jsonl", "-o", "-", "--errors", "-", "--journal", "j"), 2, "are both standard output; name a file"),
        (("in.jsonl", "-o", "-", "--json", "--journal", "j"), 2, "--json prints its events on standard output"),
        (("in.jsonl", "-o", "in.jsonl", "--force"), 2, "the output is the input: in.jsonl; name another file"),
        (("in.jsonl", "-o", "link", "--force"), 2, "the output is the input: link; name another file"),
        (("in.jsonl", "-o", "out", "--errors", "in.jsonl"), 2, "the output is the input: in.jsonl"),
        (("in.jsonl", "-o", "out", "--errors", "./out"), 2, "the output and the errors are one file: out; name two"),
        (("in.jsonl", "-o", "out", "--errors", "old"), 1, "old exists; if this batch is complete, nothing"),
        (("directory", "-o", "out"), 2, "directory: cannot be read: Is a directory"),
        (("nothere", "-o", "out"), 2, "nothere: cannot be read: No such file or directory"),
        (("in.jsonl", "-o", "out", "--option", "temperature=hot"), 2, "--option: temperature must be a number: 'hot'"),
        (("in.jsonl", "-o", "out", "--option", "timeout=3s"), 2, "unknown option: timeout; set it for the backend"),
        (("in.jsonl", "-o", "out", "--option", "model=x"), 2, "unknown option: model; use --model"),
        (("in.jsonl", "-o", "out", "--option", "dimensions=3"), 2, "it is for vectors; add --embed"),
        (
            ("in.jsonl", "-o", "out", "--embed", "--schema", "a,"),
            2,
            "--embed cannot be combined with --system or",
        ),
        (("in.jsonl", "-o", "out", "--schema", "{"), 2, "--schema: "),
        (("in.jsonl", "-o", "out", "--schema", "nothere"), 2, "--schema: nothere: no such file"),
        (("in.jsonl", "-o", "out", "--max-tokens", "8"), 2, "'--max-tokens'; use --option max_tokens=8"),
        (("in.jsonl", "-o", "out", "--temperature=0"), 2, "'--temperature'; use --option temperature=0"),
        (("in.jsonl", "-o", "out", "--top-p"), 2, "'--top-p'; use --option top_p=VALUE"),
        (("in.jsonl", "-o", "out", "--retries", "3"), 2, "No such option '--retries'"),
        (("in.jsonl", "-o", "out", "--rpm", "0"), 2, "0 is out of range; it must be 1 or more"),
        (
            ("in.jsonl", "-o", "out", "--prompt", "{a}"),
            2,
            "--prompt is for .csv and .tsv files; write the prompts into the lines",
        ),
        (("in.jsonl", "-o", "out", "--id-column", "a"), 2, "--id-column is for .csv and .tsv files; write a custom_id"),
        (("in.csv", "-o", "out"), 2, "a table requires --prompt with the names of its columns: 'Classify: {text}'"),
        (("in.csv", "-o", "out", "--prompt", "{nope}"), 2, "unknown column: 'nope'; use one of id, text"),
        (
            ("in.csv", "-o", "out", "--prompt", "{text}", "--id-column", "nope"),
            2,
            "in.csv:1: unknown column: 'nope'; use",
        ),
        (("-", "-o", "out"), 2, "no rows on standard input; pass a file or a pipe"),
        (("in.jsonl", "-o", "out", "-b", "vllm", "-b", "vllm"), 2, "--backend names a backend twice: vllm"),
        (("in.jsonl", "-o", "out", "-b", "vllm", "-b", "openai"), 2, "--backend is the type of all servers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_wrong_arguments(
    server: BatchServer, tmp_path: Path, arguments: Sequence[str], code: int, problem: str
) -> None:
    write_rows(Path("in.jsonl"), 2)
    write("in.csv", "id,text\n1,one\n")
    os.mkdir("directory")
    os.symlink("in.jsonl", "link")
    write("old", "")
    before = sorted(os.listdir())
    result = await batch(server, *arguments, tty="stdin")
    assert (code, "", []) == (result.code, result.out, server.prompts)
    assert problem in result.err
    assert before == sorted(os.listdir())


async def test_parquet_without_pyarrow(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.batch._output.find_spec", lambda _: None)
    write_rows(Path("in.jsonl"), 2)
    result = await batch(server, "in.jsonl", "-o", "out.parquet", "--format", "parquet")
    assert (2, []) == (result.code, server.prompts)
    assert "cannot write parquet without pyarrow; run pip install" in result.err


async def test_a_server_that_is_not_there(refusing_url: str) -> None:
    write_rows(Path("in.jsonl"), 2)
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", "--endpoint", refusing_url, "-m", MODEL)
    assert (1, False) == (result.code, exists("out.jsonl"))
    assert f'backend "openai-compatible" unreachable at {refusing_url}: connection refused' in result.err


# --- privacy --------------------------------------------------------------------------------------------


async def test_a_private_input_is_sent_only_to_private_endpoints(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    entry = "  - name: {}\n    type: vllm\n    default_model: tiny\n    endpoint: {}\n"
    entries = entry.format("here", server.url) + entry.format("there", "https://192.0.2.7")
    write(".ctxrc", f'backends:\n{entries}privacy:\n  redact: ["in.*"]\n')
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", "-b", "here", "-b", "there")
    assert (1, []) == (result.code, server.prompts)
    assert "in.jsonl: not sent to https://192.0.2.7: matches privacy.redact of .ctxrc; choose a backend" in result.err
    assert 0 == (await batch(None, "in.jsonl", "-o", "out.jsonl", "-b", "here")).code


async def test_the_airgap(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    write(".ctxrc", "airgap: true\n")
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", "--endpoint", "https://192.0.2.7", "-m", MODEL)
    assert (1, False) == (result.code, exists("out.jsonl"))
    assert "airgap" in result.err


# --- events ---------------------------------------------------------------------------------------------


async def test_events(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {"question 1": [(400, {})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert (1, "") == (result.code, result.err)
    assert {
        "event": "start",
        "input": "in.jsonl",
        "output": "out.jsonl",
        "journal": "out.jsonl.journal",
        "backends": ["openai-compatible"],
    } == events[0]
    [failure] = [event for event in events if event["event"] == "row_error"]
    assert ("r1", 2, 400) == (failure["custom_id"], failure["line"], failure["error"]["status_code"])
    report = events[-1]["report"]
    assert ("done", 3, 2, 1, 0) == (
        events[-1]["event"],
        report["rows"],
        report["answered"],
        report["failed"],
        report["resumed"],
    )
    assert ("out.jsonl", None, "out.jsonl.journal") == tuple(
        events[-1][name] for name in ("output", "errors", "journal")
    )


async def test_quiet(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "-q")
    assert (0, "", "") == (result.code, result.out, result.err)


# --- the report -----------------------------------------------------------------------------------------


async def test_the_report_has_the_most_frequent_errors(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 7)
    statuses = {0: 400, 1: 422, 2: 422, 3: 422, 4: 413, 5: 413, 6: 415}
    server.statuses = {f"question {at}": [(status, {})] for at, status in statuses.items()}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--max-retries", "0")
    assert 1 == result.code
    lines = [line for line in result.err.splitlines() if " failed: " in line]
    assert ["3 failed: ", "2 failed: ", "1 failed: "] == [line[:10] for line in lines]
    assert ", such as: " in lines[0]
    assert "no answer to question 1" in lines[0]
    assert "answers" not in result.err.splitlines()[-2]
    assert "errors in out.jsonl, journal in out.jsonl.journal" == result.err.splitlines()[-2]


async def test_an_errors_file_without_errors_is_not_named(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--errors", "err.jsonl")
    assert result.err.endswith("\nanswers in out.jsonl\n")
    assert "" == read("err.jsonl")


async def test_the_output_on_standard_output(server: BatchServer, capfd: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("in.jsonl"), 3)
    result = await batch(server, "in.jsonl", "-o", "-", "--journal", "journal", "--format", "simple")
    assert 0 == result.code
    assert [f"answer to question {at}" for at in range(3)] == [
        json.loads(line)["text"] for line in capfd.readouterr().out.splitlines()
    ]
    assert " in " not in result.err.splitlines()[-1].replace("tokens in", "")
    assert ["in.jsonl"] == os.listdir()


async def test_the_errors_on_standard_output(server: BatchServer, capfd: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {"question 1": [(400, {})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--errors", "-")
    assert 1 == result.code
    assert ["r1"] == [json.loads(line)["custom_id"] for line in capfd.readouterr().out.splitlines()]
    assert "answers in out.jsonl, journal in out.jsonl.journal\n" in result.err


async def test_truncated_answers_are_counted(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.finish = "length"
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--keep")
    assert (0, "3 rows: 3 answered, 3 cut off at max_tokens") == (result.code, result.err.splitlines()[0])
    server.finish = "stop"
    write_rows(Path("in.jsonl"), 4)
    events = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json")
    report = json.loads(events.out.splitlines()[-1])["report"]
    assert (4, 3, 3) == (report["answered"], report["resumed"], report["truncated"])


async def test_without_a_backend() -> None:
    write_rows(Path("in.jsonl"), 1)
    result = await batch(None, "in.jsonl", "-o", "out.jsonl")
    first, second = result.err.splitlines()
    assert 1 == result.code
    assert first.startswith("ctxbackends: no backend configured; run ctx setup --backend <name>")
    assert "  or use --endpoint URL, or --model-path smollm2" == second
