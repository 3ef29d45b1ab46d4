"""Messages from the items of a conversation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agents.models.chatcmpl_converter import Converter

from ctxbackends._chat.messages import Message
from ctxbackends.integrations._common import logger

TURN = "ctxbackends_turn"
"""The member of an item's ``provider_data`` with the whole message of the turn that the item begins."""


def build_messages(items: Sequence[Any], source: str) -> list[Message | Mapping[str, Any]]:
    """Return the messages of the items of a conversation.

    Args:
        items: The items, as dicts.
        source: The backend and the model of the request. Their own turns go back with the reasoning and the opaque
            data that the items have no members for; turns of others go back as text and tool calls.
    """
    messages: list[Any] = []
    plain: list[Any] = []
    position = 0
    while position < len(items):
        turn = _restore_turn(items, position, source)
        if turn is None:
            plain.append(items[position])
            position += 1
            continue
        messages += [*_convert_items(plain), turn[0]]
        plain = []
        position += turn[1]
    return [*messages, *_convert_items(plain)]


def _convert_items(items: list[Any]) -> list[Any]:
    return cast("list[Any]", Converter.items_to_messages(items, preserve_tool_output_all_content=True))


def _restore_turn(items: Sequence[Any], start: int, source: str) -> tuple[Message, int] | None:
    """Return the message that the items from ``start`` on come from, and their number; None if they were changed."""
    data = items[start].get("provider_data")
    turn = data.get(TURN) if isinstance(data, Mapping) else None
    if turn is None or turn["source"] != source:
        return None
    message = Message.from_dict(turn["message"])
    expected = [(call.id, call.name, call.arguments) for call in message.tool_calls]
    text, calls = "", []
    for count, item in enumerate(itertools.islice(items, start, None), 1):
        if item.get("type") == "function_call":
            calls.append((item["call_id"], item["name"], item["arguments"]))
        elif item.get("role") == "assistant":
            text += "".join(part["text"] for part in item["content"] if part["type"] == "output_text")
        elif item.get("type") != "reasoning":
            break
        if text == message.text and calls == expected:
            return message, count
    logger.info("A turn of %s was changed: its reasoning is not sent back", source)
    return None
