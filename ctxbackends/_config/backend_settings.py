"""The fields of `BackendConfig` as keyword arguments, and the names that other clients have for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TypedDict

from ctxbackends._chat.requests import ChatOptions
from ctxbackends._profiles.profile import MismatchPolicy


class BackendSettings(TypedDict, total=False):
    """The fields of :class:`BackendConfig` except ``name`` and ``type``, as keyword arguments."""

    endpoint: str | None
    api_key_env: str | None
    api_key: str | None
    default_model: str | None
    timeout: float | str | None
    connect_timeout: float | str | None
    ready_timeout: float | str | None
    first_token_timeout: float | str | None
    idle_timeout: float | str | None
    max_retries: int | None
    max_concurrency: int | None
    model_mismatch: MismatchPolicy | None
    complete_streams: bool | None
    served_as: Sequence[str] | Mapping[str, str | Sequence[str]] | None
    allow_missing_finish_reason: bool
    wire_api: str | None
    context_length: int | None
    keep_alive: float | str | None
    organization: str | None
    project: str | None
    model_path: str | None
    ctx_size: int | None
    parallel: int | None
    threads: int | None
    embeddings: bool
    trust_env: bool
    ca_bundle: str | None
    client_cert: str | None
    client_key: str | None
    api_path: str | None
    query: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    headers_env: Mapping[str, str] | None
    basic_auth_env: str | None
    unix_socket: str | None
    omit: Collection[str] | None
    rename: Mapping[str, str] | None
    json_mode: bool | None


_PER_REQUEST = "pass it with each request"

OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(ChatOptions.__annotations__, _PER_REQUEST),
        **dict.fromkeys(("system", "stop", "max_completion_tokens"), _PER_REQUEST),
        **dict.fromkeys(("base_url", "api_base", "url", "host", "base", "server_url", "uri", "address"), "endpoint"),
        **dict.fromkeys(("model", "model_name", "model_id", "deployment", "engine"), "default_model"),
        **dict.fromkeys(("key", "token", "api_token", "apikey", "auth_token"), "api_key"),
        **dict.fromkeys(("api_key_variable", "key_env", "env_key"), "api_key_env"),
        **dict.fromkeys(("backend", "provider", "kind", "api_type"), "type"),
        **dict.fromkeys(("request_timeout", "total_timeout"), "timeout"),
        **dict.fromkeys(("read_timeout", "stream_timeout"), "idle_timeout"),
        **dict.fromkeys(("retries", "num_retries", "max_retry"), "max_retries"),
        **dict.fromkeys(("concurrency", "max_concurrent_requests", "max_workers", "rpm"), "max_concurrency"),
        **dict.fromkeys(("default_headers", "extra_headers", "custom_headers"), "headers"),
        **dict.fromkeys(("default_query", "query_params", "params"), "query"),
        **dict.fromkeys(("verify", "verify_ssl", "ssl", "ssl_context", "cafile"), "ca_bundle"),
        **dict.fromkeys(("cert", "certfile"), "client_cert"),
        **dict.fromkeys(("proxy", "proxies", "http_proxy"), "set the variables of the proxy and trust_env=True"),
        **dict.fromkeys(("http_client", "client"), "pass session= to the registry"),
        **dict.fromkeys(("num_ctx", "max_context", "context_size", "context_window"), "context_length"),
        **dict.fromkeys(("n_ctx", "ctx", "ctx_len"), "ctx_size"),
        **dict.fromkeys(("n_threads", "num_threads"), "threads"),
        **dict.fromkeys(("n_parallel", "slots", "num_slots"), "parallel"),
        **dict.fromkeys(("gguf", "model_file", "path"), "model_path"),
        **dict.fromkeys(("org", "organization_id"), "organization"),
        **dict.fromkeys(("project_id",), "project"),
        **dict.fromkeys(("api", "api_format", "wire_format", "wire"), "wire_api"),
    }
)
"""The names of other clients: the field, or the advice."""
