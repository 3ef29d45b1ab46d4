"""Removes the API key and other secrets from errors, since servers echo them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import msgspec

from ctxbackends._util.secrets import exception_chain
from ctxbackends.errors import BackendError

REDACTED = "[key]"
_SHORTEST_ANYWHERE = 8
"""Characters. A shorter key is masked only as a whole word, since it may be part of any word."""


def redact(error: BackendError, *secrets: str) -> bool:
    """Remove ``secrets`` from ``error`` and its causes, and return whether they contained one."""
    return True in [_redact(error, secret) for secret in sorted(secrets, key=len, reverse=True)]  # each is removed


def _redact(error: BackendError, secret: str) -> bool:
    if not secret:
        return False
    pattern, exempt = re.escape(secret), set[str]()
    if len(secret) < _SHORTEST_ANYWHERE:
        pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"  # [^\W_] is a letter or a digit
        exempt = {"backend", "endpoint"}  # set by the user; a key such as "1" would mask part of an address
    mask = functools.partial(re.compile(pattern).sub, REDACTED)
    has_secret = False
    for link in exception_chain(error):
        for name, value in vars(link).items():
            if name in exempt:
                continue
            if isinstance(link, BackendError) or isinstance(value, str):  # of other libraries' errors, only strings
                clean = _mask(value, mask)
                has_secret = has_secret or clean != value
                setattr(link, name, clean)
        args = tuple(_mask(value, mask) for value in link.args)
        has_secret = has_secret or args != link.args
        link.args = args
    return has_secret


def _mask(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes):  # surrogateescape preserves bytes that are not UTF-8
        return mask(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: _mask(item, mask) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_mask(item, mask) for item in value)
    if isinstance(value, list):
        return [_mask(item, mask) for item in value]
    if isinstance(value, msgspec.Struct):  # the completion of a ModelMismatchError
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        clean = {name: _mask(item, mask) for name, item in fields.items()}
        return msgspec.structs.replace(value, **clean) if clean != fields else value
    return value
