"""JSON text to a value of a type; the error names the place that does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from ctxbackends._schema.generate import WRAPPER_KEY, PydanticModel, T, as_pydantic_model
from ctxbackends.errors import StructuredOutputError


def unwrap_object(text: str) -> str:
    """Return the wrapped value as JSON text; ``text`` itself if it is not wrapped, so that validation fails."""
    try:
        return bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[WRAPPER_KEY]).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return text


def decode_as(target: type[T], text: str) -> T:
    """Decode and validate the text of a response.

    Raises:
        StructuredOutputError: The text does not match ``target``.
    """
    model = as_pydantic_model(target)
    if model is not None:
        return cast("T", _validate_model(model, text))
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=target)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's message: "... - at `$.title`", and "... - at `key` in `$.counts`" for the key of a mapping.
        problem, _, location = str(error).rpartition(" - at `")
        raise StructuredOutputError(
            f"response does not match {getattr(target, '__name__', target)}: {error}",
            text=text,
            pointer=location.removesuffix("`").rpartition("`")[2] if problem else None,
        ) from error


def _validate_model(model: PydanticModel, text: str) -> Any:
    try:
        return model.model_validate_json(text)
    except ValueError as error:  # pydantic's ValidationError is one
        errors: Sequence[Mapping[str, Any]] = getattr(error, "errors", tuple)()
        first = errors[0] if errors else {}
        location = _format_pointer(first.get("loc", ()))
        problem = first.get("msg", error)
        where = f" - at `{location}`" if location else ""
        name = getattr(model, "__name__", "value")
        raise StructuredOutputError(
            f"response does not match {name}: {problem}{where}", text=text, pointer=location
        ) from error


def _format_pointer(location: Sequence[str | int]) -> str | None:
    """Return the location in msgspec's notation, None for the whole value."""
    if not location:
        return None
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
