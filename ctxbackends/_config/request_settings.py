"""The settings that change requests: API path, query, headers, Unix socket, body members.

The checks return the field and its problem, or None; `BackendConfig` raises. :func:`resolve_settings` reads the
environment.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import attrs

from ctxbackends._config.display import display_name, has_unsafe_characters
from ctxbackends._config.duration import MAX_COUNT
from ctxbackends._config.endpoint import V1, APIRoot, find_api_root, normalise_endpoint, remove_route
from ctxbackends._config.variables import (
    ENV_NAME,
    REFERENCE_HINT,
    expand_variables,
    find_variables,
    has_broken_reference,
    read_variable,
    remove_references,
)
from ctxbackends._http.addresses import is_loopback
from ctxbackends._profiles.profile import Profile, WireAPI
from ctxbackends._util.api_key_shapes import MASK, looks_like_key
from ctxbackends._util.frozen_mapping import FrozenMapping
from ctxbackends._util.secrets import MaskedHeaders, Secret
from ctxbackends._wire.options import RESERVED
from ctxbackends.errors import ConfigError, InvalidEndpointError

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig

Problem: TypeAlias = tuple[str, str] | None
"""A field and its problem."""

MAPPING_FIELDS = ("query", "headers", "headers_env", "rename")
NOT_WITH_MODEL_PATH = ("api_path", "query", "headers", "headers_env", "basic_auth_env", "unix_socket")

_PATH = re.compile(r"/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110, section 5.6.2
_MEMBER = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SDK_HEADERS = frozenset(
    {"host", "content-type", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade"}
    | {"te", "trailer", "expect", "anthropic-version"}
)
SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token", "cookie"}
)
_MAX_SOCKET_PATH = 107  # bytes; sun_path of Linux, without its NUL
_USE_VARIABLE = "put it into an environment variable, and write ${NAME}"


def freeze_mapping(value: Any) -> Any:
    """Return a mapping of strings as an immutable copy, and any other value unchanged for the check."""
    is_mapping = isinstance(value, Mapping) and all(isinstance(text, str) for item in value.items() for text in item)
    return FrozenMapping(value) if is_mapping else value


def freeze_names(value: Any) -> Any:
    """Return a list of strings as a tuple, and any other value unchanged for the check."""
    return tuple(value) if isinstance(value, Collection) and not isinstance(value, str | Mapping) else value


# --- checks -------------------------------------------------------------------------------------------


def check_request_settings(config: BackendConfig, profile: Profile | None) -> Problem:
    """Return the first problem of the settings of this module."""
    for field in MAPPING_FIELDS:
        value = getattr(config, field)
        if value is not None and not isinstance(value, FrozenMapping):
            return field, "must be a mapping of names to strings"
        if value is not None and not value:
            return field, "must not be empty; omit it for none"
    if config.model_path is not None:
        for field in NOT_WITH_MODEL_PATH:
            if getattr(config, field) is not None:
                return field, "not supported with model_path: the SDK starts that server itself"
    return (
        check_max_retries(config.max_retries)
        or _check_query(config.query or {})
        or check_headers(config.headers or {}, config.headers_env or {})
        or _check_basic_auth(config)
        or _check_members(config)
        or _check_json_mode(config, profile)
        or _check_unix_socket(config)
    )


def normalise_api_path(path: Any) -> str:
    """Return the path with a slash at its beginning and none at its end; ``/`` for none.

    Raises:
        ValueError: It is not a path.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path) or "//" in path or {".", ".."} & {*path.split("/")}:
        raise ValueError("must be a path such as /api/v2, without a query; / for none")
    return remove_route(path, "api_path").rstrip("/") or "/"


def _check_query(query: Mapping[str, str]) -> Problem:
    for name, value in query.items():
        if not name or has_unsafe_characters(name) or looks_like_key(name):
            return "query", "the names must not be empty, have control characters or look like API keys"
        problem = _find_value_problem(value)
        if problem:
            return "query", f"{display_name(name)}: {problem}"
    return None


def check_headers(headers: Mapping[str, str], variables: Mapping[str, str] = MappingProxyType({})) -> Problem:
    """Return the first problem of headers: of their values, or of the variables with their values."""
    names: set[str] = set()
    for field, items in (("headers", headers), ("headers_env", variables)):
        for name, value in items.items():
            problem = _find_header_problem(name, value, names, is_variable=field == "headers_env")
            if problem:
                return field, f"{display_name(name)}: {problem}"
            names.add(name.lower())
    return None


def check_max_retries(value: Any) -> Problem:
    """Return the problem of a number of retries that is not None."""
    if value is None or (type(value) is int and 0 <= value <= MAX_COUNT):
        return None
    return "max_retries", f"must be an integer from 0 to {MAX_COUNT}"


def _find_header_problem(name: str, value: str, names: Collection[str], *, is_variable: bool) -> str | None:
    if not _HEADER.fullmatch(name) or looks_like_key(name):
        return "not a valid name of a header"
    if name.lower() in _SDK_HEADERS:
        return "the SDK sets this header"
    if name.lower() in names:
        return "the header is set twice; names of headers ignore case"
    if is_variable:
        return None if is_variable_name(value) else _VARIABLE_HINT
    if name.lower() in SECRET_HEADERS and not find_variables(value):
        return f"a secret isn't allowed here; {_USE_VARIABLE}"
    if not value.isascii() or not value.isprintable():
        return "must be printable ASCII"
    return _find_value_problem(value)


def _find_value_problem(value: str) -> str | None:
    if not value or value != value.strip():
        return "must not be empty or have leading or trailing white space"
    if has_unsafe_characters(value):
        return "must not contain control characters"
    if has_broken_reference(value):
        return f"invalid reference to a variable; {REFERENCE_HINT}"
    if looks_like_key(remove_references(value)):
        return f"looks like an API key (not shown); {_USE_VARIABLE}"
    return None


_VARIABLE_HINT = (
    "must be the name of an environment variable (letters, digits and _), not the secret itself; the value is not shown"
)


def is_variable_name(value: Any) -> bool:
    """Return whether ``value`` can name an environment variable, and is not the secret itself."""
    return isinstance(value, str) and ENV_NAME.fullmatch(value) is not None and not looks_like_key(value)


def _check_basic_auth(config: BackendConfig) -> Problem:
    if config.basic_auth_env is None:
        return None
    if not is_variable_name(config.basic_auth_env):
        return "basic_auth_env", _VARIABLE_HINT
    if "authorization" in {name.lower() for name in (*(config.headers or ()), *(config.headers_env or ()))}:
        return "basic_auth_env", "the header Authorization is set too; remove one"
    return None


def _check_members(config: BackendConfig) -> Problem:
    omit: Any = config.omit
    is_list = isinstance(omit, tuple) and omit and all(isinstance(name, str) for name in omit)
    if omit is not None and not is_list:
        return "omit", "must be a list of members of the request body, such as [stream_options]"
    rename = config.rename or {}
    for field, names in (("omit", omit or ()), ("rename", (*rename, *rename.values()))):
        for name in names:
            if not _MEMBER.fullmatch(name):
                return field, f"not a member at the top level of the request body: {display_name(name)!r}"
            if name in RESERVED:
                return field, f"{name} is part of every request"
    if len({*rename.values()}) != len(rename) or {*rename} & {*rename.values()}:
        return "rename", "a name is used twice"
    both = {*rename, *rename.values()} & {*(omit or ())}
    if both:
        return "rename", f"{min(both)} is in omit too; remove one"
    return None


def _check_json_mode(config: BackendConfig, profile: Profile | None) -> Problem:
    if config.json_mode is not None and type(config.json_mode) is not bool:
        return "json_mode", "must be true or false"
    wire_api = config.wire_api or (profile.wire_api if profile is not None else None)
    if config.json_mode and wire_api not in (None, WireAPI.CHAT_COMPLETIONS):
        return "json_mode", f"not supported with wire_api: {wire_api}; it requires chat_completions"
    return None


def _check_unix_socket(config: BackendConfig) -> Problem:
    path = config.unix_socket
    if path is None:
        return None
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        return "unix_socket", f"must have at most {_MAX_SOCKET_PATH} bytes, the system's limit"
    for field in ("ca_bundle", "client_cert", "client_key"):
        if getattr(config, field) is not None:
            return "unix_socket", f"not supported with {field}: a connection to a Unix socket has no TLS"
    if config.trust_env:
        return "unix_socket", "not supported with trust_env: a Unix socket is on this machine"
    endpoint = config.endpoint or "http://localhost"
    if not find_variables(endpoint) and not _is_plain_loopback(endpoint):
        return "unix_socket", _LOCALHOST_REQUIRED
    return None


_LOCALHOST_REQUIRED = "requires an endpoint such as http://localhost, since the socket is on this machine"


def _is_plain_loopback(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


# --- the environment ----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ResolvedSettings:
    """The settings of requests with the values of their variables.

    Attributes:
        endpoint: The base URL for messages, without secrets.
        api: Where the API begins.
        query: The encoded query of every request, "" for none.
        headers: The headers of every request.
        secrets: The values that messages must not show.
    """

    endpoint: str
    api: APIRoot
    query: str
    headers: MaskedHeaders
    secrets: tuple[Secret, ...]


def path_to_remove(api_path: str | None, profile: Profile | None) -> str:
    """Return the path at the end of an endpoint that is added to it later."""
    return api_path or (profile.api_path if profile is not None else None) or V1


def resolve_settings(
    config: BackendConfig, profile: Profile, endpoint: str, environ: Mapping[str, str]
) -> ResolvedSettings:
    """Return the settings of requests with the values of their variables.

    Raises:
        MissingKeyError: A variable is unset or empty.
        ConfigError: The value of a variable cannot be used. The message does not show it.
    """
    secrets: list[Secret] = []  # tracebacks can show local variables
    url = resolve_endpoint(config, profile, endpoint, environ)
    in_path = _find_path_secrets(endpoint, environ)
    secrets += map(Secret, in_path)
    headers = _resolve_headers(config, profile, environ, secrets)
    query = _resolve_query(config, profile, environ, secrets)
    return ResolvedSettings(
        endpoint=_mask_path(url, in_path),
        api=find_api_root(url, api_path=config.api_path, preset=profile.api_path),
        query=query,
        headers=headers,
        secrets=tuple(secrets),
    )


def resolve_endpoint(config: BackendConfig, profile: Profile | None, endpoint: str, environ: Mapping[str, str]) -> str:
    """Return the base URL with the values of its variables.

    Raises:
        MissingKeyError: A variable is unset or empty.
        InvalidEndpointError: The result is not a valid endpoint.
    """
    if not find_variables(endpoint):
        return endpoint
    url = expand_variables(endpoint, environ, backend=config.name, purpose="the endpoint")
    try:
        if "${" in url:
            raise InvalidEndpointError("a variable refers to another variable; set its value", key="endpoint")
        url = normalise_endpoint(url, api_path=path_to_remove(config.api_path, profile))
    except InvalidEndpointError as error:
        error.backend = config.name
        raise
    if config.unix_socket is not None and not _is_plain_loopback(url):
        raise ConfigError(_LOCALHOST_REQUIRED, key="unix_socket", backend=config.name)
    return url


def describe_endpoint(config: BackendConfig, profile: Profile | None, environ: Mapping[str, str]) -> str:
    """Return the base URL with the values of its variables, without secrets; its host is the real one.

    Raises:
        MissingKeyError: A variable is unset or empty.
        InvalidEndpointError: The result is not a valid endpoint.
    """
    endpoint = config.endpoint or ""
    return _mask_path(resolve_endpoint(config, profile, endpoint, environ), _find_path_secrets(endpoint, environ))


def _find_path_secrets(endpoint: str, environ: Mapping[str, str]) -> list[str]:
    """Return the values of the variables in the path, and parts of other variables that look like keys.

    Scheme, host and port are not secret: errors name the server.
    """
    before, separator, rest = endpoint.partition("://")
    path = rest.partition("/")[2] if separator else before.partition("/")[2]
    values = [environ.get(name, "").strip("/") for name in find_variables(path)]
    parts = [part for name in find_variables(endpoint) for part in environ.get(name, "").split("/")]
    return [value for value in (*values, *filter(looks_like_key, parts)) if value]


def _mask_path(url: str, secrets: Iterable[str]) -> str:
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    for secret in secrets:
        path = path.replace(secret, MASK)
    return f"{scheme}{separator}{host}{slash}{path}"


def _resolve_headers(
    config: BackendConfig, profile: Profile, environ: Mapping[str, str], secrets: list[Secret]
) -> MaskedHeaders:
    headers = MaskedHeaders(profile.headers)
    own = MaskedHeaders()
    for name, text in (config.headers or {}).items():
        purpose = f"a part of the header {name}"
        own[name] = expand_variables(text, environ, backend=config.name, purpose=purpose)
        secrets += [Secret(environ.get(variable, "")) for variable in find_variables(text)]
    for name, variable in (config.headers_env or {}).items():
        own[name] = read_variable(variable, environ, backend=config.name, purpose=f"the header {name}")
        secrets.append(Secret(own[name]))
    if config.basic_auth_env is not None:
        own["Authorization"] = _build_basic_auth(config.basic_auth_env, environ, config.name, secrets)
    replaced = {name.lower() for name in own}
    for name in [name for name in headers if name.lower() in replaced]:
        del headers[name]
    headers.update(own)
    return headers


def _build_basic_auth(variable: str, environ: Mapping[str, str], backend: str, secrets: list[Secret]) -> str:
    credentials = read_variable(variable, environ, backend=backend, purpose="user:password")
    user, separator, password = credentials.partition(":")
    if not separator or not user or not credentials.isprintable():
        del credentials, password, user  # tracebacks can show local variables
        problem = f"invalid value in the variable {variable}: it must be user:password; the value is not shown"
        raise ConfigError(problem, key="basic_auth_env", backend=backend)
    encoded = b64encode(credentials.encode()).decode()  # RFC 7617, with UTF-8
    secrets += map(Secret, (credentials, encoded, password))
    return f"Basic {encoded}"


def _resolve_query(config: BackendConfig, profile: Profile, environ: Mapping[str, str], secrets: list[Secret]) -> str:
    values: dict[str, str] = dict(profile.query)
    for name, text in (config.query or {}).items():
        values[name] = expand_variables(text, environ, backend=config.name, purpose=f"a part of the query {name}")
        for variable in find_variables(text):
            value = environ.get(variable, "")
            secrets += map(Secret, (value, quote_plus(value), quote(value)))  # as servers echo it
    return urlencode(values)
