"""A server with slots, for the measurements of batches, in a process of its own. Prints its port.

``python -m tests.benchmarks.batch_server --seconds 0.005 --slots 32``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer. " * 10}}
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 30, "total_tokens": 90},
    }
).encode()


class Slots:
    """The slots of the server.

    Attributes:
        requests: All that came.
        peak: The most that were there at once, in a slot or in the queue.
    """

    def __init__(self, slots: int, seconds: float) -> None:
        self._semaphore = asyncio.Semaphore(slots)
        self._seconds = seconds
        self._present = 0
        self.requests = self.peak = 0

    async def answer(self) -> bytes:
        """Wait for a slot, and the time of a generation."""
        self.requests += 1
        self._present += 1
        self.peak = max(self.peak, self._present)
        try:
            async with self._semaphore:
                await asyncio.sleep(self._seconds)
            return _ANSWER
        finally:
            self._present -= 1


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slots: Slots) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if length is not None:
                await reader.readexactly(int(length[1]))
            if head.startswith(b"POST"):
                body = await slots.answer()
            elif b" /count" in head:
                body = json.dumps({"requests": slots.requests, "peak": slots.peak}).encode()
            else:
                body = _MODELS
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _main(slots: Slots) -> None:
    server = await asyncio.start_server(lambda reader, writer: _serve(reader, writer, slots), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.005)
    parser.add_argument("--slots", type=int, default=1000)
    arguments = parser.parse_args()
    asyncio.run(_main(Slots(arguments.slots, arguments.seconds)))
