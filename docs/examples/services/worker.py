"""A worker: answers each line of standard input, several at once, with a line of JSON on standard output.

After SIGTERM, it takes no new lines, finishes the answers in flight for up to 20 seconds, and ends.
"""

import asyncio
import json
import signal
import sys

from ctxbackends import BackendError, ClosedError, Registry


async def answer(registry: Registry, prompt: str) -> None:
    try:
        completion = await registry.default().complete(prompt)
    except ClosedError:
        return  # too late: the prompt stays for the next worker
    except BackendError as error:
        print(json.dumps({"prompt": prompt, "error": type(error).__name__}), flush=True)
    else:
        print(json.dumps({"prompt": prompt, "text": completion.text}), flush=True)


async def read_lines(registry: Registry, tasks: asyncio.TaskGroup) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        tasks.create_task(answer(registry, line.decode().strip()))


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Registry.from_ctxrc() as registry, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_lines(registry, tasks))
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            reading.cancel()
            print("finishing the answers in flight", file=sys.stderr, flush=True)
            await registry.drain(timeout=20)
        stopping.cancel()


if __name__ == "__main__":
    asyncio.run(main())
