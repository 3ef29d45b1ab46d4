"""The limit that the others are compared with: the best that can be written with aiohttp's public names and msgspec
for this one job, which is to send one prompt and to read the text. It waits for no server, looks at no model, and knows
no error but a status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
from yarl import URL

WIRES = ("openai", "anthropic", "ollama")
DISTRIBUTIONS = ("aiohttp", "msgspec")
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
EXTRAS = {"openai": {"stream_options": {"include_usage": True}}, "anthropic": {}, "ollama": {}}
MESSAGES = [{"role": "user", "content": "Say something."}]
_TEXT_DELTA = b"event: content_block_delta\ndata: "


class Content(msgspec.Struct, gc=False):
    """Of a message or a delta. Anthropic calls it ``text``."""

    content: str | None = None
    text: str | None = None
    stop_reason: str | None = None


class Choice(msgspec.Struct, gc=False):
    message: Content | None = None
    delta: Content | None = None
    finish_reason: str | None = None


class OpenAI(msgspec.Struct, gc=False):
    choices: list[Choice] = []


class AnthropicMessage(msgspec.Struct, gc=False):
    content: list[Content]
    stop_reason: str


class AnthropicEvent(msgspec.Struct, gc=False):
    type: str
    delta: Content | None = None


class Ollama(msgspec.Struct, gc=False):
    message: Content
    done: bool


_encode = msgspec.json.Encoder().encode
_openai = msgspec.json.Decoder(OpenAI).decode
_anthropic = msgspec.json.Decoder(AnthropicMessage).decode
_anthropic_event = msgspec.json.Decoder(AnthropicEvent).decode
_ollama = msgspec.json.Decoder(Ollama).decode
_ollama_lines = msgspec.json.Decoder(Ollama).decode_lines


class Handwritten:
    """``reads``: how often bytes were taken from the connection, so that it can be told whether a stream that is sent
    event by event also came so."""

    def __init__(self, session: aiohttp.ClientSession, wire: str, url: str) -> None:
        self._session = session
        self._url = URL(url + PATHS[wire])
        self._extra = EXTRAS[wire]
        self._text = {"openai": _openai_text, "anthropic": _anthropic_text, "ollama": _ollama_text}[wire]
        self._pieces = {"openai": self._of_openai, "anthropic": self._of_anthropic, "ollama": self._of_ollama}[wire]
        self.reads = 0

    async def complete(self, model: str) -> str:
        body = _encode({"model": model, "messages": MESSAGES, "max_tokens": 1000, "stream": False})
        response = await self._session.post(self._url, data=body)
        data = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {data!r}")
        return self._text(data)

    async def stream(self, model: str, take: Callable[[str], object]) -> None:
        async for piece in self._pieces(model):
            take(piece)

    async def _open(self, model: str) -> aiohttp.StreamReader:
        body = _encode({"model": model, "messages": MESSAGES, "max_tokens": 1000, "stream": True, **self._extra})
        response = await self._session.post(self._url, data=body)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {await response.read()!r}")
        return response.content

    async def _of_openai(self, model: str) -> AsyncIterator[str]:
        content = await self._open(model)
        rest = b""
        is_complete = False
        while data := await content.readany():
            self.reads += 1
            events = (rest + data if rest else data).split(b"\n\n")
            rest = events.pop()
            for event in events:
                if event == b"data: [DONE]":
                    continue
                for choice in _openai(event[6:]).choices:
                    if choice.delta is not None and choice.delta.content:
                        yield choice.delta.content
                    if choice.finish_reason is not None:
                        is_complete = True
        if not is_complete:
            raise RuntimeError("the stream broke off")

    async def _of_anthropic(self, model: str) -> AsyncIterator[str]:
        content = await self._open(model)
        rest = b""
        is_complete = False
        while data := await content.readany():
            self.reads += 1
            events = (rest + data if rest else data).split(b"\n\n")
            rest = events.pop()
            for event in events:
                if event.startswith(_TEXT_DELTA):
                    delta = _anthropic_event(event[len(_TEXT_DELTA) :]).delta
                    if delta is not None and delta.text:
                        yield delta.text
                elif event.startswith(b"event: message_stop"):
                    is_complete = True
        if not is_complete:
            raise RuntimeError("the stream broke off")

    async def _of_ollama(self, model: str) -> AsyncIterator[str]:
        content = await self._open(model)
        rest = b""
        is_complete = False
        while data := await content.readany():
            self.reads += 1
            if rest:
                data = rest + data
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            for line in _ollama_lines(data[:end] if rest else data):
                if line.message.content:
                    yield line.message.content
                if line.done:
                    is_complete = True
        if not is_complete:
            raise RuntimeError("the stream broke off")

    async def close(self) -> None:
        await self._session.close()


def _openai_text(data: bytes) -> str:
    choice = _openai(data).choices[0]
    if choice.message is None or choice.message.content is None or choice.finish_reason is None:
        raise RuntimeError(f"not a whole answer: {data!r}")
    return choice.message.content


def _anthropic_text(data: bytes) -> str:
    return "".join([block.text or "" for block in _anthropic(data).content])


def _ollama_text(data: bytes) -> str:
    answer = _ollama(data)
    if not answer.done or answer.message.content is None:
        raise RuntimeError(f"not a whole answer: {data!r}")
    return answer.message.content


async def open_client(wire: str, url: str) -> Handwritten:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        headers={"Content-Type": "application/json"},
    )
    return Handwritten(session, wire, url)
