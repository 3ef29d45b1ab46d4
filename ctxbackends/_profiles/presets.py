"""OpenAI-compatible vendors and servers, one row each: where their API is, and how it differs.

A new vendor is a row here (and its name in `BackendType`). Each member of a row has its source in ``sources``. A row
leaves out whatever the vendor's documentation does not state; a server that differs by model is not described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ctxbackends._profiles.profile import BackendType

COLD_START = 90.0
"""Seconds to wait for a server that loads its model, as for vLLM."""


def _freeze(values: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(values))


def api_key_header(api_key: str) -> Mapping[str, str]:
    """Return the header of Azure OpenAI for an API key."""
    return {"api-key": api_key}


@attrs.frozen(kw_only=True)
class Preset:
    """The differences of an OpenAI-compatible server.

    Attributes:
        type: The name of the type in ``.ctxrc``.
        label: The vendor's or project's name.
        endpoint: The base URL, None if every user has their own.
        api_path: The path between the endpoint and ``/chat/completions``, ``/`` for none.
        key_variable: The environment variable of the API key, None if no key is sent by default.
        key_header: Whether the key is sent in the header ``api-key`` instead of ``Authorization``.
        loads: Whether the server loads a model: it may refuse connections, or respond that it is loading.
        query: Parameters for the URL of every request.
        headers: Headers of every request.
        omit: Members of the request body that the server does not accept.
        rename: Members of the request body with the server's own name.
        json_mode: The server has JSON mode, and no JSON schemas.
        sources: The documentation of each member that is set, by its name.
    """

    type: str
    label: str
    endpoint: str | None
    api_path: str = "/v1"
    key_variable: str | None = None
    key_header: bool = False
    loads: bool = False
    query: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    omit: tuple[str, ...] = ()
    rename: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    json_mode: bool = False
    sources: Mapping[str, str] = attrs.field(converter=_freeze)


def _from(url: str, *members: str) -> dict[str, str]:
    return dict.fromkeys(members, url)


_LOCATION = ("endpoint", "api_path", "key_variable")

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        row.type: row
        for row in (
            # --- vendors: their models are always loaded ---
            Preset(
                type=BackendType.AZURE_OPENAI,
                label="Azure OpenAI",
                endpoint=None,  # https://RESOURCE.openai.azure.com
                api_path="/openai/v1",
                key_variable="AZURE_OPENAI_API_KEY",
                key_header=True,
                rename={"max_tokens": "max_completion_tokens"},  # reasoning models reject max_tokens
                sources={
                    **_from("https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle", *_LOCATION),
                    **_from("https://learn.microsoft.com/azure/foundry/openai/latest", "key_header"),
                    **_from("https://learn.microsoft.com/azure/foundry/openai/how-to/reasoning", "rename"),
                },
            ),
            Preset(
                type=BackendType.GEMINI,
                label="Google Gemini",
                endpoint="https://generativelanguage.googleapis.com",
                api_path="/v1beta/openai",
                key_variable="GEMINI_API_KEY",
                sources=_from("https://ai.google.dev/gemini-api/docs/openai", *_LOCATION),
            ),
            Preset(
                type=BackendType.OPENROUTER,
                label="OpenRouter",
                endpoint="https://openrouter.ai",
                api_path="/api/v1",
                key_variable="OPENROUTER_API_KEY",
                sources=_from("https://openrouter.ai/docs/quickstart", *_LOCATION),
            ),
            Preset(
                type=BackendType.DEEPSEEK,
                label="DeepSeek",
                endpoint="https://api.deepseek.com",
                api_path="/",
                key_variable="DEEPSEEK_API_KEY",
                json_mode=True,
                sources={
                    **_from("https://api-docs.deepseek.com/", *_LOCATION),
                    **_from("https://api-docs.deepseek.com/guides/json_mode", "json_mode"),
                },
            ),
            Preset(
                type=BackendType.MISTRAL,
                label="Mistral",
                endpoint="https://api.mistral.ai",
                key_variable="MISTRAL_API_KEY",
                # Unknown members are a 422; the usage is always in the last chunk.
                omit=("stream_options",),
                rename={"seed": "random_seed"},
                sources=_from("https://docs.mistral.ai/api/endpoint/chat", *_LOCATION, "omit", "rename"),
            ),
            Preset(
                type=BackendType.GROQ,
                label="Groq",
                endpoint="https://api.groq.com",
                api_path="/openai/v1",
                key_variable="GROQ_API_KEY",
                omit=("logprobs", "top_logprobs"),  # a 400
                sources=_from("https://console.groq.com/docs/openai", *_LOCATION, "omit"),
            ),
            Preset(
                type=BackendType.TOGETHER,
                label="Together AI",
                endpoint="https://api.together.ai",
                key_variable="TOGETHER_API_KEY",
                sources=_from("https://docs.together.ai/docs/inference/openai-compatibility", *_LOCATION),
            ),
            Preset(
                type=BackendType.XAI,
                label="xAI",
                endpoint="https://api.x.ai",
                key_variable="XAI_API_KEY",
                sources=_from("https://docs.x.ai/developers/quickstart", *_LOCATION),
            ),
            Preset(
                type=BackendType.HUGGINGFACE,
                label="Hugging Face",
                endpoint="https://router.huggingface.co",
                key_variable="HF_TOKEN",
                sources=_from("https://huggingface.co/docs/inference-providers/index", *_LOCATION),
            ),
            Preset(
                type=BackendType.CEREBRAS,
                label="Cerebras",
                endpoint="https://api.cerebras.ai",
                key_variable="CEREBRAS_API_KEY",
                omit=("frequency_penalty", "presence_penalty"),  # a 400
                sources=_from("https://inference-docs.cerebras.ai/resources/openai", *_LOCATION, "omit"),
            ),
            Preset(
                type=BackendType.PERPLEXITY,
                label="Perplexity",
                endpoint="https://api.perplexity.ai",
                api_path="/",
                key_variable="PERPLEXITY_API_KEY",
                sources=_from("https://docs.perplexity.ai/docs/sonar/openai-compatibility", *_LOCATION),
            ),
            Preset(
                type=BackendType.FIREWORKS,
                label="Fireworks AI",
                endpoint="https://api.fireworks.ai",
                api_path="/inference/v1",
                key_variable="FIREWORKS_API_KEY",
                sources=_from("https://docs.fireworks.ai/tools-sdks/openai-compatibility", *_LOCATION),
            ),
            Preset(
                type=BackendType.MOONSHOT,
                label="Moonshot AI (Kimi)",
                endpoint="https://api.moonshot.ai",
                key_variable="MOONSHOT_API_KEY",
                sources=_from("https://platform.kimi.ai/docs/overview", *_LOCATION),
            ),
            Preset(
                type=BackendType.DASHSCOPE,
                label="Alibaba Cloud Model Studio (DashScope)",
                endpoint="https://dashscope-intl.aliyuncs.com",  # Singapore; other regions have other hosts
                api_path="/compatible-mode/v1",
                key_variable="DASHSCOPE_API_KEY",
                sources=_from(
                    "https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
                    *_LOCATION,
                ),
            ),
            Preset(
                type=BackendType.ZAI,
                label="Z.ai",
                endpoint="https://api.z.ai",
                api_path="/api/paas/v4",
                key_variable="ZAI_API_KEY",
                json_mode=True,
                sources={
                    **_from("https://docs.z.ai/api-reference/introduction", *_LOCATION),
                    **_from("https://docs.z.ai/guides/capabilities/struct-output", "json_mode"),
                },
            ),
            # --- servers and proxies that you run: they load a model when they start, or when it is requested ---
            Preset(
                type=BackendType.SGLANG,
                label="SGLang",
                endpoint="http://localhost:30000",
                loads=True,
                sources={
                    **_from("https://docs.sglang.ai/basic_usage/openai_api_completions.html", "api_path", "loads"),
                    **_from("https://docs.sglang.ai/advanced_features/server_arguments.html", "endpoint"),
                },
            ),
            Preset(
                type=BackendType.TGI,
                label="Text Generation Inference",
                endpoint="http://localhost:3000",
                loads=True,
                sources={
                    **_from("https://huggingface.co/docs/text-generation-inference/messages_api", "api_path"),
                    **_from(
                        "https://huggingface.co/docs/text-generation-inference/reference/launcher", "endpoint", "loads"
                    ),
                },
            ),
            Preset(
                type=BackendType.LLAMA_SWAP,
                label="llama-swap",
                endpoint="http://localhost:8080",
                loads=True,
                sources=_from("https://github.com/mostlygeek/llama-swap", "endpoint", "api_path", "loads"),
            ),
            Preset(
                type=BackendType.LITELLM,
                label="LiteLLM",
                endpoint="http://localhost:4000",
                key_variable="LITELLM_PROXY_API_KEY",
                loads=True,
                sources={
                    **_from("https://docs.litellm.ai/docs/proxy/quick_start", "endpoint", "api_path", "loads"),
                    **_from("https://docs.litellm.ai/docs/providers/litellm_proxy", "key_variable"),
                },
            ),
            Preset(
                type=BackendType.INFINITY,
                label="infinity",
                endpoint="http://localhost:7997",
                api_path="/",
                key_variable="INFINITY_API_KEY",
                loads=True,
                sources=_from("https://github.com/michaelfeil/infinity", *_LOCATION, "loads"),
            ),
        )
    }
)
