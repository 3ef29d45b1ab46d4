"""The forms of a line, OpenAI's, Anthropic's and the simple one. Each becomes a row or an error.

Formats: https://platform.openai.com/docs/api-reference/batch/request-input,
https://platform.claude.com/docs/en/api/creating-message-batches,
https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/batch (URLs without ``/v1``)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from ctxbackends._chat.requests import ChatOptions
from ctxbackends._client.prompts import OTHER_NAMES, build_chat_request, build_messages
from ctxbackends._suggestions import find_similar, suggest
from ctxbackends._wire.operations.openai import VectorEncoding
from ctxbackends.batch._rows import BatchRow, Operation, encode_deterministic

_CHAT_URLS = ("/v1/chat/completions", "/chat/completions")
_EMBEDDINGS_URLS = ("/v1/embeddings", "/embeddings")
_URL_HINTS = {
    "/v1/responses": "write the input as messages, with the url /v1/chat/completions",
    "/v1/completions": "write the prompt as a message, with the url /v1/chat/completions",
}
_OPENAI_MEMBERS = ("custom_id", "method", "url", "body")
_ANTHROPIC_MEMBERS = ("custom_id", "params")

_OPTIONS = tuple(ChatOptions.__annotations__)
_EMBED_OPTIONS = ("model", "dimensions", "encoding")
_ENCODINGS = get_args(VectorEncoding)
_OPENAI_NAMES = {"stop": "stop_sequences", "max_completion_tokens": "max_tokens"}
_OPENAI_EXTRA = (
    *("logit_bias", "metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
    *("service_tier", "store", "user", "verbosity", "web_search_options"),
)
"""Members of OpenAI's body that are not options here. They are sent unchanged."""
_ANTHROPIC_EXTRA = (
    *("cache_control", "container", "context_management", "inference_geo", "mcp_servers", "metadata", "output_config"),
    *("service_tier", "thinking"),
)
"""The same of Anthropic's params."""
_FIXED: Mapping[str, tuple[Any, str]] = {
    "n": (1, "write one line for each answer"),
    "stream": (False, "remove it; the answers of a batch are whole"),
    "stream_options": (None, "remove it; the usage is always in the output"),
    "modalities": (["text"], "remove it; the answers of a batch are texts"),
}
"""Members with one supported value, which is not sent, and the advice for another one."""
_RESERVED = {"model": "set model", "messages": "set messages", "stream": _FIXED["stream"][1], "n": _FIXED["n"][1]}
"""Members that ``extra_body`` may not set."""
_OTHER_NAMES = {
    **OTHER_NAMES,
    **dict.fromkeys(("input", "inputs", "contents", "conversation"), "write the messages into messages"),
    **dict.fromkeys(
        ("system", "system_prompt", "system_message", "instructions"),
        'put {"role": "system", "content": ...} at the beginning of messages',
    ),
    **dict.fromkeys(
        ("timeout", "max_retries", "extra_headers", "headers"), "set it for the backend, and remove it here"
    ),
}
_ADD_PROMPT = 'add "prompt", "messages" or "input"'
_PLAIN_ROLES = ("system", "developer", "user", "assistant")
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


def parse_line(data: object, line: int, operation: Operation = "chat") -> BatchRow:
    """Return the row of a line.

    Args:
        data: The JSON value of the line.
        line: The number of the line.
        operation: The operation of a line in the simple form with a ``prompt``.

    Raises:
        ValueError: A member is missing, unknown or not supported.
        TypeError: A member has the wrong type.
    """
    if not isinstance(data, dict):
        raise TypeError(f"not a JSON object: {_show(data)}; write one object on each line")
    if "body" in data or "url" in data or "method" in data:
        return _parse_openai(data, line)
    if "params" in data:
        return _parse_anthropic(data, line)
    return _parse_simple(data, line, operation)


def find_id(data: object) -> str:
    """Return the ID of a line with an error, empty if it has none."""
    try:
        return _parse_id(data) if isinstance(data, dict) else ""
    except (TypeError, ValueError):
        return ""


def check_row(row: BatchRow, defaults: Mapping[str, Any] = _NO_OPTIONS) -> None:
    """Check that the request of a row can be built.

    Args:
        row: The row.
        defaults: The options of the batch, for those that a row with ``chat`` does not have.

    Raises:
        ValueError: A value is missing, unknown or out of range.
        TypeError: A value has the wrong type.
    """
    row_id: Any = row.id  # Python code may pass anything
    if not isinstance(row_id, str) or not row_id:
        raise TypeError(f"id must be a text that is not empty: {_show(row_id)}")
    if not isinstance(row.options, Mapping):
        raise TypeError(f"options must be a dict: {_show(row.options)}")
    if row.operation == "chat":
        _check_chat(row.prompt, {**defaults, **row.options})
    elif row.operation == "embed":
        _check_embedding(row.prompt, row.options)
    else:
        raise ValueError(f"unknown operation: {_show(row.operation)}; use {' or '.join(get_args(Operation))}")
    try:
        encode_deterministic((row.id, row.prompt))
    except (TypeError, ValueError) as error:
        raise TypeError(f"a value of the prompt is not JSON: {error}") from error


def _check_chat(prompt: Any, options: Mapping[str, Any]) -> None:
    _check_options(options)
    if not isinstance(prompt, str | Sequence):
        raise TypeError(f"prompt must be a text or a list of messages: {_show(prompt)}")
    if isinstance(prompt, str) or (prompt and all(map(_is_plain, prompt))):
        return  # nothing can be wrong, and building messages takes 0.05 ms
    build_messages(prompt)


def _is_plain(message: Any) -> bool:
    """Return whether a message is a dict with a role and a text."""
    return (
        type(message) is dict
        and len(message) == 2
        and message.get("role") in _PLAIN_ROLES
        and type(message.get("content")) is str
    )


_valid_options: set[bytes] = set()
"""Options that were checked, as JSON. They are often the same in all rows, and tools take 0.1 ms."""
_MAX_VALID_OPTIONS = 64


def _check_options(options: Mapping[str, Any]) -> None:
    try:
        key = encode_deterministic(options)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a value of the options is not JSON: {error}") from error
    if key in _valid_options:
        return
    build_chat_request("", _check_model(options) or "", options)  # type: ignore[arg-type]
    for name in options.get("extra_body") or ():
        if name in _RESERVED:
            raise ValueError(f"extra_body cannot have {name}; {_RESERVED[name]}")
    if len(_valid_options) >= _MAX_VALID_OPTIONS:
        _valid_options.clear()
    _valid_options.add(key)


def _check_embedding(prompt: Any, options: Mapping[str, Any]) -> None:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"input must be a text or a list of texts: {_show(prompt)}")
    for name in options:
        if name not in _EMBED_OPTIONS:
            raise ValueError(f"unknown option of an embedding: {name}; {suggest(name, _EMBED_OPTIONS)}")
    _check_model(options)
    dimensions = options.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise ValueError(f"dimensions must be an integer of at least 1: {_show(dimensions)}")
    if options.get("encoding") not in (None, *_ENCODINGS):
        raise ValueError(f"encoding must be {' or '.join(_ENCODINGS)}: {_show(options['encoding'])}")


def _check_model(options: Mapping[str, Any]) -> str | None:
    model = options.get("model")
    if model is not None and (not isinstance(model, str) or not model):
        raise TypeError(f"model must be a text that is not empty: {_show(model)}")
    return model


# --- the forms ----------------------------------------------------------------------------------------


def _parse_openai(data: Mapping[str, Any], line: int) -> BatchRow:
    row_id = _parse_id(data)
    _check_members(data, _OPENAI_MEMBERS)
    if data.get("method", "POST") != "POST":
        raise ValueError(f"method must be POST: {_show(data['method'])}")
    body, url = data.get("body"), data.get("url")
    if url is None:
        raise ValueError(f"missing member: url; use {_CHAT_URLS[0]} or {_EMBEDDINGS_URLS[0]}")
    if url not in (*_CHAT_URLS, *_EMBEDDINGS_URLS):
        hint = _URL_HINTS.get(url) if isinstance(url, str) else None
        raise ValueError(f"unsupported url: {_show(url)}; {hint or f'use {_CHAT_URLS[0]} or {_EMBEDDINGS_URLS[0]}'}")
    if body is None:
        raise ValueError("missing member: body")
    if not isinstance(body, dict):
        raise TypeError(f"body must be an object: {_show(body)}")
    if url in _CHAT_URLS:
        return _build_chat_row(row_id, line, body, _OPENAI_EXTRA, _OPENAI_NAMES)
    if body.get("encoding_format") not in (None, *_ENCODINGS):
        raise ValueError(f"encoding_format must be {' or '.join(_ENCODINGS)}: {_show(body['encoding_format'])}")
    if body.get("input") is None:
        advice = _find_misspelling(body, ("input",))
        raise ValueError(f"missing member: body.input{'; ' if advice else ''}{advice}")
    options = {name: value for name, value in body.items() if name not in ("input", "encoding_format")}
    if body.get("encoding_format") == "base64":
        options["encoding"] = "base64"
    return _build_embed_row(row_id, line, body["input"], options)


def _parse_anthropic(data: Mapping[str, Any], line: int) -> BatchRow:
    row_id = _parse_id(data)
    _check_members(data, _ANTHROPIC_MEMBERS)
    params = data["params"]
    if not isinstance(params, dict):
        raise TypeError(f"params must be an object: {_show(params)}")
    members = _translate_reasoning(params)
    system = members.pop("system", None)
    if system is not None and isinstance(messages := members.get("messages"), list):
        members["messages"] = [{"role": "system", "content": system}, *messages]
    return _build_chat_row(row_id, line, members, _ANTHROPIC_EXTRA)


def _translate_reasoning(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with options for ``thinking`` and ``output_config`` where both mean the same.

    Otherwise, another server than Anthropic would ignore them.
    """
    members = dict(params)
    thinking = members.get("thinking")
    config = dict(members["output_config"]) if isinstance(members.get("output_config"), dict) else {}
    options: dict[str, Any] = {}
    if thinking == {"type": "disabled"}:
        options["reasoning_effort"] = "none"
    elif thinking == {"type": "adaptive"} and "effort" in config:
        options["reasoning_effort"] = config.pop("effort")
    elif isinstance(thinking, dict) and thinking == {"type": "enabled", "budget_tokens": thinking.get("budget_tokens")}:
        options["reasoning_budget"] = thinking["budget_tokens"]
    if options:
        del members["thinking"]
    if "format" in config:
        options["response_format"] = config.pop("format")
    if options.keys() & params.keys():
        return dict(params)
    if isinstance(members.get("output_config"), dict):
        members["output_config"] = config or None
    return {**members, **options}


def _parse_simple(data: Mapping[str, Any], line: int, operation: Operation) -> BatchRow:
    row_id = _parse_id(data)
    prompts = [name for name in ("prompt", "messages", "input") if data.get(name) is not None]
    if len(prompts) > 1:
        raise ValueError(f"{' and '.join(prompts)} are in one line; keep one of them")
    if not prompts:
        advice = _find_misspelling(data, ("prompt", "messages", "input"))
        raise ValueError(
            f"missing prompt; {advice}" if advice else 'missing prompt; add "prompt", "messages" or "input"'
        )
    prompt = data[prompts[0]]
    members = {name: value for name, value in data.items() if name not in ("custom_id", "id", *prompts)}
    if prompts == ["input"] or (operation == "embed" and prompts == ["prompt"]):
        return _build_embed_row(row_id, line, prompt, members)
    if prompts == ["messages"]:
        return _build_chat_row(row_id, line, {"messages": prompt, **members})
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a text: {_show(prompt)}; use messages for a conversation")
    return BatchRow(id=row_id, prompt=prompt, options=_parse_options(members, (), _NO_NAMES), line=line)


# --- rows ---------------------------------------------------------------------------------------------


def _build_chat_row(
    row_id: str,
    line: int,
    members: Mapping[str, Any],
    extra: tuple[str, ...] = (),
    names: Mapping[str, str] = _NO_NAMES,
) -> BatchRow:
    messages = members.get("messages")
    if messages is None:
        advice = _find_misspelling(members, ("messages",))
        raise ValueError(f"missing member: messages{'; ' if advice else ''}{advice}")
    if not isinstance(messages, list):
        raise TypeError(f"messages must be a list: {_show(messages)}")
    return BatchRow(id=row_id, prompt=messages, options=_parse_options(members, extra, names), line=line)


def _parse_options(members: Mapping[str, Any], extra: tuple[str, ...], names: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    unchanged: dict[str, Any] = {}
    for name, value in members.items():
        option = names.get(name, name)
        if option in ChatOptions.__annotations__:
            if value is None:
                continue
            if option in options:
                other = next(one for one in members if one != name and names.get(one, one) == option)
                raise ValueError(f"{other} and {name} are in one line; keep one of them")
            options[option] = [value] if name == "stop" and isinstance(value, str) else value
        elif name in extra:
            if value is not None:
                unchanged[name] = value
        elif name in _FIXED:
            supported, advice = _FIXED[name]
            if value is not None and (value != supported or type(value) is not type(supported)):
                raise ValueError(f"{name} is not supported: {_show(value)}; {advice}")
        elif name != "messages":
            raise ValueError(f"unknown option: {name}; {_advise(name)}")
    if unchanged:
        options["extra_body"] = _merge_extra(unchanged, options.get("extra_body", {}))
    return options


def _find_misspelling(members: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return the advice about a member whose name is like a missing one, empty if there is none."""
    for name in members:
        is_known = name in ("custom_id", "id") or name in _OPTIONS or name in missing
        if not is_known and (meant := find_similar(name, missing)) is not None:
            return f"did you mean {meant} instead of {name}?"
    return ""


def _merge_extra(unchanged: Mapping[str, Any], extra_body: object) -> dict[str, Any]:
    if not isinstance(extra_body, dict):
        raise TypeError(f"extra_body must be an object: {_show(extra_body)}")
    for name in unchanged:
        if name in extra_body:
            raise ValueError(f"{name} is in the line and in its extra_body; keep one of them")
    return {**unchanged, **extra_body}


def _build_embed_row(row_id: str, line: int, texts: Any, members: Mapping[str, Any]) -> BatchRow:
    options = {name: value for name, value in members.items() if value is not None}
    return BatchRow(id=row_id, prompt=texts, operation="embed", options=options, line=line)


def _parse_id(data: Mapping[str, Any]) -> str:
    if data.get("custom_id") is not None and data.get("id") is not None:
        raise ValueError("custom_id and id are in one line; keep one of them")
    row_id = data["custom_id"] if data.get("custom_id") is not None else data.get("id")
    if row_id is None:
        raise ValueError('missing custom_id; add "custom_id", a text that no other line has')
    if type(row_id) is int:
        return str(row_id)
    if not isinstance(row_id, str) or not row_id:
        raise TypeError(f"custom_id must be a text that is not empty: {_show(row_id)}")
    return row_id


def _check_members(data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"unknown member: {name}; {suggest(name, known)}")


@functools.lru_cache(maxsize=256)
def _advise(name: str) -> str:
    """Return the advice for an unknown option. The same one is often on every line of a file."""
    extra = "put it into extra_body if the server supports it"
    meant = find_similar(name, _OPTIONS, _OTHER_NAMES)
    if meant is None:
        return extra
    return f"did you mean {meant}? Otherwise, {extra}" if meant in _OPTIONS else meant


def _show(value: object) -> str:
    return f"{value!r:.60}"
