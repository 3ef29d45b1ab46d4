"""Keep private text out of the log: files that match ``privacy.redact``, and API keys."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ctxbackends._util.api_key_shapes import MASK, mask_keys

_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_MIN_SECRET = 8  # characters; a shorter value is a flag or a word
# Members with the server's own data or with files: a key has one of these shapes by chance, and a changed signature is
# rejected by the server.
_UNREADABLE = frozenset({"data", "json", "signature", "redacted"})


@attrs.frozen
class PrivateFiles:
    """The files that match ``privacy.redact`` of the nearest ``.ctxrc``."""

    globs: tuple[str, ...] = ()
    root: Path = Path()

    @classmethod
    def of_ctxrc(cls) -> PrivateFiles:
        """Read the globs. Raises ConfigError if the file is invalid."""
        from ctxbackends._config.ctxrc_file import find_ctxrc  # log needs neither without a file
        from ctxbackends._config.reader import redact_of

        path = find_ctxrc()
        return cls() if path is None else cls(redact_of(path), path.absolute().parent)

    def __contains__(self, path: Path) -> bool:
        if not self.globs:
            return False
        from ctxbackends.knowledge._privacy.redaction import is_redacted  # most files have no globs

        return is_redacted(path, self.globs, root=self.root)


def path_of_stdin() -> Path | None:
    """Return the file that standard input is redirected from, None for a pipe, a terminal, or where nothing tells."""
    try:
        path = Path(os.readlink("/proc/self/fd/0"))
    except OSError:
        return None
    return path if path.is_file() else None


def find_secrets(names: Collection[str]) -> list[str]:
    """Return the secrets in the environment, longest first.

    Those are the values of the variables in ``names``, of those that the backends of ``.ctxrc`` take credentials from,
    and of all others that are named like a secret.
    """
    names = {*names, *_credentials_of_ctxrc()}
    values = {
        value
        for name, value in os.environ.items()
        if (name in names or name.upper().endswith(_SECRET_NAMES)) and len(value) >= _MIN_SECRET
    }
    return sorted(values, key=len, reverse=True)


def _credentials_of_ctxrc() -> Iterator[str]:
    from ctxbackends._config.ctxrc_file import find_ctxrc  # needed only for a log
    from ctxbackends._config.reader import load_ctxrc
    from ctxbackends._config.summary import credential_variables
    from ctxbackends.errors import ConfigError

    path = find_ctxrc()
    try:
        backends = () if path is None else load_ctxrc(path).backends
    except ConfigError:  # so none of its backends was used
        return
    for config in backends:
        yield from credential_variables(config)


def mask_secrets(value: Any, secrets: Collection[str]) -> Any:
    """Return a copy of JSON values in which ``secrets`` and whatever has the shape of an API key are masked."""
    if isinstance(value, str):
        return mask_keys(_mask_values(value, secrets))[0]
    if isinstance(value, Mapping):
        return {
            key: _mask_values(item, secrets)
            if key in _UNREADABLE and isinstance(item, str)
            else mask_secrets(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_secrets(item, secrets) for item in value]
    return value


def _mask_values(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
