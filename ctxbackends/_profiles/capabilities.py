"""The capabilities of a backend, derived from its profile, its option table and its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ctxbackends._chat.servers import Capabilities, Enforcement
from ctxbackends._profiles.profile import Profile
from ctxbackends._suggestions import suggest
from ctxbackends._util.frozen_mapping import FrozenMapping
from ctxbackends._wire.base import WireSettings
from ctxbackends._wire.body_settings import OMITTED, adapt_table
from ctxbackends._wire.options import OptionTable, Supported, Unsupported

OPERATION_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "embed": "the server has no embeddings",
        "count_tokens": "the server cannot count tokens, and the number is never estimated",
        "load": "models are always loaded",
        "unload": "models are always loaded",
    }
)
"""The operations that a profile may lack, with the reason for the error."""

NO_DIMENSIONS = "the server ignores it; truncate and normalise the vectors yourself"
_EMBEDDING_MEMBERS = {"dimensions": "dimensions", "encoding": "encoding_format"}


def enforcement_of(profile: Profile, settings: WireSettings) -> Enforcement:
    """Return how the server enforces the schema of a response."""
    return "unverified" if settings.json_mode else profile.schema_enforcement


def build_capabilities(profile: Profile, wire_api: str, settings: WireSettings) -> Capabilities:
    """Return the capabilities of a backend with these settings."""
    table = adapt_table(profile.wire_apis[wire_api], settings)
    supported = {key: support for key, support in table.items() if isinstance(support, Supported)}

    def select(group: str) -> frozenset[str]:
        return frozenset(_strip_group(key) for key in supported if key.startswith(f"{group}: "))

    names = {key.partition(":")[0] for key in supported} - {"message"}
    return Capabilities(
        wire_api=str(wire_api),
        options=frozenset({"model", *names}),
        maximums=FrozenMapping(
            {key: support.maximum for key, support in supported.items() if support.maximum is not None}
        ),
        response_formats=select("response_format"),
        tool_choices=select("tool_choice"),
        message_parts=select("message"),
        schema_enforcement=enforcement_of(profile, settings),
        embeddings=profile.embed is not None,
        count_tokens=profile.count_tokens is not None,
        load=profile.load is not None,
        unload=profile.unload is not None,
    )


def find_refusal(option: str, profile: Profile, wire_api: str, settings: WireSettings) -> str | None:
    """Return why ``option`` is not supported, None if it is.

    Raises:
        TypeError: ``option`` is not a string.
        ValueError: The option is unknown.
    """
    if not isinstance(option, str):
        raise TypeError(f"option must be the name of an option, not {type(option).__name__}")
    table = adapt_table(profile.wire_apis[wire_api], settings)
    if option in OPERATION_REASONS:
        return OPERATION_REASONS[option] if getattr(profile, option) is None else None
    if option in _EMBEDDING_MEMBERS:
        return find_embedding_refusal(option, profile, settings)
    keys = [key for key in table if option in (key, key.partition(":")[0])]
    if keys:
        return _join_reasons(keys, table)
    if option == "model":
        return None
    known = [*table, *(key.partition(":")[0] for key in table), *OPERATION_REASONS, *_EMBEDDING_MEMBERS, "model"]
    raise ValueError(f"unknown option: {option!r}; {suggest(option, known)}")


def find_embedding_refusal(option: str, profile: Profile, settings: WireSettings) -> str | None:
    """Return why ``embed()`` does not support ``dimensions`` or ``encoding``, None if it does."""
    if profile.embed is None:
        return OPERATION_REASONS["embed"]
    if _EMBEDDING_MEMBERS[option] in settings.omit:
        return OMITTED
    return NO_DIMENSIONS if option == "dimensions" and not profile.embed_dimensions else None


def _join_reasons(keys: Iterable[str], table: OptionTable) -> str | None:
    """Return the reasons of all keys of an option; None if one of its values is supported."""
    supports = [table[key] for key in keys]
    reasons = [support.reason for support in supports if isinstance(support, Unsupported)]
    return "; ".join(dict.fromkeys(reasons)) if len(reasons) == len(supports) else None


def _strip_group(key: str) -> str:
    return key.partition(": ")[2]
