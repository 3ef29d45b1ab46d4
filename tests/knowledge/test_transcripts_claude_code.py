"""Sessions of Claude Code: who said what, each message once, and nothing left out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.knowledge.transcripts import lines_of, read_records, said, skipped


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "user", "sessionId": "s", "message": {"role": "user", "content": content}, **more}


def assistant(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"type": "assistant", "sessionId": "s", "message": {"role": "assistant", "content": list(blocks)}, **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"id-{name}", "name": name, "input": arguments}


def result(name: str, content: Any, **more: Any) -> dict[str, Any]:
    return user([{"type": "tool_result", "tool_use_id": f"id-{name}", "content": content, **more}])


def queue(operation: str, content: str | None = None) -> dict[str, Any]:
    more = {} if content is None else {"content": content}
    return {"type": "queue-operation", "operation": operation, "sessionId": "s", **more}


def queued(prompt: Any, mode: str = "prompt") -> dict[str, Any]:
    attachment = {"type": "queued_command", "prompt": prompt, "commandMode": mode}
    return {"type": "attachment", "sessionId": "s", "attachment": attachment}


START = user("Plan the cache.")
STOP = "Stop, we use Valkey and not Redis."


@pytest.mark.parametrize(
    "records",
    [
        (queue("enqueue", STOP), queue("remove"), queued(STOP)),
        (queue("enqueue", STOP), queue("remove", STOP)),
        (queue("enqueue", STOP), queue("dequeue"), user(STOP)),
        (queue("enqueue", STOP), queue("dequeue"), user([text(STOP)])),
        (queue("enqueue", STOP),),
        (queued(STOP), queue("enqueue", STOP)),
        (queued([text(STOP)]),),
    ],
    ids=["attachment", "queue only", "next turn", "next turn, blocks", "still queued", "reverse", "no queue"],
)
def test_a_message_typed_during_work_is_read_once(tmp_path: Path, records: tuple[Any, ...]) -> None:
    assert [(1, "user", "Plan the cache."), (2, "user", STOP)] == said(read_records(tmp_path, START, *records))


def test_equal_messages_are_each_read(tmp_path: Path) -> None:
    go_on = (queue("enqueue", "go on"), queue("dequeue"), user("go on"))
    assert [1, 4, 7] == [line for line, _, _ in said(read_records(tmp_path, *go_on, *go_on, user("go on")))]


@pytest.mark.parametrize(
    ("operations", "lines"),
    [
        ([queue("popAll", "first"), queue("popAll", "second")], []),
        ([queue("popAll")], []),
        ([queue("dequeue"), queue("popAll", "second")], [2]),
        ([queue("remove", "second"), queue("popAll", "first")], [3]),
        ([queue("dequeue"), queue("dequeue")], [2, 3]),
    ],
)
def test_queued_messages_that_were_taken_back_are_left_out(
    tmp_path: Path, operations: list[Any], lines: list[int]
) -> None:
    pieces = read_records(tmp_path, START, queue("enqueue", "first"), queue("enqueue", "second"), *operations)
    assert [1, *lines] == [line for line, _, _ in said(pieces)]
    counts = {2: [], 1: ["s.jsonl: left out: 1 withdrawn message"], 0: ["s.jsonl: left out: 2 withdrawn messages"]}
    assert counts[len(lines)] == skipped(pieces)


@pytest.mark.parametrize(
    "records",
    [
        (queue("remove", STOP),),
        (queue("remove", STOP), queued(STOP)),
    ],
)
def test_a_message_that_only_leaves_the_queue_is_read(tmp_path: Path, records: tuple[Any, ...]) -> None:
    assert [(1, "user", "Plan the cache."), (2, "user", STOP)] == said(read_records(tmp_path, START, *records))


@pytest.mark.parametrize(
    "records",
    [
        (queue("enqueue", "Build done."), queue("remove"), queued("Build done.", "task-notification")),
        (
            queue("enqueue", "Build done."),
            queue("dequeue"),
            user("Build done.", origin={"kind": "task-notification"}, promptSource="system"),
        ),
        (user("Build done.", promptSource="system"),),
        (
            {
                "type": "attachment",
                "sessionId": "s",
                "attachment": {"type": "queued_command", "prompt": "Build done.", "origin": {"kind": "peer"}},
            },
        ),
    ],
)
def test_a_message_of_another_program_is_the_systems(tmp_path: Path, records: tuple[Any, ...]) -> None:
    assert [(2, "system", "notice", "Build done.")] == lines_of(read_records(tmp_path, START, *records))[1:]


def test_a_message_with_a_human_origin_is_the_users(tmp_path: Path) -> None:
    record = user("Plan it.", origin={"kind": "human"}, promptSource="typed")
    assert [(1, "user", "Plan it.")] == said(read_records(tmp_path, record))


def test_a_message_that_was_edited_in_the_queue_is_read_as_it_was_sent(tmp_path: Path) -> None:
    records = (queue("enqueue", "Use Redis."), queue("popAll", "Use Redis."), user("Use Valkey."))
    assert ["Plan the cache.", "Use Valkey."] == [
        words for _, _, words in said(read_records(tmp_path, START, *records))
    ]


@pytest.mark.parametrize("record", [queue("enqueue", "<task-notification>\nok</task-notification>"), None])
def test_a_task_notification_is_the_systems_and_read_once(tmp_path: Path, record: Any) -> None:
    notification = "<task-notification>\nok</task-notification>"
    records = [START, *([record] if record else []), queued(notification, "task-notification")]
    assert [(1, "user"), (2, "system")] == [item[:2] for item in said(read_records(tmp_path, *records))]


@pytest.mark.parametrize(
    ("record", "speaker", "label", "words"),
    [
        (user("The summary: Redis was chosen.", isCompactSummary=True), "summary", "summary", None),
        (
            user("This session is being continued from a previous conversation that ran out."),
            "summary",
            "summary",
            None,
        ),
        (user("<task-notification>\n<status>ok</status></task-notification>"), "system", "task notification", None),
        (
            user("<local-command-stdout>\x1b[2mCompacted\x1b[22m \x1b]8;;http://x\x07ok</local-command-stdout>"),
            "system",
            "command output",
            "Compacted ok",
        ),
        (user("<bash-stdout>a.md</bash-stdout><bash-stderr></bash-stderr>"), "system", "command output", "a.md"),
        (user("<bash-input>ls docs</bash-input>"), "user", "user (command)", "ls docs"),
        (user("[Request interrupted by user for tool use]"), "system", "interruption", None),
        (
            user('<teammate-message teammate_id="x">Done.</teammate-message>'),
            "system",
            "message of another agent",
            None,
        ),
        (assistant(text("API Error: 529"), isApiErrorMessage=True), "system", "API error", "API Error: 529"),
        (
            {"type": "system", "subtype": "api_error", "sessionId": "s", "error": {"message": "overloaded"}},
            "system",
            "API error",
            "overloaded",
        ),
        (
            {"type": "system", "subtype": "away_summary", "sessionId": "s", "content": "The cache is planned."},
            "summary",
            "summary",
            "The cache is planned.",
        ),
        (
            {"type": "system", "subtype": "informational", "sessionId": "s", "content": "Ready."},
            "system",
            "notice",
            "Ready.",
        ),
        (user("We say <task-notification> in prose."), "user", "user", "We say <task-notification> in prose."),
        (user("\x1b[1mBold\x1b[0m words"), "user", "user", "Bold words"),
        (user("From a helper.", isSidechain=True), "assistant", "prompt to a sub-agent", "From a helper."),
        (assistant(text("Found it."), isSidechain=True), "assistant", "assistant (sub-agent)", "Found it."),
    ],
)
def test_speakers(tmp_path: Path, record: Any, speaker: str, label: str, words: str | None) -> None:
    (_, segment) = lines_of(read_records(tmp_path, START, record))
    content = record.get("message", {}).get("content", "")
    assert (2, speaker, label, words or content) == segment


def test_the_synthetic_model_is_the_system(tmp_path: Path) -> None:
    record = assistant(text("No response requested."))
    record["message"]["model"] = "<synthetic>"
    assert [(2, "system", "No response requested.")] == said(read_records(tmp_path, START, record))[1:]


def test_a_slash_command_is_the_systems_and_its_words_are_the_users(tmp_path: Path) -> None:
    command = (
        "<command-message>plan is running</command-message>\n<command-name>/plan</command-name>\n"
        "<command-args>use YAML for the file</command-args>"
    )
    assert [(2, "system", "command", "/plan"), (2, "user", "user (/plan)", "use YAML for the file")] == lines_of(
        read_records(tmp_path, START, user(command))
    )[1:]


def test_what_has_no_text_is_counted(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "x"}}
    pieces = read_records(
        tmp_path,
        user([image, text("Look."), image]),
        assistant({"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "x"}, text("Yes.")),
        result("Read", [image]),
        user("Caveat: The messages below were generated by the user while running local commands."),
        user("skill text", isMeta=True),
        user("Go on.<system-reminder>Be brief.</system-reminder><ide_opened_file>a.py</ide_opened_file>"),
        {"type": "attachment", "sessionId": "s", "attachment": {"type": "todo_reminder"}},
        {"type": "file-history-snapshot", "messageId": "x"},
        {"type": "novelty", "sessionId": "s"},
    )
    assert [(1, "user", "Look."), (2, "assistant", "Yes."), (6, "user", "Go on.")] == said(pieces)
    assert [
        (
            "s.jsonl: left out: 1 IDE notice, 3 images, 2 meta messages, 1 system reminder, 2 thinking blocks, "
            "1 todo reminder attachment"
        ),
        "s.jsonl: records of unknown kinds were left out: novelty (1)",
    ] == skipped(pieces)


def test_calls_read_as_text(tmp_path: Path) -> None:
    pieces = read_records(
        tmp_path,
        assistant(
            call("ExitPlanMode", plan='# Plan\n\nWe use "Valkey",\nbecause keys expire.'),
            call("Write", file_path="/a/adr.md", content="We write it in Go.\nOne binary."),
            call("Edit", file_path="/a.py", old_string="a = 1", new_string='a = "\\n"', replace_all=False),
            call("Bash", command="git commit -m 'We keep \"both\"'", timeout=5),
            call("TodoWrite", todos=[{"content": "Write docs", "status": "open"}, {"content": "Test", "status": "x"}]),
            call("Empty"),
        ),
    )
    assert [
        ("ExitPlanMode call", 'plan:\n# Plan\n\nWe use "Valkey",\nbecause keys expire.'),
        ("Write call", "file_path: /a/adr.md\ncontent:\nWe write it in Go.\nOne binary."),
        ("Edit call", 'file_path: /a.py\nold_string: a = 1\nnew_string: a = "\\n"\nreplace_all: false'),
        ("Bash call", "command: git commit -m 'We keep \"both\"'\ntimeout: 5"),
        ("TodoWrite call", "todos:\ncontent: Write docs\nstatus: open\ncontent: Test\nstatus: x"),
    ] == [(label, words) for _, _, label, words in lines_of(pieces)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("     1→# ADR 7\n     2→We write it in Go,\n     3→one binary.", "# ADR 7\nWe write it in Go,\none binary."),
        ("1\tfirst\n2\t\n3\tthird", "first\n\nthird"),
        ("    98→a\n    99→b\n   100→c", "a\nb\nc"),
        ("2024\twas a good year", "was a good year"),
        ("a\n     1→b", "a\n     1→b"),
        ("     1→7→8", "7→8"),
        ("     1→a\n     9→b", "a\n     9→b"),
    ],
)
def test_line_numbers_of_results_are_removed(tmp_path: Path, content: str, words: str) -> None:
    pieces = read_records(tmp_path, assistant(call("Read", file_path="x")), result("Read", content))
    assert [(2, "tool", "Read result", words)] == lines_of(pieces)[1:]


def test_numbers_in_other_results_stay(tmp_path: Path) -> None:
    pieces = read_records(tmp_path, assistant(call("Bash", command="x")), result("Bash", "1\ta\n2\tb"))
    assert (2, "tool", "Bash result", "1\ta\n2\tb") == lines_of(pieces)[1]


def test_the_reason_for_a_refusal_is_the_users(tmp_path: Path) -> None:
    refusal = (
        "The user doesn't want to proceed with this tool use. The tool use was rejected. To tell you how to proceed, "
        "the user said:\n"
    )
    note = "\n\nNote: The user's next message may contain a correction or preference."
    pieces = read_records(
        tmp_path,
        assistant(call("Write", content="x")),
        result("Write", f"{refusal}Keep SQLite for tests.{note}", is_error=True),
        result("Write", f"{refusal}The user wants to clarify these questions.", is_error=True),
    )
    assert [
        (2, "tool", "Write result (failed)", refusal.removesuffix(" the user said:\n")),
        (2, "user", "user (refuses Write)", "Keep SQLite for tests."),
        (3, "tool", "Write result (failed)", f"{refusal}The user wants to clarify these questions."),
    ] == lines_of(pieces)[1:]


def test_answers_to_questions_are_the_users(tmp_path: Path) -> None:
    answers = 'User has answered your questions: "Which cache?"="Valkey". You can now continue.'
    pieces = read_records(
        tmp_path, assistant(call("AskUserQuestion", questions=["Which cache?"])), result("AskUserQuestion", answers)
    )
    assert (2, "user", "user (answers questions)", answers) == lines_of(pieces)[1]


def test_documents_are_read(tmp_path: Path) -> None:
    notes = {
        "type": "document",
        "title": "n.txt",
        "source": {"type": "text", "media_type": "text/plain", "data": "SQLite."},
    }
    pdf = {"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}
    pieces = read_records(tmp_path, user([notes, pdf, text("See.")]))
    assert [("user (document n.txt)", "SQLite."), ("user", "See.")] == [item[2:] for item in lines_of(pieces)]
    assert ["s.jsonl: left out: 1 document"] == skipped(pieces)


def test_long_plans_are_read_whole(tmp_path: Path) -> None:
    plan = "\n\n".join(f"{number}. We decide number {number}." for number in range(1_000))
    pieces = read_records(tmp_path, assistant(call("ExitPlanMode", plan=plan)))
    assert "plan:\n" + plan == "\n\n".join(words for _, _, words in said(pieces))
    assert [] == skipped(pieces)


def test_a_cut_last_line_is_reported_as_incomplete(tmp_path: Path) -> None:
    pieces = read_records(tmp_path, START, b'{"type": "user", "mess')
    assert ["s.jsonl:2: is incomplete; if the session is still being written, run the command again later"] == skipped(
        pieces
    )
    assert [(1, "user", "Plan the cache.")] == said(pieces)


def test_a_session_whose_beginning_is_cut_off(tmp_path: Path) -> None:
    pieces = read_records(tmp_path, b'content":"x"}}', START, name="tail")
    assert ["tail:1: is not valid JSON"] == skipped(pieces)
    assert [(2, "user", "Plan the cache.")] == said(pieces)


def test_hostile_tags_take_linear_time(tmp_path: Path) -> None:
    """Half a million tags that are never closed."""
    words = "<system-reminder>" * 400_000
    pieces = read_records(tmp_path, user(words))
    assert words == "".join(part for _, _, part in said(pieces))
