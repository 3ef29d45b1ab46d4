"""The model list of OpenAI-compatible servers.

It is read row by row, and each member of a row on its own: a member of another type counts as missing, and a row
without a name is left out. Only a list without any usable row is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeGuard, TypeVar

import msgspec

from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import decode_response, error_from_success, raise_for_error_body
from ctxbackends.errors import EmptyModelListError, MalformedResponseError

# vLLM; OpenRouter and Together; Groq; Mistral; Anthropic. llama-server has it in ``meta``.
_CONTEXT_MEMBERS = ("max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens")
_MAX_NAMES = 32
"""Names of one ``root`` that count as names of one model; a longer list means that the server repeats a constant."""

_PARAMETERS = re.compile(r"\s*(?:([0-9]{1,3})x)?([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*([KMBT])(?![A-Za-z0-9])", re.IGNORECASE)
_UNITS: Mapping[str, float] = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}

_decoder = msgspec.json.Decoder(Any)
T = TypeVar("T", bound=msgspec.Struct)


def decode_models(response: HTTPResponse) -> tuple[ModelInfo, ...]:
    """Return the models of a list: ``{"data": [...]}``, or the bare array that Together sends.

    Raises:
        EmptyModelListError: The list is empty.
        MalformedResponseError: It is not a list, or no row has a name.
    """
    value = decode_response(_decoder, response, api="the OpenAI API")
    rows = value.get("data") if _is_object(value) else value
    if not isinstance(rows, list) or (isinstance(value, list) and not value):  # an empty array shows no model list
        if _is_object(value) and value.get("error"):
            raise error_from_success(response)
        raise_for_error_body(response)
        raise MalformedResponseError("unexpected response from the OpenAI API: no data", body=response.body)
    if not rows:
        raise EmptyModelListError("the server lists no model", body=response.body)
    named = [row for row in rows if _is_object(row) and isinstance(row.get("id"), str) and row["id"]]
    if not named:
        raise MalformedResponseError("unexpected response from the OpenAI API: no model has an id", body=response.body)
    names = _group_by_root(named)
    return tuple(_build_model_info(row, names) for row in named)


def _group_by_root(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[str]]:
    """Return the names by ``root``: vLLM lists each served name of its model as a row."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if isinstance(row.get("root"), str) and row["root"] and row["id"] not in names[row["root"]][:_MAX_NAMES]:
            names[row["root"]].append(row["id"])
    return {root: ids for root, ids in names.items() if len(ids) <= _MAX_NAMES}


def _build_model_info(row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> ModelInfo:
    root, aliases, meta, status = row.get("root"), row.get("aliases"), row.get("meta"), row.get("status")
    others = [name for name in aliases if isinstance(name, str)] if isinstance(aliases, list) else []
    if isinstance(root, str):
        others += [name for name in names.get(root, ()) if name != row["id"] and name not in others]
    counts = [row.get(member) for member in _CONTEXT_MEMBERS]
    if _is_object(meta):
        counts.append(meta.get("n_ctx"))
    state = None
    if _is_object(status):  # that of a llama-server router; Azure has a text of another meaning
        value = status.get("value")
        state = "failed" if status.get("failed") is True else value if isinstance(value, str) else None
    owner = row.get("owned_by")
    return ModelInfo(
        id=row["id"],
        aliases=tuple(others),
        context_length=next((count for value in counts if (count := parse_count(value)) is not None), None),
        owned_by=owner if isinstance(owner, str) else None,
        state=state,
        parameters=parse_count(meta.get("n_params")) if _is_object(meta) else None,
    )


def convert_rows(rows: object, kind: type[T]) -> list[T]:
    """Convert the rows of another list; one without its required members is left out, other odd members are missing."""
    converted = (_convert_row(row, kind) for row in (rows if isinstance(rows, list) else ()))
    return [row for row in converted if row is not None]


def _convert_row(row: object, kind: type[T]) -> T | None:
    fields = msgspec.structs.fields(kind)
    members = {field.name: row[field.name] for field in fields if _is_object(row) and field.name in row}
    for field in fields:
        with suppress(msgspec.ValidationError):
            msgspec.convert(members.get(field.name), field.type)
            continue
        members.pop(field.name, None)
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError:
        return None


def parse_count(value: object) -> int | None:
    """Return a number of tokens, which some gateways send as text or as a float; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def parse_parameters(text: object) -> int | None:
    """Return the number of parameters in a text such as ``7B``, ``134.52M``, ``8x7B`` or ``30B-A3B``, else None."""
    match = _PARAMETERS.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    experts, number, unit = match.groups()
    return round(int(experts or 1) * float(number) * _UNITS[unit.upper()]) or None


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def select_model(models: Sequence[ModelInfo], model: str | None) -> ModelInfo | None:
    """Return the model that a backend with the default model ``model`` would request, or else the first."""
    if model is None:
        return models[0] if models else None
    return next((info for info in models if model in (info.id, *info.aliases)), None)


def build_ready_status(models: Sequence[ModelInfo], model: str | None) -> ServerStatus:
    """Return the status of a server that only lists its models."""
    chosen = select_model(models, model)
    return ServerStatus(
        state="ready",
        model=chosen.id if chosen else model,
        context_length=chosen.context_length if chosen else None,
        parameters=chosen.parameters if chosen else None,
    )
