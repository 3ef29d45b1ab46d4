"""Takes an API key out of errors: servers repeat it in their messages. Knows no configuration and no HTTP."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from ctxbackends._util.secrets import exception_chain
from ctxbackends.errors import BackendError

REDACTED = "[key]"
_SHORTEST_ANYWHERE = 8
"""Characters. A shorter key is masked only as a whole word, since it may be a part of any word."""


def redact(error: BackendError, secret: str) -> bool:
    """Take ``secret`` out of every fact of ``error`` and of the errors that it came from: servers echo keys in their
    messages. Return whether it was there."""
    if not secret:
        return False
    pattern, skipped = re.escape(secret), set[str]()
    if len(secret) < _SHORTEST_ANYWHERE:
        pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"  # [^\W_] is a letter or a digit
        skipped = {"backend", "endpoint"}  # the user's own, where a key such as "1" would mask a part of an address
    mask = functools.partial(re.compile(pattern).sub, REDACTED)
    found = False
    for one in exception_chain(error):
        for name, value in vars(one).items():
            if name in skipped:
                continue
            if isinstance(one, BackendError) or isinstance(value, str):  # of other libraries' values, texts alone
                clean = _masked(value, mask)
                found = found or clean != value
                setattr(one, name, clean)
        args = tuple(_masked(value, mask) for value in one.args)
        found = found or args != one.args
        one.args = args
    return found


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes):  # surrogateescape gives bytes that are no UTF-8 back as they were
        return mask(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: _masked(item, mask) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_masked(item, mask) for item in value)
    if isinstance(value, list):
        return [_masked(item, mask) for item in value]
    return value
