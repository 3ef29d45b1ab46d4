"""Where requests may go: proxies, airgap, and characters that headers and paths reject."""

from __future__ import annotations

import asyncio
import gc
import socket
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from click.testing import CliRunner

from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._client.connection import ServerConnection
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.reader import airgap_of, load_ctxrc, parse_ctxrc
from ctxbackends._config.writer import setup_backend
from ctxbackends._http.addresses import check_addresses, check_endpoint, is_loopback, parse_address
from ctxbackends._http.proxy import Route, find_proxy_route
from ctxbackends._http.transport import RequestTimeouts, Transport
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import Profile
from ctxbackends._registry import Registry, open_backend
from ctxbackends._wire.base import HTTPRequest
from ctxbackends.errors import AirgapError, APIConnectionError, ConfigError
from tests.conftest import Do, RawServerFactory, http_response, models_body
from tests.unit.test_tls import serving

MODELS = http_response(200, models_body("m"))
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def list_models(endpoint: str, **settings: Any) -> list[str]:
    async with open_backend("vllm", endpoint=endpoint, **settings) as backend:
        return [model.id for model in await backend.models()]


# --- which proxy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "endpoint", "proxy"),
    [
        ({}, "http://gpu:8000", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://gpu:8000", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "http://gpu:8000", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://gpu:8000", None),
        ({"HTTPS_PROXY": "http://p:3128/"}, "https://gpu", "http://p:3128"),
        ({"ALL_PROXY": "p:3128"}, "https://gpu", "http://p:3128"),
        ({"ALL_PROXY": "socks5://s:1", "HTTPS_PROXY": "https://p"}, "https://gpu", "https://p"),
        ({"HTTPS_PROXY": "http://me:pass@[2001:db8::1]:1"}, "https://gpu", "http://[2001:db8::1]:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "gpu"}, "http://gpu:8000", None),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": ".example.org"}, "http://gpu.example.org", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "gpu:8000"}, "http://gpu:8000", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "gpu:8000"}, "http://gpu:9000", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://gpu", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://localhost:1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a.localhost:1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.8.9.1:1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://0x7f.1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://[::1]:1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://[::ffff:127.0.0.1]:1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://10.0.0.1", "http://p:1"),
    ],
)
def test_the_proxy(
    environment: dict[str, str], endpoint: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy == find_proxy_route(endpoint).proxy


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        (
            "socks5://me:geheim@p:1",
            "ALL_PROXY in the environment has the scheme socks5; only http:// and https://",
        ),
        ("socks4a://p", "has the scheme socks4a"),
        ("ge heim!://p", "has the scheme (not valid)"),
        ("http://me:geheim@p:geheim", "ALL_PROXY in the environment has a bad host or port; correct it, add the host"),
        ("http://[geheim", "has a bad host or port"),
        ("http://", "has a bad host or port"),
        ("http://p:0", "has a bad host or port"),
        ("http://ge\u00fcheim", "has a bad host or port"),
    ],
)
async def test_a_proxy_that_cannot_be_used(proxy: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    config = BackendConfig(name="gpu", type="vllm", endpoint="https://gpu:8000", trust_env=True)
    async with Registry([config]) as registry:
        with pytest.raises(ConfigError) as exc_info:
            registry.resolve()
    assert message in exc_info.value.problem
    assert ("trust_env", "gpu") == (exc_info.value.key, exc_info.value.backend)
    assert "geheim" not in str(exc_info.value)


async def test_each_backend_enables_proxies(raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await raw_server([[MODELS]])
    monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
    assert ["m"] == await list_models("http://gpu.invalid:8000", trust_env=True)
    (request,) = proxy.requests
    assert "http://gpu.invalid:8000/v1/models" == request.path
    assert "Basic " + b64encode(b"me:p@ss").decode() == request.headers["proxy-authorization"]
    with pytest.raises(APIConnectionError, match="cannot find the host"):
        await list_models("http://gpu.invalid:8000")
    assert 1 == len(proxy.requests)


async def test_loopback_is_never_proxied(raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = await raw_server([[MODELS]]), await raw_server([[MODELS]], [[MODELS]])
    for name in PROXY_VARIABLES[:3]:
        monkeypatch.setenv(name, proxy.url)
    assert ["m"] == await list_models(server.url, trust_env=True)
    assert ["m"] == await list_models(f"http://localhost:{server.port}", trust_env=True)
    assert (2, []) == (len(server.requests), proxy.connections)


async def test_a_tunnel(raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = await raw_server([[MODELS]], tls=serving(ca, "gpu.invalid"))
    heads: list[str] = []
    is_closed = asyncio.Event()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        far, near = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, near), _copy(far, writer))
        is_closed.set()

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://me:geheim@127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("A_KEY", "sk-canary-0123456789")
    settings = {"trust_env": True, "ca_bundle": str(tmp_path / "ca.pem"), "api_key_env": "A_KEY"}
    assert ["m"] == await list_models("https://gpu.invalid", **settings)
    assert "Bearer sk-canary-0123456789" == server.requests[0].headers["authorization"]
    assert heads[0].startswith("CONNECT gpu.invalid:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in heads[0]
    assert "canary" not in heads[0]
    assert "proxy-authorization" not in server.requests[0].headers
    await is_closed.wait()
    proxy.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


# --- a proxy that fails is no server that starts ---------------------------------------------------


async def failed(endpoint: str) -> APIConnectionError:
    async with open_backend("vllm", endpoint=endpoint, trust_env=True, ready_timeout=30.0) as backend:
        with pytest.raises(APIConnectionError) as exc_info:
            await backend.complete("Hi", model="m")
    assert not exc_info.value.refused
    assert exc_info.value.waited is None
    assert "geheim" not in f"{exc_info.value} {exc_info.value.__cause__!r} {vars(exc_info.value)}"
    return exc_info.value


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_the_connection(
    refusing_url: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", refusing_url.replace("//", "//me:geheim@"))
    error = await failed(f"{scheme}://gpu.invalid:8000")
    assert f"cannot connect to the proxy {refusing_url}: connection refused" in error.problem
    assert (False, False) == (error.sent, error.permanent)


async def test_a_proxy_whose_name_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://me:geheim@proxy.invalid:3128")
    error = await failed("http://gpu.invalid:8000")
    assert (
        "cannot connect to the proxy http://proxy.invalid:3128: cannot find the host proxy.invalid (" in error.problem
    )
    assert error.permanent


@pytest.mark.parametrize(
    ("status", "scheme", "message", "permanent"),
    [
        (407, "http", "requires valid credentials (HTTP 407); write user:password@ in its URL", True),
        (407, "https", "requires valid credentials (HTTP 407); write user:password@ in its URL", True),
        (403, "https", "cannot connect to the server (HTTP 403)", True),
        (502, "https", "cannot connect to the server (HTTP 502)", False),
    ],
)
async def test_proxy_rejects_the_request(
    status: int,
    scheme: str,
    message: str,
    permanent: bool,
    raw_server: RawServerFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = await raw_server([[http_response(status, b"geheim")]])
    monkeypatch.setenv("ALL_PROXY", proxy.url.replace("//", "//me:geheim@"))
    error = await failed(f"{scheme}://gpu.invalid")
    assert f"the proxy {proxy.url} {message}" == error.problem
    assert permanent == error.permanent


async def test_a_proxy_that_closes(raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await raw_server([[Do.CLOSE]])
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    assert f"the request went through the proxy {proxy.url}" in (await failed("https://gpu.invalid")).problem


# --- airgap: addresses ----------------------------------------------------------------------------

INSIDE = (
    *("127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.7.7"),
    *("::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
)
OUTSIDE = (
    *("8.8.8.8", "172.15.255.255", "172.32.0.1", "192.169.0.1", "100.64.0.1", "192.0.2.1", "198.51.100.1"),
    *("203.0.113.1", "198.18.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "11.0.0.1", "169.253.0.1"),  # noqa: S104
    *("2001:db8::1", "2606:4700::1", "::", "fec0::1", "ff02::1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "::10.0.0.1"),
)


def _endpoint(host: str) -> str:
    return f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000"


@pytest.mark.parametrize("host", INSIDE)
async def test_an_address_inside(host: str) -> None:
    check_addresses("gpu", [host])
    config = BackendConfig(name="gpu", type="vllm", endpoint=_endpoint(host))
    async with Registry([config], airgap=True) as registry:
        assert _endpoint(host) == registry.resolve().endpoint


@pytest.mark.parametrize("host", [*OUTSIDE, "134744072", "0x8.8.8.8", "010.8.8.8", "8.8"])
async def test_an_address_outside(host: str) -> None:
    config = BackendConfig(name="gpu", type="vllm", endpoint=_endpoint(host))
    async with Registry([config], airgap=True) as registry:
        with pytest.raises(AirgapError) as exc_info:
            registry.resolve()
        (status,) = await registry.statuses()
    error = exc_info.value
    assert ("airgap", "gpu", _endpoint(host)) == (error.key, error.backend, error.endpoint)
    assert f"airgap: the endpoint {_endpoint(host)} is neither loopback nor in a private network" in str(error)
    assert ("error", str(error)) == (status.state, status.problem)


def test_odd_forms_of_an_address() -> None:
    assert ["127.0.0.1"] * 4 == [str(parse_address(host)) for host in ("0x7f.1", "2130706433", "127.1", "0177.0.0.1")]
    assert [None] * 4 == [parse_address(host) for host in ("gpu", "1.2.3.4.5", "999.1.1.1", "12.example.org")]
    assert is_loopback("0.0.0.0")  # noqa: S104  # connects to this machine
    assert not is_loopback("localhost.example.org")


@pytest.mark.parametrize("addresses", [["8.8.8.8"], ["10.0.0.1", "8.8.8.8"], ["2606:4700::1", "::1"], ["nonsense"]])
def test_each_address_of_a_name_is_checked(addresses: list[str]) -> None:
    with pytest.raises(AirgapError, match="gpu resolves to "):
        check_addresses("gpu", addresses)
    check_addresses("gpu", ["fe80::1%eth0"])


def test_localhost_is_only_loopback() -> None:
    for name in ("localhost", "a.localhost", "LOCALHOST."):
        check_addresses(name, ["127.0.0.1", "::1"])
        with pytest.raises(AirgapError, match=r"resolves to 10.0.0.1, which is not loopback"):
            check_addresses(name, ["10.0.0.1"])


# --- airgap: what is connected to ------------------------------------------------------------------


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to, one list after another; the last stays."""
    answers: dict[str, list[str]] = {}

    async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        results = answers[host]
        now = results.pop(0) if len(results) > 1 else results[0]
        return [{"hostname": host, "host": now, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    return answers


async def test_a_name_is_checked_when_it_connects(raw_server: RawServerFactory, resolves: dict[str, list[str]]) -> None:
    server = await raw_server([[MODELS]])
    resolves |= {"inside.example.org": ["127.0.0.1"], "outside.example.org": ["192.0.2.1"]}
    assert ["m"] == await list_models(f"http://inside.example.org:{server.port}", airgap=True)
    async with open_backend("vllm", endpoint="http://outside.example.org", airgap=True, ready_timeout=30.0) as backend:
        stream = backend.stream("Hi", model="m")
        for ask in (backend.models, lambda: backend.complete("Hi", model="m"), stream.__aenter__):
            with pytest.raises(AirgapError) as exc_info:
                await ask()
            error = exc_info.value
            assert "outside.example.org resolves to 192.0.2.1" in error.problem
            assert ("http://outside.example.org", "vllm", None) == (error.endpoint, error.backend, error.waited)
            assert error.__cause__ is error.__context__ is None
        assert "error" == (await backend.status()).state


async def test_a_name_that_changes_its_address(raw_server: RawServerFactory, resolves: dict[str, list[str]]) -> None:
    server = await raw_server([[MODELS, Do.CLOSE]])
    resolves["moving.example.org"] = ["127.0.0.1", "192.0.2.1"]
    async with open_backend("vllm", endpoint=f"http://moving.example.org:{server.port}", airgap=True) as backend:
        await backend.models()
        for object_ in gc.get_objects():
            if isinstance(object_, aiohttp.TCPConnector):
                object_.clear_dns_cache()
        await server.client_closed()
        with pytest.raises(AirgapError):
            await backend.models()


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
async def test_an_address_that_got_past_the_checks_is_not_connected_to(host: str) -> None:
    transport = Transport(airgap=True)
    with pytest.raises(AirgapError, match="neither loopback nor in a private network"):
        await transport.send(
            f"http://{host}/", HTTPRequest("GET", "/"), headers={}, timeouts=RequestTimeouts(connect=5.0)
        )
    with pytest.raises(AirgapError, match="a proxy can connect anywhere"):
        await transport.send(
            "http://gpu/",
            HTTPRequest("GET", "/"),
            headers={},
            timeouts=RequestTimeouts(connect=5.0),
            route=Route(proxy="http://127.0.0.1:1"),
        )
    for number in ("3221225985", "0300.0.2.1"):  # 192.0.2.1
        with pytest.raises((AirgapError, APIConnectionError)) as exc_info:
            await transport.send(
                f"http://{number}/", HTTPRequest("GET", "/"), headers={}, timeouts=RequestTimeouts(connect=5.0)
            )
        assert isinstance(exc_info.value, AirgapError) or exc_info.value.permanent  # type: ignore[attr-defined]
    await transport.aclose()


async def test_airgap_with_a_proxy_or_a_session() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigError, match="a session of your own") as exc_info:
            Registry(session=session, airgap=True)
        assert "airgap" == exc_info.value.key
    config = BackendConfig(name="gpu", type="vllm", endpoint="http://gpu", trust_env=True)
    async with Registry([config], airgap=True) as registry:
        with pytest.raises(AirgapError, match="remove trust_env") as rejection:
            registry.resolve()
        assert ("trust_env", "gpu", "http://gpu") == (
            rejection.value.key,
            rejection.value.backend,
            rejection.value.endpoint,
        )


async def test_custom_types_are_airgapped_too() -> None:
    transports: list[Transport] = []

    def factory(config: BackendConfig, transport: Transport) -> HTTPBackend:
        transports.append(transport)
        profile = Profile(type="own", default_endpoint="http://192.0.2.1:1")
        return HTTPBackend(config, profile=profile, transport=transport)

    async with Registry(airgap=True) as registry:
        registry.register("own", factory)
        registry.configure(BackendConfig(name="default", type="own"))
        registry.configure(BackendConfig(name="named", type="own", endpoint="http://192.0.2.2"))
        with pytest.raises(AirgapError, match=r"192\.0\.2\.1:1 is neither"):
            registry.resolve("default")
        assert [True] == [transport.airgap for transport in transports]
        with pytest.raises(AirgapError, match=r"192\.0\.2\.2 is neither"):
            registry.resolve("named")
        assert 1 == len(transports)


# --- airgap: in the file --------------------------------------------------------------------------

FILE = "airgap: {}\nbackends:\n- name: vllm\n  endpoint: http://192.0.2.1\n"


@pytest.mark.parametrize(
    ("value", "argument", "is_airgapped"),
    [("true", None, True), ("true", False, True), ("true", True, True), ("false", True, True), ("false", None, False)],
)
async def test_airgap_of_the_file_cannot_be_disabled(
    value: str, argument: bool | None, is_airgapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text(FILE.format(value))
    async with Registry.from_ctxrc(path, airgap=argument) as registry:
        assert is_airgapped == registry.airgap
        if is_airgapped:
            with pytest.raises(AirgapError):
                registry.resolve()
        else:
            assert "vllm" == registry.resolve().name
    assert (value == "true") is load_ctxrc(path).airgap is airgap_of(path)


@pytest.mark.parametrize("value", ["yes", "'true'", "1", "", "[]", "True"])
def test_airgap_is_true_or_false(value: str) -> None:
    with pytest.raises(ConfigError, match="must be true or false, without quotes") as exc_info:
        parse_ctxrc(FILE.format(value), path="/p/.ctxrc")
    assert ("airgap", 1) == (exc_info.value.key, exc_info.value.line)


def test_airgap_by_a_merge_key() -> None:
    assert parse_ctxrc("x: &x {airgap: true}\n<<: *x\n", path="/p/.ctxrc").airgap
    assert not parse_ctxrc("backends: []\n", path="/p/.ctxrc").airgap


def test_setup_keeps_airgap(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text("airgap: true  # here\nbackends:\n- name: vllm\n")
    setup_backend(path, type="ollama", set_default=True)
    assert path.read_text().startswith("airgap: true  # here\n")
    assert load_ctxrc(path).airgap


def test_airgap_in_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ctxrc").write_text(FILE.format("true"))
    monkeypatch.chdir(tmp_path)
    status_result = CliRunner().invoke(ctxbackends_group, ["status"])
    assert 0 == status_result.exit_code
    assert "error" in status_result.stdout
    assert "airgap: the endpoint http://192.0.2.1" in status_result.stdout
    for command in (["ping", "--endpoint", "http://192.0.2.9"], ["models"]):
        result = CliRunner().invoke(ctxbackends_group, command)
        assert 0 != result.exit_code
        assert "airgap" in f"{result.stderr}{result.exception}"


def test_check_endpoint_without_an_endpoint() -> None:
    check_endpoint(None, trust_env=False)


# --- what would be another header or another request -----------------------------------------------


@pytest.mark.parametrize("bad", ["a\r\nX-Own: 1", "a\nb", "a\x00b", "a\x7fb", "ä", "a\u2028b"])
async def test_no_value_becomes_another_header(
    bad: str, raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await raw_server([[MODELS]])
    for field in ("api_key", "organization", "project"):
        with pytest.raises(ConfigError) as exc_info:
            BackendConfig(name="openai", endpoint=server.url, **{field: bad})  # type: ignore[arg-type]
        assert field == exc_info.value.key
    if "\x00" not in bad:
        monkeypatch.setenv("BAD_KEY", bad)
        with pytest.raises(ConfigError, match="invalid API key in the variable BAD_KEY: it contains spaces"):
            await list_models(server.url, api_key_env="BAD_KEY")
    transport = Transport()
    for headers in ({"X-Own": bad}, {bad: "1"}):
        for headers_, own in ((headers, {}), ({}, headers)):
            with pytest.raises(ConfigError, match="the header '"):
                await transport.send(
                    server.url,
                    HTTPRequest("GET", "/", headers=own),
                    headers=headers_,
                    timeouts=RequestTimeouts(total=5.0),
                )
    await transport.aclose()
    assert [] == server.connections


@pytest.mark.parametrize("path", ["/a\r\nX: 1", "/a b", "/\x00", "/ä", "@elsewhere/", "v1", "", "/\u2028"])
async def test_no_path_becomes_another_request(path: str, raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]])
    transport, profile = Transport(), PROFILES["vllm"]
    config = BackendConfig(name="vllm", endpoint=server.url)
    connection = ServerConnection(
        config, profile=profile, codec=profile.codec(profile.wire_api), transport=transport, launcher=None
    )
    with pytest.raises(ConfigError, match="percent-encode"):
        request = HTTPRequest("GET", path)
        await connection.request(request, call=connection.defaults, decode=lambda response: response)
    await transport.aclose()
    assert [] == server.connections


async def test_the_path_of_an_endpoint_stays_in_its_line(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]], [[MODELS]])
    await list_models(server.url + "/a%0d%0aX-Own:1")
    await list_models(server.url + "/\u00e4")
    assert ["/a%0D%0AX-Own:1/v1/models", "/%C3%A4/v1/models"] == server.paths
    assert ["x-own" in request.headers for request in server.requests] == [False, False]
