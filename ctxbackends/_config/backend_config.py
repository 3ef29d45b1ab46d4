"""The settings of one backend, validated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, SupportsIndex

import attrs

from ctxbackends._config.api_key import invalid_key_error, is_header_text
from ctxbackends._config.backend_settings import OTHER_NAMES
from ctxbackends._config.display import display_name, has_unsafe_characters
from ctxbackends._config.duration import MAX_COUNT, accept_texts, seconds_of
from ctxbackends._config.endpoint import ENDPOINT_HINT, normalise_endpoint
from ctxbackends._config.literal_secrets import find_literal_secret
from ctxbackends._config.request_settings import (
    check_request_settings,
    freeze_mapping,
    freeze_names,
    is_variable_name,
    normalise_api_path,
    path_to_remove,
)
from ctxbackends._config.served_as import normalise_served_as
from ctxbackends._config.variables import find_variables
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType, MismatchPolicy
from ctxbackends._suggestions import suggest_fields
from ctxbackends._util.frozen_mapping import FrozenMapping
from ctxbackends.errors import ConfigError, InvalidEndpointError, UnknownBackendTypeError

DURATION_FIELDS = ("timeout", "connect_timeout", "ready_timeout", "first_token_timeout", "idle_timeout")
LOCAL_COUNT_FIELDS = ("ctx_size", "parallel", "threads")
COUNT_FIELDS = (*LOCAL_COUNT_FIELDS, "context_length", "max_concurrency")
LOCAL_ONLY = (*LOCAL_COUNT_FIELDS, "embeddings")
"""Fields that require ``model_path``."""
TYPE_FIELDS = ("context_length", "keep_alive", "organization", "project")
"""Fields that require a type whose profile lists them in ``supported_settings``."""
TLS_FIELDS = ("ca_bundle", "client_cert", "client_key")
"""Paths. Fields that require an ``https`` endpoint."""


def unknown_type(name: str, types: Collection[str], *, implied: bool) -> UnknownBackendTypeError:
    """Return the error for an unknown type; ``implied`` if it is the name of a backend without a type."""
    key = "name" if implied else "type"
    error = UnknownBackendTypeError(display_name(name), tuple(types), key=key)
    error.problem += "; to use another name, set type" if implied else ""
    return error


def _type_of_name(config: BackendConfig) -> str:
    config._check_text("name")
    if config.name not in PROFILES:
        raise unknown_type(config.name, PROFILES, implied=True)
    return config.name


def _known_type(value: Any) -> Any:
    return BackendType(value) if isinstance(value, str) and value in PROFILES else value


@suggest_fields(OTHER_NAMES)
@attrs.frozen(kw_only=True)
class BackendConfig:
    """The settings of one backend. They are validated on construction.

    Durations are seconds, or texts such as ``300ms`` or ``2m``.

    Attributes:
        name: Name of the backend, unique in its registry.
        type: Backend type; defaults to ``name``. Types that are not built in are accepted, as you can register them.
        endpoint: Base URL of the server, which may refer to environment variables as ``${NAME}``; None for the default
            of the type.
        api_key_env: Environment variable that contains the API key, ``""`` for no key; None for the type's usual one.
        api_key: The API key itself; only for code, not for files. It is not in the repr; a configuration with it can
            be copied and not pickled. Default None.
        default_model: Model of requests that name none; None if each request must name one.
        timeout: Timeout of a request in seconds; None for the default of the type.
        connect_timeout: Timeout in seconds to establish a connection; None for the default of the type.
        ready_timeout: Seconds to wait for a server that is starting or loading, 0 to not wait; None for the default of
            the type.
        first_token_timeout: Timeout in seconds until the first token; None for the default of the type.
        idle_timeout: Timeout in seconds between two tokens; None for the default of the type, which is longer for
            requests with tools or a schema.
        max_retries: How often a request that the server did not process (429, 503, no connection) is sent again, 0 for
            never; None for 2.
        max_concurrency: Maximum number of concurrent requests; None for the number of slots that the server reports.
        model_mismatch: Reaction to a response from another model than the requested one: ``error``, ``warn`` or
            ``ignore``; None for the default of the type.
        complete_streams: Whether ``complete()`` streams its request, which applies the timeouts between tokens and ends
            the generation if the caller leaves; None for the default of the type (True for servers on your machines).
        served_as: Names that the server may answer with: a list for every request, or a mapping from the requested name
            to a name or a list; None for no other names. Stored as a mapping, with the key ``*`` for a list.
        allow_missing_finish_reason: Whether an answer without a finish reason is complete if its usage and the end of
            the stream arrived, or if it came in one piece; for servers that never send one. Default False.
        wire_api: Wire format of generations, for types with more than one; None for the default of the type.
        context_length: Tokens of context to load a model with (Ollama, LM Studio); None for the server's default.
        keep_alive: Seconds that a model stays loaded after a request (Ollama, LM Studio), ``math.inf`` for always; None
            for the server's default.
        organization: OpenAI organization; None to send none.
        project: OpenAI project; None to send none.
        model_path: GGUF file to serve on first use, instead of an endpoint (type llamacpp). Default None.
        ctx_size: Tokens of context over all slots, with ``model_path``; None for the model's own.
        parallel: Number of slots, with ``model_path``; None for one, or as many as a ``llama-server`` program chooses.
        threads: Number of CPU threads, with ``model_path``; None for llama.cpp's default.
        embeddings: Whether to serve embeddings too, with ``model_path``. Default False.
        trust_env: Whether to use the proxies of the environment, except for loopback. Default False.
        ca_bundle: PEM file, or a directory from ``openssl rehash``, with the CA certificates that verify the server;
            None for the system's.
        client_cert: PEM file of the client certificate; None to send none.
        client_key: PEM file of its private key, without a passphrase; None if ``client_cert`` contains it.
        api_path: Path between the endpoint and ``/chat/completions``, ``/`` for none; None for the path of the type, or
            the version at the end of the endpoint, or ``/v1``.
        query: Parameters for the URL of every request; the values may refer to variables. None to send none.
        headers: Headers of every request; the values may refer to variables and contain no literal secrets. None to
            send no others.
        headers_env: Headers of every request, with the environment variable that contains the value. None for none.
        basic_auth_env: Environment variable that contains ``user:password`` for Basic authentication. Default None.
        unix_socket: Path of a Unix socket to connect to, instead of host and port. Default None.
        omit: Members of the request body that this server does not accept; an option that needs one is an error.
            Default None.
        rename: Members of the request body with the name that this server has for them. Default None.
        json_mode: Whether to send JSON mode for a JSON schema, which the prompt then describes, for servers without
            schemas; None for the default of the type.

    Raises:
        ConfigError: A field is invalid; ``key`` names it. Subclasses are raised for the endpoint and the type.
        TypeError: A field is unknown.
    """

    name: str
    type: str = attrs.field(default=attrs.Factory(_type_of_name, takes_self=True), converter=_known_type)
    endpoint: str | None = None
    api_key_env: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    default_model: str | None = None
    timeout: float | None = attrs.field(default=None, converter=accept_texts)
    connect_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    ready_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    first_token_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    idle_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    max_retries: int | None = None
    max_concurrency: int | None = None
    model_mismatch: MismatchPolicy | None = None
    complete_streams: bool | None = None
    served_as: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None
    allow_missing_finish_reason: bool = False
    wire_api: str | None = None
    context_length: int | None = None
    keep_alive: float | None = attrs.field(default=None, converter=accept_texts)
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
    api_path: str | None = None
    query: Mapping[str, str] | None = attrs.field(default=None, converter=freeze_mapping)
    headers: Mapping[str, str] | None = attrs.field(default=None, converter=freeze_mapping)
    headers_env: Mapping[str, str] | None = attrs.field(default=None, converter=freeze_mapping)
    basic_auth_env: str | None = None
    unix_socket: str | None = None
    omit: Collection[str] | None = attrs.field(default=None, converter=freeze_names)
    rename: Mapping[str, str] | None = attrs.field(default=None, converter=freeze_mapping)
    json_mode: bool | None = None

    def __attrs_post_init__(self) -> None:
        self._check_text("name")
        self._check_text("type")
        for field in ("default_model", "wire_api", "model_path", "organization", "project", "unix_socket", *TLS_FIELDS):
            if getattr(self, field) is not None:
                self._check_text(field)
        self._check_keys()
        for field in DURATION_FIELDS:
            self._check_duration(field)
        if self.model_mismatch not in (None, "error", "warn", "ignore"):
            self._fail("model_mismatch", "must be error, warn or ignore")
        self._check_served_as()
        for field in COUNT_FIELDS:
            value = getattr(self, field)
            if value is not None and (type(value) is not int or not 1 <= value <= MAX_COUNT):
                self._fail(field, f"must be an integer from 1 to {MAX_COUNT}")
        for field in ("embeddings", "trust_env", "allow_missing_finish_reason"):
            if type(getattr(self, field)) is not bool:
                self._fail(field, "must be true or false")
        if self.complete_streams is not None and type(self.complete_streams) is not bool:
            self._fail("complete_streams", "must be true or false; omit it for the default of the type")
        self._check_type_settings()
        self._check_api_path()
        self._check_endpoint()
        self._check_connection()
        problem = check_request_settings(self, PROFILES.get(self.type))
        if problem is not None:
            self._fail(*problem)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Prevent secrets from reaching files and other processes."""
        problem = None
        if self.api_key is not None:
            problem = "it contains an api_key; set an environment variable and name it in api_key_env"
        elif secret := find_literal_secret(self.headers, self.query, self.endpoint, self.api_path):
            problem = f"{secret} contains a secret; set an environment variable and write ${{NAME}}"
        if problem is not None:
            raise TypeError(f"cannot pickle the configuration of {display_name(self.name)}: {problem}")
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> BackendConfig:
        return self  # it and its values are immutable

    def __deepcopy__(self, memo: Mapping[int, object]) -> BackendConfig:
        return self

    def _check_type_settings(self) -> None:
        """Check the fields that only some types support; types that are not built in may use all of them."""
        profile = PROFILES.get(self.type)
        if self.keep_alive is not None and self.keep_alive != math.inf:
            self._check_duration("keep_alive")
        for header in ("organization", "project"):
            if not is_header_text(getattr(self, header) or ""):
                self._fail(header, "must be visible ASCII without white space, as it is sent in a header")
        if profile is None:
            return
        if self.wire_api is not None and self.wire_api not in profile.wire_apis:
            self._fail("wire_api", f"must be {' or '.join(profile.wire_apis)} for type {self.type}")
        for field in TYPE_FIELDS:
            if getattr(self, field) is None:
                continue
            if field not in profile.supported_settings:
                users = ", ".join(name for name, row in PROFILES.items() if field in row.supported_settings)
                self._fail(field, f"not supported for type {self.type}; supported for {users}")
            if (self.wire_api or profile.wire_api) not in profile.supported_settings[field]:
                self._fail(field, f"not supported with wire_api: {self.wire_api}; remove one")
        seconds = self.keep_alive
        in_whole_seconds = seconds is None or (seconds != math.inf and seconds >= 1 and not seconds % 1)
        if profile.keep_alive_at is not None and not in_whole_seconds:
            self._fail(
                "keep_alive", f"must be whole seconds from 1s for type {self.type}; write a duration such as 24h"
            )

    def _check_text(self, field: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str):
            self._fail(field, "must be a string")
        if not value or value != value.strip():
            self._fail(field, "must not be empty or have leading or trailing white space")
        if has_unsafe_characters(value):
            self._fail(field, "must not contain control characters")

    def _check_keys(self) -> None:
        variable: Any = self.api_key_env
        if variable not in (None, "") and not is_variable_name(variable):
            self._fail(
                "api_key_env",
                "must be the name of an environment variable (letters, digits and _), such as OPENAI_API_KEY, "
                "not the key itself; the value is not shown",
            )
        key: Any = self.api_key
        if key is not None:
            if not isinstance(key, str) or not key:
                del key
                self._fail("api_key", 'must be a non-empty string; to send no key, set api_key_env=""')
            if not is_header_text(key):
                del key  # tracebacks can show local variables
                raise invalid_key_error("the api_key argument", backend=self.name, field="api_key")

    def _check_served_as(self) -> None:
        if self.served_as is None:
            return
        try:
            names = normalise_served_as(self.served_as)
        except ValueError as error:
            self._fail("served_as", str(error))
        if any(has_unsafe_characters(name) for listed in (names, *names.values()) for name in listed):
            self._fail("served_as", "must not contain control characters")
        object.__setattr__(self, "served_as", FrozenMapping(names))

    def _check_duration(self, field: str) -> None:
        value = getattr(self, field)
        if value is None:
            return
        try:
            seconds = seconds_of(value, allow_zero=field in ("ready_timeout", "keep_alive"))
        except ValueError as error:
            self._fail(field, str(error))
        object.__setattr__(self, field, seconds)

    def _check_api_path(self) -> None:
        if self.api_path is None:
            return
        try:
            object.__setattr__(self, "api_path", normalise_api_path(self.api_path))
        except ValueError as error:
            self._fail("api_path", str(error))

    def _check_endpoint(self) -> None:
        """Check the endpoint, or set the type's default; check what replaces it with ``model_path``."""
        if self.model_path is not None:
            if self.type != BackendType.LLAMACPP:
                self._fail("model_path", "requires type llamacpp")
            if self.endpoint is not None:
                self._fail("model_path", "model_path and endpoint are mutually exclusive; remove one")
            return
        for field in LOCAL_ONLY:
            if getattr(self, field) not in (None, False):
                self._fail(field, "requires model_path")
        profile = PROFILES.get(self.type)
        if self.endpoint is not None:
            try:
                suffix = path_to_remove(self.api_path, profile)
                object.__setattr__(self, "endpoint", normalise_endpoint(self.endpoint, api_path=suffix))
            except InvalidEndpointError as error:
                error.backend = self.name
                raise
        elif self.unix_socket is not None:
            object.__setattr__(self, "endpoint", "http://localhost")
        elif profile is not None:
            if profile.default_endpoint is None:
                problem = f"required for type {self.type}; {ENDPOINT_HINT}"
                raise InvalidEndpointError(problem, key="endpoint", backend=self.name)
            object.__setattr__(self, "endpoint", profile.default_endpoint)

    def _check_connection(self) -> None:
        """Check proxies and TLS. The default endpoint of a custom type is not known here; its connection checks it."""
        if self.model_path is not None and self.trust_env:
            self._fail("trust_env", "not supported with model_path: the server runs on this machine")
        if self.client_key is not None and self.client_cert is None:
            self._fail("client_key", "requires client_cert")
        for field in TLS_FIELDS:
            if getattr(self, field) is not None and (self.model_path is not None or self._has_plain_endpoint()):
                self._fail(field, "requires an https:// endpoint")

    def _has_plain_endpoint(self) -> bool:
        endpoint = self.endpoint or "https://"
        return not endpoint.startswith("https://") and not find_variables(endpoint)

    def _fail(self, field: str, problem: str) -> NoReturn:
        raise ConfigError(problem, key=field, backend=None if field == "name" else self.name)
