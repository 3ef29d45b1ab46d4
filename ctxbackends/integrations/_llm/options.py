"""The options of the models for llm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import llm
from pydantic import Field, field_validator

from ctxbackends._chat.requests import JSONObjectFormat, JSONSchemaFormat, NamedTool, ReasoningEffort, Tool
from ctxbackends._client.backend import Backend
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._schema.strict_schema import strict_schema
from ctxbackends.errors import ConfigError, StrictSchemaError
from ctxbackends.integrations._common import UnsupportedOptions, select_options

_REQUEST_OPTIONS = ("timeout", "first_token_timeout", "idle_timeout", "ready_timeout", "max_retries")
_SENT_UNCHANGED = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stop_sequences",
    "reasoning_effort",
    "reasoning_budget",
    "parallel_tool_calls",
    "extra_body",
)


class CtxOptions(llm.Options):  # type: ignore[misc]  # Any without llm
    """The options of a model, for ``-o`` on the command line."""

    model: str | None = Field(None, description="Name of the model, instead of the backend's default_model")
    max_tokens: int | None = Field(None, description="Maximum of generated tokens", ge=1)
    temperature: float | None = Field(None, description="Sampling temperature")
    top_p: float | None = Field(None, description="Nucleus sampling")
    top_k: int | None = Field(None, description="Top-k sampling")
    min_p: float | None = Field(None, description="Min-p sampling")
    seed: int | None = Field(None, description="Seed for repeatable sampling")
    frequency_penalty: float | None = Field(None, description="From -2 to 2, 0 for none")
    presence_penalty: float | None = Field(None, description="From -2 to 2, 0 for none")
    repetition_penalty: float | None = Field(None, description="A factor, 1 for none")
    stop_sequences: Any = Field(None, description="A text that ends the answer, or a JSON list of texts")
    reasoning_effort: ReasoningEffort | None = Field(None, description="How much to reason, none for not at all")
    reasoning_budget: int | None = Field(None, description="Maximum of reasoning tokens")
    json_object: bool | None = Field(None, description="Answer with a JSON object")
    tool_choice: str | None = Field(None, description="auto, none, required, or the name of a tool")
    parallel_tool_calls: bool | None = Field(None, description="False for one tool call per answer")
    extra_body: Any = Field(None, description="JSON object with more members of the request")
    timeout: float | str | None = Field(None, description="Timeout of the request, such as 30s")
    first_token_timeout: float | str | None = Field(None, description="Timeout until the first token")
    idle_timeout: float | str | None = Field(None, description="Timeout between two tokens")
    ready_timeout: float | str | None = Field(None, description="How long to wait for a server that starts, 0 for not")
    max_retries: int | None = Field(None, description="Retries of a request that was not processed")
    unsupported: Literal["error", "drop"] | None = Field(
        None, description="drop leaves out options that tune the answer and that the backend does not support"
    )

    @field_validator("stop_sequences", mode="before")
    @classmethod
    def _parse_stop_sequences(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = _parse_json(value) if value.startswith("[") else [value]
        if value is not None and not (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)):
            raise ValueError("must be a text or a JSON list of texts")
        return value

    @field_validator("extra_body", mode="before")
    @classmethod
    def _parse_extra_body(cls, value: Any) -> Any:
        value = _parse_json(value) if isinstance(value, str) else value
        if value is not None and not isinstance(value, Mapping):
            raise ValueError("must be a JSON object")
        return value

    @field_validator(*(name for name in _REQUEST_OPTIONS if name.endswith("timeout")), mode="before")
    @classmethod
    def _parse_duration(cls, value: Any) -> Any:
        """Return a number for a text without a unit, which is all that the command line passes."""
        with suppress(TypeError, ValueError):
            value = float(value)
        try:
            RequestOptions(timeout=value or None)
        except ConfigError as error:
            raise ValueError(error.problem) from None
        return value


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None


def build_arguments(
    backend: Backend, prompt: llm.Prompt, model: str | None, unsupported: UnsupportedOptions
) -> dict[str, Any]:
    """Return the keyword arguments of ``complete()`` and ``stream()`` for a prompt, without the messages."""
    given: Any = prompt.options  # CtxOptions
    schema: Any = prompt.schema  # a dict, also if it was a class
    options: dict[str, Any] = {name: getattr(given, name) for name in _SENT_UNCHANGED}
    options["model"] = given.model or model
    options["tools"] = [_build_tool(tool) for tool in prompt.tools if isinstance(tool, llm.Tool)] or None
    if given.tool_choice and not (
        prompt.messages and prompt.messages[-1].role == "tool"
    ):  # else llm's chain never ends
        is_mode = given.tool_choice in ("auto", "none", "required")
        options["tool_choice"] = given.tool_choice if is_mode else NamedTool(given.tool_choice)
    if schema:
        options["response_format"] = JSONSchemaFormat("output", _close_schema(schema))
    elif given.json_object:
        options["response_format"] = JSONObjectFormat()
    arguments = select_options(backend, options, given.unsupported or unsupported)
    timing = {name: getattr(given, name) for name in _REQUEST_OPTIONS if getattr(given, name) is not None}
    return arguments | ({"request_options": RequestOptions(**timing)} if timing else {})


def _close_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the strict form of a schema, which OpenAI and Anthropic enforce; the schema itself if it has none."""
    try:
        return strict_schema(schema)
    except StrictSchemaError:
        return schema


def _build_tool(tool: llm.Tool) -> Tool:
    schema = {"type": "object", "properties": {}, **tool.input_schema}
    return Tool(tool.name, " ".join((tool.description or "").split()), schema)
