"""The commands of a conversation, without a terminal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends import BackendConfig, ImagePart, Message, Registry, ToolCall
from ctxbackends._chat.messages import OpaquePart, ReasoningPart, TextPart
from ctxbackends._cli.chat.display import create_display
from ctxbackends._cli.chat.recorder import Recorder
from ctxbackends._cli.chat.session import ChatSession
from ctxbackends._cli.chat.slash_commands import (
    COMMANDS,
    CommandError,
    Conversation,
    LeaveConversation,
    complete,
    run_command,
)
from ctxbackends._cli.log_store import LogStore
from ctxbackends.testing import Answer, OpenAIStandIn, Question

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def write(name: str, data: bytes = b"") -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(data)


def read(name: str) -> str:
    return Path(name).read_text(encoding="utf-8")


def answer(question: Question) -> Answer:
    return Answer(text=f"You said {question.prompt}")


@attrs.define
class Talk:
    """A conversation over two stand-ins. ``lines``: what was said."""

    conversation: Conversation
    servers: dict[str, OpenAIStandIn]
    lines: list[str]

    @property
    def session(self) -> ChatSession:
        return self.conversation.session

    async def run(self, line: str) -> list[str]:
        """Run a command, send what it returns, and return the lines that it said."""
        self.lines.clear()
        message = await run_command(self.conversation, line)
        if message is not None:
            await self.session.ask(message, create_display(quiet=True, text=False))
        return [*self.lines]

    async def ask(self, text: str) -> None:
        message = self.conversation.take_message(text)
        await self.session.ask(message, create_display(quiet=True, text=False))

    def texts(self, server: str = "first") -> list[Any]:
        """The messages of the last request."""
        requests = [request for request in self.servers[server].requests if request.path == "/v1/chat/completions"]
        return [message["content"] for message in requests[-1].json["messages"]]


@pytest.fixture
async def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    monkeypatch.chdir(tmp_path)
    first, second = (
        OpenAIStandIn(models=("tiny", "larger"), answer=answer),
        OpenAIStandIn(models=("other",), answer=answer),
    )
    lines: list[str] = []
    async with first, second:
        servers = {"first": (first, "tiny"), "second": (second, "other")}
        configs = [
            BackendConfig(name=name, type="openai-compatible", endpoint=server.url, default_model=model)
            for name, (server, model) in servers.items()
        ]
        async with Registry(configs) as registry:
            session = ChatSession(backend=registry.resolve("first"))
            conversation = Conversation(session=session, registry=registry, say=lines.append)
            yield Talk(conversation, {"first": first, "second": second}, lines)


async def test_help_names_every_command(talk: Talk) -> None:
    lines = await talk.run("/help")
    assert all(any(line.startswith(f"/{name}") for line in lines) for name in COMMANDS)
    assert lines == await talk.run("/?")


async def test_the_system_message(talk: Talk) -> None:
    assert ["no system message"] == await talk.run("/system")
    assert ["system message: Be  brief."] == await talk.run("/system Be  brief.")
    await talk.ask("Hi")
    assert ["Be  brief.", "Hi"] == talk.texts()
    assert ["no system message"] == await talk.run("/system off")
    await talk.ask("Ho")
    assert ["Hi", "You said Hi", "Ho"] == talk.texts()


async def test_models(talk: Talk) -> None:
    await talk.ask("Hi")
    assert ["model: tiny", "the server has: tiny, larger"] == await talk.run("/model")
    assert ["model: larger"] == await talk.run("/model larger")
    await talk.ask("Ho")
    assert "larger" == talk.servers["first"].requests[-1].json["model"]
    assert 3 == len(talk.texts()), "the messages stay"
    expected = ["model: largre", "the server does not list this model; did you mean larger?"]
    assert expected == await talk.run("/model largre")


async def test_backends(talk: Talk) -> None:
    parts = (
        ReasoningPart("hm", signature="abc"),
        OpaquePart("anthropic", "{}"),
        TextPart("Hello", OpaquePart("anthropic", "{}")),
        ToolCall("1", "look", "{}", OpaquePart("chat_completions", "{}")),
    )
    result = Message.tool("seen", tool_call_id="1", name="look")
    talk.session.messages = [Message.user("Hi"), Message("assistant", parts), result, Message.assistant("Seen.")]
    talk.session.model = "larger"
    assert ["backend: first", "configured: first, second"] == await talk.run("/backend")
    with pytest.raises(CommandError, match=r"^no such backend: secnd; did you mean second\?$"):
        await talk.run("/backend secnd")
    url = talk.servers["second"].url
    assert [f"backend: second at {url}, model: other"] == await talk.run("/backend second")
    plain = Message("assistant", (TextPart("Hello"), ToolCall("1", "look", "{}")))
    assert [Message.user("Hi"), plain, result, Message.assistant("Seen.")] == talk.session.messages
    await talk.ask("And now?")
    assert ["Hi", "Hello", "seen", "Seen.", "And now?"] == talk.texts("second")


async def test_an_answer_of_reasoning_alone_has_no_text_elsewhere(talk: Talk) -> None:
    talk.session.messages = [Message.user("Hi"), Message("assistant", (ReasoningPart("hm"),))]
    await talk.run("/backend second")
    assert [Message.user("Hi"), Message.assistant("")] == talk.session.messages


async def test_files_and_images(talk: Talk) -> None:
    write("a b.txt", b"content")
    write("x.png", PNG)
    assert ["with the next message: a b.txt"] == await talk.run("/file 'a b.txt'")
    assert ["with the next message: a b.txt, x.png"] == await talk.run("/image x.png")
    await talk.ask("Look")
    message = talk.session.messages[0]
    assert "Look" == message.parts[-1].text  # type: ignore[union-attr]
    assert 'name="a b.txt"' in message.text
    assert any(isinstance(part, ImagePart) for part in message.parts)
    await talk.ask("Again")
    assert "Again" == talk.session.messages[2].content


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/hlep", "unknown command: /hlep; did you mean /help?"),
        ("/zzzzzz", "unknown command: /zzzzzz; /help lists the commands"),
        ("/", "unknown command: /; /help lists the commands"),
        (
            "/set parameter num_ctx 4096",
            (
                "unknown command: /set; use /system TEXT for the system message; "
                "other options go with the command, as chat -o temperature=0.2"
            ),
        ),
        ("/show info", "unknown command: /show; use /model, /system or /stats"),
        ("/new chat", "/clear takes no argument: chat"),
        ("/etc/hosts what is it", "unknown command: /etc/hosts; /help lists the commands"),
        ("/clear all", "/clear takes no argument: all"),
        ("/save", "/save needs an argument; use /save FILE"),
        ("/save x.md", "the conversation has no messages yet"),
        ("/retry", "the conversation has no messages yet"),
        ("/undo", "the conversation has no messages yet"),
        ("/stats maybe", "invalid argument: maybe; use on or off"),
        ("/file ~nobody-of-this-name/x", "~nobody-of-this-name/x: no such user"),
    ],
)
async def test_commands_that_cannot_be_done(talk: Talk, line: str, problem: str) -> None:
    with pytest.raises(CommandError) as exc_info:
        await talk.run(line)
    assert problem == str(exc_info.value)
    assert [] == talk.session.messages


async def test_quit(talk: Talk) -> None:
    for word in ("/quit", "/exit", "/bye", "/q"):
        with pytest.raises(LeaveConversation):
            await talk.run(word)


async def test_clear(talk: Talk) -> None:
    talk.session.system = "Be brief."
    await talk.ask("Hi")
    assert ["forgot 2 messages"] == await talk.run("/clear")
    await talk.ask("Ho")
    assert ["Be brief.", "Ho"] == talk.texts()


async def test_undo_and_retry(talk: Talk) -> None:
    await talk.ask("one")
    await talk.ask("two")
    assert ["removed: two"] == await talk.run("/undo")
    await talk.ask("three")
    assert ["one", "You said one", "three"] == talk.texts()
    count = len(talk.session.messages)
    assert [] == await talk.run("/retry")
    assert ["one", "You said one", "three"] == talk.texts()
    assert count == len(talk.session.messages)


async def test_undo_removes_the_rounds_of_tools(talk: Talk) -> None:
    await talk.ask("one")
    call = Message("assistant", (ToolCall("1", "look", "{}"),))
    result = Message.tool("seen", tool_call_id="1")
    talk.session.messages += [Message.user("two"), call, result, Message.assistant("Seen.")]
    assert ["removed: two"] == await talk.run("/undo")
    assert ["one", "You said one"] == [message.text for message in talk.session.messages]


async def test_a_message_that_failed_is_undone_or_sent_again(talk: Talk) -> None:
    await talk.ask("one")
    talk.session.failed = Message.user("two")
    assert ["removed: two"] == await talk.run("/undo")
    assert 2 == len(talk.session.messages)
    talk.session.failed = Message.user("three")
    await talk.run("/retry")
    assert ["one", "You said one", "three"] == talk.texts()
    assert talk.session.failed is None


async def test_the_log_follows(talk: Talk, tmp_path: Path) -> None:
    store = LogStore.open(tmp_path / "logs.db")
    store.turn_on()
    talk.session.log = Recorder(store=store)

    def logged() -> list[str]:
        return [message.text for message in store.last_conversation().messages]

    await talk.ask("one")
    await talk.ask("two")
    await talk.run("/undo")
    assert ["one", "You said one"] == logged()
    await talk.ask("three")
    await talk.run("/retry")
    assert ["one", "You said one", "three", "You said three"] == logged()
    await talk.run("/clear")
    await talk.ask("four")
    assert ["four", "You said four"] == logged()


async def test_stats(talk: Talk) -> None:
    assert ["0 messages, 0 answers"] == await talk.run("/stats")
    await talk.ask("Hi")
    lines = await talk.run("/stats")
    assert "2 messages, 1 answer" == lines[0]
    assert " input tokens and " in lines[1]
    assert 3 == len(lines)
    for state in ("on", "off"):
        assert [f"token counts after each answer: {state}"] == await talk.run(f"/stats {state}")
        assert (state == "on") == talk.conversation.shows_stats


async def test_save_as_json(talk: Talk) -> None:
    talk.session.system = "Be brief."
    await talk.ask("Hé")
    assert ["saved 2 messages to talk.json"] == await talk.run("/save talk.json")
    saved = json.loads(read("talk.json"))
    assert ("first", "tiny") == (saved["backend"], saved["model"])
    messages = [Message.from_dict(message) for message in saved["messages"]]
    assert [Message.system("Be brief."), *talk.session.messages] == messages


async def test_save_as_markdown(talk: Talk) -> None:
    call = Message("assistant", (ReasoningPart("I\nthink"), ToolCall("1", "look", '{"at": "```"}')))
    image = Message("user", (ImagePart.from_bytes(PNG), TextPart("What is it?\n")))
    talk.session.messages = [
        image,
        call,
        Message.tool("a cat", tool_call_id="1", name="look"),
        Message.assistant("A cat."),
    ]
    await talk.run("/save talk.md")
    expected = """\
backend: first, model: tiny

## User

(image: image/png)

What is it?

## Assistant

> I
> think

Called look:

````
{"at": "```"}
````

## Tool

Result of look:

```
a cat
```

## Assistant

A cat.
"""
    assert expected == read("talk.md")


async def test_save_never_overwrites(talk: Talk) -> None:
    await talk.ask("Hi")
    write("talk.md", b"precious")
    with pytest.raises(CommandError, match=r"^the file exists: talk\.md; choose another name$"):
        await talk.run("/save talk.md")
    assert "precious" == read("talk.md")
    with pytest.raises(OSError, match="nothere"):
        await talk.run("/save nothere/talk.md")
    assert [Path("talk.md")] == [path.relative_to(Path.cwd()) for path in Path.cwd().iterdir()]


async def test_completion(talk: Talk) -> None:
    write("notes/one.txt")
    write("notes/.hidden")
    cases = {
        "/he": ["/help"],
        "/s": ["/system", "/save", "/stats"],
        "/model ": ["tiny", "larger"],
        "/model l": ["larger"],
        "/backend s": ["second"],
        "/file no": ["notes/"],
        "/file notes/": ["notes/one.txt"],
        "/image notes/.": ["notes/.hidden"],
        "/file nothere/": [],
        "/file ~nobody-of-this-name/": [],
        "/clear ": [],
        "/nothing ": [],
    }
    assert cases == {line: [name for name, _ in await complete(talk.conversation, line)] for line in cases}


async def test_completion_of_models_of_a_server_that_is_gone(talk: Talk) -> None:
    await talk.servers["first"].__aexit__()
    assert [] == [*await complete(talk.conversation, "/model ")]
    assert ["model: tiny"] == await talk.run("/model")
