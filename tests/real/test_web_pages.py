"""A web page, or a name of another site that resolves to this machine, against the embedded server: what it can do and
cannot do. SECURITY.md says the same."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest

from ctxbackends import open_backend, serve_model
from tests.real.conftest import ServerFactory

pytestmark = pytest.mark.real

FOREIGN = ["http://evil.example", "https://localhost.evil.example", "null"]
PROMPT = b'{"messages": [{"role": "user", "content": "Hello"}], "prompt": "Hello", "content": "Hello", "n_predict": 2}'
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
CREDENTIALS = "access-control-allow-credentials"
# Of both builds: they say that the server lives.
OPEN_TO_ALL = {"/health", "/v1/health"}
# Of the old build besides: they tell the name of the model.
OPEN_IN_OLD_BUILD = {"/models", "/v1/models", "/api/tags"}
GET_PATHS = ["/health", "/v1/health", "/models", "/v1/models", "/api/tags", "/props", "/slots"]
POST_PATHS = ["/v1/chat/completions", "/completion", "/v1/messages", "/tokenize", "/apply-template", "/lora-adapters"]


@attrs.frozen
class Response:
    status: int
    headers: Mapping[str, str]

    @property
    def readers(self) -> str | None:
        """The origin whose pages may read the answer."""
        return self.headers.get("access-control-allow-origin")


def send(url: str, method: str, path: str, *, origin: str, **headers: str) -> Response:
    """As a browser sends it for a page of ``origin``, with a Host that another site chose. ``text/plain`` needs no
    preflight."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        all_headers = {"Host": "evil.example", "Origin": origin, "Content-Type": "text/plain", **headers}
        connection.request(method, path, body=PROMPT if method == "POST" else None, headers=all_headers)
        answer = connection.getresponse()
        answer.read()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


@pytest.fixture
def has_switch(environment: Mapping[str, str]) -> bool:
    """Whether the build can be told which origins may read its answers."""
    return not environment


async def test_web_pages_need_the_key(
    model: Callable[[str], Path], environment: Mapping[str, str], has_switch: bool
) -> None:
    open_paths = OPEN_TO_ALL if has_switch else OPEN_TO_ALL | OPEN_IN_OLD_BUILD
    expected = {path: 200 if path in open_paths else 401 for path in (*GET_PATHS, *POST_PATHS)}
    async with serve_model(model("tiny"), environment=environment, alias="tiny", threads=1) as backend:
        for origin in FOREIGN:
            answers = {
                path: await asyncio.to_thread(send, backend.endpoint, "GET", path, origin=origin) for path in GET_PATHS
            }
            answers |= {
                path: await asyncio.to_thread(send, backend.endpoint, "POST", path, origin=origin)
                for path in POST_PATHS
            }
            assert expected == {path: answer.status for path, answer in answers.items()}
            guess = await asyncio.to_thread(
                send, backend.endpoint, "POST", "/completion", origin=origin, Authorization="Bearer guessed"
            )
            assert 401 == guess.status
        assert (await backend.complete("Hello", max_tokens=2)).text, "the backend has the key"
        assert "local" == backend.name


async def test_origins_that_may_read_a_response(
    model: Callable[[str], Path], environment: Mapping[str, str], has_switch: bool
) -> None:
    async with serve_model(model("tiny"), environment=environment, alias="tiny", threads=1) as backend:
        for origin in FOREIGN:
            for method, path in (("GET", "/health"), ("POST", "/completion"), ("OPTIONS", "/completion")):
                headers = PREFLIGHT if method == "OPTIONS" else {}
                answer = await asyncio.to_thread(send, backend.endpoint, method, path, origin=origin, **headers)
                assert (None if has_switch else origin) == answer.readers
                if method == "OPTIONS":
                    assert ("false" if has_switch else "true") == answer.headers[CREDENTIALS]
        for origin in ("http://localhost:3000", "http://127.0.0.1:3000"):
            answer = await asyncio.to_thread(send, backend.endpoint, "GET", "/health", origin=origin)
            assert origin == answer.readers, "pages of this machine"


async def test_without_a_key_web_pages_can_use_the_server(server_of: ServerFactory, has_switch: bool) -> None:
    """A page cannot read the answer where the build has the switch, unless its own name resolves to this machine: no
    build looks at Host, and to such a page the server is of the same origin."""
    server = server_of("tiny")
    try:
        endpoint = await server.start()
        async with open_backend("llamacpp", endpoint=endpoint, default_model="tiny") as backend:
            await backend.wait_ready()
        for path in ("/completion", "/v1/chat/completions"):
            answer = await asyncio.to_thread(send, endpoint, "POST", path, origin=FOREIGN[0])
            assert (200, None if has_switch else FOREIGN[0]) == (answer.status, answer.readers)
    finally:
        await server.aclose()


@pytest.mark.parametrize("parameter", ["options", "settings"])
@pytest.mark.parametrize("name", ["api_key", "api_key_env"])
async def test_serve_model_takes_no_key(parameter: str, name: str, model: Callable[[str], Path]) -> None:
    options = {name: None} if parameter == "options" else {"settings": {name: "a-key-of-mine"}}
    with pytest.raises(TypeError, match=rf"does not accept {name}: it always uses a new key; use LocalServer"):
        async with serve_model(model("tiny"), **options):
            pass
