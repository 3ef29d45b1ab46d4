"""Every name and fixed value of the GenAI semantic conventions that `otel` uses. Imports nothing.

Source: https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and
client-embeddings.md, as of November 2026. ``error.type`` and ``server.*`` are stable; all ``gen_ai.*`` may change.
"""

from __future__ import annotations

# --- attributes ---------------------------------------------------------------------------------------

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105  # a token of a model
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

REQUEST_OPTIONS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stop_sequences": "gen_ai.request.stop_sequences",
    "reasoning_effort": "gen_ai.request.reasoning.level",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
"""The attributes of options, by the name of the option."""
REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"

USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""The attributes of token counts, by the field of ``Usage``."""

# --- metrics ------------------------------------------------------------------------------------------

OPERATION_DURATION = "gen_ai.client.operation.duration"
INFERENCE_DURATION = "gen_ai.client.inference.duration"
INFERENCE_TIME_TO_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_TIME_PER_OUTPUT_CHUNK = "gen_ai.client.inference.time_per_output_chunk"
INFERENCE_INPUT_TOKENS = "gen_ai.client.inference.operation.input_tokens"
INFERENCE_OUTPUT_TOKENS = "gen_ai.client.inference.operation.output_tokens"
EMBEDDINGS_DURATION = "gen_ai.client.embeddings.duration"
EMBEDDINGS_INPUT_TOKENS = "gen_ai.client.embeddings.operation.input_tokens"

INFERENCE_USAGE = {
    "input_tokens": "gen_ai.client.inference.usage.input_tokens",
    "output_tokens": "gen_ai.client.inference.usage.output_tokens",
    "cached_input_tokens": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.client.inference.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.client.inference.usage.reasoning.output_tokens",
}
"""The counters of tokens, by the field of ``Usage``."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""The bounds of the buckets of durations."""
TOKENS = tuple(4**power for power in range(14))
"""The bounds of the buckets of token counts."""

# --- events and values --------------------------------------------------------------------------------

DETAILS_EVENT = "gen_ai.client.inference.operation.details"
MODALITY_UNKNOWN = "unknown"
FINISH_REASON_ERROR = "error"
ERROR_CANCELLED = "cancelled"
"""Our own value: the caller cancelled the request or left the stream."""

OPERATIONS = {"chat": "chat", "embeddings": "embeddings", "count_tokens": "count_tokens", "load": "load_model"}
"""The names of the operations. The conventions have none for token counts and model loads."""

PROVIDERS = {
    "azure-openai": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
"""The names of vendors that differ from the backend type. Local servers have none there, and keep their type."""

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CONTENT_VALUES = ("NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT")
