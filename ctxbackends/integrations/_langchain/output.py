"""LangChain's structured output, with a parser that accepts whole answers only."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers.transform import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass

from ctxbackends import Enforcement, JSONObjectFormat, JSONSchemaFormat, StrictSchemaError, strict_schema
from ctxbackends._schema.answers import unwrap_answer

_RefusalError: Any = getattr(exceptions, "ModelRefusalError", OutputParserException)  # from langchain-core 1.7.5


class AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Return the value of a structured answer: a pydantic object, or a dict for other schemas.

    LangChain's own parsers complete JSON that was cut. This one raises an error for an answer that is not whole, and
    yields the members of a dict while they arrive.

    Attributes:
        answer_type: The schema that ``with_structured_output`` got.
        tool: The name of the tool whose arguments are the value, None if the text is.
    """

    answer_type: Any
    tool: str | None = None

    @property
    def _type(self) -> str:
        return "ctxbackends_answer"

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the value, None for the part of a stream without one.

        Raises:
            OutputParserException: The answer is not whole, or does not match the schema.
        """
        assert isinstance(result[0], ChatGeneration), "a chat model answered"
        message: Any = result[0].message
        reason = message.response_metadata.get("finish_reason")
        if partial and reason is None:
            return None if self.validates else self._read_part(message)
        refusal = message.additional_kwargs.get("refusal")
        if refusal:
            raise _RefusalError(f"the model refused: {refusal}")
        if reason in ("length", "content_filter"):
            raise OutputParserException(
                f"structured output is incomplete: finish_reason {reason}", llm_output=str(message.text)
            )
        return self._validate(self._decode(message))

    def parse(self, text: str) -> Any:
        """Return the value of a text."""
        return self.parse_result([ChatGeneration(message=AIMessage(text))])

    @property
    def validates(self) -> bool:
        """Whether the value is validated, as it is for a pydantic class."""
        return isinstance(self.answer_type, type) and is_basemodel_subclass(self.answer_type)

    def _read_part(self, message: Any) -> Any:
        if self.tool is not None:
            return next((call["args"] for call in message.tool_calls if call["name"] == self.tool), None)
        try:
            return parse_partial_json(message.text)
        except ValueError:
            return None

    def _decode(self, message: Any) -> Any:
        if self.tool is None:
            try:
                return json.loads(unwrap_answer(str(message.text))[0])
            except ValueError as error:
                problem = f"the answer is not JSON: {error}"
                raise OutputParserException(problem, llm_output=str(message.text)) from error
        call = next((call for call in message.tool_calls if call["name"] == self.tool), None)
        if call is None:
            invalid = [call["args"] for call in message.invalid_tool_calls]
            problem = f"the model did not call {self.tool} with a JSON object: {', '.join(invalid) or message.text}"
            raise OutputParserException(problem, llm_output=str(message.text))
        return call["args"]

    def _validate(self, value: Any) -> Any:
        if not self.validates:
            return value
        try:
            if hasattr(self.answer_type, "model_validate"):
                return self.answer_type.model_validate(value)
            return self.answer_type.parse_obj(value)  # pydantic.v1
        except ValueError as error:
            problem = f"the answer does not match {self.answer_type.__name__}: {error}"
            raise OutputParserException(problem, llm_output=json.dumps(value)) from error


def build_structured_model(
    model: BaseChatModel,
    schema: Any,
    method: str,
    *,
    enforcement: Enforcement,
    strict: bool | None,
    include_raw: bool,
    options: dict[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """Return the model with answers of a type. See :meth:`ChatCtxbackends.with_structured_output`."""
    json_schema = convert_to_json_schema(schema)
    name = json_schema["title"]
    parser = AnswerParser(answer_type=schema, tool=name if method == "function_calling" else None)
    # LangChain removes this option before the call, and shows it to tracers.
    options["ls_structured_output_format"] = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    if method == "function_calling":
        bound = model.bind_tools([schema], tool_choice=name, strict=strict, **options)
    elif method == "json_schema":
        schema_to_send = _make_strict(json_schema, strict, is_native=enforcement == "native")
        response_format = JSONSchemaFormat(name, schema_to_send, checked=parser.validates, strict=strict)
        bound = model.bind(response_format=response_format, **options)
    elif method == "json_mode":
        bound = model.bind(response_format=JSONObjectFormat(), **options)
    else:
        raise ValueError(f"unknown method: {method!r}; use json_schema, function_calling or json_mode")
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _make_strict(schema: dict[str, Any], strict: bool | None, *, is_native: bool) -> dict[str, Any]:
    """Return the strict form of a schema if it is asked for, or if it can be strict and a vendor enforces it."""
    if not strict and (strict is False or not is_native):
        return schema
    try:
        return strict_schema(schema)
    except StrictSchemaError:
        if strict:
            raise
        return schema
