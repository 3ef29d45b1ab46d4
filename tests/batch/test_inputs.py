"""Files of rows: JSON Lines and tables, read as a stream, and the validation of all rows."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.batch import BatchInput, BatchInputError, BatchRow, Problem
from ctxbackends.batch import _inputs as inputs
from ctxbackends.batch._errors import format_problem
from ctxbackends.batch._inputs import validate
from ctxbackends.errors import UnsupportedOptionError

CHAT_URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def write(path: Path, *lines: object, end: bytes = b"\n", head: bytes = b"") -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(head + b"".join(text + end for text in texts))
    return path


def row(row_id: str, line: int, prompt: str = "Hello") -> BatchRow:
    return BatchRow(id=row_id, prompt=prompt, line=line)


def line(row_id: str, prompt: str = "Hello") -> dict[str, str]:
    return {"custom_id": row_id, "prompt": prompt}


def problems_of(rows: BatchInput | Sequence[BatchRow]) -> list[tuple[int, str]]:
    _, problems = validate(rows.read() if isinstance(rows, BatchInput) else rows)
    return [(problem.line, problem.message) for problem in problems]


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(BatchInputError) as info:
        list(BatchInput(path, **options).read())
    return str(info.value)


# --- JSON Lines ---------------------------------------------------------------------------------------


def test_forms_of_lines_may_be_mixed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl",
        {"custom_id": "a", "method": "POST", "url": CHAT_URL, "body": {"messages": HELLO}},
        {"custom_id": "b", "params": {"messages": HELLO, "max_tokens": 5}},
        line("c"),
        {"custom_id": "d", "url": "/v1/embeddings", "body": {"input": "Hello"}},
    )
    expected = [
        BatchRow(id="a", prompt=HELLO, line=1),
        BatchRow(id="b", prompt=HELLO, options={"max_tokens": 5}, line=2),
        row("c", 3),
        BatchRow(id="d", prompt="Hello", operation="embed", line=4),
    ]
    assert expected == list(BatchInput(path))
    assert (4, []) == validate(BatchInput(path).read())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\n\n"])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark(tmp_path: Path, end: bytes, head: bytes) -> None:
    path = write(tmp_path / "in.jsonl", line("a"), line("b", "héllo\u2028\x85"), end=end, head=head)
    step = end.count(b"\n")
    assert [row("a", 1), row("b", 1 + step, "héllo\u2028\x85")] == list(BatchInput(path))


def test_last_line_needs_no_line_end_and_an_input_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(json.dumps(line("a")).encode())
    rows = BatchInput(str(path))
    assert [row("a", 1)] == list(rows) == list(rows)


def test_name_of_an_input_is_in_its_errors(tmp_path: Path) -> None:
    rows = BatchInput(write(tmp_path / "in.jsonl", b"nope"))
    rows.name = "standard input"
    with pytest.raises(BatchInputError, match=r"^standard input:1: not JSON: "):
        list(rows)


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_empty_file_has_no_rows(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    assert (0, []) == validate(BatchInput(path).read())


def test_all_problems_are_found_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl",
        line("a"),
        b'{"custom_id": "b", "prompt": "x"',
        line("a"),
        {"prompt": "x"},
        {**line("c"), "temprature": 1},
        b"",
        {"custom_id": "d", "method": "GET", "url": CHAT_URL, "body": {}},
        {"custom_id": "e", "messages": [{"role": "nobody", "content": "x"}]},
        {**line("f"), "tools": [{}]},
        b'{"custom_id": "g", "prompt": "\xff"}',
        line("c"),
        b"[" * 100_000,
        {**line("h"), "max_tokens": -1},
        line("ok"),
    )
    expected = [
        (2, "not JSON: Expecting ',' delimiter at column 33"),
        (3, "duplicate ID: 'a', as on line 1; use a different one for each row"),
        (4, 'missing custom_id; add "custom_id", a text that no other line has'),
        (5, ("unknown option: temprature; did you mean temperature? Otherwise, put it into extra_body if the server "
            "supports it")),
        (7, "method must be POST: 'GET'"),
        (8, "unsupported value: messages[0].role is 'nobody'; use one of system, developer, user, assistant, tool"),
        (9, "missing member: tools[0].name"),
        (10, "not UTF-8: byte 0xff at column 31; save the file as UTF-8"),
        (11, "duplicate ID: 'c', as on line 5; use a different one for each row"),
        (12, "not JSON: nested too deeply"),
        (13, "max_tokens must be at least 1: -1"),
    ]  # fmt: skip
    assert expected == problems_of(BatchInput(path))


def test_iteration_ends_at_the_first_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", line("a"), b"nope", b"nope")
    rows: list[BatchRow] = []
    with pytest.raises(BatchInputError) as info:
        rows.extend(BatchInput(path))
    assert f"{path}:2: not JSON: Expecting value at column 1" == str(info.value)
    assert (Problem(2, "not JSON: Expecting value at column 1"),) == info.value.problems


def test_problem_has_the_id_of_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {**line("a"), "x": 1}, {**line("b"), "seed": "x"}, b"{", {"custom_id": 1.5})
    _, problems = validate(BatchInput(path).read())
    assert ["a", "b", "", ""] == [problem.id for problem in problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"custom_id": "a"} x', "not JSON: Extra data at column 20"),
        (b'{"custom_id": NaN}', "not JSON: JSON is malformed"),
        (b'{"custom_id": 1e999}', "not JSON: Number out of range"),
        (b'{"custom_id": "\\ud800", "prompt": "x"}', "not JSON: "),
        (b"custom_id,prompt", "not JSON: Expecting value at column 1"),
        (b"'a'", "not JSON: Expecting value at column 1"),
    ],
)
def test_text_that_is_not_json(tmp_path: Path, text: bytes, message: str) -> None:
    path = write(tmp_path / "in.jsonl", line("a"), text)
    [(number, problem)] = problems_of(BatchInput(path))
    assert 2 == number
    assert problem.startswith(message)


@pytest.mark.parametrize("text", ["[\n{}\n]", '[{"custom_id": "a", "prompt": "x"}]', '{\n"custom_id": "a"\n}', "\n[\n"])
def test_json_that_is_not_json_lines_is_one_problem(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    [(number, problem)] = problems_of(BatchInput(path))
    assert (2 if text.startswith("\n") else 1) == number
    assert "on one line" in problem


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (b"\xfe\xff\x00{", "the file is UTF-16; save it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "the file is compressed with gzip; decompress it"),
        (b"PK\x03\x04\x14", "the file is a ZIP archive or a spreadsheet; save it as CSV or JSON Lines in UTF-8"),
        (b"PAR1\x15", "the file is Parquet; write it as JSON Lines"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(content)
    assert f"{path}: {message}" == error_of(path, **({"prompt": "{a}"} if suffix == ".csv" else {}))


def test_line_that_is_too_long_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_LINE", 60)
    path = write(tmp_path / "in.jsonl", line("a"), b"x" * 60, b"x" * 1000, line("b"), b"x" * 500)
    expected = [(number, "line too long: more than 60 bytes; split it") for number in (2, 3, 5)]
    assert expected == problems_of(BatchInput(path))
    assert [row("a", 1), row("b", 4)] == [one for one in BatchInput(path).read() if isinstance(one, BatchRow)]


def test_byte_order_mark_of_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_LINE", 60)
    path = write(tmp_path / "in.jsonl", b"x" * 58, line("b"), head=b"\xef\xbb\xbf")
    assert [(1, "line too long: more than 60 bytes; split it")] == problems_of(BatchInput(path))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert f"{tmp_path / 'in'}: cannot be read: No such file or directory" == error_of(tmp_path / "in")
    assert f"{tmp_path}: cannot be read: " in error_of(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="POSIX has pipes with a path")
def test_pipe_is_an_error_since_it_cannot_be_read_twice() -> None:
    reader, writer = os.pipe()
    try:
        path = Path(f"/dev/fd/{reader}")
        assert f"{path}: not a regular file, so it cannot be read twice; write it to a file" == error_of(path)
    finally:
        os.close(reader)
        os.close(writer)


def test_reading_stores_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"

    def measure(count: int) -> int:
        write(path, *(line(f"row-{number}", "x" * 1000) for number in range(count)))
        tracemalloc.start()
        try:
            assert (count, []) == validate(BatchInput(path).read())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = measure(100)
    assert measure(5_000) - small < 5_000 * 40  # 16 bytes for each row, and what lists reserve


# --- tables -------------------------------------------------------------------------------------------


def write_table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.csv", "id,text\na,one\nb,two\n"),
        ("in.csv", "\ufeffid,text\r\na,one\r\nb,two"),
        ("in.CSV", 'text,"id"\none,a\n"two",b\n'),
        ("in.csv", "custom_id,id,text\na,1,one\nb,1,two\n"),
        ("in.csv", "id;text\na;one\nb;two\n"),
        ("in.csv", "id\ttext\na\tone\nb\ttwo\n"),
        ("in.tsv", "id\ttext\na\tone\nb\ttwo\n"),
    ],
)
def test_table(tmp_path: Path, name: str, text: str) -> None:
    rows = BatchInput(write_table(tmp_path / name, text), prompt="Say {text}!")
    assert [row("a", 2, "Say one!"), row("b", 3, "Say two!")] == list(rows)


def test_rows_of_a_table_without_ids_have_their_number(tmp_path: Path) -> None:
    path = write_table(tmp_path / "in.csv", 'text,n\n"a\nb",1\n\nc,2\n')
    expected = [row("1", 2, "a\nb"), row("2", 5, "c")]
    assert expected == list(BatchInput(path, prompt="{text}"))


def test_id_column(tmp_path: Path) -> None:
    path = write_table(tmp_path / "in.csv", "id,key,text\n1,a,x\n1,b,y\n")
    assert [row("a", 2, "x"), row("b", 3, "y")] == list(BatchInput(path, prompt="{text}", id_column="key"))


def test_table_that_is_embedded(tmp_path: Path) -> None:
    path = write_table(tmp_path / "in.csv", "id,text\na,x\n")
    expected = [BatchRow(id="a", prompt="x", operation="embed", line=2)]
    assert expected == list(BatchInput(path, prompt="{text}", operation="embed"))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{a} and {a}", "1 and 1"),
        ('{{"x": {a}}}', '{"x": 1}'),
        ("{{a}} {a} {{{a}}}", "{a} 1 {1}"),
        ("{b c}{a:>3}{a.__class__}", "2 3 4"),
        ("{}{a}", "51"),
    ],
)
def test_prompt_of_a_table(tmp_path: Path, prompt: str, expected: str) -> None:
    path = write_table(tmp_path / "in.csv", "a,b c,a:>3,a.__class__,\n1,2, 3, 4,5\n")
    assert [row("1", 2, expected)] == list(BatchInput(path, prompt=prompt))


def test_value_of_a_table_is_not_a_template(tmp_path: Path) -> None:
    path = write_table(tmp_path / "in.csv", "a,b\n{b} {{ },x\n")
    assert [row("1", 2, "{b} {{ }")] == list(BatchInput(path, prompt="{a}"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n", {}, ": a table needs a prompt with the names of its columns in braces"),
        ("a,b\n", {"prompt": "Say it"}, ": no column in the prompt: 'Say it'; write the name of a column in braces"),
        ("a,b\n", {"prompt": "{a"}, ": single brace in the prompt: '{a'; write {{ or }} for a brace"),
        ("a,b\n", {"prompt": "{a}}"}, ": single brace in the prompt: '{a}}'; write {{ or }} for a brace"),
        ("a,b\n", {"prompt": '{"x": {a}}'}, ": single brace in the prompt: "),
        ("a,b\n", {"prompt": "{c}"}, ":1: unknown column: 'c'; use one of a, b"),
        ("text,b\n", {"prompt": "{txt}"}, ":1: unknown column: 'txt'; did you mean text?"),
        ("\n\ntext,b\n", {"prompt": "{txt}"}, ":3: unknown column: 'txt'; did you mean text?"),
        ("a,b\n", {"prompt": "{a!r}"}, ":1: unknown column: 'a!r'; "),
        ("a,b\n", {"prompt": "{}"}, ":1: unknown column: ''; "),
        ("a,b\n", {"prompt": "{a}", "id_column": "key"}, ":1: unknown column: 'key'; use one of a, b"),
        ("a,b,a\n", {"prompt": "{a}"}, ":1: duplicate column: 'a'; rename one"),
        ("", {"prompt": "{a}"}, ": the file is empty; write the names of the columns on the first line"),
        ("\n", {"prompt": "{a}"}, ": the file is empty; write the names of the columns on the first line"),
        (b"a,\xff\n1,2\n", {"prompt": "{a}"}, ":1: not UTF-8: byte 0xff at column 3; save the file as UTF-8"),
        ('a,"b"x\n1,2\n', {"prompt": "{a}"}, ":1: not CSV: "),
    ],
)
def test_table_that_does_not_fit(tmp_path: Path, text: str | bytes, options: dict[str, Any], message: str) -> None:
    path = write_table(tmp_path / "in.csv", text)
    assert error_of(path, **options).startswith(f"{path}{message}")


def test_prompt_and_id_column_are_only_for_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", line("a"))
    assert f"{path}: a prompt is only for a .csv or .tsv file; write it into each line" == error_of(path, prompt="{a}")
    assert f"{path}: id_column is only for a .csv or .tsv file; write it into each line" == error_of(
        path, id_column="a"
    )


def test_unknown_operation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown operation: 'rank'; use chat or embed"):
        BatchInput(tmp_path / "in.jsonl", operation="rank")  # type: ignore[arg-type]


def test_all_problems_of_a_table_are_found_with_their_lines(tmp_path: Path) -> None:
    text = b'id,text\na,1\nb\n"c\nc",\xff\n,4\na,5\nd,6,7\ne,"8"x\nf,9\ng,"open\n'
    path = write_table(tmp_path / "in.csv", text)
    expected = [
        (3, "1 column; write 2, as in the header"),
        (5, "not UTF-8: byte 0xff at column 4; save the file as UTF-8"),
        (6, "the column id is empty; write an ID that no other row has"),
        (7, "duplicate ID: 'a', as on line 2; use a different one for each row"),
        (8, "3 columns; write 2, as in the header"),
        (9, "not CSV: ',' expected after '\"'"),
        (11, "not CSV: unexpected end of data"),
    ]
    rows = BatchInput(path, prompt="{text}")
    assert expected == problems_of(rows)
    assert ["a", "a", "f"] == [one.id for one in rows.read() if isinstance(one, BatchRow)]


def test_cell_may_be_longer_than_the_default_limit_of_csv(tmp_path: Path) -> None:
    csv.field_size_limit(131_072)
    path = write_table(tmp_path / "in.csv", f"id,text\na,{'x' * 200_000}\n")
    assert [row("a", 2, "x" * 200_000)] == list(BatchInput(path, prompt="{text}"))


# --- validation ---------------------------------------------------------------------------------------


def test_rows_of_python_are_validated() -> None:
    rows = [
        BatchRow(id="a", prompt="x"),
        BatchRow(id="b", prompt="x", options={"temprature": 1}),
        BatchRow(id="a", prompt="y"),
        BatchRow(id=["c"], prompt="x"),  # type: ignore[arg-type]
        BatchRow(id="", prompt="x"),
    ]
    count, problems = validate(rows)
    assert 5 == count
    assert [
        Problem(0, "unknown option: temprature; did you mean temperature?", "b"),
        Problem(0, "duplicate ID: 'a'; use a different one for each row", "a"),
        Problem(0, "id must be a text that is not empty: ['c']", "['c']"),
        Problem(0, "id must be a text that is not empty: ''", ""),
    ] == problems
    assert str(BatchInputError("", problems[:2])) == (
        "row 'b': unknown option: temprature; did you mean temperature?\n"
        "row 'a': duplicate ID: 'a'; use a different one for each row"
    )


def test_values_that_are_not_rows_are_problems() -> None:
    rows: list[Any] = [BatchRow(id="a", prompt="x"), {"custom_id": "b", "prompt": "x"}]
    assert [(0, "rows[1] is not a BatchRow: dict")] == problems_of(rows)


def test_any_iterable_is_validated() -> None:
    def generate() -> Iterator[BatchRow]:
        yield from (BatchRow(id=str(number), prompt="x") for number in range(10))

    assert (10, []) == validate(generate())


def test_check_of_the_caller_finds_more() -> None:
    def check(one: BatchRow) -> None:
        if one.id == "b":
            raise UnsupportedOptionError("seed", "this server ignores it")

    _, problems = validate([BatchRow(id="a", prompt="x"), BatchRow(id="b", prompt="x", line=2)], check)
    assert [Problem(2, "seed: this server ignores it", "b")] == problems


def test_validation_ends_after_many_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *([b"x"] * (inputs.MAX_PROBLEMS + 500)))
    _, problems = validate(BatchInput(path).read())
    assert inputs.MAX_PROBLEMS + 1 == len(problems)
    assert Problem(1000, "1000 problems; the rest of the input was not checked") == problems[-1]
    error = str(BatchInputError("in", problems))
    assert error.endswith("in:20: not JSON: Expecting value at column 1\nin: 981 more problems")


def test_many_ids_are_compared() -> None:
    rows = [BatchRow(id=f"row-{number}", prompt="x", line=number + 1) for number in range(3_000)]
    assert (3_000, []) == validate(rows, lambda _: None)
    again = [BatchRow(id=f"row-{number}", prompt="x", line=5_000) for number in (0, 1_234, 2_999)]
    _, problems = validate([*rows, *again], lambda _: None)
    assert ["1", "1235", "3000"] == [problem.message.split(";")[0].split()[-1] for problem in problems]


def test_error_has_one_line_for_each_problem() -> None:
    error = BatchInputError("in.jsonl", [Problem(3, "unknown option: a\n\x1b[2Jb"), Problem(0, "cannot be read")])
    assert "in.jsonl:3: unknown option: a\\n\\x1b[2Jb\nin.jsonl: cannot be read" == str(error)


@pytest.mark.parametrize(
    ("name", "problem", "expected"),
    [
        ("in", Problem(3, "m", "a"), "in:3: m"),
        ("in", Problem(0, "m", "a"), "in: row 'a': m"),
        ("in", Problem(0, "m"), "in: m"),
        ("", Problem(3, "m", "a"), "line 3: m"),
        ("", Problem(0, "m", "a"), "row 'a': m"),
        ("", Problem(0, "m"), "m"),
    ],
)
def test_the_place_of_a_problem(name: str, problem: Problem, expected: str) -> None:
    assert expected == format_problem(name, problem)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[\n", "the file is one JSON array over several lines; write each element on one line: jq -c '.[]' FILE"),
        ('[{"custom_id": "a",\n"prompt": "x"}]', "the file is one JSON array over several lines; write each element"),
        ('[{"custom_id": "a", "prompt": "x"}]\n', "the file is one JSON array; write each element on one line: jq"),
        ("{\n", "the file has JSON objects over several lines; write each on one line: jq -c . FILE > rows.jsonl"),
    ],
    ids=["array", "array-of-lines", "array-on-one-line", "object"],
)
def test_json_that_is_not_json_lines(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(content)
    [problem] = BatchInput(path).read()
    assert isinstance(problem, Problem)
    assert problem.message.startswith(expected)
