"""The TLS context of one backend: CA and client certificates. Servers are always verified."""

from __future__ import annotations

import os
import re
import ssl
import stat

from ctxbackends.errors import ConfigError

_MAX_PEM = 4 * 1024 * 1024  # system bundles have about 256 KiB
_HASH_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # https://docs.openssl.org/master/man1/openssl-rehash/
_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----")


class _PassphraseRequiredError(Exception):
    """OpenSSL asked for a passphrase."""


def _refuse_passphrase() -> str:
    # Without a callback, OpenSSL asks on the terminal and blocks.
    raise _PassphraseRequiredError


def build_tls_context(
    *,
    ca_bundle: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    backend: str | None = None,
) -> ssl.SSLContext | None:
    """Return the TLS context, or None if the system's certificates are enough.

    Args:
        ca_bundle: A PEM file, or a directory made by ``openssl rehash``, instead of the system's certificates.
        client_cert: A PEM file with the client certificate.
        client_key: A PEM file with its private key, None if ``client_cert`` contains the key.
        backend: The backend's name, for errors.

    Raises:
        ConfigError: A file cannot be used.
    """
    if ca_bundle is None and client_cert is None:
        return None
    context = _load_ca_bundle(ca_bundle)
    if isinstance(context, ssl.SSLContext):
        context.set_alpn_protocols(["http/1.1"])  # as aiohttp's own context
        if client_cert is None:
            return context
        problem = _load_client_cert(context, client_cert, client_key)
        if problem is None:
            return context
        key, sentence = problem
    else:
        key, sentence = "ca_bundle", context
    # Raised here, so that no error of OpenSSL becomes its __context__.
    raise ConfigError(sentence, key=key, backend=backend)


def _load_ca_bundle(ca_bundle: str | None) -> ssl.SSLContext | str:
    """Return a context that verifies with ``ca_bundle``, or the problem."""
    if ca_bundle is None:
        return ssl.create_default_context()
    try:
        if os.path.isdir(ca_bundle):
            if not any(_HASH_NAME.fullmatch(name) for name in os.listdir(ca_bundle)):
                return f"{ca_bundle} has no hashed certificates; run openssl rehash on it, or name a PEM file"
            return ssl.create_default_context(capath=ca_bundle)
        problem = _check_pem(ca_bundle, _CERTIFICATE, "certificate")
        return problem or ssl.create_default_context(cafile=ca_bundle)
    except ssl.SSLError as error:
        return f"cannot load certificates in PEM from {ca_bundle}: {_reason(error)}"
    except OSError as error:
        return f"{ca_bundle} cannot be read: {error.strerror}"


def _load_client_cert(context: ssl.SSLContext, client_cert: str, client_key: str | None) -> tuple[str, str] | None:
    """Load the client certificate. Return the configuration key and the problem, or None."""
    setting = "client_cert" if client_key is None else "client_key"
    problem = _check_pem(client_cert, _CERTIFICATE, "certificate")
    if problem:
        return "client_cert", problem
    problem = _check_pem(client_key or client_cert, _PRIVATE_KEY, "private key")
    if problem:
        return setting, problem + ("; name the key's file in client_key" if client_key is None else "")
    try:
        context.load_cert_chain(client_cert, client_key, password=_refuse_passphrase)
    except _PassphraseRequiredError:
        return setting, (
            f"the private key in {client_key or client_cert} is encrypted, which is not supported; decrypt it "
            "(openssl pkey -in KEY -out PLAIN) and make the file readable only for you"
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return setting, f"the private key in {client_key or client_cert} does not match the certificate"
        return setting, f"cannot load {client_key or client_cert} and its certificate: {_reason(error)}"
    except OSError as error:
        return setting, f"{client_key or client_cert} cannot be read: {error.strerror}"
    return None


def _check_pem(path: str, marker: re.Pattern[bytes], kind: str) -> str | None:
    """Return the problem of the file, in plainer words than OpenSSL's."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return f"{path} is not a file"  # opening a pipe would block
        with open(path, "rb") as file:
            data = file.read(_MAX_PEM + 1)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if len(data) > _MAX_PEM:
        return f"{path} is larger than {_MAX_PEM} bytes; is it the right file?"
    return None if marker.search(data) else f"{path} has no {kind} in PEM"


def _reason(error: ssl.SSLError) -> str:
    return error.reason or error.strerror or "OpenSSL gives no reason"


# --- failed handshakes ---------------------------------------------------------------------------

# https://www.rfc-editor.org/rfc/rfc8446#section-6.2, as OpenSSL spells them. With TLS 1.3 the client has finished the
# handshake before the server checks its certificate, so these arrive with the first read.
_ALERTS = {
    "ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate; name one in client_cert",
    "ALERT_UNKNOWN_CA": "the server does not know the CA of the client certificate (client_cert)",
    "ALERT_BAD_CERTIFICATE": "the server does not accept the client certificate (client_cert)",
    "ALERT_CERTIFICATE_EXPIRED": "the client certificate (client_cert) has expired",
    "ALERT_HANDSHAKE_FAILURE": "the server ended the handshake; it may require a client certificate (client_cert)",
    # No alerts: what OpenSSL says, by its version, of a server that answers in plain text.
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"), "the server does not use TLS; begin the endpoint with http://"
    ),
}


def find_alert(error: BaseException) -> str | None:
    """Return why the handshake with the server failed, or None if ``error`` has another cause."""
    reason = (
        getattr(error, "reason", None) or "" if isinstance(error, ssl.SSLError) else ""
    )  # aiohttp's own errors have no reason
    return next((sentence for alert, sentence in _ALERTS.items() if reason.endswith(alert)), None)


def describe_verify_error(error: BaseException) -> str:
    """Return why the server's certificate was rejected, and what to do."""
    return f"{getattr(error, 'verify_message', None) or error}; name the CA certificates in ca_bundle"
