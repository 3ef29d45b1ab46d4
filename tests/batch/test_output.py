"""The output of a batch: its lines, its order, and the file that is written whole or not at all."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from ctxbackends import TokenLogprob, ToolCall, Usage
from ctxbackends.batch import BatchAnswer, BatchOutputError, BatchRow, check_output, write_output
from ctxbackends.batch._answers import to_entry
from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal import Entry, Journal
from ctxbackends.batch._journal_manifest import Manifest
from ctxbackends.batch._output import OutputCounts
from ctxbackends.errors import APIConnectionError, StructuredOutputError
from tests.batch.factories import Answers, chat, failure, key, vectors

MANIFEST = Manifest(fingerprint="f")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal(tmp_path / "journal", MANIFEST)
    yield opened
    opened.close()


async def append(journal: Journal, answers: Sequence[BatchAnswer]) -> list[BatchRow]:
    await journal.append([to_entry(key(answer.row), answer) for answer in answers])
    journal.refresh()
    return [answer.row for answer in answers]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- OpenAI's shape ---------------------------------------------------------------------------------------


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class StrictError(Strict):
    code: str
    message: str


class StrictResponse(Strict):
    status_code: int
    request_id: str
    body: dict[str, Any]


class StrictLine(Strict):
    """BatchRequestOutput of OpenAI's OpenAPI document, which rejects all that it does not list."""

    id: str
    custom_id: str
    response: StrictResponse | None
    error: StrictError | None


async def test_an_answer_in_openais_shape(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [chat("r1", text="Füße\n")])
    assert OutputCounts(1, 1, 0) == write_output(journal, rows, tmp_path / "out.jsonl", key=key)
    (line,) = lines(tmp_path / "out.jsonl")
    assert {
        "id": f"batch_req_{key(rows[0]).hex()}",
        "custom_id": "r1",
        "response": {
            "status_code": 200,
            "request_id": "req-1",
            "body": {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": "m-1",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "Füße\n", "refusal": None},
                        "logprobs": None,
                    }
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
                "backend": "local",
            },
        },
        "error": None,
    } == line
    assert b"F\xc3\xbc\xc3\x9fe" in (tmp_path / "out.jsonl").read_bytes()


async def test_the_vendors_types_read_all_lines(tmp_path: Path, journal: Journal) -> None:
    calls = (ToolCall("call_1", "find", '{"q": 1}'),)
    answers = [
        chat("text", logprobs=(TokenLogprob("B", -0.5, b"B"),)),
        chat("tools", text="", finish_reason="tool_calls", tool_calls=calls, reasoning="Hm."),
        vectors("numbers"),
        vectors("base64", encoding="base64"),
        failure("status"),
        failure("network", APIConnectionError("connection reset")),
    ]
    rows = await append(journal, answers)
    write_output(journal, rows, tmp_path / "out.jsonl", key=key)
    read = [StrictLine.model_validate_json(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [row.id for row in rows] == [line.custom_id for line in read]
    text, tools, numbers, packed, status, network = read
    bodies = [line.response.body for line in read if line.response is not None]
    assert "Because." == ChatCompletion.model_validate(bodies[0]).choices[0].message.content
    parsed = ChatCompletion.model_validate(bodies[1]).choices[0].message.tool_calls or []
    assert ["function"] == [call.type for call in parsed]
    assert [("find", '{"q": 1}')] == [(c.function.name, c.function.arguments) for c in parsed if c.type == "function"]
    assert [1.0, -0.5] == CreateEmbeddingResponse.model_validate(bodies[2]).data[0].embedding
    assert 8 == len(base64.b64decode(bodies[3]["data"][0]["embedding"]))
    assert [None] * 4 == [line.error for line in (text, tools, numbers, packed)]
    error = {"message": 'HTTP 400: {"error": "no"}', "type": "bad_request", "param": None, "code": "bad_request"}
    assert {"error": error, "backend": "local"} == bodies[4]
    assert status.error == StrictError(code="BadRequestError", message='HTTP 400: {"error": "no"}')
    assert status.response is not None
    assert (400, "req-2") == (status.response.status_code, status.response.request_id)
    assert (None, StrictError(code="APIConnectionError", message="connection reset")) == (
        network.response,
        network.error,
    )


async def test_a_rejected_answer_is_with_its_error_and_is_no_response(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [failure("r1", StructuredOutputError("not JSON", text="Rex is 3."))])
    write_output(journal, rows, tmp_path / "out.jsonl", key=key)
    (line,) = lines(tmp_path / "out.jsonl")
    assert line["response"] is None
    assert {"code": "StructuredOutputError", "message": "not JSON", "text": "Rex is 3."} == line["error"]


# --- the simple shape -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (chat("r1"), {"text": "Because.", "finish_reason": "stop"}),
        (chat("r1", text="", refusal="I cannot."), {"text": "", "refusal": "I cannot.", "finish_reason": "stop"}),
        (
            chat(
                "r1",
                text="",
                finish_reason="tool_calls",
                reasoning="Hm.",
                tool_calls=(ToolCall("call_1", "find", '{"q": "Füße"}'),),
                usage=Usage(7, 2, cached_input_tokens=3, cache_write_tokens=1, reasoning_tokens=2),
            ),
            {
                "text": "",
                "reasoning": "Hm.",
                "tool_calls": [{"id": "call_1", "name": "find", "arguments": '{"q": "Füße"}'}],
                "finish_reason": "tool_calls",
                "usage": {
                    "input_tokens": 7,
                    "output_tokens": 2,
                    "cached_input_tokens": 3,
                    "cache_write_tokens": 1,
                    "reasoning_tokens": 2,
                },
            },
        ),
        (
            chat("r1", logprobs=(TokenLogprob("B", -0.5, b"B"),)),
            {
                "text": "Because.",
                "finish_reason": "stop",
                "logprobs": {
                    "content": [{"token": "B", "logprob": -0.5, "bytes": [66], "top_logprobs": []}],
                    "refusal": None,
                },
            },
        ),
        (chat("r1", value={"a": [10**30]}), {"value": {"a": [10**30]}, "finish_reason": "stop"}),
        (chat("r1", value=None), {"value": None, "finish_reason": "stop"}),
    ],
    ids=["text", "refusal", "tools", "logprobs", "value", "null"],
)
async def test_a_chat_in_the_simple_shape(
    tmp_path: Path, journal: Journal, answer: BatchAnswer, expected: dict[str, Any]
) -> None:
    write_output(journal, await append(journal, [answer]), tmp_path / "out.jsonl", key=key, format="simple")
    common = {
        "custom_id": "r1",
        "model": "m-1",
        "backend": "local",
        "usage": {"input_tokens": 7, "output_tokens": 2},
    }
    assert [common | expected] == lines(tmp_path / "out.jsonl")


async def test_vectors_and_errors_in_the_simple_shape(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [vectors("v"), failure("e"), failure("n", APIConnectionError("refused"))])
    write_output(journal, rows, tmp_path / "out.jsonl", key=key, format="simple")
    error = {
        "type": "BadRequestError",
        "message": 'HTTP 400: {"error": "no"}',
        "status_code": 400,
        "code": "bad_request",
        "request_id": "req-2",
    }
    assert [
        {
            "custom_id": "v",
            "vectors": [[1.0, -0.5], [0.25, 0.0]],
            "model": "e",
            "backend": "local",
            "usage": {"input_tokens": 4, "output_tokens": 0},
        },
        {"custom_id": "e", "error": error, "backend": "local"},
        {"custom_id": "n", "error": {"type": "APIConnectionError", "message": "refused"}, "backend": "local"},
    ] == lines(tmp_path / "out.jsonl")


async def test_usage_that_the_server_does_not_report_is_left_out(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [chat("r1", usage=None, served_model=None)])
    write_output(journal, rows, tmp_path / "out.jsonl", key=key, format="simple")
    (line,) = lines(tmp_path / "out.jsonl")
    assert ("usage" in line, line["model"]) == (False, "m")


# --- order and files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["openai", "simple"])
async def test_lines_are_in_the_order_of_the_input_with_failed_rows_between(
    tmp_path: Path, journal: Journal, form: Any
) -> None:
    answers = [failure(f"r{one}") if one % 5 == 2 else chat(f"r{one}") for one in range(20)]
    await append(journal, answers[::-1])
    rows = [answer.row for answer in answers]
    assert OutputCounts(20, 16, 4) == write_output(journal, rows, tmp_path / "out", key=key, format=form)
    assert [f"r{one}" for one in range(20)] == [line["custom_id"] for line in lines(tmp_path / "out")]


@pytest.mark.parametrize("form", ["openai", "simple"])
async def test_failed_rows_go_to_their_own_file(tmp_path: Path, journal: Journal, form: Any) -> None:
    answers = [failure(f"r{one}") if one % 5 == 2 else chat(f"r{one}") for one in range(20)]
    rows = await append(journal, answers)
    out, errors = tmp_path / "out", tmp_path / "errors"
    assert OutputCounts(20, 16, 4) == write_output(journal, rows, out, key=key, format=form, errors=errors)
    assert ["r2", "r7", "r12", "r17"] == [line["custom_id"] for line in lines(errors)]
    assert [f"r{one}" for one in range(20) if one % 5 != 2] == [line["custom_id"] for line in lines(out)]


async def test_without_failed_rows_their_file_is_empty_and_no_old_one_stays(tmp_path: Path, journal: Journal) -> None:
    errors = tmp_path / "errors"
    errors.write_text("old\n")
    write_output(journal, await append(journal, [chat("r1")]), tmp_path / "out", key=key, errors=errors)
    assert b"" == errors.read_bytes()


async def test_an_answer_after_an_error_is_written(tmp_path: Path, journal: Journal) -> None:
    await append(journal, [failure("r1")])
    rows = await append(journal, [chat("r1")])
    assert OutputCounts(1, 1, 0) == write_output(journal, rows, tmp_path / "out", key=key)


async def test_the_same_answers_give_the_same_bytes(tmp_path: Path, journal: Journal) -> None:
    answers = [chat("a", value={"x": 1.50}), vectors("b"), failure("c"), chat("d", text="ü")]
    rows = await append(journal, answers)
    other = Journal(tmp_path / "other", MANIFEST)
    for answer in reversed(answers):
        await append(other, [answer])
    for form in ("openai", "simple"):
        write_output(journal, rows, tmp_path / "one", key=key, format=form)
        write_output(other, rows, tmp_path / "two", key=key, format=form)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    other.close()


async def test_no_row_gives_an_empty_file(tmp_path: Path, journal: Journal) -> None:
    assert OutputCounts(0, 0, 0) == write_output(journal, [], tmp_path / "out", key=key)
    assert b"" == (tmp_path / "out").read_bytes()


@POSIX
async def test_modes_and_links_stay(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [chat("r1")])
    new, private, target, link = (tmp_path / name for name in ("new", "private", "target", "link"))
    private.touch(mode=0o600)
    target.write_text("old")
    link.symlink_to(target)
    for path in (new, private, link):
        write_output(journal, rows, path, key=key)
    umask = os.umask(0)
    os.umask(umask)
    assert 0o666 & ~umask == stat.S_IMODE(new.stat().st_mode)
    assert 0o600 == stat.S_IMODE(private.stat().st_mode)
    assert (True, new.read_bytes()) == (link.is_symlink(), target.read_bytes())


@POSIX
async def test_a_pipe_gets_the_lines(tmp_path: Path, journal: Journal) -> None:
    if sys.platform == "win32":
        raise NotImplementedError("skipped there")
    rows = await append(journal, [chat("r1"), chat("r2")])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_output(journal, rows, pipe, key=key)
    reader.join()
    write_output(journal, rows, tmp_path / "out", key=key)
    assert [(tmp_path / "out").read_bytes()] == received
    assert stat.S_ISFIFO(pipe.stat().st_mode)


STREAM = """
import sys
from pathlib import Path
from ctxbackends.batch import write_output
from tests.batch.factories import Answers, key
print("first", flush=True)
answers = Answers(1)
write_output(answers, answers.rows(), Path(sys.argv[1]), key=key, format="simple")
print("last")
"""


@POSIX
@pytest.mark.parametrize("is_file", [False, True], ids=["pipe", "file"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_standard_output(tmp_path: Path, name: str, is_file: bool) -> None:
    command = [sys.executable, "-c", STREAM, name]
    if is_file:
        with open(tmp_path / "out", "wb") as out:
            subprocess.run(command, env=ENVIRONMENT, stdout=out, check=True)
        written = (tmp_path / "out").read_bytes()
    else:
        written = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout
    first, line, last = written.splitlines()
    assert (b"first", "r1", b"last") == (first, json.loads(line)["custom_id"], last)


# --- what cannot be written -------------------------------------------------------------------------------


def remaining(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "journal")


async def test_a_row_that_the_journal_does_not_know(tmp_path: Path, journal: Journal) -> None:
    rows = await append(journal, [chat("r1"), failure("r2")])
    (tmp_path / "out").write_text("old")
    rows.append(BatchRow(id="r3", prompt="changed", line=3))
    with pytest.raises(BatchOutputError, match=r"^row without an answer: r3 \(line 3\); .*run it again$"):
        write_output(journal, rows, tmp_path / "out", key=key, errors=tmp_path / "errors")
    assert ("old", ["out"]) == ((tmp_path / "out").read_text(), remaining(tmp_path))


async def test_an_error_of_the_journal_or_of_the_rows_stays_itself(tmp_path: Path) -> None:
    class Damaged:
        def get(self, key: bytes) -> Entry:
            raise BatchJournalError(f"journal is damaged: {key!r}")

    def unreadable() -> Iterator[BatchRow]:
        raise FileNotFoundError("in.jsonl")
        yield

    (tmp_path / "out").write_text("old")
    with pytest.raises(BatchJournalError, match=r"^journal is damaged"):
        write_output(Damaged(), [BatchRow(id="r", prompt="?")], tmp_path / "out", key=key)
    with pytest.raises(FileNotFoundError, match=r"^in.jsonl$"):
        write_output(Damaged(), unreadable(), tmp_path / "out", key=key)
    assert ("old", ["out"]) == ((tmp_path / "out").read_text(), remaining(tmp_path))


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.touch()
    for path, arguments, problem in (
        (tmp_path / "no" / "out", {}, f"no directory {tmp_path / 'no'}; create it"),
        (tmp_path, {}, "it is a directory; name a file"),
        (source / "out", {}, f"no directory {source}; create it"),
        (source, {"source": source}, "the output is the input"),
        (tmp_path / "x" / ".." / "in.jsonl", {"source": source}, "the output is the input"),
        (tmp_path / "out", {"errors": tmp_path / "out"}, "are one file"),
        (tmp_path / "out", {"errors": tmp_path / "no" / "errors"}, "no directory"),
        (tmp_path / "out", {"errors": source, "source": source}, "the output is the input"),
        (tmp_path / "out", {"format": "simpel"}, "unknown format: simpel; did you mean simple?"),
    ):
        with pytest.raises(BatchOutputError) as raised:
            check_output(path, **arguments)
        assert problem in str(raised.value)
    check_output(tmp_path / "out", errors=tmp_path / "errors", source=source)
    assert ["in.jsonl"] == remaining(tmp_path)


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BatchOutputError, match=r"is not writable; name another file$"):
        check_output(tmp_path / "out")
    tmp_path.chmod(0o700)


FULL = """
import resource, sys
from pathlib import Path
from ctxbackends.batch import BatchOutputError, write_output
from tests.batch.factories import Answers, key
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
answers = Answers(int(sys.argv[1]))
try:
    write_output(answers, answers.rows(), Path("out"), key=key, format=sys.argv[2], errors=Path("errors"))
except BatchOutputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)  # for coverage, which writes at the end
"""


@POSIX
@pytest.mark.parametrize("form", ["openai", "simple", "parquet"])
@pytest.mark.parametrize("count", [300, 8_000], ids=["at the end", "in the middle"])
def test_a_disk_that_is_full_changes_nothing(tmp_path: Path, form: str, count: int) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / "out").write_text("old")
    (tmp_path / "errors").write_text("old")
    command = [sys.executable, "-c", FULL, str(count), form]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("cannot write the output: out: File too large; the answers are in the journal")
    assert "" == result.stderr
    assert ["errors", "out"] == remaining(tmp_path)
    assert ("old", "old") == ((tmp_path / "out").read_text(), (tmp_path / "errors").read_text())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_a_device_that_is_full(journal: Journal) -> None:
    rows = await append(journal, [chat("r1")])
    with pytest.raises(BatchOutputError, match=r"^cannot write the output: /dev/full: No space left on device; "):
        write_output(journal, rows, Path("/dev/full"), key=key)


# --- size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["openai", "simple", "parquet"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, form: Any) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    peaks = []
    for count in (2_000, 2_000, 8_000):  # the first one imports
        answers = Answers(count)
        tracemalloc.start()
        counts = write_output(answers, answers.rows(), tmp_path / "out", key=key, format=form)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert OutputCounts(count, count, 0) == counts
    assert peaks[2] < 1.2 * peaks[1]
