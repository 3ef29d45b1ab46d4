"""The public names, and that importing them touches neither the network nor the user's files."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import ctxbackends
from ctxbackends import errors

# Runs its first argument as code, and prints what that did: sockets and address look-ups, files that were opened, and
# the modules that are there then. What the interpreter itself reads at its start comes before the hook.
AUDIT = """
import json, os, sys

seen = {"network": [], "opened": []}
running = [True]

def hook(event, arguments):
    if not running[0]:
        return
    if event.startswith("socket."):
        seen["network"].append(event)
        raise OSError("sockets are disabled here")
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        seen["opened"].append(os.path.realpath(os.fsdecode(arguments[0])))

sys.addaudithook(hook)
try:
    exec(sys.argv[1], {"__name__": "__main__"})
except OSError as error:
    seen["error"] = str(error)
running[0] = False
print(json.dumps({**seen, "modules": sorted(sys.modules)}))
"""


def audit(code: str, tmp_path: Path) -> dict[str, Any]:
    """What ``code`` did in a process whose user has a .ctxrc in the home and in the working directory."""
    home = tmp_path / "home"
    home.mkdir()
    for directory in (home, tmp_path):
        (directory / ".ctxrc").write_text("backends: []\n")
    result = subprocess.run(
        [sys.executable, "-c", AUDIT, code],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(ctxbackends.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "" == result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def outside(files: list[str]) -> list[str]:
    """The files that belong neither to the interpreter and its packages nor to this one."""
    own = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, str(Path(ctxbackends.__file__).parent)}
    roots = [Path(os.path.realpath(directory)) for directory in own]
    # The interpreter's own: what it is built from, and the tables of the C library (time zones, MIME types).
    roots += [Path("/usr/lib"), Path("/usr/share"), Path("/etc"), Path("/dev/null")]
    return [name for name in files if not any(Path(name).is_relative_to(root) for root in roots)]


def test_the_import_reads_and_opens_nothing(tmp_path: Path) -> None:
    report = audit("import ctxbackends", tmp_path)
    assert ([], []) == (report["network"], outside(report["opened"]))
    assert "error" not in report
    assert "ctxbackends" in report["modules"]
    for heavy in ("aiohttp", "anyio", "asyncio", "click", "msgspec", "rich", "ruamel.yaml", "tenacity", "xllamacpp"):
        assert heavy not in report["modules"]


def test_importing_a_name_opens_nothing(tmp_path: Path) -> None:
    report = audit("from ctxbackends import Registry", tmp_path)
    assert ([], []) == (report["network"], outside(report["opened"]))
    assert "error" not in report
    assert "aiohttp" in report["modules"]
    for heavy in ("click", "rich", "ruamel.yaml", "xllamacpp"):
        assert heavy not in report["modules"]


def test_importing_every_name_opens_nothing(tmp_path: Path) -> None:
    report = audit("from ctxbackends import *", tmp_path)
    assert ([], []) == (report["network"], outside(report["opened"]))
    assert "error" not in report


def test_the_audit_sees_files(tmp_path: Path) -> None:
    """Or else the tests above would hold of anything."""
    report = audit("from ctxbackends import Registry; Registry.from_ctxrc()", tmp_path)
    assert [str(tmp_path / ".ctxrc")] == outside(report["opened"])


def test_the_audit_sees_sockets(tmp_path: Path) -> None:
    report = audit("import socket; socket.create_connection(('127.0.0.1', 1))", tmp_path)
    assert "socket.getaddrinfo" in report["network"]
    assert "sockets are disabled here" == report["error"]


# --- the names --------------------------------------------------------------------------------------


def names_for_type_checkers() -> dict[str, str]:
    """name -> module, as the imports under TYPE_CHECKING say."""
    tree = ast.parse(Path(ctxbackends.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names: dict[str, str] = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            assert alias.name == alias.asname, "only `import X as X` is a public name to type checkers"
            names[alias.name] = str(statement.module)
    return names


def test_type_checkers_see_the_same_names() -> None:
    assert {*names_for_type_checkers()} == {*ctxbackends.__all__, "__version__"}
    assert ctxbackends.__all__ == dir(ctxbackends)


def test_every_exception_is_public() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds <= set(ctxbackends.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'ctxbackends' has no attribute 'Nothing'"):
        getattr(ctxbackends, "Nothing")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from ctxbackends import Nothing")  # noqa: S102


def test_a_completion_imports_no_command_line(tmp_path: Path) -> None:
    """The extra ``cli`` may not be installed."""
    code = (
        "import asyncio, ctxbackends\n"
        "from ctxbackends.testing import FaultServer\n"
        "async def main():\n"
        "    async with FaultServer() as server:\n"
        "        async with ctxbackends.open_backend('vllm', endpoint=server.url, default_model='m') as backend:\n"
        "            print((await backend.complete('Hello')).text)\n"
        "asyncio.run(main())\n"
        "import sys\n"
        "print(sorted({'click', 'rich'} & sys.modules.keys()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (0, "[]") == (result.returncode, result.stdout.splitlines()[-1]), result.stderr


def test_the_version_is_that_of_the_installed_package() -> None:
    assert metadata.version("ctxbackends") == ctxbackends.__version__
