"""The smoke test of an installed release: ``python -I tests/release/smoke.py VERSION [EXTRA]``.

It runs in an environment that has nothing but the release, so it imports nothing of the tests.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import ctxbackends
from ctxbackends import Backend, open_backend
from ctxbackends.testing import FaultServer

BIN = Path(sys.executable).parent


def main(version: str, extra: str = "") -> None:
    """Check the installation, a request and a stream, the commands, and what the extra is for."""
    check_installation(version)
    asyncio.run(check_answers())
    check_commands(version)
    for name in EXTRAS if extra == "all" else [extra]:
        if name in EXTRAS:
            EXTRAS[name]()
    if extra == "all":
        asyncio.run(check_local_server())
    check_integration(extra)


def check_installation(version: str) -> None:
    distribution = metadata.distribution("ctxbackends")
    expect((version, version), (distribution.version, ctxbackends.__version__))
    expect(None, distribution.read_text("direct_url.json"))  # from an index, and not from a file
    expect(True, Path(str(ctxbackends.__file__)).is_relative_to(sys.prefix))


async def check_answers() -> None:
    async with FaultServer() as server, open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        await expect_hello(backend)


async def expect_hello(backend: Backend) -> None:
    expect("Hello, world.", (await backend.complete("Hello")).text)
    async with backend.stream("Hello") as stream:
        async for _ in stream:
            pass
    expect("Hello, world.", stream.completion.text)


def check_commands(version: str) -> None:
    """Check both programs; without the extra, they name it."""
    expected = {"ctxbackends": f"ctxbackends {version}", "ctx": f"ctx (ctxbackends) {version}"}
    for program, line in expected.items():
        if find_spec("click") and find_spec("rich"):
            expect((0, line), run(program, "--version"))
        else:
            install = f"{program}: the command line requires an extra; run pip install 'ctxbackends[cli]'"
            expect((1, install), run(program, "--version"))


def check_chat() -> None:
    with FaultServer() as server:
        options = ["--backend", "vllm", "--endpoint", server.url, "--model", "m"]
        expect((0, "Hello, world."), run("ctxbackends", "chat", *options, "Hello"))


def check_documents() -> None:
    """Find a page of Markdown and a PDF, and not the file that .gitignore has."""
    from ctxbackends.knowledge import find_sources  # noqa: PLC0415  # for the extra

    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        Path(base, ".git").mkdir()
        Path(base, ".gitignore").write_text("notes.md\n")
        for name in ("notes.md", "plan.md"):
            Path(base, name).write_text("# Plan\n")
        write_pdf(Path(base, "plan.pdf"), "Plan")
        sources = find_sources(["."], base=base).sources
        expect(["plan.md", "plan.pdf"], [source.name for source in sources])


def write_pdf(path: Path, text: str) -> None:
    from pypdf import PdfWriter  # noqa: PLC0415  # of the extra
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject  # noqa: PLC0415

    writer = PdfWriter()
    page = writer.add_blank_page(width=100, height=100)
    kinds = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in kinds.items()})
    fonts = DictionaryObject({NameObject("/F1"): font})
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 10 50 Td ({text}) Tj ET".encode())
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    page[NameObject("/Contents")] = content
    writer.write(path)


def check_llamacpp() -> None:
    expect(True, find_spec("xllamacpp") is not None)


def check_pytest_plugin() -> None:
    """Check the fixtures in a test of somebody else's."""
    code = """
async def test_it(fault_server, tiny_model):
    from ctxbackends import open_backend
    async with open_backend("vllm", endpoint=fault_server.url, default_model="m") as backend:
        assert "Hello, world." == (await backend.complete("Hello")).text
    assert b"GGUF" == tiny_model("tiny").read_bytes()[:4]
"""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_it.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", directory],
            cwd=directory,
        )
        expect(0, done.returncode)


async def check_local_server() -> None:
    """Serve a tiny model with llama.cpp."""
    from ctxbackends import serve_model  # noqa: PLC0415
    from ctxbackends.testing import VARIANTS, cached_model  # noqa: PLC0415

    async with serve_model(cached_model(VARIANTS["tiny"])) as backend:
        completion = await backend.complete("Hello", max_tokens=4)
        expect("length", completion.finish_reason)


def check_integration(extra: str) -> None:
    """Import each public name of the adapter with the name of the extra, if there is one."""
    name = f"ctxbackends.integrations.{extra.replace('-', '_')}"
    if extra and find_spec(name):
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            expect(True, hasattr(module, public))


EXTRAS: dict[str, Callable[[], None]] = {
    "cli": check_chat,
    "documents": check_documents,
    "llamacpp": check_llamacpp,
    "testing": check_pytest_plugin,
}
"""What ``all`` installs."""


def run(program: str, *arguments: str) -> tuple[int, str]:
    """Return the exit code of a program of the environment, and its last line."""
    path = BIN / (f"{program}.exe" if sys.platform == "win32" else program)
    done = subprocess.run([str(path), *arguments], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def expect(expected: object, actual: object) -> None:
    if expected != actual:
        sys.exit(f"smoke test: expected {expected!r}, got {actual!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
