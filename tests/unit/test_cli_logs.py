"""The log of conversations: what is recorded and what never is, its commands, and files that are none."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ctxbackends import ImagePart, Message, OpaquePart, ReasoningPart, TextPart, ToolCall, Usage
from ctxbackends._cli import log_database
from ctxbackends._cli.log_entries import LogEntry, LogError
from ctxbackends._cli.log_privacy import PrivateFiles, mask_secrets
from ctxbackends._cli.log_store import LogStore, record_or_warn
from tests.unit.test_cli import ctx, environment, without_coverage

KEY = "sk-test-0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n and the rest"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory, which does not exist yet."""
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def store(directory: Path) -> LogStore:
    store = LogStore.open()
    store.turn_on()
    return store


def entry(question: str = "Why?", answer: str = "Because.", **more: Any) -> LogEntry:
    values: dict[str, Any] = {"backend": "local", "model": "tiny", "finish_reason": "stop"}
    return LogEntry(messages=(Message.user(question), Message.assistant(answer)), **values | more)


# --- on and off -----------------------------------------------------------------------------------------


def test_the_log_is_off_and_reading_it_creates_nothing(directory: Path) -> None:
    assert not LogStore.open().is_on
    for command in (("list",), ("list", "--json"), ("search", "word"), ("path",)):
        assert ctx("logs", *command).code == 0
    assert ctx("logs", "show").code == 1
    assert not directory.exists()


def test_it_is_turned_on_and_off_and_keeps_its_conversations(directory: Path) -> None:
    path = directory / "logs.db"
    assert ctx("logs", "on").err == (
        f"the log is on: {path}\nfiles that match privacy.redact of .ctxrc, and API keys, are not logged\n"
    )
    assert LogStore.open().is_on
    LogStore.open().record(entry())
    assert ctx("logs", "off").err == f"the log is off; its conversations are kept in {path}\n"
    assert not LogStore.open().is_on
    assert 1 == len(LogStore.open().conversations(limit=9))
    assert ctx("logs", "path").out == f"{path}\n"


def test_off_without_a_log_is_no_error(directory: Path) -> None:
    assert (0, "the log is off\n") == (ctx("logs", "off").code, ctx("logs", "off").err)


def test_on_is_idempotent(store: LogStore) -> None:
    store.record(entry())
    assert 0 == ctx("logs", "on").code
    assert 1 == len(store.conversations(limit=9))


def test_without_the_variable_the_log_is_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs  # noqa: PLC0415  # of the extra `cli`, which most of these tests do not need

    monkeypatch.delenv("CTXBACKENDS_DATA_DIR")
    expected = platformdirs.user_data_path("ctxbackends", appauthor=False) / "logs.db"
    assert expected == LogStore.open().path


def test_the_question_whether_it_is_on_imports_no_sqlite() -> None:
    code = (
        "import sys; from ctxbackends._cli.log_store import LogStore; LogStore.open().is_on; "
        "print('sqlite3' in sys.modules)"
    )
    variables = without_coverage(environment())
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert ("False\n", "") == (result.stdout, result.stderr)


# --- recording and continuing ---------------------------------------------------------------------------


def test_a_conversation_is_continued_with_everything_it_had(store: LogStore) -> None:
    first = (
        Message.user([TextPart("Look:"), ImagePart.from_bytes(PNG)]),
        Message.assistant(
            [ReasoningPart("hm", "c2lnbmF0dXJl"), OpaquePart("messages", '{"type": "x"}'), TextPart("I ask.")],
            tool_calls=[ToolCall("call_1", "weather", '{"city": "Graz"}')],
        ),
        Message.tool("sunny", tool_call_id="call_1", name="weather"),
        Message.assistant("Sunny."),
    )
    conversation = store.record(
        LogEntry(
            messages=first,
            backend="local",
            server="http://127.0.0.1:8080",
            model="tiny",
            system="Be brief.",
            options={"temperature": 0.5, "stop_sequences": ["END"]},
            usage=Usage(12, 3),
            seconds=0.5,
            finish_reason="stop",
        )
    )
    second = (Message.user("And Linz?"), Message.assistant("Rainy."))
    more = LogEntry(
        messages=second,
        backend="other",
        endpoint="http://127.0.0.1:9",
        api_key_env="SOME_KEY",
        conversation=conversation,
        position=len(first),
        system="Be long.",
    )
    assert conversation == store.record(more)
    continued = store.last_conversation()
    assert (*first, *second) == continued.messages
    assert ("other", "http://127.0.0.1:9", "SOME_KEY") == (continued.backend, continued.endpoint, continued.api_key_env)
    assert (None, "Be long.", {}) == (continued.model, continued.system, continued.options)
    turn = store.turns(conversation)[0]
    assert ("tiny", "Be brief.", {"temperature": 0.5, "stop_sequences": ["END"]}) == (
        turn.model,
        turn.system,
        turn.options,
    )
    assert (12, 3, 0.5, "stop") == (turn.input_tokens, turn.output_tokens, turn.seconds, turn.finish_reason)


def test_the_last_conversation_is_the_one_with_the_newest_turn(store: LogStore) -> None:
    first = store.record(entry("one"))
    second = store.record(entry("two"))
    store.record(entry("one again", conversation=first, position=2))
    assert first == store.last_conversation().id
    assert [first, second] == [summary.id for summary in store.conversations(limit=9)]
    assert second == store.conversation(second).id


def test_nothing_to_continue_is_an_error_that_says_whether_the_log_is_on(directory: Path) -> None:
    with pytest.raises(LogError, match="no conversation to continue: the log is empty; the log is off: turn it on"):
        LogStore.open().last_conversation()
    LogStore.open().turn_on()
    with pytest.raises(LogError, match=r"the log is empty$"):
        LogStore.open().last_conversation()


def test_a_turn_replaces_those_from_its_position_on_and_the_log_keeps_them(store: LogStore) -> None:
    conversation = store.record(entry("one", "1"))
    store.record(entry("two", "2", conversation=conversation, position=2))
    store.record(entry("two", "zwei", conversation=conversation, position=2))
    assert ["one", "1", "two", "zwei"] == [message.text for message in store.conversation(conversation).messages]
    assert [False, True, False] == [turn.is_taken_back for turn in store.turns(conversation)]
    assert 2 == len(store.search("two", limit=9))


def test_what_was_taken_back_is_not_continued(store: LogStore) -> None:
    conversation = store.record(entry("one", "1", system="Be brief.", options={"seed": 1}))
    store.record(entry("two", "2", conversation=conversation, position=2))
    store.truncate(conversation, 2)
    continued = store.conversation(conversation)
    assert ["one", "1"] == [message.text for message in continued.messages]
    store.record(entry("three", "3", conversation=conversation, position=2))
    assert ["one", "1", "three", "3"] == [message.text for message in store.conversation(conversation).messages]
    assert 3 == store.conversations(limit=1)[0].turns
    store.truncate(conversation, 0)
    assert () == store.conversation(conversation).messages


def test_a_conversation_with_a_turn_that_could_not_be_logged_is_not_continued(store: LogStore) -> None:
    conversation = store.record(entry("one", "1"))
    store.record(entry("three", "3", conversation=conversation, position=4))
    with pytest.raises(LogError, match="cannot be continued: a turn of it could not be logged"):
        store.conversation(conversation)


@pytest.mark.parametrize("method", ["conversation", "turns"])
def test_an_unknown_conversation_is_an_error(store: LogStore, method: str) -> None:
    with pytest.raises(LogError, match="no such conversation: 7; list them with ctxbackends logs list"):
        getattr(store, method)(7)


def test_two_continuations_at_once_lose_nothing(store: LogStore) -> None:
    conversation = store.record(entry("one", "1"))
    store.record(entry("from here", "a", conversation=conversation, position=2))
    store.record(entry("from there", "b", conversation=conversation, position=2))
    assert ["one", "1", "from there", "b"] == [message.text for message in store.conversation(conversation).messages]
    assert 1 == len(store.search("here a", limit=9))


# --- what is never recorded ---------------------------------------------------------------------------


def content_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def test_of_a_private_turn_only_the_metadata_is_kept(store: LogStore, directory: Path) -> None:
    store.record(
        entry(
            "Summarize: the merger is on Friday",
            "They merge on Friday.",
            system="You know of the merger.",
            options={"stop_sequences": ["merger"]},
            usage=Usage(10, 5),
            is_private=True,
        )
    )
    content = content_of(directory)
    assert [] == [word for word in (b"merger", b"merge", b"Friday", b"Summarize") if word in content]
    summary = store.conversations(limit=1)[0]
    assert (1, True, None, "tiny") == (summary.turns, summary.is_private, summary.title, summary.model)
    assert 5 == store.turns(summary.id)[0].output_tokens
    assert "(not logged: matches privacy.redact)" in ctx("logs", "list").out
    assert "(not logged: matches privacy.redact)" in ctx("logs", "show").out


def test_a_private_conversation_cannot_be_continued_until_its_private_turns_are_taken_back(store: LogStore) -> None:
    conversation = store.record(entry("one", "1"))
    store.record(entry("the file", "2", conversation=conversation, position=2, is_private=True))
    with pytest.raises(LogError, match=r"a file in it matches privacy\.redact"):
        store.last_conversation()
    store.truncate(conversation, 2)
    assert ["one", "1"] == [message.text for message in store.last_conversation().messages]


@pytest.mark.parametrize(
    ("path", "is_private"),
    [
        ("server.pem", True),
        ("deep/down/server.pem", True),
        ("clients/acme.md", True),
        ("clients/2026/notes.md", True),
        ("notes.md", False),
        ("pem.md", False),
    ],
)
def test_files_that_match_privacy_redact_are_private(tmp_path: Path, path: str, is_private: bool) -> None:
    (tmp_path / ".ctxrc").write_text('privacy:\n  redact: ["*.pem", "clients/**"]\n')
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("text")
    assert is_private == (Path(path) in PrivateFiles.of_ctxrc())


@pytest.mark.posix
def test_a_link_to_a_private_file_is_private(tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text('privacy:\n  redact: ["*.pem"]\n')
    (tmp_path / "server.pem").write_text("text")
    (tmp_path / "notes.md").symlink_to("server.pem")
    assert Path("notes.md") in PrivateFiles.of_ctxrc()


def test_without_a_file_nothing_is_private() -> None:
    assert Path("server.pem") not in PrivateFiles.of_ctxrc()


@pytest.mark.linux
@pytest.mark.parametrize(("text", "expected"), [("cat {} | python", "None"), ("python < {}", "file")])
def test_the_file_that_standard_input_is_redirected_from_is_known(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "server.pem"
    file.write_text("text")
    code = "from ctxbackends._cli.log_privacy import path_of_stdin; print(path_of_stdin())"
    command = text.format(file).replace("python", f'{sys.executable} -c "{code}"')
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=environment())
    assert (expected.replace("file", str(file)), "") == (result.stdout.strip(), result.stderr)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENAI_API_KEY", "plain-words-are-a-key-too"),
        ("hf_token", "word1word2"),
        ("DB_PASSWORD", "correct horse"),
        ("CREDENTIAL", "named-by-the-option"),  # --api-key-env
        ("GATE", "named-by-the-file"),  # api_key_env of .ctxrc
        ("LOGIN", "user:of-the-file"),  # basic_auth_env
        ("HEADER", "header-of-the-file"),  # headers_env
        ("OTHER", "ghp_0123456789abcdefghij0123"),  # by its shape
    ],
)
def test_api_keys_are_masked_wherever_they_are(
    store: LogStore, directory: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    Path(".ctxrc").write_text(
        "backends:\n  - {name: one, type: vllm, api_key_env: GATE, headers_env: {X-Gate: HEADER}}\n"
        "  - {name: two, type: vllm, basic_auth_env: LOGIN}\n"
    )
    monkeypatch.setenv(variable, value)
    store.record(
        LogEntry(
            messages=(
                Message.user(f"My key is {value}, keep it."),
                Message.assistant("", tool_calls=[ToolCall("1", "login", json.dumps({"key": value}))]),
                Message.tool(f"bad key {value}", tool_call_id="1"),
                Message.assistant([ReasoningPart(f"They gave {value}."), TextPart(f"{value}?")]),
            ),
            backend="local",
            endpoint=f"http://user:{value}@127.0.0.1:8080",
            api_key_env="CREDENTIAL",
            system=f"Use {value}.",
            options={"extra_body": {"key": value}},
        )
    )
    assert value.encode() not in content_of(directory)
    messages = store.last_conversation().messages
    assert "My key is [masked], keep it." == messages[0].text
    assert '{"key": "[masked]"}' == messages[1].tool_calls[0].arguments


def test_a_key_at_the_cut_of_the_title_is_masked(store: LogStore, directory: Path) -> None:
    store.record(entry("x" * 190 + " " + KEY))
    assert KEY[:9].encode() not in content_of(directory)


def test_short_values_and_the_servers_own_data_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "yes")
    part = {"type": "reasoning", "text": "yes", "signature": f"-{KEY}=="}
    assert part == mask_secrets(part, [])
    assert part | {"signature": "-[masked]=="} == mask_secrets(part, [KEY])


def test_keys_are_masked_although_the_file_is_broken(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "plain-words")
    Path(".ctxrc").write_text("backends: [")
    store.record(entry("It is plain-words."))
    assert "It is [masked]." == store.last_conversation().messages[0].text


def test_options_that_are_no_json_are_recorded_as_text(store: LogStore) -> None:
    store.record(entry(options={"extra_body": {"path": Path("x")}}))
    assert {"extra_body": {"path": repr(Path("x"))}} == store.last_conversation().options


# --- search -------------------------------------------------------------------------------------------


@pytest.fixture(params=["index", "no index"])
def searched(request: pytest.FixtureRequest, store: LogStore, monkeypatch: pytest.MonkeyPatch) -> LogStore:
    """A log with conversations, on a SQLite with the index or without one."""
    store.record(entry("Grüße aus Graz", 'He said: "A OR B*" (50%)'))
    store.record(entry("Why a registry?", "So that names are unique. 日本語です"))
    store.record(entry("A registry of names_a", "Yes."))
    if request.param == "no index":
        monkeypatch.setattr(log_database, "_update_index", lambda _: False)
    return store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry", [3, 2]),
        ("REGISTRY", [3, 2]),
        ("gist", [3, 2]),
        ("registry unique", [2]),
        ("unique registry", [2]),
        ("GRÜSSE", []),
        ("GRÜß", [1]),
        ("grü", [1]),
        ("日本語", [2]),
        ("日本", [2]),
        ("?", [2]),
        ("so", [2]),
        ('"A', [1]),
        ("A OR B*", [1]),
        ("OR", [1]),
        ("registry NOT unique", []),
        ("50%", [1]),
        ("names_a", [3]),
        ("%", [1]),
        ("nam*", []),
        ("(50%)", [1]),
        ("text:registry", []),
        ("NEAR(registry why)", []),
        ("it's; DROP TABLE turns", []),
        ("\x00", []),
    ],
)
def test_search_finds_every_word_as_it_is_written(searched: LogStore, text: str, expected: list[int]) -> None:
    assert expected == [hit.conversation for hit in searched.search(text, limit=9)]


def test_search_finds_what_was_recorded_after_the_last_search(searched: LogStore) -> None:
    assert 2 == len(searched.search("registry", limit=9))
    searched.record(entry("The registry again"))
    assert [4, 3, 2] == [hit.conversation for hit in searched.search("registry", limit=9)]
    assert [4, 3] == [hit.conversation for hit in searched.search("registry", limit=2)]


def test_an_excerpt_shows_the_first_word(store: LogStore) -> None:
    store.record(entry("x " * 100 + "NEEDLE\n" + "y " * 100))
    excerpt = store.search("needle", limit=1)[0].excerpt
    assert excerpt.startswith("…")
    assert excerpt.endswith("…")
    assert "x NEEDLE y" in excerpt


# --- the file -----------------------------------------------------------------------------------------


@pytest.mark.posix
def test_only_the_user_can_read_the_log(store: LogStore, directory: Path) -> None:
    with log_database.connect(store.path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM turns").fetchall()
        store.record(entry())  # the reader keeps the files beside the database
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
    assert {"logs.db": 0o600, "logs.db-wal": 0o600, "logs.db-shm": 0o600, "logs-on": 0o600} == modes


@pytest.mark.posix
def test_a_log_that_others_could_read_is_closed_to_them(store: LogStore) -> None:
    store.path.chmod(0o644)
    store.record(entry())
    assert 0o600 == stat.S_IMODE(store.path.stat().st_mode)


def test_several_processes_write_at_once(directory: Path) -> None:
    code = (
        "from ctxbackends import Message; from ctxbackends._cli.log_store import LogStore; "
        "from ctxbackends._cli.log_entries import LogEntry\n"
        "for at in range(20): LogStore.open().record(LogEntry(messages=[Message.user(str(at))], backend='b'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment()) for _ in range(3)]
    assert [0, 0, 0] == [process.wait(60) for process in processes]
    summaries = LogStore.open().conversations(limit=99)
    assert sorted(3 * [str(at) for at in range(20)]) == sorted(str(summary.title) for summary in summaries)
    assert 60 == len({summary.id for summary in summaries})


def test_a_log_of_an_older_version_is_migrated(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record(entry("old"))
    migrations = (*log_database.MIGRATIONS, ("ALTER TABLE turns ADD COLUMN label TEXT", "CREATE TABLE more (id)"))
    monkeypatch.setattr(log_database, "MIGRATIONS", migrations)
    store.record(entry("new"))
    assert ["new", "old"] == [summary.title for summary in store.conversations(limit=9)]
    with sqlite3.connect(store.path) as database:
        assert (2,) == database.execute("PRAGMA user_version").fetchone()
        assert [] == database.execute("SELECT * FROM more").fetchall()
    database.close()


def test_a_migration_that_fails_changes_nothing(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record(entry("old"))
    with monkeypatch.context() as patch:
        patch.setattr(log_database, "MIGRATIONS", (*log_database.MIGRATIONS, ("CREATE TABLE more (id)", "nonsense")))
        with pytest.raises(LogError, match="cannot be used"):
            store.record(entry("new"))
    store.record(entry("newer"))
    assert ["newer", "old"] == [summary.title for summary in store.conversations(limit=9)]


def write_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 100)


def write_foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url)")
    database.close()


def write_foreign_turns(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE turns (id)")
        database.execute("PRAGMA user_version = 1")
    database.close()


def write_newer(path: Path) -> None:
    LogStore(path).turn_on()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def write_damaged(path: Path) -> None:
    store = LogStore(path)
    store.turn_on()
    for at in range(50):
        store.record(entry(f"question {at} " * 50))
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = b"\xff" * len(data[4096 * 2 :])
    path.write_bytes(data)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    os.mkfifo(path)


_NEW_ONE = "move the file away, and ctxbackends creates a new one"
_EVERY = ("on", "list", "show 1", "search question")
BROKEN = [
    pytest.param(write_garbage, _EVERY, f"is not a SQLite database; {_NEW_ONE}", id="garbage"),
    pytest.param(write_foreign, _EVERY, f"is a database of another program; {_NEW_ONE}", id="foreign"),
    pytest.param(write_foreign_turns, _EVERY, f"is a database of another program; {_NEW_ONE}", id="foreign turns"),
    pytest.param(
        write_newer,
        _EVERY,
        "was written by a newer ctxbackends (schema 99, and this one knows 1); upgrade ctxbackends, or move the file "
        "away",
        id="newer",
    ),
    pytest.param(write_damaged, ("list", "search question"), f"is damaged; {_NEW_ONE}", id="damaged"),
    pytest.param(make_directory, _EVERY, "is not a file; move it away", id="directory"),
    pytest.param(make_pipe, _EVERY, "is not a file; move it away", id="pipe", marks=pytest.mark.posix),
]


@pytest.mark.parametrize(("write", "commands", "problem"), BROKEN)
def test_a_file_that_is_no_log_is_one_clear_error_and_stays(
    directory: Path, write: Callable[[Path], None], commands: tuple[str, ...], problem: str
) -> None:
    directory.mkdir()
    path = directory / "logs.db"
    write(path)
    before = path.read_bytes() if path.is_file() else b""
    results = [ctx("logs", *command.split()) for command in commands]
    assert [(1, "", f"ctxbackends: {path}: {problem}\n")] * len(commands) == [
        (result.code, result.out, result.err) for result in results
    ]
    assert before == (path.read_bytes() if path.is_file() else b"")


@pytest.mark.parametrize("messages", ["no JSON", "[1]", '[{"version": 99, "role": "user", "content": "x"}]', "{}"])
def test_messages_that_cannot_be_read_are_one_clear_error(store: LogStore, messages: str) -> None:
    store.record(entry())
    with sqlite3.connect(store.path) as database:
        database.execute("UPDATE turns SET messages = ?", (messages,))
    database.close()
    result = ctx("logs", "show")
    assert (1, "", 1) == (result.code, result.out, len(result.err.splitlines()))
    assert "conversation 1 cannot be read: " in result.err
    with pytest.raises(LogError, match="conversation 1 cannot be read: "):
        store.last_conversation()


def test_a_data_directory_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "file" / "data"))
    result = ctx("logs", "on")
    assert 1 == result.code
    assert "set CTXBACKENDS_DATA_DIR to another directory" in result.err
    assert 1 == len(result.err.splitlines())


@pytest.mark.posix
def test_a_data_directory_that_cannot_be_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that is too long, since nothing is forbidden to the user of a container."""
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / ("x" * 300)))
    assert not LogStore.open().is_on  # so chat answers
    for arguments in (("list",), ("show",), ("search", "x"), ("on",), ("off",)):
        result = ctx("logs", *arguments)
        assert (1, "", 1) == (result.code, result.out, len(result.err.splitlines()))
        assert "File name too long; correct it, or set CTXBACKENDS_DATA_DIR to another directory" in result.err


def test_a_log_that_is_locked_is_waited_for(store: LogStore) -> None:
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        database = sqlite3.connect(store.path, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        locked.set()
        done.wait(30)
        database.execute("COMMIT")
        database.close()

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait(30)
    threading.Timer(0.2, done.set).start()
    assert 1 == store.record(entry())
    thread.join()


def test_a_log_that_stays_locked_is_an_error(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_database, "BUSY_SECONDS", 0.05)
    database = sqlite3.connect(store.path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogError, match="locked by another process"):
        store.record(entry())
    database.close()


def test_an_answer_that_cannot_be_logged_is_a_warning(
    store: LogStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect = sqlite3.connect

    def connect_full(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 8")
        return database

    monkeypatch.setattr(sqlite3, "connect", connect_full)
    conversation = record_or_warn(store, entry("short"))
    assert ("", "") == tuple(capsys.readouterr())
    assert conversation == record_or_warn(store, entry("long " * 20_000, conversation=conversation, position=2))
    assert capsys.readouterr().err == (
        f"warning: the answer was not logged: {store.path}: cannot be written: the disk is full; free some space, or "
        "run ctxbackends logs off\n"
    )
    assert ["short", "Because."] == [message.text for message in store.last_conversation().messages]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_on_a_terminal_each_conversation_has_two_lines_of_its_width(
    store: LogStore, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr("ctxbackends._cli.logs.window_size", lambda _: (columns, 24))
    store.record(entry("日本語 " * 30, model="a-model-with-a-rather-long-name"))
    store.record(entry("short"))
    first, details, second, _ = click.unstyle(ctx("logs", "list", tty="stdout").out).splitlines()
    assert ("2  short", "   2026") == (first, details[:7])
    assert second.startswith("1  日本語 ")
    assert second.endswith("…")
    assert columns >= sum(2 if ord(character) > 0x3000 else 1 for character in second)


@pytest.mark.posix
@pytest.mark.parametrize(("term", "has_colour"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_gets_plain_text(
    store: LogStore, monkeypatch: pytest.MonkeyPatch, term: str, has_colour: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    store.record(entry())
    assert has_colour == ("\x1b[" in ctx("logs", "list", tty="stdout").out)


@pytest.mark.linux
def test_a_log_in_a_directory_that_cannot_be_written_is_one_clear_error(store: LogStore, directory: Path) -> None:
    store.record(entry())
    (directory / "logs.db-wal").mkdir()  # as root, a mode would not deny it
    with pytest.raises(LogError, match="correct the modes of the file and its directory"):
        store.record(entry())


# --- the commands -------------------------------------------------------------------------------------


def test_list_shows_the_newest_first(store: LogStore) -> None:
    store.record(entry("one"))
    store.record(entry("two\nlines", model=None, served_model="served"))
    lines = ctx("logs", "list").out.splitlines()
    assert ["id", "updated", "turns", "backend", "model", "question"] == lines[0].split()
    assert ["2", "1", "turn", "local", "served", "two", "lines"] == [*lines[1].split()[:1], *lines[1].split()[3:]]
    assert ["1", "1", "turn", "local", "tiny", "one"] == [*lines[2].split()[:1], *lines[2].split()[3:]]
    assert [2] == [one["id"] for one in json.loads(ctx("logs", "list", "-n", "1", "--json").out)]


def test_show_prints_a_conversation_as_markdown(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._cli.logs._local_time", lambda _: "2026-11-27 14:16")
    conversation = store.record(
        LogEntry(
            messages=(
                Message.user(["Look:", ImagePart.from_bytes(PNG)]),
                Message.assistant(
                    [ReasoningPart("one\ntwo"), TextPart("I ask.")],
                    tool_calls=[ToolCall("call_1", "weather", '{"city": "Graz"}')],
                ),
                Message.tool("no such city", tool_call_id="call_1", name="weather", is_error=True),
                Message.assistant("It is"),
            ),
            backend="local",
            served_model="tiny",
            system="Be brief.",
            usage=Usage(12, 1),
            seconds=0.55,
        )
    )
    store.record(entry("wrong", conversation=conversation, position=4, system="Be brief."))
    store.record(entry("Again?", "No.", conversation=conversation, position=4, system="Be brief."))
    expected = f"""\
# Conversation 1

2026-11-27 14:16, local, tiny, 12 + 1 token, 0.6 s

## System

Be brief.

## User

Look:

(image/png, {len(PNG)} bytes)

## Assistant

(7 characters of reasoning; show them with --reasoning)

I ask.

calls weather({{"city": "Graz"}})

## Tool

weather (failed): no such city

## Assistant

It is

(incomplete: stopped)

2026-11-27 14:16, local, tiny

## User

Again?

## Assistant

No.
"""
    assert expected == ctx("logs", "show").out
    assert "> one\n> two\n" in ctx("logs", "show", "1", "--reasoning").out
    assert "local, tiny, taken back\n" in ctx("logs", "show", "1", "--all").out
    data = json.loads(ctx("logs", "show", "1", "--json").out)
    assert (1, 2) == (data["id"], len(data["turns"]))
    assert Message.user("Again?").to_dict() == data["turns"][1]["messages"][0]


def test_control_characters_are_escaped_on_a_terminal(store: LogStore) -> None:
    store.record(entry("hide \x1b[2J this", "\x1b]0;title\x07"))
    for command in (("show",), ("list",), ("search", "hide")):
        assert "\x1b[2J" not in ctx("logs", *command, tty="stdout").out


def test_search_shows_where_the_text_is(store: LogStore) -> None:
    store.record(entry("Why a registry?", "So that names are unique."))
    header, row = ctx("logs", "search", "unique").out.splitlines()
    assert ["id", "created", "backend", "model", "text"] == header.split()
    assert row.endswith("Why a registry? So that names are unique.")
    assert [(1, 1)] == [
        (hit["conversation"], hit["turn"]) for hit in json.loads(ctx("logs", "search", "unique", "--json").out)
    ]
    nothing = ctx("logs", "search", "absent")
    assert (0, "", f"nothing in {store.path} contains this text\n") == (nothing.code, nothing.out, nothing.err)
    assert "[]\n" == ctx("logs", "search", "absent", "--json").out


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("show", "7"), 1, "no such conversation: 7; list them with ctxbackends logs list"),
        (("show", "0"), 2, "0 is out of range"),
        (("show", "x"), 2, "'x' is not a number"),
        (("show", "99999999999999999999"), 2, "is out of range"),
        (("search", "  "), 2, "TEXT is empty"),
        (("search", "\udcff"), 2, "is not UTF-8"),
        (("list", "-n", "0"), 2, "0 is out of range"),
    ],
)
def test_wrong_arguments_are_one_clear_error(
    store: LogStore, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    result = ctx("logs", *arguments)
    assert (code, "") == (result.code, result.out)
    assert problem in result.err
