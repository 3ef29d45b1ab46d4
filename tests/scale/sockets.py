"""The addresses that processes listen on, from /proc."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

LISTEN = "0A"


def find_listeners(pids: Collection[int]) -> set[str]:
    """The local addresses of their listening TCP sockets."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(descriptor)
                    inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {_decode(fields[1].split(":")[0]) for fields in lines if fields[3] == LISTEN and fields[9] in inodes}


def _decode(address: str) -> str:
    """Four or sixteen bytes, in hexadecimal, as words of the machine's byte order."""
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(words))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
