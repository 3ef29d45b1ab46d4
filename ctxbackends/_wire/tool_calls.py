"""Assembles the tool calls of a response from their pieces, for every wire format. Pure.

Servers number the pieces in many ways: they repeat index 0 for every call, omit the index or the ID, send a new ID with
each piece, or the same ID for every call. The rule:

- A piece belongs to the call that has its ID, else to the last call at its index, else to the last call.
- A piece with a name and a new index begins a new call, whatever its ID.
- A piece with a name begins a new call if the call at that place has another name, or has the same name and complete
  JSON arguments. A piece that repeats the ID and the name and adds nothing continues the call.
- Within one delta, pieces without an index and an ID are different calls, and so are pieces at one place that have
  different IDs or a name each. A later delta with as many of them continues these calls in the same order.
- A new ID at a known index without a name continues the call there.
- A call whose ID is missing, or belongs to another call already, gets a generated ID of nine letters and digits, the
  only form that every server accepts (Mistral requires it). It depends only on the response, so that the result is the
  same however the bytes are split.
- At the end, arguments with two JSON values are an error, because they come from two calls. So are arguments without
  the name of a tool.

The first delta of a call has its ID and its name, and no other delta has. A call is delayed until it has a name and
an ID or arguments. An entry that has neither a name nor an ID nor arguments is not a call.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence

import msgspec

from ctxbackends._chat.events import ToolCallDelta
from ctxbackends._chat.messages import OpaquePart
from ctxbackends.errors import MalformedResponseError

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 9
_json_decoder = json.JSONDecoder()


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call, as a server sends it.

    Attributes:
        index: The server's index of the call, None without one.
        id: The server's ID of the call, empty without one.
        name: The name of the tool, empty without one.
        arguments: The next piece of the JSON text.
        opaque: The vendor's own members of the call.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    opaque: OpaquePart | None = None


class _Call:
    __slots__ = ("arguments", "has_index", "id", "index", "is_sent", "name", "opaque")

    def __init__(self, index: int, piece: Piece) -> None:
        self.index = index
        self.id = piece.id
        self.name = piece.name
        self.arguments: list[str] = []
        self.opaque: OpaquePart | None = None
        self.has_index = piece.index is not None
        self.is_sent = False

    @property
    def has_complete_arguments(self) -> bool:
        """Whether the arguments are a whole JSON value; only asked if a name arrives, since it parses them."""
        text = "".join(self.arguments).rstrip()
        return (text.endswith(("}", "]")) or text == "null") and _is_json(text)


class ToolCallAssembler:
    """Assembles the calls of one response; the module describes the rule."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_group", "_shared_ids", "seed")

    def __init__(self) -> None:
        self.seed = ""
        """The server's ID or time of the response, from which the generated IDs are derived."""
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._shared_ids: set[str] = set()
        self._group: list[_Call] = []  # the calls of the last delta with several unnumbered pieces

    @property
    def has_calls(self) -> bool:
        """Whether there is a call with a name."""
        return any(call.name for call in self._calls)

    def add(self, pieces: Sequence[Piece]) -> list[ToolCallDelta]:
        """Return the deltas for the pieces of one delta."""
        deltas: list[ToolCallDelta] = []
        unnumbered = [
            piece for piece in pieces if piece.index is None and not piece.id and (piece.name or piece.arguments)
        ]
        group = self._group if len(unnumbered) > 1 and len(self._group) == len(unnumbered) else []
        used: list[_Call] = []
        members: list[_Call] = []
        for piece in pieces:
            if not (piece.id or piece.name or piece.arguments or piece.opaque):
                continue
            if len(unnumbered) > 1 and piece.index is None and not piece.id:
                place = group[len(members)] if group else None
                call = self._continue_or_begin(place, piece, used)
                members.append(call)
            else:
                call = self._continue_or_begin(self._find_place(piece), piece, used)
            used.append(call)
            self._append(call, piece, deltas)
        if members:
            self._group = members
        return deltas

    def begin(self, piece: Piece) -> list[ToolCallDelta]:
        """Return the deltas of a piece that begins a call: in formats that mark the beginning, or send whole calls."""
        deltas: list[ToolCallDelta] = []
        self._append(self._begin(piece), piece, deltas)
        return deltas

    def finish(self) -> list[ToolCallDelta]:
        """Return the deltas of the calls that were delayed.

        Raises:
            MalformedResponseError: A call has no name, or arguments with two JSON values.
        """
        deltas: list[ToolCallDelta] = []
        for call in self._calls:
            arguments = "".join(call.arguments)
            if call.name and not call.is_sent:
                deltas.append(self._send(call, arguments))
            elif not call.name and (arguments or call.id):
                raise MalformedResponseError("the server sent a tool call without the name of a tool")
            if _has_two_values(arguments):
                raise MalformedResponseError(
                    f"the server joined two calls of the tool {call.name}: its arguments are two JSON values"
                )
        return deltas

    def _find_place(self, piece: Piece) -> _Call | None:
        if piece.id and piece.id not in self._shared_ids and piece.id in self._by_id:
            call = self._by_id[piece.id]
            is_new_index = piece.index is not None and call.has_index and piece.index not in self._by_index
            return None if piece.name and is_new_index else call
        if piece.index is not None:
            return self._by_index.get(piece.index)
        if piece.id and piece.id in self._shared_ids:
            return self._by_id[piece.id]
        return self._calls[-1] if self._calls and not piece.id else None

    def _continue_or_begin(self, place: _Call | None, piece: Piece, used: Sequence[_Call]) -> _Call:
        if place is None or self._begins_call(place, piece, used):
            return self._begin(piece)
        if piece.id and piece.id not in self._by_id and not place.id and not place.is_sent:
            place.id = piece.id
        if piece.id:
            self._by_id.setdefault(piece.id, place)
        if piece.index is not None:
            self._by_index[piece.index] = place
        return place

    @staticmethod
    def _begins_call(place: _Call, piece: Piece, used: Sequence[_Call]) -> bool:
        if place in used and piece.id and place.id and piece.id != place.id:
            return True
        if not piece.name or not place.name:
            return False
        if piece.name != place.name or place in used:
            return True
        if not piece.arguments and piece.id == place.id and piece.id:
            return False
        if not piece.arguments and not place.arguments and piece.id and place.id:
            return True  # two IDs, and no arguments that one of them could continue
        return place.has_complete_arguments

    def _begin(self, piece: Piece) -> _Call:
        call = _Call(len(self._calls), piece)
        self._calls.append(call)
        if piece.id:
            if piece.id in self._by_id:
                self._shared_ids.add(piece.id)
                call.id = ""
            self._by_id[piece.id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _append(self, call: _Call, piece: Piece, deltas: list[ToolCallDelta]) -> None:
        if piece.arguments:
            call.arguments.append(piece.arguments)
        call.name = call.name or piece.name
        call.opaque = call.opaque or piece.opaque
        if call.is_sent:
            if piece.arguments or piece.opaque is not None:
                deltas.append(ToolCallDelta(call.index, "", "", piece.arguments, piece.opaque))
        elif call.name and (call.id or call.arguments):
            deltas.append(self._send(call, "".join(call.arguments)))

    def _send(self, call: _Call, arguments: str) -> ToolCallDelta:
        call.is_sent = True
        call.id = call.id or self._generate_id(call)
        return ToolCallDelta(call.index, call.id, call.name, arguments, call.opaque)

    def _generate_id(self, call: _Call) -> str:
        attempt = 0
        while True:
            text = "\0".join((self.seed, str(call.index), call.name, "".join(call.arguments), str(attempt)))
            number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
            generated = ""
            for _ in range(_ID_LENGTH):
                number, digit = divmod(number, len(_ALPHABET))
                generated += _ALPHABET[digit]
            if generated not in self._by_id:
                self._by_id[generated] = call
                return generated
            attempt += 1


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _has_two_values(arguments: str) -> bool:
    """Return whether another JSON value begins after the first one. Cut and otherwise invalid JSON has one."""
    text = arguments.strip()
    if not text or _is_json(text):
        return False
    try:
        _, end = _json_decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip().startswith(("{", "["))
