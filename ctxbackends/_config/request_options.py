"""`RequestOptions`: the timeouts, the retries and the headers of one call, which it validates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsIndex

import attrs

from ctxbackends._config.duration import accept_texts, seconds_of
from ctxbackends._config.literal_secrets import find_literal_secret
from ctxbackends._config.request_settings import check_headers, check_max_retries, freeze_mapping
from ctxbackends._suggestions import suggest_fields
from ctxbackends._util.frozen_mapping import FrozenMapping
from ctxbackends.errors import ConfigError


class _Headers(FrozenMapping[str]):
    """Headers whose repr shows only the names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


_OTHER_NAMES = {
    "connect_timeout": "set connect_timeout of the backend",
    "extra_headers": "headers",
    "read_timeout": "idle_timeout",
    "retries": "max_retries",
}
_DURATIONS = ("timeout", "first_token_timeout", "idle_timeout", "ready_timeout")


def _to_headers(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    headers: Mapping[str, str] | None = freeze_mapping(value)
    return _Headers(headers) if isinstance(headers, FrozenMapping) else headers


@suggest_fields(_OTHER_NAMES)
@attrs.frozen(kw_only=True)
class RequestOptions:
    """The timeouts, the retries and the headers of one call. A field that is None keeps the backend's configuration.

    Durations are seconds, or texts such as ``300ms`` or ``2m``.

    Attributes:
        timeout: Timeout of the whole request.
        first_token_timeout: Timeout until the first token.
        idle_timeout: Timeout between two tokens.
        ready_timeout: How long to wait for a server that is starting or loading; 0 to not wait.
        max_retries: How often a request that the server did not process is sent again; 0 for never.
        headers: Further headers. A value may refer to an environment variable as ``${NAME}``; a literal secret is an
            error. They replace the configured headers of the same name, except those with credentials.

    Raises:
        ConfigError: A field is invalid; ``key`` names it.
    """

    timeout: float | None = attrs.field(default=None, converter=accept_texts)
    first_token_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    idle_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    ready_timeout: float | None = attrs.field(default=None, converter=accept_texts)
    max_retries: int | None = None
    headers: Mapping[str, str] | None = attrs.field(default=None, converter=_to_headers)

    def __attrs_post_init__(self) -> None:
        for field in _DURATIONS:
            value = getattr(self, field)
            try:
                seconds = None if value is None else seconds_of(value, allow_zero=field == "ready_timeout")
            except ValueError as error:
                raise ConfigError(str(error), key=field) from None
            object.__setattr__(self, field, seconds)
        problem = check_max_retries(self.max_retries)
        if problem is None and self.headers is not None:
            is_mapping = isinstance(self.headers, _Headers)
            problem = (
                check_headers(self.headers) if is_mapping else ("headers", "must be a mapping of names to strings")
            )
        if problem is not None:
            raise ConfigError(problem[1], key=problem[0])

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Prevent secrets from reaching files and other processes."""
        if secret := find_literal_secret(self.headers):
            problem = f"{secret} contains a secret; set an environment variable and write ${{NAME}}"
            raise TypeError(f"cannot pickle the options of a request: {problem}")
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> RequestOptions:
        return self  # it and its values are immutable

    def __deepcopy__(self, memo: Mapping[int, object]) -> RequestOptions:
        return self
