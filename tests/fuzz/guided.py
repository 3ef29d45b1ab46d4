"""A search for bytes that make a stream decoder break its word, guided by the lines of code that they reach: ``python
-m tests.fuzz.guided OpenAIStreamDecoder directory``. Begins with the recordings; keeps what it finds of use in the
directory. Needs atheris (libFuzzer for Python); the tests of this directory need it not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris


def main() -> None:
    name, directory = sys.argv[1:]
    with atheris.instrument_imports(include=["ctxbackends"]):
        from tests.fuzz.material import CODECS, STREAMS, holds_terminal, read, single  # noqa: PLC0415  # counted from here

    for key, stream in STREAMS.items():
        Path(directory, key).write_bytes(b"\x40" + stream)  # the byte that says where it is cut

    def one(data: bytes) -> None:
        if not data:
            return
        told = []
        cut, rest = 4 * data[0], data[1:]
        for chunks in ([rest], [rest[:cut], rest[cut:]], single(rest) if len(rest) < 256 else [rest]):
            decoder = CODECS[name].stream_decoder()
            events = read(decoder, chunks)
            assert decoder.finished is (decoder.failure is None)
            told.append((events, decoder.finished, str(decoder.failure), decoder.served_model, decoder.response_id))
        assert told[0] == told[1] == told[2]
        assert not told[0][1] or holds_terminal(name, rest)

    seconds = os.environ.get("CTXBACKENDS_FUZZ_SECONDS", "300")
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=8192", "-print_final_stats=1", directory], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
