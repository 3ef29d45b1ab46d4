"""The context of a local server: what the model and the memory of the machine allow.

llama.cpp would take the memory for the whole context first, for many seconds or until the system ends the process, and
then give each slot no more than the model was trained with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._util.text import format_size
from ctxbackends.errors import ConfigError, LocalServerWarning
from ctxbackends.local._gguf import ModelHeader

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA and AMD, and in WSL


def fit_context(ctx_size: int, header: ModelHeader, *, parallel: int | None) -> int:
    """Return the context for a server: not more than its slots can use, with a warning if it is reduced.

    Args:
        ctx_size: The tokens of all slots together that were asked for.
        header: The facts about the model.
        parallel: The number of slots; None if the server chooses it.

    Raises:
        ConfigError: The context surely does not fit into the memory.
    """
    size = ctx_size
    if parallel is not None and header.context_length is not None:
        size = min(ctx_size, header.context_length * parallel)
    if size < ctx_size:
        slots = "" if parallel == 1 else f", {header.context_length} for each of {parallel} slots"
        warnings.warn(
            LocalServerWarning(f"ctx_size reduced from {ctx_size} to {size}, the context of the model{slots}"),
            stacklevel=2,
        )
    memory = total_memory()
    if memory is not None and header.bytes_per_token is not None and size * header.bytes_per_token > memory:
        raise ConfigError(
            f"{size} tokens of context need {format_size(size * header.bytes_per_token)}, and this machine has "
            f"{format_size(memory)} of memory; use at most {memory // header.bytes_per_token}",
            key="ctx_size",
        )
    return size


def describe_context(status: ServerStatus, header: ModelHeader, *, ctx_size: int | None) -> str | None:
    """Return a sentence if a request has less context than was asked for, or than the model has; None otherwise.

    Args:
        status: The status of the server.
        header: The facts about the model.
        ctx_size: The tokens of all slots together that were asked for; None for the context of the model.
    """
    per_slot, slots, trained = status.context_length, status.slots or 1, header.context_length
    if per_slot is None:
        return None
    if ctx_size is None:
        if trained is None or per_slot >= trained:
            return None
        if slots == 1 or per_slot < trained // slots:
            return f"context: {per_slot} tokens instead of the model's {trained}, to fit into the memory"
    if slots > 1 and not status.shared_context:
        return f"context: {per_slot} tokens for each of {slots} slots"
    size = min(ctx_size, trained) if ctx_size and trained else ctx_size
    if size is not None and per_slot < size:
        return f"context: {per_slot} tokens instead of {size}; llama.cpp reduced it"
    return None


def total_memory() -> int | None:
    """Return the bytes of memory that a process on this machine can use; None if a GPU may have more, or unknown.

    Memory that is used now can become free, so the size of all memory and swap space is the limit.
    """
    if sys.platform == "linux":
        if any(map(os.path.exists, _GPU_DEVICES)):
            return None
        return _read_linux_memory()
    if sys.platform == "darwin" and os.uname().machine == "arm64":  # where the GPU uses the same memory
        try:
            done = subprocess.run(["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, check=True, timeout=5)
            return int(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
    return None


def _read_linux_memory() -> int | None:
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
        sizes = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
        total = sizes["MemTotal"] + sizes["SwapTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    try:  # the limits of a container
        memory, swap = ((_CGROUP / f"memory{kind}.max").read_text("ascii").strip() for kind in ("", ".swap"))
        if memory != "max" and swap != "max":
            return min(total, int(memory) + int(swap))
    except (OSError, ValueError):
        pass
    return total
