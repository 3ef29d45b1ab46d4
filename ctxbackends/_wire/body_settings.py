"""The settings `omit`, `rename` and `json_mode`, applied to option tables and request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs
import msgspec

from ctxbackends._chat.requests import JSONSchemaFormat
from ctxbackends._wire.base import WireSettings
from ctxbackends._wire.options import OptionSupport, OptionTable, Supported, Transform, Unsupported, merge_extra_body
from ctxbackends.errors import UnsupportedOptionError

OMITTED = "this backend leaves it out (omit in its configuration)"

_JSON_MODE: Mapping[str, OptionSupport] = {
    "response_format: json_object": Supported("response_format"),
    "response_format: json_schema": Supported("response_format", Transform.IN_PROMPT),
}


def adapt_table(table: OptionTable, settings: WireSettings) -> OptionTable:
    """Return the option table of a backend: without the members in ``omit``, and with ``json_mode``."""
    if not settings.omit and not settings.json_mode:
        return table
    adapted = {**table, **(_JSON_MODE if settings.json_mode else {})}
    for option, support in adapted.items():
        if isinstance(support, Supported) and support.path.partition(".")[0] in settings.omit:
            adapted[option] = Unsupported(OMITTED)
    return MappingProxyType(adapted)


def adapt_body(body: dict[str, Any], settings: WireSettings) -> dict[str, Any]:
    """Return ``body`` without the members in ``omit``, and with the names of ``rename``."""
    if not settings.omit and not settings.rename:
        return body
    return {settings.rename.get(name, name): value for name, value in body.items() if name not in settings.omit}


def finish_body(
    body: dict[str, Any],
    extra: Mapping[str, Any] | None,
    reserved: Mapping[str, str],
    table: OptionTable,
    settings: WireSettings,
) -> dict[str, Any]:
    """Return the body of a chat request with the members of ``extra_body``, as the server takes them.

    Raises:
        UnsupportedOptionError: A member of ``extra_body`` is reserved, left out or renamed, or an option sets it.
    """
    if not settings.omit and not settings.rename:
        merge_extra_body(body, extra, reserved, table)
        return body
    for name in extra or ():
        if name in settings.omit:
            raise UnsupportedOptionError(f"extra_body: {name}", OMITTED)
        if name in settings.rename:
            raise UnsupportedOptionError(
                f"extra_body: {name}", f"this backend renames it; pass {settings.rename[name]} instead"
            )
    body = adapt_body(body, settings)
    renamed = {
        option: attrs.evolve(support, path=_rename(support.path, settings.rename))
        for option, support in table.items()
        if isinstance(support, Supported)
    }
    merge_extra_body(body, extra, reserved, renamed)
    return body


def _rename(path: str, names: Mapping[str, str]) -> str:
    name, dot, rest = path.partition(".")
    return f"{names.get(name, name)}{dot}{rest}"


# --- JSON mode ----------------------------------------------------------------------------------------


def describe_schema(response_format: JSONSchemaFormat) -> str:
    """Return the instruction that describes a schema. It contains the word JSON, which servers require."""
    schema = msgspec.json.encode(response_format.described_schema).decode()
    return f"Answer with one JSON object that matches this JSON Schema, and with nothing else:\n{schema}"


def add_instruction(messages: list[dict[str, Any]], instruction: str) -> None:
    """Add a text to the first system message, which stays the same between requests; or add such a message."""
    first = messages[0] if messages and messages[0]["role"] in ("system", "developer") else None
    if first is None:
        messages.insert(0, {"role": "system", "content": instruction})
    elif isinstance(first["content"], str):
        messages[0] = {**first, "content": f"{first['content']}\n\n{instruction}"}
    else:
        messages[0] = {**first, "content": [*first["content"], {"type": "text", "text": instruction}]}
