"""The findings of ``doctor``, from the configuration to the versions, and the next commands."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._cli.backends import require_key
from ctxbackends._cli.detection import ASKED_TYPES, FoundServer, find_servers, local_endpoints
from ctxbackends._cli.dispatch import find_next
from ctxbackends._cli.log_entries import LogError
from ctxbackends._cli.log_store import LogStore
from ctxbackends._cli.serve import set_variable_line
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.ctx_config import CtxConfig
from ctxbackends._config.ctxrc_file import FILE_NAME, find_ctxrc
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._config.request_settings import resolve_endpoint
from ctxbackends._config.summary import credential_variables
from ctxbackends._http.addresses import is_loopback
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._registry import Registry
from ctxbackends._util.secrets import ENVIRONMENT
from ctxbackends._util.text import format_size
from ctxbackends._version import __version__
from ctxbackends.errors import BackendError
from ctxbackends.local._known_models import KNOWN_MODELS
from ctxbackends.local._models import CHAT_ARGUMENTS, has_server, install_command, list_models

_MAX_ADVICE = 3


@attrs.frozen(kw_only=True)
class ConfiguredBackend:
    """A backend of ``.ctxrc``.

    Attributes:
        name: The name of the backend.
        type: The backend type.
        status: The answer of its server.
        other_type: The type that a server on this machine says it is, if the configured one is wrong.
        key_variables: The environment variables of its credentials.
        is_default: Whether commands use it that name no backend.
        is_usable: Whether a request would be answered, as far as the server says.
    """

    name: str
    type: str
    status: ServerStatus
    other_type: str | None
    key_variables: tuple[str, ...]
    is_default: bool
    is_usable: bool


@attrs.frozen(kw_only=True)
class Advice:
    """A command to run next, and why."""

    command: str
    reason: str


@attrs.frozen(kw_only=True)
class Diagnosis:
    """Everything that ``doctor`` shows. It has the names of variables, never their values.

    Attributes:
        ctxrc: The ``.ctxrc`` that is read, None without one.
        ctxrc_problem: Why it cannot be read.
        hidden_ctxrcs: Those further up, which are not read.
        airgap: Whether only loopback and private addresses are connected to.
        backends: The backends of ``.ctxrc``.
        servers: The servers on the default ports of this machine that ``.ctxrc`` does not name.
        silent: The endpoints of this machine where nothing listens.
        set_keys: The variables of API keys that are set.
        unset_keys: Those that a backend of ``.ctxrc`` needs, and that are not set.
        cached_models: The names of the models in the cache, with their sizes in bytes.
        cache_problem: Why the cache cannot be read.
        can_serve: Whether a llama.cpp server is installed.
        log: The path of the log.
        log_is_on: Whether conversations are recorded.
        log_problem: Why the log cannot be read.
        versions: The versions of this package, Python, the system and llama.cpp; None for what is not installed.
        extras: Whether everything that an extra needs is installed, by its name.
        other_ctx: The program that ``ctx`` passes other commands to.
        next: Commands to run next.
    """

    ctxrc: Path | None
    ctxrc_problem: str | None
    hidden_ctxrcs: tuple[Path, ...]
    airgap: bool
    backends: tuple[ConfiguredBackend, ...]
    servers: tuple[FoundServer, ...]
    silent: tuple[str, ...]
    set_keys: tuple[str, ...]
    unset_keys: tuple[str, ...]
    cached_models: dict[str, int]
    cache_problem: str | None
    can_serve: bool
    log: Path
    log_is_on: bool
    log_problem: str | None
    versions: dict[str, str | None]
    extras: dict[str, bool]
    other_ctx: str | None
    next: tuple[Advice, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether there is a server that answers requests, or a downloaded model and a server for it."""
        has_model = bool(self.cached_models) and self.can_serve
        return has_model or any(one.is_usable for one in self.backends) or any(one.is_usable for one in self.servers)


async def diagnose() -> Diagnosis:
    """Look at the configuration and this machine. Servers get no generation, and no key but their own."""
    path = find_ctxrc()
    config, problem = CtxConfig(), None
    if path is not None:
        try:
            config = load_ctxrc(path)
            config = attrs.evolve(config, backends=tuple(map(require_key, config.backends)))
        except BackendError as error:
            problem = str(error)
    configured = {port: _endpoint_of(one) for one in config.backends if (port := _local_port(_endpoint_of(one)))}
    endpoints = [endpoint for endpoint in local_endpoints() if _local_port(endpoint) not in configured]
    async with Registry(config.backends, airgap=config.airgap) as registry:
        statuses, found = await asyncio.gather(registry.statuses(), find_servers((*configured.values(), *endpoints)))
    types = {_local_port(server.endpoint): server.type for server in found}
    servers = tuple(server for server in found if server.endpoint in endpoints)
    backends = tuple(
        _describe_backend(one, status, types.get(_local_port(_endpoint_of(one))), config)
        for one, status in zip(config.backends, statuses, strict=True)
    )
    needed = {variable for backend in backends for variable in backend.key_variables}
    usual = {profile.default_key_variable for profile in PROFILES.values()}
    listening = {server.endpoint for server in servers}
    cached_models, cache_problem = _list_cached_models()
    store = LogStore.open()
    diagnosis = Diagnosis(
        ctxrc=path,
        ctxrc_problem=problem,
        hidden_ctxrcs=_find_hidden(path),
        airgap=config.airgap,
        backends=backends,
        servers=servers,
        silent=tuple(endpoint for endpoint in endpoints if endpoint not in listening),
        set_keys=tuple(sorted(name for name in needed | usual if name and os.environ.get(name))),
        unset_keys=tuple(sorted(name for name in needed if not os.environ.get(name))),
        cached_models=cached_models,
        cache_problem=cache_problem,
        can_serve=has_server(),
        log=store.path,
        log_is_on=store.is_on,
        log_problem=_find_problem(store),
        versions=_find_versions(),
        extras=_find_extras(),
        other_ctx=find_next(),
    )
    return attrs.evolve(diagnosis, next=tuple(_advise(diagnosis))[:_MAX_ADVICE])


# --- the configuration ----------------------------------------------------------------------------------


def _endpoint_of(config: BackendConfig) -> str:
    """Return the URL of a backend; empty if it is not known.

    A server that a command starts gets a free port, and one at a Unix socket has none.
    """
    if config.model_path is not None or config.unix_socket is not None:
        return ""
    profile = PROFILES.get(config.type)
    endpoint = config.endpoint or (profile.default_endpoint if profile is not None else None) or ""
    try:
        return resolve_endpoint(config, profile, endpoint, ENVIRONMENT)
    except BackendError:  # a variable is not set, which its status says
        return ""


def _local_port(endpoint: str) -> int | None:
    """Return the port of an endpoint on this machine without TLS; None for another."""
    url = urlsplit(endpoint)
    return url.port if url.scheme == "http" and is_loopback(url.hostname or "") else None


def _find_hidden(path: Path | None) -> tuple[Path, ...]:
    if path is None:
        return ()
    return tuple(folder / FILE_NAME for folder in path.parent.parents if os.path.lexists(folder / FILE_NAME))


def _describe_backend(
    config: BackendConfig, status: ServerStatus, server_type: str | None, file: CtxConfig
) -> ConfiguredBackend:
    is_only = len(file.backends) == 1
    is_startable = config.model_path is not None and os.path.isfile(config.model_path) and has_server()
    is_wrong = server_type != config.type and {server_type, config.type} <= {*ASKED_TYPES}
    return ConfiguredBackend(
        name=config.name,
        type=config.type,
        status=status,
        other_type=server_type if is_wrong else None,
        key_variables=credential_variables(config),
        is_default=is_only or config.name == file.default_backend,
        is_usable=is_startable or (status.state == "ready" and status.problem is None),
    )


# --- this machine -----------------------------------------------------------------------------------------


def _list_cached_models() -> tuple[dict[str, int], str | None]:
    try:
        return {model.name: model.size for model in list_models() if model.state == "cached"}, None
    except OSError as error:
        return {}, f"{error.filename}: {error.strerror}"


def _find_problem(store: LogStore) -> str | None:
    try:
        store.conversations(limit=1)
    except LogError as error:
        return error.format_message()
    return None


def _find_versions() -> dict[str, str | None]:
    try:
        llamacpp = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        llamacpp = None
    return {
        "ctxbackends": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "xllamacpp": llamacpp,
        "llama-server": shutil.which("llama-server"),
    }


def _find_extras() -> dict[str, bool]:
    """Return each extra, and whether all of its packages are installed, in any version."""
    packages: dict[str, list[str]] = {}
    for requirement in metadata.requires("ctxbackends") or ():
        match = re.match(r"([A-Za-z0-9._-]+).*extra == ['\"]([a-z0-9-]+)['\"]", requirement)
        if match is not None and match[2] != "all":
            packages.setdefault(match[2], []).append(match[1])
    return {extra: all(map(_is_installed, names)) for extra, names in sorted(packages.items())}


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- the next commands ------------------------------------------------------------------------------------


def _advise(found: Diagnosis) -> Iterator[Advice]:
    if found.ctxrc_problem is not None:
        yield Advice(command="ctxbackends config edit", reason=f"correct {found.ctxrc}")
    for variable in found.unset_keys:
        names = ", ".join(one.name for one in found.backends if variable in one.key_variables)
        yield Advice(command=set_variable_line(variable, "..."), reason=f"{names} needs this key")
    usable = sorted((one for one in found.backends if one.is_usable), key=lambda one: not one.is_default)
    if usable:
        option = "" if usable[0].is_default else f"--backend {shlex.quote(usable[0].name)} "
        model = "" if usable[0].status.model else "--model NAME "
        yield Advice(command=f"ctxbackends chat {option}{model}{CHAT_ARGUMENTS}", reason=f"{usable[0].name} is ready")
        return
    for one in found.backends:
        if one.status.state in ("refused", "loading"):
            yield Advice(
                command=f"ctxbackends ping --backend {shlex.quote(one.name)}",
                reason=f"start the server of {one.name}, and wait until it is ready",
            )
    for server in found.servers:
        if server.is_usable:
            yield Advice(command=_setup_command(server), reason=f"use the server at {server.endpoint}")
            yield Advice(command=f"ctxbackends chat {CHAT_ARGUMENTS}", reason="talk to it")
            return
    yield from _advise_local_model(found)


def _setup_command(server: FoundServer) -> str:
    assert server.type is not None
    is_default = PROFILES[server.type].default_endpoint == server.endpoint
    endpoint = "" if is_default else f" --endpoint {shlex.quote(server.endpoint)}"
    model = (server.loaded or server.models)[0]
    return f"ctxbackends setup --backend {server.type}{endpoint} --model {shlex.quote(model)}"


def _advise_local_model(found: Diagnosis) -> Iterator[Advice]:
    if not found.can_serve:
        yield Advice(command=install_command(), reason="run models on this machine")
    if found.cached_models:
        name = shlex.quote(next(iter(found.cached_models)))
        yield Advice(
            command=f"ctxbackends chat --model-path {name} {CHAT_ARGUMENTS}", reason="talk to a model on this machine"
        )
    else:
        known = KNOWN_MODELS[0]
        yield Advice(
            command=f"ctxbackends pull {known.name}",
            reason=f"download {known.description} ({format_size(known.size)})",
        )
