"""Errors that say how to correct a value of the wrong kind: an image, a type to extract, and the type of a backend."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from ctxbackends import ImagePart, UnknownBackendTypeError, open_backend
from ctxbackends._schema.generate import schema_for


@pytest.mark.parametrize("path", ["photo.png", "/home/ada/photo.png", "C:\\photo.png", "./a:b.png", "iVBORw0KGgo=", ""])
def test_a_path_is_not_a_url(path: str) -> None:
    with pytest.raises(ValueError, match=r"^not a URL: ") as exc_info:
        ImagePart.from_url(path)
    assert f"not a URL: {path!r}; for a file, use ImagePart.from_bytes(path.read_bytes())" == str(exc_info.value)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "HTTP://gpu/a.png", "gs://bucket/a.png", "file:///a.png"])
def test_urls(url: str) -> None:
    assert url == ImagePart.from_url(url).url


class Model:
    """A class with the methods of a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {}}

    @classmethod
    def model_validate_json(cls, json_data: str) -> Any:
        return json_data


class Plain:
    """A class that JSON cannot represent."""


@attrs.frozen
class Town:
    mayor: Plain


@pytest.mark.parametrize("target", [list[Model], dict[str, list[Model]], Model | None])
def test_a_pydantic_model_in_another_type(target: Any) -> None:
    with pytest.raises(TypeError) as exc_info:
        schema_for(target)
    assert str(exc_info.value).endswith("; a pydantic model must be the whole type: wrap this type in a field of one")


@pytest.mark.parametrize("target", [Plain, list[Plain], Town])
def test_another_type(target: Any) -> None:
    with pytest.raises(TypeError, match=r"; use an attrs class, .*, pydantic model or built-in type$"):
        schema_for(target)


async def test_an_unknown_type_in_code() -> None:
    with pytest.raises(UnknownBackendTypeError, match="; for any other OpenAI-compatible server, use the type "):
        async with open_backend("acme"):
            pass
    with pytest.raises(UnknownBackendTypeError, match=r'"opnai"; did you mean openai\? The types are .*, infinity$'):
        async with open_backend("opnai"):
            pass
