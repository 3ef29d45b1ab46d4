"""The table of the messages and codes by which servers report errors.

A row is a wording of one or more servers. Its pattern may name the groups ``input`` (tokens of the prompt) and
``limit`` (tokens of the context). Case is ignored. :mod:`ctxbackends._wire.errors` uses the table after the status.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import attrs

from ctxbackends.errors import APIStatusError, ContextOverflowError, InsufficientQuotaError, ModelNotFoundError

MAX_TEXT = 4096
"""Characters of a message that are compared with the patterns."""

_NUMBER = r"\d[\d,_]{0,23}"


def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern with ``<input>`` and ``<limit>`` for a number in that group, and ``<n>`` for any number."""
    for name in ("input", "limit"):
        pattern = pattern.replace(f"<{name}>", rf"(?P<{name}>{_NUMBER})")
    return re.compile(pattern.replace("<n>", _NUMBER), re.IGNORECASE | re.DOTALL)


@attrs.frozen
class Wording:
    """A message that means one kind of error.

    Attributes:
        kind: The exception.
        server: The servers that send it, for readers of the table.
        pattern: Found in the message.
    """

    kind: type[APIStatusError]
    server: str
    pattern: re.Pattern[str] = attrs.field(converter=_compile)


# A quote or a backtick before or after means that the server repeats a name.
_PROMPT_TOO_LONG = r"(?<![`'\"])\bprompt (?:is )?too (?:long|large)\b(?![`'\"])"

# Servers of our own types come first; then vendors by name. Public sources: the servers' code, the vendors'
# documentation, and the error tables of other clients.
WORDINGS: tuple[Wording, ...] = (
    # --- the prompt does not fit into the context
    Wording(
        ContextOverflowError,
        "llama-server",
        r"request \(<input> tokens\) exceeds the available context size \(<limit> tokens\)",
    ),
    Wording(ContextOverflowError, "llama-server before 2025-09", r"exceeds the available context size"),
    Wording(ContextOverflowError, "llama-server, LM Studio", r"context size has been exceeded"),
    Wording(ContextOverflowError, "llama-server", r"\bcontext shift is disabled"),
    Wording(
        ContextOverflowError,
        "llama-server, embeddings",
        r"input (?:\(<input> tokens\) )?is too large to process(?:.{0,100}?current batch size: <limit>)?",
    ),
    Wording(
        ContextOverflowError,
        "llama-server, embeddings",
        r"input \(<input> tokens\) is larger than the max context size \(<limit> tokens\)",
    ),
    Wording(ContextOverflowError, "LM Studio, llama.cpp", r"n_keep:? \(?<input>\)? ?>= ?n_ctx:? \(?<limit>"),
    Wording(
        ContextOverflowError,
        "LM Studio",
        r"trying to keep the first <input> tokens .{0,100}context length of only <limit> tokens",
    ),
    Wording(ContextOverflowError, "LM Studio", r"greater than the context length"),
    Wording(ContextOverflowError, "LM Studio", r"reached context length of <limit>"),
    Wording(
        ContextOverflowError,
        "vLLM",
        r"prompt \((?:total )?length <input>\) is (?:longer than|too long to fit).{0,40}? length(?: of)? <limit>",
    ),
    Wording(ContextOverflowError, "vLLM", r"prompt \(<input> tokens\) is too long and exceeds.{0,40}? of <limit>"),
    Wording(ContextOverflowError, "vLLM, SGLang", r"input length \(<input>(?: tokens)?\) exceeds[^(]{0,60}\(<limit>"),
    Wording(ContextOverflowError, "vLLM", r"context length is only <limit>"),
    Wording(
        ContextOverflowError, "vLLM, OpenAI, DeepSeek, OpenRouter", r"maximum context length(?: is|:| of)? <limit>"
    ),
    Wording(ContextOverflowError, "vLLM, OpenAI, DeepSeek, OpenRouter", r"maximum context length"),
    Wording(
        ContextOverflowError,
        "SGLang, Together",
        r"input \(<input> tokens\) is longer than the model's context length \(<limit> tokens\)",
    ),
    Wording(ContextOverflowError, "Ollama", r"prompt too long; exceeded (?:max(?:imum)? )?context length"),
    Wording(
        ContextOverflowError,
        "TGI, Together",
        r"`inputs` tokens \+ `max_new_tokens` must be <= <limit>(?:\. given: <input> `inputs`)?",
    ),
    Wording(ContextOverflowError, "TGI, TEI", r"`inputs` must have less than <limit> tokens(?:\. given: <input>)?"),
    Wording(ContextOverflowError, "Anthropic", _PROMPT_TOO_LONG + r": <input> tokens > <limit> maximum"),
    Wording(ContextOverflowError, "Anthropic", r"exceed context limit: <input> \+ <n> > <limit>"),
    Wording(ContextOverflowError, "Anthropic", r"exceed context limit"),
    Wording(ContextOverflowError, "Fireworks", _PROMPT_TOO_LONG + r": <input>"),
    Wording(ContextOverflowError, "Anthropic, others", _PROMPT_TOO_LONG),
    Wording(ContextOverflowError, "Bedrock", r"input is too long for requested model"),
    Wording(ContextOverflowError, "Bedrock", r"number of input tokens exceeds maximum length"),
    Wording(
        ContextOverflowError,
        "Bedrock",
        r"too many input tokens(?:\. max input tokens: <limit>, request input token count: <input>)?",
    ),
    Wording(
        ContextOverflowError, "Cloudflare", r"tokens \(<input>\) exceeded this model context window limit \(<limit>\)"
    ),
    Wording(
        ContextOverflowError,
        "Cohere",
        r"too many tokens: .{0,100}?cannot exceed <limit>(?: . received <input>)?",
    ),
    Wording(ContextOverflowError, "Copilot", r"prompt token count of <input> exceeds the limit of <limit>"),
    Wording(ContextOverflowError, "DashScope", r"range of input length should be \[<n>, ?<limit>\]"),
    Wording(
        ContextOverflowError,
        "Gemini",
        r"input token count (?:\(<input>\) )?exceeds the maximum number of tokens(?: allowed \(<limit>\))?",
    ),
    Wording(ContextOverflowError, "Vertex", r"input token count is <input> but .{0,40}supports up to <limit>"),
    Wording(ContextOverflowError, "GitHub Models", r"request body too large for .{0,80}? max size: <limit> tokens"),
    Wording(
        ContextOverflowError,
        "Groq, Cerebras",
        r"reduce the length of the (?:messages|prompt|input)"
        r"(?:.{0,60}?current length is <input> while limit is <limit>)?",
    ),
    Wording(ContextOverflowError, "llama-cpp-python", r"requested tokens \(<input>\) exceed context window of <limit>"),
    Wording(ContextOverflowError, "MiniMax", r"context window exceeds limit"),
    Wording(
        ContextOverflowError,
        "Mistral",
        r"prompt contains <input> tokens .{0,60}?too large for model with <limit> maximum context length",
    ),
    Wording(
        ContextOverflowError,
        "MLC",
        r"prompt has <input> tokens in total, larger than the model input length limit <limit>",
    ),
    Wording(ContextOverflowError, "Moonshot", r"exceeded model token limit:? <limit>(?: \(requested: <input>\))?"),
    Wording(ContextOverflowError, "OpenAI", r"input tokens exceed the configured limit of <limit>"),
    Wording(ContextOverflowError, "OpenAI", r"exceeds the context window"),
    Wording(
        ContextOverflowError,
        "OpenAI, in characters",
        r"(?:messages|input|prompt|instructions)[^\s:]{0,60}: string too long",
    ),
    Wording(ContextOverflowError, "Perplexity", r"total length of all messages is too long"),
    Wording(
        ContextOverflowError, "SiliconFlow", r"prompt_tokens \(<input>\) must be less than max_seq_len \(<limit>\)"
    ),
    Wording(ContextOverflowError, "TabbyAPI", r"prompt length <input> (?:is greater than|exceeds) max_seq_len <limit>"),
    Wording(
        ContextOverflowError, "TensorRT-LLM", r"prompt length \(<input>\) exceeds maximum input length \(<limit>\)"
    ),
    Wording(ContextOverflowError, "Volcengine", r"total tokens of image and text exceed max message tokens"),
    Wording(ContextOverflowError, "several", r"tokens in request more than max tokens allowed"),
    Wording(
        ContextOverflowError,
        "xAI",
        r"maximum prompt length is <limit>(?: but the request contains <input> tokens)?",
    ),
    Wording(ContextOverflowError, "z.ai", r"prompt exceeds max length"),
    Wording(
        ContextOverflowError,
        "others",
        r"\bexceed(?:s|ed|ing)? (?:the |its |this |this model's |the model's )?(?:max(?:imum)? |model )?"
        r"context (?:length|window|size)\b",
    ),
    Wording(ContextOverflowError, "others", r"\bcontext (?:length|window|size)(?: limit)? (?:is |was )?exceeded\b"),
    Wording(ContextOverflowError, "others", r"\bmaximum context (?:limit|window|size)(?: is| of)? <limit>"),
    Wording(
        ContextOverflowError,
        "others",
        r"\b(?:prompt|input) (?:tokens?|length|token count)(?: \(?<input>(?: tokens)?\)?)? exceeds? "
        r"(?:the |model |model's )?max(?:imum)? [^.\d]{0,40}(?:<limit>)?",
    ),
    Wording(
        ContextOverflowError, "others", r"\btoo many tokens in (?:the |your )?(?:prompt|request|input|messages?)\b"
    ),
    Wording(ContextOverflowError, "others", r"\bexceed(?:s|ed)? (?:the )?(?:model |model's )?token limit\b"),
    Wording(ContextOverflowError, "others", r"\binput is too long\b"),
    # --- the server does not have the model
    Wording(
        ModelNotFoundError,
        "llama-server, vLLM, OpenAI and others",
        r"^(?:error: )?(?:the )?(?:requested )?model\b(?: with)?(?: name)?:?=? ?[`'\"]?[^\s`'\"]{0,200}[`'\"]? "
        r"(?:(?:is|was) )?(?:not found|(?:does not|doesn't|not) exist|not available|unknown"
        r"|not supported by any provider|has been (?:decommissioned|deprecated|removed|retired))",
    ),
    Wording(ModelNotFoundError, "llama-server, xAI", r"^(?:error: )?(?:the |requested )?model not found\b"),
    Wording(ModelNotFoundError, "LM Studio", r"invalid model identifier"),
    Wording(ModelNotFoundError, "Bedrock", r"model identifier is invalid"),
    Wording(ModelNotFoundError, "Cloudflare", r"^no such model\b"),
    Wording(ModelNotFoundError, "llama-swap", r"could not find (?:real model ?id|suitable inference handler) for"),
    Wording(ModelNotFoundError, "LiteLLM", r"invalid model name passed in model="),
    Wording(ModelNotFoundError, "DeepSeek", r"^model not exist"),
    Wording(ModelNotFoundError, "DeepSeek", r"supported api model names are\b"),
    Wording(ModelNotFoundError, "Gemini", r"unexpected model name format"),
    Wording(ModelNotFoundError, "Gemini", r"^models/\S{1,200} is not found"),
    Wording(ModelNotFoundError, "Mistral, Perplexity, Ollama", r"^invalid model(?: name)?(?:[:.]|$| [`'\"])"),
    Wording(ModelNotFoundError, "OpenRouter", r"^\S{1,200} is not a valid model id\b"),
    Wording(ModelNotFoundError, "OpenRouter", r"^no endpoints found for \S"),
    Wording(ModelNotFoundError, "Together", r"unable to access (?:non-serverless )?model\b"),
    Wording(ModelNotFoundError, "Foundry, GitHub Models, z.ai", r"^(?:unknown|unavailable) model\b"),
    Wording(ModelNotFoundError, "MiniMax", r"\bunknown model [`'\"]"),
    # --- the account has no credit left
    Wording(InsufficientQuotaError, "Anthropic", r"credit balance is too low"),
    Wording(
        InsufficientQuotaError, "DeepSeek, z.ai", r"\binsufficient (?:account )?(?:balance|credits?|funds|quota)\b"
    ),
    Wording(InsufficientQuotaError, "Cloudflare", r"used up your daily free allocation"),
    # Gemini has this sentence for a limit per minute too, with more after it.
    Wording(
        InsufficientQuotaError,
        "OpenAI",
        r"exceeded your current quota, please check your plan and billing details"
        r"(?!.{0,2000}(?:retry in|per minute|per day|quota metric))",
    ),
    Wording(InsufficientQuotaError, "OpenRouter", r"requires more credits"),
    Wording(InsufficientQuotaError, "Hugging Face", r"exceeded your (?:monthly )?included credits"),
    Wording(InsufficientQuotaError, "xAI", r"used all available credits|doesn't have any credits"),
    Wording(InsufficientQuotaError, "Together", r"\bcredit limit exceeded"),
)

CODES: Mapping[str, type[APIStatusError]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "exceed_context_size_error",  # llama-server
                "context_length_exceeded",  # OpenAI, Groq and others
                "context_window_exceeded",
                "model_context_window_exceeded",  # z.ai
                "model_max_prompt_tokens_exceeded",  # Copilot
                "too_many_prompt_tokens",  # Perplexity
                "tokens_limit_reached",  # GitHub Models
                "1261",  # z.ai
            ),
            ContextOverflowError,
        ),
        **dict.fromkeys(
            (
                "model_not_found",  # OpenAI and others
                "deploymentnotfound",  # Azure
                "invalid_model",  # Mistral, Perplexity
                "unknown_model",  # Foundry
                "unavailable_model",  # GitHub Models
                "model_not_available",  # Together
                "model_not_supported",  # Hugging Face
                "model_decommissioned",  # Groq
                "1211",  # z.ai
            ),
            ModelNotFoundError,
        ),
        **dict.fromkeys(
            (
                "insufficient_quota",  # OpenAI, Perplexity
                "billing_error",  # Anthropic
                "billing_hard_limit_reached",  # OpenAI
                "billing_not_active",  # OpenAI
                "insufficient_balance",
                "insufficient_credits",
                "exceeded_current_quota_error",  # Moonshot
                "arrearage",  # DashScope
                "1113",  # z.ai
            ),
            InsufficientQuotaError,
        ),
    }
)
"""The exception of an error type or code, in lower case. A number is the code of one vendor and no HTTP status."""

STATUS_OF_WORD: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "badrequesterror": 400,  # vLLM
        "invalid_argument": 400,  # Gemini
        "validation": 422,  # TGI
        "authentication_error": 401,
        "invalid_api_key": 401,
        "unauthenticated": 401,
        "permission_error": 403,
        "permission_denied": 403,
        "not_found_error": 404,
        "notfounderror": 404,
        "not_found": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "rate_limit_exceeded": 429,
        "overloaded": 429,  # TGI
        "too_many_requests": 429,
        "resource_exhausted": 429,
        "unavailable": 503,
        "unavailable_error": 503,
        "service_unavailable": 503,
        "deadline_exceeded": 504,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
"""The HTTP status of an error type, for errors under a success status. Words for any failure have none."""

# Only for messages already recognized as an overflow, whose pattern has not both numbers.
_NUMBERS = tuple(
    _compile(pattern)
    for pattern in (
        r"resulted in <input> tokens",
        r"\(<input> in (?:the messages|your prompt)",
        r"\(<input> of text input",
        r"at least <input> input tokens",
        r"(?:request has|you passed|contains) <input> input tokens",
        r"<input> tokens from the input messages",
        r"requested <input> tokens in the",
        r"tokens allowed:? <limit>",
        r"n_ctx: <limit>",
    )
)


def find_kind(text: str) -> type[APIStatusError] | None:
    """Return the exception that a message means, or None."""
    text = text[:MAX_TEXT]
    return next((wording.kind for wording in WORDINGS if wording.pattern.search(text)), None)


def find_numbers(text: str) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the context in the message of an overflow, None where it names none."""
    text = text[:MAX_TEXT]
    numbers: dict[str, int] = {}
    for pattern in _overflow_patterns():
        match = pattern.search(text)
        for name, value in match.groupdict().items() if match else ():
            if value is not None:
                numbers.setdefault(name, int(value.replace(",", "").replace("_", "")))
    return numbers.get("input"), numbers.get("limit")


def _overflow_patterns() -> Iterator[re.Pattern[str]]:
    yield from (wording.pattern for wording in WORDINGS if wording.kind is ContextOverflowError)
    yield from _NUMBERS
