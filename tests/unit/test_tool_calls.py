"""The assembler of tool calls: no call is joined from two, lost, or handed out with two JSON values."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.events import ToolCallDelta
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.tool_calls import Piece, ToolCallAssembler
from ctxbackends.errors import MalformedResponseError


def assemble(*deltas: Sequence[Piece]) -> tuple[list[ToolCallDelta], list[tuple[str, str, str]]]:
    assembler = ToolCallAssembler()
    events = [event for pieces in deltas for event in assembler.add(pieces)] + assembler.finish()
    accumulator = Accumulator()
    accumulator.add(*events)
    return events, [(call.id, call.name, call.arguments) for call in accumulator.partial().tool_calls]


def piece(index: int | None = None, id_: str = "", name: str = "", arguments: str = "") -> Piece:
    return Piece(index, id_, name, arguments)


X, Y = '{"x":1}', '{"y":2}'


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        pytest.param([[piece(0, "", "f", X)], [piece(0, "", "f", Y)]], [("f", X), ("f", Y)], id="index repeated"),
        pytest.param([[piece(0, "", "f", X), piece(0, "", "f", Y)]], [("f", X), ("f", Y)], id="repeated in one delta"),
        pytest.param([[piece(0, "", "f")], [piece(0, "", "g", Y)]], [("f", ""), ("g", Y)], id="another name"),
        pytest.param([[piece(None, "", "f", X), piece(None, "", "g", Y)]], [("f", X), ("g", Y)], id="unnumbered"),
        pytest.param(
            [
                [piece(None, "", "f"), piece(None, "", "g")],
                [piece(None, "", "", X), piece(None, "", "", Y)],
            ],
            [("f", X), ("g", Y)],
            id="unnumbered, in pieces of the same order",
        ),
        pytest.param(
            [[piece(0, "a", "f")], [piece(0, "b", "", '{"x"')], [piece(0, "c", "", ":1}")]],
            [("f", X)],
            id="a new ID with each piece",
        ),
        pytest.param(
            [[piece(0, "a", "f", '{"x"')], [piece(0, "a", "f", ":1}")], [piece(0, "a", "f")]],
            [("f", X)],
            id="ID and name in each piece",
        ),
        pytest.param(
            [[piece(0, "c", "f")], [piece(1, "c", "g")], [piece(0, "c", "", X)], [piece(1, "c", "", Y)]],
            [("f", X), ("g", Y)],
            id="one ID for two calls",
        ),
        pytest.param([[piece(0, "a", "", "")], [piece(0, "a", "f", X)]], [("f", X)], id="the name comes late"),
        pytest.param([[piece(0, "a", "", '{"x"')], [piece(0, "a", "f", ":1}")]], [("f", X)], id="after arguments"),
        pytest.param([[piece(0, "a", "f", "null")], [piece(0, "", "f", X)]], [("f", "null"), ("f", X)], id="null"),
        pytest.param([[piece(0, "a", "f")], [piece(0, "b", "f")]], [("f", ""), ("f", "")], id="without arguments"),
        pytest.param([[piece()], [piece(0)]], [], id="entries that say nothing"),
    ],
)
def test_calls_are_assembled(deltas: list[list[Piece]], calls: list[tuple[str, str]]) -> None:
    events, actual = assemble(*deltas)
    assert calls == [(name, arguments) for _, name, arguments in actual]
    check_form(events)


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([piece(0, "a", "f", X), piece(0, "b", "", Y)], None),  # in one delta, another ID is another call: nameless
        ([piece(0, "a", "f", X + Y)], "two JSON values"),
        ([piece(0, "a", "f", X + "\n" + '{"y"')], "two JSON values"),
        ([piece(0, "a", "", X)], "without the name"),
        ([piece(0, "a")], "without the name"),
    ],
)
def test_calls_that_cannot_be_told_apart_are_errors(pieces: list[Piece], problem: str | None) -> None:
    with pytest.raises(MalformedResponseError, match=problem or "without the name"):
        assemble(pieces)


@pytest.mark.parametrize("arguments", ['{"x":', "{", "x", X + "}", ""])
def test_arguments_that_are_invalid_are_handed_out(arguments: str) -> None:
    assert [("a", "f", arguments)] == assemble([piece(0, "a", "f", arguments)])[1]


def check_form(events: Sequence[ToolCallDelta]) -> None:
    """ID and name are in the first delta of a call and in no other, and IDs are unique."""
    begun: dict[int, str] = {}
    for event in events:
        assert (bool(event.id), bool(event.name)) == (event.index not in begun,) * 2
        begun.setdefault(event.index, event.id)
    assert len(begun) == len(set(begun.values()))
    assert list(range(len(begun))) == sorted(begun)


Call = tuple[str, str]
calls = st.lists(
    st.tuples(
        st.sampled_from("fg"),
        st.dictionaries(
            st.sampled_from("xy"), st.integers(0, 99) | st.just({"z": [1]}) | st.just("}{"), max_size=2
        ).map(json.dumps),
    ),
    min_size=1,
    max_size=4,
)


def split(draw: st.DrawFn, text: str) -> list[str]:
    edges = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=3)))
    return [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]


STYLES = (
    *("numbered", "index", "index 0", "id", "nothing"),
    *("new ids", "all in each", "one id", "one delta", "in order"),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Call], list[list[Piece]]]:
    """Calls with the deltas of a server that numbers them in one of the ways that servers have."""
    expected = draw(calls)
    style = draw(
        st.sampled_from(
            [
                "numbered",
                "index",
                "index 0",
                "id",
                "nothing",
                "new ids",
                "all in each",
                "one id",
                "one delta",
                "in order",
            ]
        )
    )
    if style == "one delta":
        return expected, [[piece(None, "", name, arguments) for name, arguments in expected]]
    queues: list[list[Piece]] = []
    for number, (name, arguments) in enumerate(expected):
        texts = split(draw, arguments)
        if draw(st.booleans()):
            texts.insert(0, "")
        queue = []
        for position, text in enumerate(texts):
            is_first = position == 0
            index: int | None = number
            id_ = f"c{number}" if is_first else ""
            has_name = is_first
            match style:
                case "index":
                    id_ = ""
                case "index 0":
                    index, id_ = 0, ""
                case "id":
                    index, id_ = None, f"c{number}"
                case "nothing":
                    index, id_ = None, ""
                case "new ids":
                    id_ = f"c{number}-{position}"
                case "all in each":
                    id_, has_name = f"c{number}", True
                case "one id":
                    id_ = "c"
            queue.append(piece(index, id_, name if has_name else "", text))
        queues.append(queue)
    if style == "in order" or draw(st.booleans()) or style in ("index 0", "nothing"):
        # Without numbers, only whole calls one after the other can be told apart.
        return expected, [[one] for queue in queues for one in queue]
    first = [[queue.pop(0)] for queue in queues]
    rest: list[list[Piece]] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        rest.append([queue.pop(0)])
    return expected, first + rest


@given(streams())
def test_no_call_is_joined_or_lost(stream: tuple[list[Call], list[list[Piece]]]) -> None:
    expected, deltas = stream
    events, actual = assemble(*deltas)
    assert expected == [(name, arguments) for _, name, arguments in actual]
    check_form(events)


soup = st.builds(
    piece,
    st.none() | st.integers(0, 2),
    st.sampled_from(["", "", "a", "b"]),
    st.sampled_from(["", "", "f", "g"]),
    st.sampled_from(["", X, Y, "{", '"x":1}', "{}", "null"]),
)


@given(st.lists(st.lists(soup, min_size=1, max_size=3), max_size=6))
def test_any_pieces_are_calls_with_one_value_or_an_error(deltas: list[list[Piece]]) -> None:
    try:
        events, actual = assemble(*deltas)
    except MalformedResponseError:
        return
    check_form(events)
    sent = [one.arguments for pieces in deltas for one in pieces]
    assert sorted("".join(sent)) == sorted("".join(arguments for _, _, arguments in actual))
    for _, _, arguments in actual:
        assert not has_two_values(arguments)


def has_two_values(arguments: str) -> bool:
    try:
        _, end = json.JSONDecoder().raw_decode(arguments)
    except ValueError:
        return False
    rest: str = arguments[end:].strip()
    return rest.startswith(("{", "["))


def test_generated_ids_depend_on_the_response() -> None:
    def generate(seed: str) -> str:
        assembler = ToolCallAssembler()
        assembler.seed = seed
        return assembler.add([piece(0, "", "f", X)])[0].id

    assert generate("r1") == generate("r1")
    assert generate("r1") != generate("r2")
