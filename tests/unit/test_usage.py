"""The names of token counts at the vendors, request IDs and waiting times in headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ctxbackends._chat.responses import Usage
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import find_request_id
from ctxbackends._wire.retry_after import parse_retry_after
from ctxbackends._wire.usage import parse_count, parse_usage

COUNTS = {"prompt_tokens": 9, "completion_tokens": 7}


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (None, None),
        ({}, None),
        ({"total_tokens": 16}, None),
        (COUNTS, Usage(9, 7)),
        ({"prompt_tokens": "9", "completion_tokens": 7.0}, Usage(9, 7)),
        ({"prompt_tokens": 9, "completion_tokens": []}, Usage(9, 0)),
        ({**COUNTS, "prompt_tokens_details": [], "completion_tokens_details": "x"}, Usage(9, 7)),
        ({**COUNTS, "prompt_cache_hit_tokens": 6}, Usage(9, 7, 6)),
        ({**COUNTS, "num_cached_tokens": 6}, Usage(9, 7, 6)),
        ({**COUNTS, "cached_tokens": 6}, Usage(9, 7, 6)),
        ({**COUNTS, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 6}, Usage(9, 7, 0)),
        ({**COUNTS, "reasoning_tokens": 3}, Usage(9, 7, None, None, 3)),
        ({**COUNTS, "output_tokens_details": {"thinking_tokens": 3}}, Usage(9, 7, None, None, 3)),
        # the total tells whether the output includes the reasoning
        ({**COUNTS, "total_tokens": 16, "reasoning_tokens": 3}, Usage(9, 7, None, None, 3)),
        ({**COUNTS, "total_tokens": 19, "reasoning_tokens": 3}, Usage(9, 10, None, None, 3)),
        (
            {**COUNTS, "total_tokens": 19, "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(9, 10, None, None, 3),
        ),
        ({**COUNTS, "total_tokens": 20, "reasoning_tokens": 3}, Usage(9, 7, None, None, 3)),
    ],
)
def test_counts_have_many_names(wire: Mapping[str, Any] | None, usage: Usage | None) -> None:
    assert usage == parse_usage(wire)


def test_the_input_of_the_messages_api_excludes_the_cache() -> None:
    wire = {"input_tokens": 9, "output_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
    assert Usage(15, 7, 4, 2) == parse_usage(wire, input_excludes_cache=True)
    assert parse_usage({"output_tokens": 7}, input_excludes_cache=True) is None


@pytest.mark.parametrize(
    ("value", "count"),
    [(3, 3), (-3, -3), (3.0, 3), ("3", 3), ("3.0", 3), (3.5, None), ("x", None), (True, None), (None, None)],
)
def test_a_count_is_a_whole_number(value: object, count: int | None) -> None:
    assert count == parse_count(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e999", 10**30, [], {}])
def test_other_values_are_no_count(value: object) -> None:
    assert parse_count(value) is None


@pytest.mark.parametrize(
    "header",
    ["x-request-id", "request-id", "apim-request-id", "mistral-correlation-id", "x-generation-id", "x-ds-trace-id"],
)
def test_the_request_id_has_many_names(header: str) -> None:
    assert "r1" == find_request_id({header: "r1", "other": "r2"})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "0"}, 0.0),
        ({"retry-after-ms": "20", "retry-after": "1"}, 0.02),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"retry-after": "0"}, 0.0),
    ],
)
def test_zero_milliseconds_hide_no_seconds(headers: Mapping[str, str], seconds: float) -> None:
    assert seconds == parse_retry_after(HTTPResponse(status=429, headers=headers, body=b""))
