"""`BackendConfig`: the settings of one backend, checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

import attrs

from ctxbackends._config.api_key import invalid_key_error, is_header_text
from ctxbackends._config.display import display_name, has_unsafe_characters
from ctxbackends._config.duration import DURATION_HINT, MAX_COUNT, MAX_DURATION
from ctxbackends._config.endpoint import ENDPOINT_HINT, normalise_endpoint
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType, MismatchPolicy
from ctxbackends._util.key_shapes import looks_like_key
from ctxbackends.errors import (
    ConfigError,
    InvalidEndpointError,
    UnknownBackendTypeError,
)

# --- what a message may show --------------------------------------------------------------------------

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


# --- values -------------------------------------------------------------------------------------------

DURATION_FIELDS = ("timeout", "connect_timeout", "ready_timeout", "first_token_timeout", "idle_timeout")
LOCAL_COUNT_FIELDS = ("ctx_size", "parallel", "threads")
COUNT_FIELDS = (*LOCAL_COUNT_FIELDS, "context_length", "max_concurrency")
LOCAL_ONLY = (*LOCAL_COUNT_FIELDS, "embeddings")
"""Fields that mean something only beside ``model_path``."""
TYPE_FIELDS = ("context_length", "keep_alive", "organization", "project")
"""Fields that mean something only for the types whose profile ``uses`` them."""
TLS_FIELDS = ("ca_bundle", "client_cert", "client_key")
"""Paths. Fields that mean something only for an ``https`` endpoint."""


def unknown_type(name: str, types: Collection[str], *, implied: bool) -> UnknownBackendTypeError:
    key = "name" if implied else "type"
    error = UnknownBackendTypeError(display_name(name), tuple(types), key=key)
    error.problem += "; a backend with a name of its own needs a type" if implied else ""
    return error


def _type_of_name(config: BackendConfig) -> str:
    config._check_text("name")
    if config.name not in PROFILES:
        raise unknown_type(config.name, PROFILES, implied=True)
    return config.name


def _known_type(value: Any) -> Any:
    return BackendType(value) if isinstance(value, str) and value in PROFILES else value


@attrs.frozen(kw_only=True)
class BackendConfig:
    """One backend, checked when it is built: ConfigError and its kinds say which field is wrong, in ``key``.

    ``type`` is the name where that is a backend type. A type that is not built in is accepted, since users register
    their own. ``endpoint`` is the type's default where there is one. ``api_key_env`` names an environment variable;
    None is the type's default one, ``""`` is no key. ``api_key`` is for code alone and is in no file and no repr; with
    it, pickling raises TypeError, while copies keep it.
    Times are seconds; None is the type's default, and ``ready_timeout=0`` waits for no cold start.
    ``max_concurrency`` is how many requests are at the server at once; None is as many as it says that it works on.
    ``wire_api`` is the wire format of generations, where the type has more than one. ``context_length`` (tokens) and
    ``keep_alive`` (seconds, ``math.inf`` for ever) are what Ollama and LM Studio load a model with; ``organization``
    and ``project`` name an account of OpenAI.
    ``model_path`` (type llamacpp) is a GGUF file that the SDK serves itself, in the place of an endpoint; ``ctx_size``,
    ``parallel``, ``threads`` and ``embeddings`` are for it alone.
    ``trust_env`` lets the environment's proxies be used, except for loopback. ``ca_bundle``, ``client_cert`` and
    ``client_key`` are paths of PEM files, for an ``https`` endpoint: what the server's certificate is verified by, and
    the certificate that this side shows.
    """

    name: str
    type: str = attrs.field(default=attrs.Factory(_type_of_name, takes_self=True), converter=_known_type)
    endpoint: str | None = None
    api_key_env: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    default_model: str | None = None
    timeout: float | None = None
    connect_timeout: float | None = None
    ready_timeout: float | None = None
    first_token_timeout: float | None = None
    idle_timeout: float | None = None
    max_concurrency: int | None = None
    model_mismatch: MismatchPolicy | None = None
    wire_api: str | None = None
    context_length: int | None = None
    keep_alive: float | None = None
    organization: str | None = None
    project: str | None = None
    model_path: str | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    threads: int | None = None
    embeddings: bool = False
    trust_env: bool = False
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def __attrs_post_init__(self) -> None:
        self._check_text("name")
        self._check_text("type")
        for field in ("default_model", "model_path", "organization", "project", *TLS_FIELDS):
            if getattr(self, field) is not None:
                self._check_text(field)
        self._check_keys()
        for field in DURATION_FIELDS:
            self._check_duration(field)
        if self.model_mismatch not in (None, "error", "warn", "ignore"):
            self._fail("model_mismatch", "must be error, warn or ignore")
        for field in COUNT_FIELDS:
            value = getattr(self, field)
            if value is not None and (type(value) is not int or not 1 <= value <= MAX_COUNT):
                self._fail(field, f"must be a whole number from 1 to {MAX_COUNT}")
        for field in ("embeddings", "trust_env"):
            if type(getattr(self, field)) is not bool:
                self._fail(field, "must be true or false")
        self._check_wire()
        self._check_place()
        self._check_way()

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Refuse to write the key into bytes that go to files and to other processes."""
        if self.api_key is not None:
            raise TypeError(
                f"cannot pickle the configuration of {display_name(self.name)}: it contains an api_key; "
                "set an environment variable and name it in api_key_env"
            )
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> BackendConfig:
        return self  # frozen, and so are its values

    def __deepcopy__(self, memo: Mapping[int, object]) -> BackendConfig:
        return self

    def _check_wire(self) -> None:
        """What only some types have a use for; types that are not built in may use everything."""
        profile = PROFILES.get(self.type)
        if self.keep_alive is not None and self.keep_alive != math.inf:
            self._check_duration("keep_alive")
        for header in ("organization", "project"):
            if not is_header_text(getattr(self, header) or ""):
                self._fail(header, "holds white space or characters that no header can hold")
        if profile is None:
            return
        if self.wire_api is not None and self.wire_api not in profile.wire_apis:
            self._fail("wire_api", f"must be {' or '.join(profile.wire_apis)} for type {self.type}")
        for field in TYPE_FIELDS:
            if getattr(self, field) is None:
                continue
            if field not in profile.supported_settings:
                users = ", ".join(name for name, row in PROFILES.items() if field in row.supported_settings)
                self._fail(field, f"has no meaning for type {self.type}; it is for {users}")
            if (self.wire_api or profile.wire_api) not in profile.supported_settings[field]:
                self._fail(field, f"cannot be said with wire_api: {self.wire_api}; leave out one of the two")
        keep = self.keep_alive
        if keep is not None and profile.keep_alive_at is not None and (keep == math.inf or keep < 1 or keep % 1):
            self._fail("keep_alive", f"type {self.type} takes whole seconds, from 1s on; write a duration such as 24h")

    def _check_text(self, field: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str):
            self._fail(field, "must be a text")
        if not value or value != value.strip():
            self._fail(field, "must not be empty or have white space around it")
        if has_unsafe_characters(value):
            self._fail(field, "must not contain control characters")

    def _check_keys(self) -> None:
        variable: Any = self.api_key_env
        if variable not in (None, "") and not (
            isinstance(variable, str) and _ENV_NAME.fullmatch(variable) and not looks_like_key(variable)
        ):
            self._fail(
                "api_key_env",
                "must be the name of an environment variable (letters, digits and _), such as OPENAI_API_KEY, "
                "never the key; the value is not shown here",
            )
        key: Any = self.api_key
        if key is not None:
            if not isinstance(key, str) or not key:
                del key
                self._fail("api_key", 'must be a text that is not empty; for no key write api_key_env=""')
            if not is_header_text(key):
                del key  # a traceback may show the values of a frame
                raise invalid_key_error("the api_key argument", backend=self.name, field="api_key")

    def _check_duration(self, field: str) -> None:
        value = getattr(self, field)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_DURATION / 10**9:
            self._fail(field, "must be a number of seconds, not more than 292 years; leave it out for the default")
        if value < 0 or (value == 0 and field not in ("ready_timeout", "keep_alive")):
            self._fail(field, f"must be above zero; {DURATION_HINT}, or leave it out for the default")
        object.__setattr__(self, field, float(value))

    def _check_place(self) -> None:
        """Where the server is: a given endpoint, the type's own, or a model file that is served here."""
        if self.model_path is not None:
            if self.type != BackendType.LLAMACPP:
                self._fail("model_path", "is for type llamacpp alone")
            if self.endpoint is not None:
                self._fail("model_path", "stands in the place of endpoint; keep one of the two")
            return
        for field in LOCAL_ONLY:
            if getattr(self, field) not in (None, False):
                self._fail(field, "has a meaning only together with model_path")
        profile = PROFILES.get(self.type)
        if self.endpoint is not None:
            try:
                object.__setattr__(self, "endpoint", normalise_endpoint(self.endpoint))
            except InvalidEndpointError as error:
                error.backend = self.name
                raise
        elif profile is not None:
            if profile.default_endpoint is None:
                problem = f"the endpoint is missing, and type {self.type} has no default; {ENDPOINT_HINT}"
                raise InvalidEndpointError(problem, key="endpoint", backend=self.name)
            object.__setattr__(self, "endpoint", profile.default_endpoint)

    def _check_way(self) -> None:
        """How the server is reached. An own type's default endpoint is not known here; its link looks again."""
        if self.model_path is not None and self.trust_env:
            self._fail("trust_env", "has no meaning together with model_path: that server is on this machine")
        if self.client_key is not None and self.client_cert is None:
            self._fail("client_key", "belongs to a certificate; name that in client_cert")
        for field in TLS_FIELDS:
            if getattr(self, field) is not None and (self.model_path is not None or self._is_plain()):
                self._fail(field, "is for TLS, and has no effect without an https:// endpoint")

    def _is_plain(self) -> bool:
        return self.endpoint is not None and not self.endpoint.startswith("https://")

    def _fail(self, field: str, problem: str) -> NoReturn:
        raise ConfigError(problem, key=field, backend=None if field == "name" else self.name)


@attrs.frozen(kw_only=True)
class CtxConfig:
    """What one ``.ctxrc`` says about backends, in the order of the file. ``path`` is that file. ``airgap``: whether it
    forbids all endpoints but loopback and private ones. ``redact``: globs of files, relative to the file's directory,
    that the ``ctx`` commands send to no other endpoints than those."""

    backends: tuple[BackendConfig, ...] = ()
    default_backend: str | None = None
    airgap: bool = False
    redact: tuple[str, ...] = ()
    path: Path | None = None
