"""TLS on loopback: CA bundles and client certificates. Verification cannot be turned off."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import attrs
import pytest
import trustme

from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._http.tls import build_tls_context
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.profile import Profile
from ctxbackends._registry import Registry, open_backend
from ctxbackends.errors import APIConnectionError, ConfigError
from tests.conftest import RawServer, RawServerFactory, http_response, models_body

MODELS = [http_response(200, models_body("m"))]


@attrs.frozen
class Authority:
    """A CA, and what a server and a client have of it, as files."""

    ca: trustme.CA
    bundle: str
    server: ssl.SSLContext
    cert: str
    key: str
    both: str


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    client = ca.issue_cert("client@example.org", key_type=trustme.KeyType.ECDSA)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    return Authority(
        ca,
        str(folder / "ca.pem"),
        serving(ca, "127.0.0.1"),
        str(folder / "client.pem"),
        str(folder / "client.key"),
        str(folder / "both.pem"),
    )


def serving(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, key_type=trustme.KeyType.ECDSA).configure_cert(context)
    return context


def demanding(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A server that takes no client without a certificate of the CA."""
    context = serving(authority.ca, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    authority.ca.configure_trust(context)
    return context


async def list_models(server: RawServer, **settings: Any) -> list[str]:
    async with open_backend("vllm", endpoint=server.url, ready_timeout=0, **settings) as backend:
        return [model.id for model in await backend.models()]


async def rejection(server: RawServer, **settings: str) -> APIConnectionError:
    """The one permanent error; nothing of a request arrived."""
    with pytest.raises(APIConnectionError) as exc_info:
        await list_models(server, **settings)
    assert (True, False, False) == (exc_info.value.permanent, exc_info.value.sent, exc_info.value.refused)
    assert [] == server.requests
    return exc_info.value


# --- the server's certificate ---------------------------------------------------------------------


async def test_a_custom_ca(raw_server: RawServerFactory, authority: Authority) -> None:
    server = await raw_server([MODELS], tls=authority.server)
    assert ["m"] == await list_models(server, ca_bundle=authority.bundle)


@pytest.fixture
def hash_directory(authority: Authority, tmp_path: Path) -> Path:
    """A directory as `openssl rehash` makes it."""
    result = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", authority.bundle],  # noqa: S607  # whichever there is
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / f"{result.stdout.strip()}.0").write_bytes(Path(authority.bundle).read_bytes())
    return tmp_path


async def test_a_custom_ca_in_a_directory(
    raw_server: RawServerFactory, authority: Authority, hash_directory: Path
) -> None:
    server = await raw_server([MODELS], tls=authority.server)
    assert ["m"] == await list_models(server, ca_bundle=str(hash_directory))


async def test_an_unknown_ca_is_rejected_at_once(raw_server: RawServerFactory, authority: Authority) -> None:
    server = await raw_server([MODELS], tls=authority.server)
    error = await rejection(server)
    assert "certificate verification failed (" in error.problem
    assert "name the CA certificates in ca_bundle" in error.problem
    assert len(server.connections) <= 1  # tried once


async def test_a_bundle_replaces_the_systems_certificates(
    raw_server: RawServerFactory, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(other)
    monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)  # what OpenSSL takes for the system's
    server = await raw_server([MODELS], tls=authority.server)
    assert "verification failed" in (await rejection(server, ca_bundle=str(other))).problem


async def test_a_wrong_host_name(raw_server: RawServerFactory, authority: Authority) -> None:
    server = await raw_server([MODELS], tls=serving(authority.ca, "elsewhere.example.org"))
    error = await rejection(server, ca_bundle=authority.bundle)
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in error.problem


@pytest.mark.parametrize("value", [False, "context"])
async def test_borrowed_session_without_verification(value: object) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=context if value else False)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ConfigError, match="does not verify certificates"):
            Registry(session=session)


# --- the client's certificate ---------------------------------------------------------------------

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@VERSIONS
async def test_a_client_certificate(
    raw_server: RawServerFactory, authority: Authority, version: ssl.TLSVersion
) -> None:
    server = await raw_server([MODELS], tls=demanding(authority, version))
    assert ["m"] == await list_models(
        server, ca_bundle=authority.bundle, client_cert=authority.cert, client_key=authority.key
    )
    assert ["m"] == await list_models(server, ca_bundle=authority.bundle, client_cert=authority.both)


# aiohttp itself asks a second time with a GET when a connection ends that stood; with TLS 1.3 it stands by then.
HANDSHAKES = {ssl.TLSVersion.TLSv1_2: 1, ssl.TLSVersion.TLSv1_3: 2}


class AlertingServer:
    """Ends handshakes with an alert, as OpenSSL has it; servers on asyncio close without one. ``handshakes`` counts."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self.handshakes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.handshakes += 1
            with self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls_connection:
                tls_connection.settimeout(5)
                with suppress(ssl.SSLError):
                    tls_connection.do_handshake()
                tls_connection.shutdown(socket.SHUT_WR)
                with suppress(OSError):  # read to the end, or the close would be a reset, which can overtake the alert
                    while socket.socket.recv(tls_connection, 4096):
                        pass


@VERSIONS
async def test_missing_client_certificate(authority: Authority, version: ssl.TLSVersion) -> None:
    with AlertingServer(demanding(authority, version)) as server:
        async with open_backend("vllm", endpoint=server.url, ca_bundle=authority.bundle) as backend:
            with pytest.raises(APIConnectionError) as exc_info:
                await backend.models()
        assert (True, False, HANDSHAKES[version]) == (
            exc_info.value.permanent,
            exc_info.value.refused,
            server.handshakes,
        )
    assert "TLS handshake failed: the server " in exc_info.value.problem
    assert "require" in exc_info.value.problem
    assert "client_cert" in exc_info.value.problem


@VERSIONS
async def test_a_client_certificate_of_another_ca(
    authority: Authority, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    other = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("x@y.z", key_type=trustme.KeyType.ECDSA)
    other.private_key_and_cert_chain_pem.write_to_path(tmp_path / "other.pem")
    settings: dict[str, Any] = {"ca_bundle": authority.bundle, "client_cert": str(tmp_path / "other.pem")}
    with AlertingServer(demanding(authority, version)) as server:
        async with open_backend("vllm", endpoint=server.url, **settings) as backend:
            with pytest.raises(APIConnectionError, match="does not know the CA of the client certificate") as exc_info:
                await backend.models()
        assert (True, False, HANDSHAKES[version]) == (
            exc_info.value.permanent,
            exc_info.value.refused,
            server.handshakes,
        )


@VERSIONS
async def test_server_closes_during_the_handshake(
    raw_server: RawServerFactory, authority: Authority, version: ssl.TLSVersion
) -> None:
    server = await raw_server([MODELS], tls=demanding(authority, version))
    with pytest.raises(
        APIConnectionError, match=r"the server may require a client certificate \(client_cert\)"
    ) as exc_info:
        await list_models(server, ca_bundle=authority.bundle)
    assert ([], False) == (server.requests, exc_info.value.refused)


# --- files that cannot be used --------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    other = authority.ca.issue_cert("other@example.org", key_type=trustme.KeyType.ECDSA)
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nzzz\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "huge").write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:geheim", "-in", authority.key, "-out"]
    subprocess.run([*command, str(tmp_path / "locked.key")], check=True, capture_output=True)
    (tmp_path / "locked.pem").write_bytes(Path(authority.cert).read_bytes() + (tmp_path / "locked.key").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"ca_bundle": "{}/none"}, "ca_bundle", "{}/none cannot be read: No such file or directory"),
        ({"ca_bundle": "{}/text"}, "ca_bundle", "{}/text has no certificate in PEM"),
        ({"ca_bundle": "{}/broken"}, "ca_bundle", "cannot load certificates in PEM from {}/broken: "),
        ({"ca_bundle": "/dev/zero"}, "ca_bundle", "/dev/zero is not a file"),
        ({"ca_bundle": "{}/huge"}, "ca_bundle", "{}/huge is larger than 4194304 bytes"),
        (
            {"ca_bundle": "{}/empty"},
            "ca_bundle",
            "{}/empty has no hashed certificates; run openssl rehash on it, or name a PEM file",
        ),
        ({"client_cert": "{}/none"}, "client_cert", "{}/none cannot be read: No such file or directory"),
        ({"client_cert": "{}/other.key"}, "client_cert", "{}/other.key has no certificate in PEM"),
        ({"client_cert": "CERT"}, "client_cert", "has no private key in PEM; name the key's file in client_key"),
        ({"client_cert": "CERT", "client_key": "{}/text"}, "client_key", "{}/text has no private key in PEM"),
        (
            {"client_cert": "CERT", "client_key": "{}/other.key"},
            "client_key",
            "the private key in {}/other.key does not match the certificate",
        ),
        (
            {"client_cert": "CERT", "client_key": "{}/locked.key"},
            "client_key",
            "the private key in {}/locked.key is encrypted, which is not supported; decrypt it",
        ),
        ({"client_cert": "{}/locked.pem"}, "client_cert", "the private key in {}/locked.pem is encrypted"),
        (
            {"client_cert": "{}/broken", "client_key": "KEY"},
            "client_key",
            " and its certificate: ",
        ),
    ],
)
async def test_a_file_that_cannot_be_used(
    settings: dict[str, str], key: str, message: str, folder: Path, authority: Authority
) -> None:
    paths = {
        field: value.replace("{}", str(folder)).replace("CERT", authority.cert).replace("KEY", authority.key)
        for field, value in settings.items()
    }
    config = BackendConfig(name="gpu", type="vllm", endpoint="https://gpu:8000", **paths)  # type: ignore[arg-type]
    async with Registry([config]) as registry:
        with pytest.raises(ConfigError) as exc_info:
            registry.resolve()
        (status,) = await registry.statuses()
    assert (key, "gpu") == (exc_info.value.key, exc_info.value.backend)
    assert message.replace("{}", str(folder)) in exc_info.value.problem
    assert exc_info.value.__cause__ is exc_info.value.__context__ is None
    assert ("error", str(exc_info.value)) == (status.state, status.problem)


def test_no_passphrase_prompt_on_the_terminal(folder: Path) -> None:
    path = str(folder / "locked.pem")
    code = f"from ctxbackends._http.tls import build_tls_context as build; build(client_cert={path!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], input="geheim\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert "is encrypted" in done.stderr
    assert "Enter PEM pass phrase" not in done.stderr + done.stdout


def test_an_unreadable_file(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", deny)
    with pytest.raises(ConfigError, match=r"both\.pem cannot be read: Permission denied"):
        build_tls_context(client_cert=authority.both)
    monkeypatch.setattr("os.path.isdir", deny)
    with pytest.raises(ConfigError, match=r"ca\.pem cannot be read: Permission denied"):
        build_tls_context(ca_bundle=authority.bundle)


def test_the_context_verifies(authority: Authority) -> None:
    for settings in ({"ca_bundle": authority.bundle}, {"client_cert": authority.both}):
        context = build_tls_context(**settings)
        assert context is not None
        assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert build_tls_context() is None


# --- where they have a meaning --------------------------------------------------------------------


@pytest.mark.parametrize("field", ["ca_bundle", "client_cert"])
@pytest.mark.parametrize("address", [{"endpoint": "http://gpu:1"}, {}, {"model_path": "/m.gguf"}])
def test_tls_without_tls(field: str, address: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="requires an https:// endpoint") as exc_info:
        BackendConfig(name="a", type="llamacpp", **address, **{field: "/x.pem"})  # type: ignore[arg-type]
    assert field == exc_info.value.key


def test_a_key_without_its_certificate() -> None:
    with pytest.raises(ConfigError, match="requires client_cert") as exc_info:
        BackendConfig(name="a", type="vllm", endpoint="https://gpu", client_key="/x.key")
    assert "client_key" == exc_info.value.key


async def test_the_default_endpoint_of_a_custom_type_without_tls(authority: Authority) -> None:
    transport = Transport()
    own = Profile(type="own", default_endpoint="http://own:1")
    for field, path in (("ca_bundle", authority.bundle), ("client_cert", authority.both)):
        config = BackendConfig(name="a", type="own", **{field: path})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="requires an https:// endpoint") as exc_info:
            HTTPBackend(config, profile=own, transport=transport)
        assert field == exc_info.value.key
    await transport.aclose()


def test_paths_of_a_ctxrc_are_relative_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = (
        "backends:\n- name: vllm\n  endpoint: https://gpu\n  ca_bundle: certs/../ca.pem\n"
        "  client_cert: ~/me.pem\n  client_key: /etc/me.key\n"
    )
    (config,) = parse_ctxrc(text, path="/project/.ctxrc").backends
    assert ("/project/ca.pem", "/home/me/me.pem", "/etc/me.key") == (
        config.ca_bundle,
        config.client_cert,
        config.client_key,
    )
