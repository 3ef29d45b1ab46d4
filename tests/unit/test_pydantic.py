"""pydantic models as the target of extract()."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, field_validator

from ctxbackends._schema.generate import schema_for
from ctxbackends._schema.strict import ANTHROPIC_UNSUPPORTED, describe_constraints
from ctxbackends._schema.validate import decode_as
from ctxbackends.errors import StructuredOutputError


class Vote(BaseModel):
    name: str
    weight: Annotated[int, Field(ge=1, le=5)] = 1


class Decision(BaseModel):
    title: str
    votes: list[Vote]

    @field_validator("title")
    @classmethod
    def no_shouting(cls, value: str) -> str:
        if value.isupper():
            raise ValueError("do not shout")
        return value


def test_the_schema_is_strict() -> None:
    schema = schema_for(Decision)
    assert ["title", "votes"] == schema["required"]
    assert schema["additionalProperties"] is False
    vote = schema["$defs"]["Vote"]
    assert (["name", "weight"], False) == (vote["required"], vote["additionalProperties"])
    assert "default" not in vote["properties"]["weight"]


def test_a_value_is_decoded() -> None:
    actual = decode_as(Decision, '{"title": "Yaml", "votes": [{"name": "a", "weight": 2}]}')
    assert Decision(title="Yaml", votes=[Vote(name="a", weight=2)]) == actual


@pytest.mark.parametrize(
    ("text", "pointer", "message"),
    [
        ('{"title": "Yaml", "votes": [{"name": "a", "weight": 9}]}', "$.votes[0].weight", "less than or equal to 5"),
        ('{"title": 3, "votes": []}', "$.title", "valid string"),
        ('{"title": "Yaml", "votes": []', None, "Invalid JSON"),
        ('{"title": "Yaml", "votes": {}}', "$.votes", "valid array"),
        ('{"title": "LOUD", "votes": []}', "$.title", "do not shout"),
        ("[]", None, "object"),
    ],
)
def test_an_error_has_its_path(text: str, pointer: str | None, message: str) -> None:
    with pytest.raises(StructuredOutputError) as exc_info:
        decode_as(Decision, text)
    assert (pointer, text) == (exc_info.value.pointer, exc_info.value.text)
    assert str(exc_info.value).startswith("response does not match Decision: ")
    assert message in str(exc_info.value)


def test_unsupported_constraints_are_described() -> None:
    weight = describe_constraints(schema_for(Vote), ANTHROPIC_UNSUPPORTED)["properties"]["weight"]
    assert {"type": "integer", "title": "Weight", "description": "(minimum: 1, maximum: 5)"} == weight
    assert {"type": "array", "items": {"type": "string"}, "minItems": 1} == describe_constraints(
        {"type": "array", "items": {"type": "string"}, "minItems": 1}, ANTHROPIC_UNSUPPORTED
    )
    assert {"type": "array", "description": "Names. (maxItems: 3, minItems: 2)"} == describe_constraints(
        {"type": "array", "minItems": 2, "maxItems": 3, "description": "Names."}, ANTHROPIC_UNSUPPORTED
    )


def test_a_property_may_have_the_name_of_a_constraint() -> None:
    schema = {"type": "object", "properties": {"minimum": {"type": "integer", "minimum": 3}}, "required": ["minimum"]}
    result = describe_constraints(schema, ANTHROPIC_UNSUPPORTED)
    assert {"minimum": {"type": "integer", "description": "(minimum: 3)"}} == result["properties"]


def test_pydantic_is_never_imported() -> None:
    program = "import sys, ctxbackends as c; c.extract, c.Registry, c.tool_of; sys.exit('pydantic' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", program]).returncode
