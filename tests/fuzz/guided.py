"""A search for bytes that make a stream decoder break its word, guided by the lines of code that they reach: ``python
-m tests.fuzz.guided OpenAIStreamDecoder directory``. Begins with the recordings; keeps what it finds of use in the
directory. Needs atheris (libFuzzer for Python); the tests of this directory need it not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

from tests.splitting import split_bytes


def main() -> None:
    name, directory = sys.argv[1:]
    with atheris.instrument_imports(include=["ctxbackends"]):
        from tests.fuzz.material import CODECS, STREAMS, has_terminal, read  # noqa: PLC0415  # counted from here

    for key, stream in STREAMS.items():
        Path(directory, key).write_bytes(b"\x40" + stream)  # the byte that says where it is cut

    def check(data: bytes) -> None:
        if not data:
            return
        outcomes = []
        position, rest = 4 * data[0], data[1:]
        for chunks in ([rest], [rest[:position], rest[position:]], split_bytes(rest) if len(rest) < 256 else [rest]):
            decoder = CODECS[name].stream_decoder()
            events = read(decoder, chunks)
            assert decoder.finished is (decoder.failure is None)
            outcomes.append((events, decoder.finished, str(decoder.failure), decoder.served_model, decoder.response_id))
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert not outcomes[0][1] or has_terminal(name, rest)

    seconds = os.environ.get("CTXBACKENDS_FUZZ_SECONDS", "300")
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=8192", "-print_final_stats=1", directory], check
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
