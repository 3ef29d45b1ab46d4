"""How the requests of one call are sent: its timeouts, retries and headers. Sends nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from ctxbackends._client.request_headers import CallHeaders, build_call_headers
from ctxbackends._client.retry import MAX_RETRIES, RetryPolicy
from ctxbackends._client.stream_source import StreamTimeouts
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._http.transport import RequestTimeouts
from ctxbackends._profiles.profile import Profile

CONTROL_TIMEOUT = 30.0
PROBE_TIMEOUT = 5.0
_UNCHANGED = RequestOptions()
_MAX_CACHED = 64


@attrs.frozen(kw_only=True)
class Timeouts:
    """The timeouts of a call by the kind of its requests.

    Attributes:
        ready: Seconds to wait for a cold start, None to not wait.
        stream: The timeouts of a stream.
        silent_stream: Those of a stream that may be silent while the server generates a tool call or an object.
        open: The timeouts of a stream's request in the transport.
        open_phase: The phase that limits the time until the headers of a stream, and its seconds.
        request: The timeouts of a generation that is not streamed.
        list: Those of a cheap request: shorter than for a generation. At a starting server, each probe is short, and
            the whole wait is ``ready_timeout``.
        probe: Those of a single short probe.
    """

    ready: float | None
    stream: StreamTimeouts
    silent_stream: StreamTimeouts
    open: RequestTimeouts
    open_phase: tuple[str, float | None]
    request: RequestTimeouts
    list: RequestTimeouts
    probe: RequestTimeouts


@attrs.frozen(kw_only=True)
class CallSettings:
    """How the requests of one call are sent.

    Attributes:
        timeouts: The timeouts.
        policy: The retry policy.
        headers: Headers besides those of the configuration, None for no others.
    """

    timeouts: Timeouts
    policy: RetryPolicy
    headers: CallHeaders | None = None


def build_timeouts(config: BackendConfig, profile: Profile, options: RequestOptions = _UNCHANGED) -> Timeouts:
    """Return the timeouts of a call: each from its options, else the configuration, else the type."""
    connect = _first_set(config.connect_timeout, profile.connect_timeout)
    ready = _first_set(options.ready_timeout, config.ready_timeout, profile.ready_timeout) or None
    own_idle = _first_set(options.idle_timeout, config.idle_timeout)
    stream = StreamTimeouts(
        first_token=_first_set(options.first_token_timeout, config.first_token_timeout, profile.first_token_timeout),
        idle=_first_set(own_idle, profile.idle_timeout),
        total=_first_set(options.timeout, config.timeout, profile.timeout),
    )
    silent_idle = None if profile.idle_timeout is None else profile.silent_idle_timeout
    # Without a total timeout, the first-token timeout applies to a response in one piece.
    total, key = stream.total, "timeout"
    if total is None:
        total, key = stream.first_token, "first_token_timeout"
    return Timeouts(
        ready=ready,
        stream=stream,
        silent_stream=attrs.evolve(stream, idle=_first_set(own_idle, silent_idle)),
        open=RequestTimeouts(connect=connect),
        open_phase=_shortest(("first_token", stream.first_token), ("total", stream.total)),
        request=RequestTimeouts(connect=connect, total=total, total_key=key),
        list=_build_list_timeouts(connect, ready, stream.total),
        probe=RequestTimeouts(connect=connect, total=PROBE_TIMEOUT, total_key=None),
    )


class CallSettingsFactory:
    """Builds the settings of the calls of one backend.

    Args:
        config: The configuration of the backend.
        profile: The profile of its type.
        environ: Contains the variables in the headers of calls.
        endpoint: The base URL, for the retry policy.
        local: Whether the server is on this machine or in a private network.
        fixed_headers: Headers that a call cannot replace, in lower case.
    """

    def __init__(
        self,
        config: BackendConfig,
        profile: Profile,
        environ: Mapping[str, str],
        *,
        endpoint: str,
        local: bool,
        fixed_headers: Collection[str],
    ) -> None:
        self._config = config
        self._profile = profile
        self._environ = environ
        self._fixed_headers = fixed_headers
        self._cache: dict[RequestOptions, CallSettings] = {}
        timeouts = build_timeouts(config, profile)
        policy = RetryPolicy(
            endpoint=endpoint,
            ready_timeout=timeouts.ready,
            local=local,
            starts_server=config.model_path is not None,
            max_retries=MAX_RETRIES if config.max_retries is None else config.max_retries,
        )
        self.defaults: CallSettings = CallSettings(timeouts=timeouts, policy=policy)

    def get(self, options: RequestOptions) -> CallSettings:
        """Return the settings of a call.

        Raises:
            TypeError: ``options`` are not RequestOptions.
            ConfigError: A header cannot be used.
        """
        if not isinstance(options, RequestOptions):
            raise TypeError(f"request_options must be RequestOptions, not {type(options).__name__}")
        if options.headers:  # their variables may change
            headers = build_call_headers(
                options.headers, self._environ, fixed=self._fixed_headers, backend=self._config.name
            )
            return attrs.evolve(self._build(options), headers=headers)
        settings = self._cache.get(options)
        if settings is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            settings = self._cache[options] = self._build(options)
        return settings

    def _build(self, options: RequestOptions) -> CallSettings:
        timeouts, policy = build_timeouts(self._config, self._profile, options), self.defaults.policy
        retries = policy.max_retries if options.max_retries is None else options.max_retries
        policy = attrs.evolve(policy, ready_timeout=timeouts.ready, max_retries=retries)
        return CallSettings(timeouts=timeouts, policy=policy)


def _build_list_timeouts(connect: float | None, ready: float | None, total: float | None) -> RequestTimeouts:
    if ready is not None:
        return RequestTimeouts(connect=connect, total=min(PROBE_TIMEOUT, ready), total_key="ready_timeout")
    if total is not None and total <= CONTROL_TIMEOUT:
        return RequestTimeouts(connect=connect, total=total)
    return RequestTimeouts(connect=connect, total=CONTROL_TIMEOUT, total_key=None)


def _first_set(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _shortest(*phases: tuple[str, float | None]) -> tuple[str, float | None]:
    limited = [(limit, name) for name, limit in phases if limit is not None]
    if not limited:
        return phases[0]
    limit, name = min(limited)
    return name, limit
