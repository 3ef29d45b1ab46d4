"""The URLs of one server: where its API begins, and the other form to try once after a 404."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import attrs

from ctxbackends._config.endpoint import V1, APIRoot
from ctxbackends._wire.base import HTTPRequest
from ctxbackends.errors import APIConnectionError, APIStatusError, BackendError, ConfigError, ModelNotFoundError

_API_PREFIX = V1 + "/"
"""Requests have the paths of the OpenAI and the Anthropic API; ``/v1`` is replaced by the path of this server."""
_MAX_URLS = 256

_logger = logging.getLogger("ctxbackends")


class ServerURLs:
    """Builds the URL of each request once, and keeps the form of the API that answers.

    Args:
        api: Where the API begins.
        query: The encoded query of every request, "" for none.
        backend: The backend's name, for logs.
    """

    def __init__(self, api: APIRoot, query: str, *, backend: str) -> None:
        self.api = api
        self._query = query
        self._backend = backend
        self._urls: dict[str, str] = {}

    def get(self, path: str) -> str:
        """Return the URL of ``path``. Raise ConfigError if it is not a path."""
        url = self._urls.get(path)
        if url is None:
            if len(self._urls) >= _MAX_URLS:
                self._urls.clear()
            url = self._urls[path] = self.build(path, self.api.url)
        return url

    def build(self, path: str, api_url: str) -> str:
        """Return the URL of ``path`` in an API that begins at ``api_url``."""
        _check_path(path)
        url = self.locate(path, api_url)
        return f"{url}{'&' if '?' in path else '?'}{self._query}" if self._query else url

    def locate(self, path: str, api_url: str) -> str:
        """Return the URL of ``path`` without the query of every request."""
        return api_url + path.removeprefix(V1) if path.startswith(_API_PREFIX) else self.api.base + path

    def set_api(self, api: APIRoot) -> None:
        """Replace the beginning of the API."""
        self.api = api
        self._urls.clear()

    # --- the other form ---------------------------------------------------------------------------

    def find_other(self, request: HTTPRequest, error: APIStatusError, url: str) -> str | None:
        """Return where the API may begin if ``error`` says that it does not begin at ``url``, else None."""
        is_missing = error.status_code == 404 and not isinstance(error, ModelNotFoundError)
        if not is_missing or not request.path.startswith(_API_PREFIX):
            return None
        # Another request may have switched in the meantime.
        return self.api.url if url != self.get(request.path) else self.api.other

    def confirm(self, request: HTTPRequest, headers: Mapping[str, str]) -> None:
        """Keep the current form after a successful request. A page in HTML is not a response of an API."""
        if request.path.startswith(_API_PREFIX) and not is_html(headers):
            self.api = attrs.evolve(self.api, other=None)

    def switch(self, request: HTTPRequest) -> None:
        """Use the other form from now on."""
        if self.api.other is None:
            return  # another request was faster
        before = self.api.path
        self.set_api(attrs.evolve(self.api, url=self.api.other, other=None))
        route = request.path.removeprefix(V1)
        _logger.info("Using api_path %s for %s: %s is not below %s", self.api.path, self._backend, route, before)


def is_html(headers: Mapping[str, str]) -> bool:
    """Return whether the response is a page for people."""
    return headers.get("content-type", "").startswith("text/html")


def is_from_api(error: BackendError) -> bool:
    """Return whether an API may have got the request, and not a server with other pages at this URL."""
    if isinstance(error, APIStatusError):
        is_route = error.status_code not in (404, 405) and error.message is not None
        return is_route or isinstance(error, ModelNotFoundError)
    return not isinstance(error, APIConnectionError) or error.sent


def _check_path(path: str) -> None:
    """Raise ConfigError for an invalid path: "@other" after a host and port would be another host."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(
            f"not a valid path: {path!a}; begin it with a slash, and percent-encode white space, control and non-ASCII "
            "characters (urllib.parse.quote)"
        )
