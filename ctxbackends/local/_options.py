"""The options of a local server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsIndex, TypedDict

import attrs

from ctxbackends._config.backend_settings import BackendSettings
from ctxbackends._config.display import display_name
from ctxbackends._config.duration import MAX_COUNT
from ctxbackends._config.literal_secrets import is_secret_name
from ctxbackends._suggestions import suggest_fields
from ctxbackends._util.api_key_shapes import looks_like_key
from ctxbackends.errors import ConfigError


class ServeModelKeywords(TypedDict, total=False):
    """The fields of :class:`ServerOptions` as keyword arguments, without the API key."""

    host: str
    port: int | None
    ctx_size: int | None
    parallel: int | None
    threads: int | None
    alias: str | None
    embeddings: bool
    environment: Mapping[str, str] | None
    inherit_log: bool


class ServerKeywords(ServeModelKeywords, total=False):
    """The fields of :class:`ServerOptions` as keyword arguments."""

    api_key: str | None


_OTHER_NAMES = {
    **dict.fromkeys(BackendSettings.__annotations__, "pass it in settings={...} of serve_model()"),
    **dict.fromkeys(("n_ctx", "ctx", "context_length", "context_size", "num_ctx"), "ctx_size"),
    **dict.fromkeys(("n_parallel", "slots", "num_slots", "max_concurrency"), "parallel"),
    **dict.fromkeys(("n_threads", "num_threads"), "threads"),
    **dict.fromkeys(("default_model", "model", "model_name"), "alias"),
    **dict.fromkeys(("env", "environ"), "environment"),
    **dict.fromkeys(("embedding", "embed"), "embeddings"),
    **dict.fromkeys(("address", "endpoint", "url"), "host"),
    **dict.fromkeys(("log", "verbose"), "inherit_log"),
}


@suggest_fields(_OTHER_NAMES)
@attrs.frozen(kw_only=True)
class ServerOptions:
    """The options of a local server.

    Attributes:
        host: Address to listen on. Default ``127.0.0.1``.
        port: Port to listen on; None for a free one.
        ctx_size: Tokens of context over all slots; None for the model's own.
        parallel: Number of slots (concurrent requests); None for one.
        threads: Number of CPU threads; None for llama.cpp's default.
        alias: Name of the model in requests; None for the name of the file without its suffix.
        api_key: API key that clients must send; None for none.
        embeddings: Whether to serve embeddings too. Default False. Texts up to the context are embedded. For a model
            that pools all tokens, this takes memory for a batch of that size: set ``ctx_size`` for one with a very long
            context.
        environment: Additional environment variables of the process; None for none.
        inherit_log: Whether the log goes to standard error. By default it goes to a temporary file, and its last lines
            are in the ServerDiedError if the process exits.

    Raises:
        ConfigError: A field is invalid; ``key`` names it.
        TypeError: A field is unknown.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    threads: int | None = None
    alias: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    embeddings: bool = False
    environment: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    inherit_log: bool = False

    def __attrs_post_init__(self) -> None:
        for field, maximum in (
            ("port", 65535),
            ("ctx_size", MAX_COUNT),
            ("parallel", MAX_COUNT),
            ("threads", MAX_COUNT),
        ):
            value = getattr(self, field)
            if value is not None and (type(value) is not int or not 1 <= value <= maximum):
                raise ConfigError(f"must be an integer from 1 to {maximum}", key=field)
        for field in ("host", "alias", "api_key"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"must be a string, not {type(value).__name__}", key=field)
        for field in ("embeddings", "inherit_log"):
            if type(getattr(self, field)) is not bool:
                raise ConfigError("must be true or false", key=field)
        if self.environment is not None and not isinstance(self.environment, Mapping):
            raise ConfigError("must be a mapping of names to strings", key="environment")

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Prevent secrets from reaching files and other processes."""
        secret = "an api_key" if self.api_key is not None else self._find_secret_variable()
        if secret is not None:
            raise TypeError(
                f"cannot pickle the options of a server: they contain {secret}; set it in the process that starts the "
                "server"
            )
        return super().__reduce_ex__(protocol)

    def _find_secret_variable(self) -> str | None:
        for name, value in (self.environment or {}).items():
            if is_secret_name(name) or looks_like_key(value):
                return f"the secret environment variable {display_name(name)}"
        return None

    def __copy__(self) -> ServerOptions:
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> ServerOptions:
        return attrs.evolve(self, environment=None if self.environment is None else dict(self.environment))
