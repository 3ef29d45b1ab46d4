"""Run nox where it is not installed: `python3 noxfile.py` makes `.nox/bootstrap` with nox and uv in it.

Standard library only, in syntax that Python 3.6 can parse, so that an old Python can say what is wrong.
"""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".nox" / "bootstrap"
BIN = BOOTSTRAP / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
NOX_LOWEST = (2025, 11, 12)  # the same as `nox.needs_version`, which nox reads without running the noxfile
NOX_REQUIREMENT = "nox>=2026.4.10,<2027"
UV_REQUIREMENT = "uv>=0.8,<1"  # makes and fills an environment in a tenth of pip's time


def let_uv_read_pip_settings() -> None:
    """Set uv's variables for the index and certificates from pip's, which uv does not read."""
    for pip_name, uv_name, separator in (
        ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", " "),
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX", " "),
        ("PIP_FIND_LINKS", "UV_FIND_LINKS", ","),
        ("PIP_NO_INDEX", "UV_NO_INDEX", " "),
        ("PIP_CERT", "SSL_CERT_FILE", " "),
    ):
        if os.environ.get(pip_name):
            os.environ.setdefault(uv_name, separator.join(os.environ[pip_name].split()))
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # like pip: a company's own certificate authority is trusted


def run(noxfile: str) -> None:
    """Run nox with ``noxfile``, in `.nox/bootstrap` unless this Python has nox. Does not return."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older Python is told
        sys.exit("noxfile: needs Python 3.11 or newer; this is Python {}.{}.".format(*sys.version_info))
    if has_nox():
        sys.argv[1:1] = ["--noxfile", noxfile]
        import_module("nox").main()
    if Path(sys.prefix) == BOOTSTRAP:
        sys.exit(f"noxfile: {BOOTSTRAP} is broken; delete it and try again.")
    make_bootstrap()
    command = [str(PYTHON), noxfile, *sys.argv[1:]]
    if os.name == "nt":  # where execv does not wait
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def has_nox() -> bool:
    from importlib import metadata

    try:
        version = metadata.version("nox")
    except metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= NOX_LOWEST


def make_bootstrap() -> None:
    """Make `.nox/bootstrap`, unless it is complete: the stamp is written last."""
    stamp = BOOTSTRAP / "complete"
    content = "\n".join([NOX_REQUIREMENT, UV_REQUIREMENT, sys.version, os.path.realpath(sys.executable)])
    if PYTHON.exists() and stamp.exists() and stamp.read_text("utf-8") == content:
        return
    print("noxfile: making .nox/bootstrap with nox in it (once; needs the package index)", file=sys.stderr, flush=True)
    install = [*make_environment(), "install", "--quiet", "--retries=1", "--disable-pip-version-check"]
    let_uv_read_pip_settings()
    uv = [str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(PYTHON)]
    # nox comes with uv, which shows whether uv reaches the package index. Where there is no wheel of uv, or only pip's
    # configuration file names the index, nox comes with pip, and then makes its environments with virtualenv.
    if run_quietly(*install, "--only-binary=uv", UV_REQUIREMENT) or run_quietly(*uv, NOX_REQUIREMENT):
        run_quietly(*install[:-4], "uninstall", "--quiet", "--yes", "uv")
        error = run_quietly(*install, NOX_REQUIREMENT)
        if error:
            sys.exit(f"noxfile: could not install nox; check the network and the settings of pip: {error}")
    stamp.write_text(content, "utf-8")


def make_environment() -> "list[str]":
    """Make an environment without packages; return the command of a pip that installs into it."""
    try:
        import venv

        venv.EnvBuilder(clear=True, symlinks=os.name != "nt").create(str(BOOTSTRAP))
        if not run_quietly(str(PYTHON), "-m", "ensurepip"):
            return [str(PYTHON), "-m", "pip"]
        pip = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
        if not run_quietly(*pip, "list"):
            return pip
    except ImportError:
        pass
    sys.exit("noxfile: this Python can make no environment; install python3-venv of your distribution, or nox itself.")


def run_quietly(*command: str) -> str:
    """Run ``command``; return its last line where it failed, else an empty text."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        return str(error)
    lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1]) if done.returncode else ""
