# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Typed output: the type that is passed is the type that is returned."""

from __future__ import annotations

import dataclasses
from typing import TypedDict, assert_type

import attrs
import msgspec
import pydantic

from ctxbackends import (
    Backend,
    Completion,
    Enforcement,
    Extraction,
    ExtractionStream,
    Member,
    SchemaProbe,
    extract,
    extract_result,
    extract_stream,
    probe_schema,
)


@attrs.frozen
class Attrs:
    title: str


@dataclasses.dataclass
class Data:
    title: str


class Struct(msgspec.Struct):
    title: str


class Model(pydantic.BaseModel):
    title: str


class Dict(TypedDict):
    title: str


async def check_extract(backend: Backend) -> None:
    assert_type(await extract(backend, Attrs, "text"), Attrs)
    assert_type(await extract(backend, Data, "text"), Data)
    assert_type(await extract(backend, Struct, "text"), Struct)
    assert_type(await extract(backend, Model, "text"), Model)
    assert_type(await extract(backend, Dict, "text"), Dict)
    assert_type(await extract(backend, list[str], "text", max_tokens=100), list[str])
    await extract(backend, Attrs, "text", maximum=1)  # type: ignore[call-arg]
    await extract(backend, Attrs)  # type: ignore[call-arg]


async def check_result(backend: Backend) -> None:
    result = await extract_result(backend, Attrs, "text")
    assert_type(result, Extraction[Attrs])
    assert_type(result.value, Attrs)
    assert_type(result.enforcement, Enforcement)
    assert_type(result.completion, Completion)
    assert_type(await probe_schema(backend), SchemaProbe)


async def check_stream(backend: Backend) -> None:
    async with extract_stream(backend, list[Attrs], "text") as stream:
        assert_type(stream, ExtractionStream[list[Attrs]])
        async for item in stream:
            assert_type(item, Member | Extraction[list[Attrs]])
        assert_type((await stream.get_result()).value, list[Attrs])
