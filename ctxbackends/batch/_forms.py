"""The forms of a line: OpenAI's batches, Anthropic's batches, and the simple form. Each becomes a row, or an error.

Formats: https://platform.openai.com/docs/api-reference/batch/request-input,
https://platform.claude.com/docs/en/api/creating-message-batches
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctxbackends._chat.requests import ChatOptions
from ctxbackends._client.prompts import OTHER_NAMES, build_chat_request
from ctxbackends._suggestions import suggest
from ctxbackends.batch._rows import BatchRow

CHAT_URL, EMBEDDINGS_URL = "/v1/chat/completions", "/v1/embeddings"

_OPENAI_NAMES = {"stop": "stop_sequences", "max_completion_tokens": "max_tokens"}
_DEFAULTS: Mapping[str, Any] = {"stream": False, "n": 1, "stream_options": None}
"""Members that a batch needs not send, and the value that says the same."""
_EXTRA = ("logit_bias", "user", "metadata", "store", "service_tier", "prediction", "verbosity", "prompt_cache_key")
"""Members of OpenAI's body that are no options here, and are sent unchanged."""
_ANTHROPIC_EXTRA = ("metadata", "service_tier", "cache_control", "thinking")
_EMBED_OPTIONS = ("model", "dimensions")


def parse_line(data: object, line: int) -> BatchRow:
    """Return the row of a line's object.

    Raises:
        ValueError: A member is missing, unknown or invalid.
        TypeError: A member has the wrong type.
    """
    if not isinstance(data, dict):
        raise TypeError(f"not an object: {_show(data)}; write one JSON object on each line")
    if "body" in data or "url" in data:
        return _parse_openai(data, line)
    if "params" in data:
        return _parse_anthropic(data, line)
    return _parse_simple(data, line)


def check_row(row: BatchRow) -> None:
    """Raise TypeError or ValueError if the request of a row cannot be built for any server."""
    if row.operation == "chat":
        build_chat_request(row.prompt, row.options.get("model") or "", {**row.options})  # type: ignore[arg-type,typeddict-item]
        return
    texts = [row.prompt] if isinstance(row.prompt, str) else row.prompt
    if not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"input must be a text or a list of texts: {_show(row.prompt)}")
    for name in row.options:
        if name not in _EMBED_OPTIONS:
            raise ValueError(f"unknown option: {name}; {suggest(name, _EMBED_OPTIONS, {})}")


def _parse_openai(data: Mapping[str, Any], line: int) -> BatchRow:
    _check_members(data, ("custom_id", "method", "url", "body"))
    if data.get("method", "POST") != "POST":
        raise ValueError(f"method must be POST: {_show(data['method'])}")
    body, url = data.get("body"), data.get("url")
    if not isinstance(body, dict):
        raise TypeError(f"body must be an object: {_show(body)}")
    if url == CHAT_URL:
        return _chat_row(data, line, body, _EXTRA, _OPENAI_NAMES)
    if url != EMBEDDINGS_URL:
        raise ValueError(f"url is not supported: {_show(url)}; use {CHAT_URL} or {EMBEDDINGS_URL}")
    options = {name: value for name, value in body.items() if name != "input"}
    if options.pop("encoding_format", "float") not in ("float", "base64"):
        raise ValueError(f"encoding_format must be float or base64: {_show(body['encoding_format'])}")
    if "input" not in body:
        raise ValueError("body has no input; add the text to embed")
    return BatchRow(id=_find_id(data), prompt=body["input"], operation="embed", options=options, line=line)


def _parse_anthropic(data: Mapping[str, Any], line: int) -> BatchRow:
    _check_members(data, ("custom_id", "params"))
    params = data["params"]
    if not isinstance(params, dict):
        raise TypeError(f"params must be an object: {_show(params)}")
    members = dict(params)
    system = members.pop("system", None)
    if system is not None:
        messages = members.get("messages")
        if not isinstance(messages, list):
            raise TypeError(f"messages must be a list: {_show(messages)}")
        members["messages"] = [{"role": "system", "content": system}, *messages]
    return _chat_row(data, line, members, _ANTHROPIC_EXTRA, {})


def _parse_simple(data: Mapping[str, Any], line: int) -> BatchRow:
    members = {name: value for name, value in data.items() if name not in ("custom_id", "id")}
    if "prompt" in members:
        if "messages" in members:
            raise ValueError("both prompt and messages are given; remove one")
        members["messages"] = members.pop("prompt")
        if not isinstance(members["messages"], str):
            raise TypeError(f"prompt must be a text: {_show(members['messages'])}; use messages for a conversation")
    elif "input" in members:
        options = {name: value for name, value in members.items() if name != "input"}
        return BatchRow(id=_find_id(data), prompt=members["input"], operation="embed", options=options, line=line)
    return _chat_row(data, line, members, (), {})


def _chat_row(
    data: Mapping[str, Any], line: int, body: Mapping[str, Any], extra: tuple[str, ...], names: Mapping[str, str]
) -> BatchRow:
    if "messages" not in body:
        raise ValueError('no prompt; add "prompt" or "messages"')
    options: dict[str, Any] = {}
    unchanged: dict[str, Any] = {}
    for name, value in body.items():
        if name == "messages" or (name in _DEFAULTS and value in (None, _DEFAULTS[name])):
            continue
        if name in extra:
            unchanged[name] = value
            continue
        option = names.get(name, name)
        if option not in ChatOptions.__annotations__:
            raise ValueError(f"unknown option: {name}; {suggest(name, ChatOptions.__annotations__, OTHER_NAMES)}")
        if value is not None:
            options[option] = [value] if option == "stop_sequences" and isinstance(value, str) else value
    if unchanged:
        options["extra_body"] = {**unchanged, **options.get("extra_body", {})}
    return BatchRow(id=_find_id(data), prompt=body["messages"], options=options, line=line)


def _find_id(data: Mapping[str, Any]) -> str:
    row_id = data.get("custom_id", data.get("id"))
    if row_id is None:
        raise ValueError('no custom_id; add "custom_id", a text that no other line has')
    if isinstance(row_id, int) and not isinstance(row_id, bool):
        return str(row_id)
    if not isinstance(row_id, str) or not row_id:
        raise TypeError(f"custom_id must be a text: {_show(row_id)}")
    return row_id


def _check_members(data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"unknown member: {name}; {suggest(name, known, {})}")


def _show(value: object) -> str:
    return f"{value!r:.60}"


LineParser = Callable[[object, int], BatchRow]
