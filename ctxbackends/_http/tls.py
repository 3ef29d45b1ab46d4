"""The TLS context of one backend: whose certificates it takes, and which one it shows. Servers are verified always.
Knows no configuration and no connection.
"""

from __future__ import annotations

import os
import re
import ssl
import stat

from ctxbackends.errors import ConfigError

_MAX_PEM = 4 * 1024 * 1024  # the bundles of systems have a quarter of a megabyte
_HASH_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # https://docs.openssl.org/master/man1/openssl-rehash/
_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----")


class _PassphraseRequiredError(Exception):
    """OpenSSL wants a passphrase."""


def _refuse_passphrase() -> str:
    # Without a callback OpenSSL asks on the terminal, and waits there.
    raise _PassphraseRequiredError


def build_tls_context(
    *,
    ca_bundle: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    backend: str | None = None,
) -> ssl.SSLContext | None:
    """The context, or None where the system's certificates are all there is to it.

    ``ca_bundle``: a PEM file, or a directory as ``openssl rehash`` makes them, in the place of the system's
    certificates. ``client_key``: None where the file of ``client_cert`` holds it too. Raises ConfigError.
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
    # Raised out here, so that no error of OpenSSL travels along as __context__.
    raise ConfigError(sentence, key=key, backend=backend)


def _load_ca_bundle(ca_bundle: str | None) -> ssl.SSLContext | str:
    """A context that verifies by ``ca_bundle``, or what is wrong with that."""
    if ca_bundle is None:
        return ssl.create_default_context()
    try:
        if os.path.isdir(ca_bundle):
            if not any(_HASH_NAME.fullmatch(name) for name in os.listdir(ca_bundle)):
                return f"{ca_bundle} holds no certificates by their hash; run openssl rehash on it, or name a PEM file"
            return ssl.create_default_context(capath=ca_bundle)
        problem = _check_pem(ca_bundle, _CERTIFICATE, "certificate")
        return problem or ssl.create_default_context(cafile=ca_bundle)
    except ssl.SSLError as error:
        return f"{ca_bundle} cannot be used as certificates in PEM: {_reason(error)}"
    except OSError as error:
        return f"{ca_bundle} cannot be read: {error.strerror}"


def _load_client_cert(context: ssl.SSLContext, client_cert: str, client_key: str | None) -> tuple[str, str] | None:
    """Load the client's certificate; what is wrong, with its key, or None."""
    setting = "client_cert" if client_key is None else "client_key"
    problem = _check_pem(client_cert, _CERTIFICATE, "certificate")
    if problem:
        return "client_cert", problem
    problem = _check_pem(client_key or client_cert, _PRIVATE_KEY, "private key")
    if problem:
        return setting, problem + ("; name the file of the key in client_key" if client_key is None else "")
    try:
        context.load_cert_chain(client_cert, client_key, password=_refuse_passphrase)
    except _PassphraseRequiredError:
        return setting, (
            f"the private key in {client_key or client_cert} is encrypted, and no passphrase is asked for; "
            "write it without one (openssl pkey -in KEY -out PLAIN) and let nobody else read the file"
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return setting, f"the private key in {client_key or client_cert} is not that of the certificate"
        return setting, f"{client_key or client_cert} and its certificate cannot be used: {_reason(error)}"
    except OSError as error:
        return setting, f"{client_key or client_cert} cannot be read: {error.strerror}"
    return None


def _check_pem(path: str, marker: re.Pattern[bytes], kind: str) -> str | None:
    """What is wrong with the file, before OpenSSL says it in its own way."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return f"{path} is no file"  # opening a pipe would wait for ever
        with open(path, "rb") as file:
            data = file.read(_MAX_PEM + 1)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if len(data) > _MAX_PEM:
        return f"{path} is larger than {_MAX_PEM} bytes; is it the right file?"
    return None if marker.search(data) else f"{path} holds no {kind} in PEM"


def _reason(error: ssl.SSLError) -> str:
    return error.reason or error.strerror or "OpenSSL does not say why"


# --- what a handshake that failed means -----------------------------------------------------------

# https://www.rfc-editor.org/rfc/rfc8446#section-6.2, as OpenSSL spells them. With TLS 1.3 the handshake has ended for
# this side before the server looks at its certificate, so these come with the first read.
_ALERTS = {
    "ALERT_CERTIFICATE_REQUIRED": "the server demands a client certificate; name one in client_cert",
    "ALERT_UNKNOWN_CA": "the server does not know the CA of the client certificate (client_cert)",
    "ALERT_BAD_CERTIFICATE": "the server does not accept the client certificate (client_cert)",
    "ALERT_CERTIFICATE_EXPIRED": "the client certificate (client_cert) has expired",
    "ALERT_HANDSHAKE_FAILURE": "the server ended the handshake; it may demand a client certificate (client_cert)",
}


def find_alert(error: BaseException) -> str | None:
    """The server's refusal of this side's certificate, if ``error`` is one."""
    reason = getattr(error, "reason", None) or "" if isinstance(error, ssl.SSLError) else ""  # aiohttp's own has none
    return next((sentence for alert, sentence in _ALERTS.items() if reason.endswith(alert)), None)


def describe_verify_error(error: BaseException) -> str:
    """Why the server's certificate was refused, and what to do."""
    return f"{getattr(error, 'verify_message', None) or error}; ca_bundle names the certificates to verify by"
