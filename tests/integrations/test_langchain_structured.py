"""The LangChain adapter: structured output by each method, and answers that are none."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypedDict

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, Field

from ctxbackends import JSONObjectFormat, JSONSchemaFormat, NamedTool, Usage
from ctxbackends.errors import StrictSchemaError, UnsupportedOptionError
from ctxbackends.testing import Answer, Question
from tests.integrations.langchain_models import Way, ask, both_ways, model_over

Method = Literal["json_schema", "function_calling", "json_mode"]
METHODS: tuple[Method, ...] = ("json_schema", "function_calling", "json_mode")
PROMPT = "Which city? Answer in JSON."
OSLO = {"city": "Oslo", "people": 3}


class City(BaseModel):
    """A city."""

    city: str
    people: int | None = Field(default=None, ge=0)


class CityDict(TypedDict):
    """A city."""

    city: Annotated[str, ..., "the name"]
    people: int


SCHEMA = {**City.model_json_schema(), "title": "City"}


def answer_with(text: str, *, finish_reason: Any = None) -> Any:
    """Return a function that answers with a text, as the arguments of a call where a tool is required."""

    def answer(question: Question) -> Answer:
        if question.tools:
            return Answer(tool_calls=[(question.tools[0].name, text)], finish_reason=finish_reason)
        return Answer(text=text, finish_reason=finish_reason)

    return answer


@both_ways
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [City, CityDict, SCHEMA], ids=["pydantic", "typeddict", "dict"])
async def test_each_method_returns_each_kind_of_value(schema: Any, method: Method, way: Way) -> None:
    async with model_over("openai", answer_with(json.dumps(OSLO))) as (model, _):
        structured = model.with_structured_output(schema, method=method)
        values = (
            [await ask(structured, PROMPT)]
            if way == "invoke"
            else [value async for value in structured.astream(PROMPT)]
        )
    assert (City(city="Oslo", people=3) if schema is City else OSLO) == values[-1]


async def test_each_method_asks_in_its_own_way() -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        result: Answer = answer_with(json.dumps(OSLO))(question)
        return result

    async with model_over("openai", answer) as (model, server):
        for method in METHODS:
            await ask(model.with_structured_output(City, method=method), PROMPT)
    by_schema, by_tool, by_mode = questions
    assert isinstance(by_schema.response_format, JSONSchemaFormat)
    assert isinstance(by_mode.response_format, JSONObjectFormat)
    assert (NamedTool("City"), "City") == (by_tool.tool_choice, by_tool.tools[0].name)
    sent = server.requests[0].json["response_format"]["json_schema"]
    assert (True, ["city", "people"]) == (sent["strict"], sent["schema"]["required"])


async def test_a_dict_arrives_member_by_member() -> None:
    async with model_over("openai", answer_with(json.dumps({"city": "Oslo in Norway", "people": 3}))) as (model, _):
        values = [value async for value in model.with_structured_output(SCHEMA).astream(PROMPT)]
    assert len(values) > 1
    assert {"city": "Oslo in Norway", "people": 3} == values[-1]
    assert set(values[0]) <= {"city"}


@both_ways
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [City, SCHEMA], ids=["pydantic", "dict"])
async def test_an_answer_that_was_cut_is_an_error(schema: Any, method: Method, way: Way) -> None:
    cut = answer_with('{"city": "Osl', finish_reason="length")
    async with model_over("openai", cut) as (model, _):
        structured = model.with_structured_output(schema, method=method)
        with pytest.raises(OutputParserException, match="structured output is incomplete: finish_reason length"):
            await collect(structured, way)


async def collect(structured: Any, way: Way) -> Any:
    if way == "invoke":
        return await structured.ainvoke(PROMPT)
    return [value async for value in structured.astream(PROMPT)][-1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"city": 3}', "the answer does not match City"),
        ('{"city": "Oslo", "people": -1}', "the answer does not match City"),
        ('{"city": "Oslo"', "the answer is not JSON"),
        ("Oslo", "the answer is not JSON"),
        ('Here it is: {"city": "Oslo"}', "the answer is not JSON"),
        ("", "the answer is not JSON"),
    ],
)
@both_ways
async def test_another_answer_is_an_error(text: str, problem: str, way: Way) -> None:
    async with model_over("openai", lambda _: Answer(text=text)) as (model, _):
        with pytest.raises(OutputParserException, match=problem):
            await collect(model.with_structured_output(City), way)


@pytest.mark.parametrize("text", ['```json\n{"city": "Oslo"}\n```', '<think>Hm {</think>\n{"city": "Oslo"}'])
async def test_the_json_may_be_in_a_fence_or_behind_thoughts(text: str) -> None:
    async with model_over("ollama", lambda _: Answer(text=text)) as (model, _):
        assert City(city="Oslo") == await ask(model.with_structured_output(City), PROMPT)


@both_ways
async def test_a_text_instead_of_a_call_is_an_error(way: Way) -> None:
    async with model_over("openai", lambda _: Answer(text="I would rather not.")) as (model, _):
        structured = model.with_structured_output(City, method="function_calling")
        with pytest.raises(OutputParserException, match="the model did not call City with a JSON object: I would"):
            await collect(structured, way)


async def test_include_raw_has_the_message_and_the_error() -> None:
    usage = Usage(5, 6)
    async with model_over("openai", lambda _: Answer(text='{"city": 3}', usage=usage)) as (model, _):
        result = await ask(model.with_structured_output(City, include_raw=True), PROMPT)
    assert (None, '{"city": 3}', 11) == (
        result["parsed"],
        result["raw"].text,
        result["raw"].usage_metadata["total_tokens"],
    )
    assert isinstance(result["parsing_error"], OutputParserException)
    async with model_over("openai", answer_with(json.dumps(OSLO))) as (model, _):
        result = await ask(model.with_structured_output(City, include_raw=True), PROMPT)
    assert (City(city="Oslo", people=3), None) == (result["parsed"], result["parsing_error"])


def test_a_refusal_is_an_error() -> None:
    from langchain_core.messages import AIMessage  # noqa: PLC0415  # after importorskip
    from langchain_core.outputs import ChatGeneration  # noqa: PLC0415

    from ctxbackends.integrations._langchain.output import AnswerParser  # noqa: PLC0415

    message = AIMessage("", additional_kwargs={"refusal": "No."}, response_metadata={"finish_reason": "stop"})
    with pytest.raises(
        getattr(exceptions, "ModelRefusalError", OutputParserException), match=r"the model refused: No\."
    ):
        AnswerParser(answer_type=City).parse_result([ChatGeneration(message=message)])


async def test_a_schema_that_cannot_be_strict_is_an_error_with_the_place() -> None:
    schema = {"title": "Free", "type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": True}
    async with model_over("openai", answer_with('{"x": "a"}')) as (model, server):
        assert {"x": "a"} == await ask(model.with_structured_output(schema), PROMPT)
        assert server.requests[0].json["response_format"]["json_schema"]["strict"] is False
        with pytest.raises(StrictSchemaError, match="schema cannot be strict at"):
            model.with_structured_output(schema, strict=True)
        with pytest.raises(StrictSchemaError, match="schema cannot be strict at"):
            model.bind_tools([{"name": "free", "input_schema": schema}], strict=True)


async def test_strict_tools_have_strict_schemas() -> None:
    def search(text: str, limit: int = 5) -> str:
        """Search."""
        return f"{text} {limit}"

    call = Answer(tool_calls=[("search", {"text": "a", "limit": 5})])
    async with model_over("openai", lambda _: call) as (model, server):
        await ask(model.bind_tools([search], strict=True, parallel_tool_calls=False), PROMPT)
    sent = server.requests[0].json
    function = sent["tools"][0]["function"]
    assert (True, ["text", "limit"], False) == (
        function["strict"],
        function["parameters"]["required"],
        sent["parallel_tool_calls"],
    )


async def test_a_method_that_the_backend_lacks_is_an_error() -> None:
    async with model_over("ollama", answer_with(json.dumps(OSLO))) as (model, _):
        assert City(city="Oslo", people=3) == await ask(model.with_structured_output(City), PROMPT)
        with pytest.raises(UnsupportedOptionError, match="tool_choice"):
            await ask(model.with_structured_output(City, method="function_calling"), PROMPT)
        with pytest.raises(ValueError, match="unknown method: 'grammar'; use json_schema"):
            model.with_structured_output(City, method="grammar")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        (None, None),
        (False, None),
        ("City", {"type": "function", "function": {"name": "City"}}),
        ({"type": "function", "function": {"name": "City"}}, {"type": "function", "function": {"name": "City"}}),
        ({"type": "tool", "name": "City"}, {"type": "function", "function": {"name": "City"}}),
    ],
)
async def test_tool_choices_are_sent_in_each_form(choice: Any, sent: Any) -> None:
    async with model_over("openai", answer_with(json.dumps(OSLO))) as (model, server):
        await ask(model.bind_tools([City], tool_choice=choice), PROMPT)
    assert sent == server.requests[0].json.get("tool_choice")


async def test_an_unknown_tool_in_the_choice_is_an_error() -> None:
    async with model_over("openai") as (model, _):
        with pytest.raises(ValueError, match="unknown tool in tool_choice: 'Town'"):
            await ask(model.bind_tools([City], tool_choice="Town"), PROMPT)
