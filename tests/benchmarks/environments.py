"""The clients that are measured, and a virtual environment for each, so that no one has another's packages. An
environment that was made for the same requirements is used again.

Knows what is installed, and not what it does.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.benchmarks.cases import HAND_WRITTEN, SDK
from tests.benchmarks.processes import ROOT

WHEEL = "ctxbackends"
"""Stands for the wheel that is measured, which has a path."""
AS_THE_SDK = ("aiohttp", "msgspec")
"""The hand-written client has these, of the versions that the SDK was given."""
_TOOLS = {"pip", "setuptools", "wheel", "uv"}


@dataclass(frozen=True)
class Client:
    """``name``: of its module in ``clients/``. ``title``: in the table. ``wires``: which of its wires are measured.
    ``peer``: somebody else's, which is slower and is asked less often."""

    name: str
    title: str
    requirements: tuple[str, ...]
    wires: tuple[str, ...] = ("openai",)
    peer: bool = True


_CLIENTS = (
    Client(HAND_WRITTEN, "hand-written", AS_THE_SDK, ("openai", "anthropic", "ollama"), peer=False),
    Client(SDK, "ctxbackends", (WHEEL,), ("openai", "vllm", "llamacpp", "anthropic", "ollama"), peer=False),
    Client("handwritten_uvloop", "hand-written, uvloop", (*AS_THE_SDK, "uvloop==0.22.*"), peer=False),
    Client("sdk_uvloop", "ctxbackends, uvloop", (WHEEL, "uvloop==0.22.*"), peer=False),
    Client("openai_client", "openai", ("openai==3.54.*",)),
    Client("openai_aiohttp", "openai, aiohttp", ("openai[aiohttp]==3.54.*",)),
    Client("anthropic_client", "anthropic", ("anthropic==2.12.*",), ("anthropic",)),
    Client("ollama_client", "ollama", ("ollama==0.6.3",), ("ollama",)),
    Client("litellm_client", "litellm", ("litellm==1.106.*",)),
    Client("anyllm_client", "any-llm-sdk", ("any-llm-sdk[openai]==1.40.*",)),
    Client("pydanticai_client", "pydantic-ai", ("pydantic-ai-slim[openai]==2.68.*",)),
)
CLIENTS = {client.name: client for client in _CLIENTS}


class EnvironmentFailedError(Exception):
    """It could not be made: the reason that the installer gave."""


@dataclass(frozen=True)
class Environment:
    """``python`` is its interpreter; ``directory`` is None for the interpreter that runs this."""

    python: Path
    directory: Path | None = None

    def packages(self) -> Path:
        if self.directory is None:
            raise LookupError("the packages of this interpreter are not one client's")
        (path,) = self.directory.glob("lib/python*/site-packages")
        return path

    def installed(self) -> dict[str, str]:
        """The distributions with their versions, without those that only install others."""
        path = metadata.distributions(path=[str(self.packages())])
        return {distribution.name: distribution.version for distribution in path if distribution.name not in _TOOLS}

    def size(self) -> int:
        """Bytes of what these distributions brought, and of the byte code that was compiled of it."""
        packages = self.packages()
        path = metadata.distributions(path=[str(packages)])
        tools = {
            file.parts[0] for distribution in path if distribution.name in _TOOLS for file in distribution.files or ()
        }
        entries = [entry for entry in packages.iterdir() if entry.name not in tools]
        files = [file for entry in entries for file in ([entry] if entry.is_file() else entry.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.is_file())


HERE = Environment(Path(sys.executable))


def make_environment(client: Client, directory: Path, wheel: Path | None, sdk: Environment | None) -> Environment:
    """The environment of a client below ``directory``, made if it is not there. ``sdk``: whose versions of packages
    the hand-written client gets."""
    requirements = []
    pins_ = [sys.version]
    for requirement in client.requirements:
        if requirement == WHEEL:
            assert wheel is not None, "the SDK is installed from its wheel"
            pins_.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
            requirements.append(str(wheel))
        else:
            requirements.append(requirement)
            pins_.append(requirement)
    limits = []
    if client.requirements[: len(AS_THE_SDK)] == AS_THE_SDK and sdk is not None:
        limits = [f"{name}=={version}" for name, version in sorted(sdk.installed().items()) if name != WHEEL]
    home = directory / client.name
    environment = Environment(home / "bin" / "python", home)
    stamp = home / "pins.txt"  # the last thing written
    pins = "\n".join([*pins_, *limits]) + "\n"
    if stamp.exists() and stamp.read_text() == pins:
        return environment
    print(f"bench: making the environment of {client.title}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    limits_file = directory / f"{client.name}-limits.txt"
    limits_file.write_text("\n".join(limits) + "\n")
    for command in _commands(home, ["--constraint", str(limits_file), *requirements]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            lines = done.stdout.strip().splitlines() or ["no reason given"]
            line_ = next((line for line in lines if "error" in line.lower() or "×" in line), lines[-1])
            raise EnvironmentFailedError(f"could not install {client.title}: {line_.strip()[:300]}")
    stamp.write_text(pins)
    return environment


def _commands(home: Path, what: Sequence[str]) -> list[list[str]]:
    """With uv where it is, else with pip. Either compiles what it installs, so that the first import does not."""
    own = ROOT / ".nox" / "bootstrap" / "bin" / "uv"
    uv = shutil.which("uv") or (str(own) if own.exists() else None)
    python = str(home / "bin" / "python")
    if uv is None:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
        return [[sys.executable, "-m", "venv", str(home)], pip]
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *what]
    return [[uv, "venv", "--quiet", "--python", sys.executable, str(home)], install]
