"""The models on this machine: the cache, its list, and the names of its models.

To use a cached model, pass its path to ``serve_model(find_model("smollm2"))``, or set it as the ``model_path`` of a
`BackendConfig`: the backend of a registry starts the server on the first request.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import attrs

from ctxbackends._suggestions import find_similar
from ctxbackends._util.directories import cache_directory
from ctxbackends._util.text import format_size
from ctxbackends.errors import ConfigError
from ctxbackends.local._gguf import check_model_file
from ctxbackends.local._known_models import KNOWN_MODELS, KnownModel

_SUFFIX = ".gguf"
CHAT_ARGUMENTS = "--max-tokens 60 'What is the capital of France? Answer in one sentence.'"
"""Arguments of ``ctxbackends chat``: a question that a small model answers, and a limit if it does not stop."""


@attrs.frozen(kw_only=True)
class LocalModel:
    """A model that is in the cache, or that can be downloaded to it.

    Attributes:
        name: Name in commands.
        path: Path of the file in the cache, also of one that is not there yet.
        state: ``cached``; ``damaged`` if the file does not have the model's size; ``not downloaded``.
        size: Size in bytes.
        license: SPDX identifier of the licence; None for a file that the user put there.
        description: The model in a few words; empty for a file that the user put there.
    """

    name: str
    path: Path
    state: str
    size: int
    license: str | None = None
    description: str = ""


def models_directory() -> Path:
    """Return the directory of the cached models; ``CTXBACKENDS_CACHE_DIR`` overrides the user's cache directory."""
    return cache_directory() / "models"


def path_in_cache(name: str) -> Path:
    """Return where the model with this name is in the cache, or will be."""
    return models_directory() / f"{name}{_SUFFIX}"


def list_models() -> tuple[LocalModel, ...]:
    """Return the known models, and after them the other GGUF files in the cache.

    Raises:
        OSError: The cache cannot be read.
    """
    directory = models_directory()
    known = [_describe(model) for model in KNOWN_MODELS]
    names = {model.name for model in KNOWN_MODELS}
    others = [
        LocalModel(name=path.stem, path=path, state="cached", size=path.stat().st_size)
        for path in sorted(directory.glob(f"[!.]*{_SUFFIX}"))
        if path.stem not in names and path.is_file()
    ]
    return (*known, *others)


def find_cached(name: str) -> Path | None:
    """Return the path of a model in the cache; None if it is not there, is damaged, or the cache cannot be read."""
    try:
        model = next((model for model in list_models() if model.name == name), None)
    except OSError:
        return None
    return model.path if model is not None and model.state == "cached" else None


def find_known(name: str) -> KnownModel:
    """Return the known model with this name.

    Raises:
        ConfigError: There is none.
    """
    model = next((model for model in KNOWN_MODELS if model.name == name), None)
    if model is None:
        names = [model.name for model in KNOWN_MODELS]
        similar = find_similar(name, names)
        advice = f"did you mean {similar}?" if similar else f"the models are: {', '.join(names)}"
        raise ConfigError(f"unknown model: {name}; {advice}")
    return model


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the path of a model file, or of the cached model with this name. A file comes first.

    Whether a path names a model file is not checked.

    Raises:
        ConfigError: It is neither a path nor the name of a cached model.
    """
    path = Path(model)
    name = str(model)
    if path.exists() or path.name != name or name.endswith(_SUFFIX):
        return path
    models = {one.name: one for one in list_models()}
    if name in models:
        if models[name].state != "cached":
            raise ConfigError(f"model {name} is {models[name].state}; run ctxbackends pull {name}")
        return models[name].path
    similar = find_similar(name, models)
    if similar is not None:
        raise ConfigError(f"{name}: no such file or model; did you mean {similar}?")
    cached = [one.name for one in models.values() if one.state == "cached"]
    advice = f"the cached models are: {', '.join(cached)}" if cached else "download one with ctxbackends pull"
    raise ConfigError(f"{name}: no such file or model; {advice}")


def find_model_file(model: str, *, key: str | None = None) -> Path:
    """Return the path of a GGUF file, or of the cached model with this name.

    Raises:
        ConfigError: There is none, or it is not a readable GGUF file. The message has ``key``.
    """
    path = find_model(model)
    check_model_file(path, key=key)
    return path


def suggest_local_model() -> str:
    """Return one sentence that says how to chat with a model on this machine, for somebody who has configured nothing.

    It reads the cache and opens no socket.
    """
    model = KNOWN_MODELS[0]
    install = "" if has_server() else f"{install_command()}, then "
    if find_cached(model.name) is not None:
        return f"to use the small model on this machine, run {install}ctxbackends chat --model-path {model.name}"
    size = format_size(model.size)
    return f"to try a small model on this machine ({size}), run {install}ctxbackends pull {model.name}"


def install_command() -> str:
    """Return the command that adds the llama.cpp server to this installation, from where the package came.

    That is the package index, or else the checkout or the URL that pip and uv record
    (https://packaging.python.org/en/latest/specifications/direct-url/).
    """
    option, requirement = "", "ctxbackends[llamacpp]"
    try:
        record = metadata.distribution("ctxbackends").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # a copy of the source that is only on the import path
        record = None
    if record is not None:
        origin = json.loads(record)
        if "dir_info" in origin:
            option = "-e " if origin["dir_info"].get("editable") else ""
            requirement = f"{url2pathname(urlsplit(origin['url']).path)}[llamacpp]"
        else:
            scheme = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
            requirement = f"{requirement} @ {scheme}{origin['url']}"
    return f"pip install {option}{shlex.quote(requirement)}"


def has_server() -> bool:
    """Return whether a llama.cpp server is installed."""
    return has_wheel() or shutil.which("llama-server") is not None


def has_wheel() -> bool:
    """Return whether the llama.cpp server of the wheel is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def _describe(model: KnownModel) -> LocalModel:
    path = path_in_cache(model.name)
    try:
        state = "cached" if path.stat().st_size == model.size else "damaged"
    except (FileNotFoundError, NotADirectoryError):
        state = "not downloaded"
    return LocalModel(
        name=model.name,
        path=path,
        state=state,
        size=model.size,
        license=model.license,
        description=model.description,
    )
