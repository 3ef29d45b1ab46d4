"""``-o KEY=VALUE`` (``--option`` in ``batch``): the options of complete() by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import click

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be an integer") from None


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def _parse_flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("must be true or false")
    return _FLAGS[text.lower()]


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    return value


def _parse_texts(text: str) -> list[str]:
    """Return the texts of a JSON array, or the one text."""
    if not text.startswith("["):
        return [text]
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a text, or a JSON array of texts")
    return value


def _parse_format(text: str) -> dict[str, Any]:
    return _parse_object(text) if text.startswith("{") else {"type": text}


def _parse_choice(text: str) -> str | dict[str, Any]:
    if text.startswith("{"):
        return _parse_object(text)
    is_kind = text in ("auto", "none", "required")
    return text if is_kind else {"type": "function", "function": {"name": text}}


PARSERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("max_tokens", "top_k", "seed", "top_logprobs", "reasoning_budget"), _parse_integer),
    **dict.fromkeys(("temperature", "top_p", "min_p"), _parse_number),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "repetition_penalty"), _parse_number),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), _parse_flag),
    **dict.fromkeys(("model", "reasoning_effort"), str),
    "stop_sequences": _parse_texts,
    "response_format": _parse_format,
    "tool_choice": _parse_choice,
    "extra_body": _parse_object,
}
"""The options of the request."""

REQUEST_PARSERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("timeout", "first_token_timeout", "idle_timeout", "ready_timeout"), str),
    "max_retries": _parse_integer,
    "headers": _parse_object,
}
"""The fields of RequestOptions."""

_OTHER_NAMES = {
    **dict.fromkeys(("system", "system_prompt", "system_message", "instructions"), "use --system"),
    **dict.fromkeys(("tools", "functions", "tool"), "use --tool"),
    **dict.fromkeys(("json_schema", "schema", "format", "response_model", "output_type"), "use --schema"),
    **dict.fromkeys(("messages", "input", "prompt"), "pass the prompt as an argument or on standard input"),
    **dict.fromkeys(("stream", "stream_options"), "remove it: answers are always streamed"),
    **dict.fromkeys(("n", "best_of"), "one answer is printed; run the command several times"),
    **dict.fromkeys(("extra_headers",), "headers"),
    "json_mode": "use -o response_format=json_object",
}


class ModelOptions(NamedTuple):
    """The values of all ``-o``.

    Attributes:
        options: The options of the request, see :class:`ctxbackends.ChatOptions`. They are JSON values.
        request: The fields of :class:`ctxbackends.RequestOptions`.
    """

    options: dict[str, Any]
    request: dict[str, Any]


def parse_options(pairs: Iterable[str]) -> ModelOptions:
    """Return the options of all ``KEY=VALUE``.

    Raises:
        UsageError: An option is unknown or given twice, or its value has the wrong type.
    """
    values = parse_values(pairs, {**PARSERS, **REQUEST_PARSERS}, _OTHER_NAMES)
    request = {name: values.pop(name) for name in [*values] if name in REQUEST_PARSERS}
    return ModelOptions(values, request)


def parse_values(
    pairs: Iterable[str],
    parsers: Mapping[str, Callable[[str], Any]],
    other_names: Mapping[str, str],
    *,
    option: str = "-o",
) -> dict[str, Any]:
    """Return the values of all ``KEY=VALUE`` by name. Errors begin with ``option``.

    Args:
        pairs: The values of the option.
        parsers: The known names.
        other_names: Names that are not known, with advice.
        option: The name of the option.

    Raises:
        UsageError: A name is unknown or given twice, or its value has the wrong type.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not separator or not name:
            raise click.UsageError(f"{option}: not an option: {pair!r}; write KEY=VALUE, such as temperature=0.5")
        if name not in parsers:
            raise click.UsageError(f"{option}: unknown option: {name}; {_suggest(name, parsers, other_names)}")
        try:
            value = parsers[name](text)
        except ValueError as error:
            raise click.UsageError(f"{option}: {name} {error}: {text!r:.80}") from None
        if name in values and name != "stop_sequences":
            raise click.UsageError(f"{option}: {name} is given twice")
        values[name] = [*values.get(name, ()), *value] if name == "stop_sequences" else value
    return values


def _suggest(name: str, known: Iterable[str], other_names: Mapping[str, str]) -> str:
    from ctxbackends._client.prompts import OTHER_NAMES  # needed only after a mistake
    from ctxbackends._suggestions import suggest

    return suggest(name, known, {**OTHER_NAMES, **other_names})


def check_options(options: Mapping[str, Any], tools: tuple[Any, ...] = (), *, option: str = "-o") -> None:
    """Check values that are invalid on every server. Errors begin with ``option``.

    Raises:
        UsageError: A value is out of range.
    """
    if not options:
        return
    from ctxbackends._client.prompts import build_chat_request  # needed only with options

    values: Any = {name: value for name, value in options.items() if name != "model"}
    if tools:
        values["tools"] = tools
    try:
        build_chat_request("", "", values)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{option}: {error}") from None
