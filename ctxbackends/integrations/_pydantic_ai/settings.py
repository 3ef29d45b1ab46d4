"""Translates pydantic-ai's settings and request parameters to our options."""

from __future__ import annotations

from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings, ToolOrOutput
from pydantic_ai.tools import ToolDefinition

from ctxbackends._chat.requests import JSONObjectFormat, JSONSchemaFormat, NamedTool, ResponseFormat, Tool, ToolChoice
from ctxbackends._chat.servers import Enforcement
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._schema.strict_schema import strict_schema
from ctxbackends.errors import StrictSchemaError

_SETTINGS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "stop_sequences",
    "parallel_tool_calls",
    "extra_body",
)
"""Settings with the name and the meaning of one of our options."""

UNSUPPORTED_SETTINGS: frozenset[Any] = frozenset({"citations", "logit_bias", "service_tier"})
"""Settings that no backend has an option for."""


class CtxModelSettings(ModelSettings, total=False):
    """Settings of :class:`CtxModel` besides those of every model.

    Attributes:
        ctx_options: Further options of :class:`ctxbackends.ChatOptions`, such as ``min_p`` or ``reasoning_budget``.
        ctx_request_options: Fields of :class:`ctxbackends.RequestOptions`, such as ``ready_timeout``.
    """

    ctx_options: dict[str, Any]
    ctx_request_options: dict[str, Any]


def build_options(
    profile: ModelProfile, enforcement: Enforcement, settings: CtxModelSettings, parameters: ModelRequestParameters
) -> dict[str, Any]:
    """Build the options of a request, None for those that are not set."""
    options: dict[str, Any] = {name: settings.get(name) for name in _SETTINGS}
    tools, tool_choice = choose_tools(profile, settings, parameters)
    options |= {
        "tools": tools or None,
        "tool_choice": tool_choice,
        "response_format": _build_format(profile, enforcement, parameters),
    }
    if not tools:
        options["parallel_tool_calls"] = None
    if parameters.thinking is not None:
        thinking: Any = parameters.thinking
        options["reasoning_effort"] = {True: "medium", False: "none"}.get(thinking, thinking)
    return options | (settings.get("ctx_options") or {})


def _build_format(
    profile: ModelProfile, enforcement: Enforcement, parameters: ModelRequestParameters
) -> ResponseFormat | None:
    output = parameters.output_object
    if output is None:
        return None
    if parameters.output_mode == "native":
        return _build_schema_format(output, enforcement)
    # In JSON mode the model could not call a function.
    is_json = profile.get("supports_json_object_output", False) and not parameters.function_tools
    return JSONObjectFormat() if parameters.output_mode == "prompted" and is_json else None


def _build_schema_format(output: OutputObjectDefinition, enforcement: Enforcement) -> JSONSchemaFormat:
    """Build the format of native output. Vendors enforce only strict schemas; a grammar enforces any."""
    schema, strict = output.json_schema, output.strict is not False
    if strict and enforcement != "grammar":
        try:
            schema = strict_schema(schema)
        except StrictSchemaError as error:
            if output.strict:
                raise UserError(str(error)) from error
            strict = False
    name = output.name or "output"
    return JSONSchemaFormat(name, schema, checked=True, strict=strict, description=output.description)


def choose_tools(
    profile: ModelProfile, settings: ModelSettings, parameters: ModelRequestParameters
) -> tuple[list[Tool], ToolChoice | None]:
    """Return the tools to send and the choice among them, None for the model's, as pydantic-ai documents it."""
    declared: dict[str, ToolDefinition] = parameters.declared_tool_defs
    if not declared:
        return [], None
    setting = settings.get("tool_choice")
    outputs = {tool.name for tool in parameters.output_tools}
    is_forced = setting == "required" or (isinstance(setting, list) and setting != [])
    answers = parameters.allow_text_output or parameters.allow_image_output
    mode: ToolChoice | None = None if answers and not is_forced else "required"
    names = set(declared)
    if setting in ("none", []):
        names = outputs
    elif isinstance(setting, list):
        names &= set(setting)
    elif isinstance(setting, ToolOrOutput):
        names &= {*setting.function_tools, *outputs}
    if is_forced and not names:
        raise UserError(f"unknown tools in tool_choice: {setting}; the request has {', '.join(declared)}")
    if mode == "required" and not is_forced and not _can_force(profile, parameters):
        mode = None  # pydantic-ai checks the answer, and asks again
    tools = {name: _build_tool(tool) for name, tool in declared.items()}
    if not names:
        return [*tools.values()], "none"
    if mode == "required" and len(names) == 1 and len(tools) > 1:
        return [*tools.values()], NamedTool(*names)
    return [tool for name, tool in tools.items() if name in names], mode


def _can_force(profile: ModelProfile, parameters: ModelRequestParameters) -> bool:
    thinks = bool(parameters.thinking)
    return profile.get("supports_forced_tool_choice", True) and (
        not thinks or profile.get("supports_forced_tool_choice_with_thinking", True)
    )


def _build_tool(tool: ToolDefinition) -> Tool:
    parameters = tool.parameters_json_schema
    if tool.strict:
        try:
            parameters = strict_schema(parameters)
        except StrictSchemaError as error:
            raise UserError(f"the tool {tool.name} cannot be strict: {error}") from error
    return Tool(tool.name, tool.description or "", parameters, strict=bool(tool.strict))


def build_request_options(settings: CtxModelSettings) -> RequestOptions | None:
    """Build the options of the call from the settings, None if there are none."""
    timeout: Any = settings.get("timeout")
    if timeout is not None and not isinstance(timeout, int | float):
        raise UserError(f"timeout must be a number of seconds: {timeout!r}; set the others in ctx_request_options")
    fields: dict[str, Any] = {
        "timeout": timeout,
        "max_retries": settings.get("max_retries"),
        "headers": settings.get("extra_headers"),
    }
    fields |= settings.get("ctx_request_options") or {}
    is_empty = all(value is None for value in fields.values())
    return None if is_empty else RequestOptions(**fields)
