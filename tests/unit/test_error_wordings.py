"""Every vendor's way to report an overflow, a missing model and an empty account becomes one exception each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.error_wordings import CODES, STATUS_OF_WORD, WORDINGS, find_kind, find_numbers
from ctxbackends._wire.errors import error_from_choice, error_from_event, error_from_response, error_from_success
from ctxbackends.errors import (
    APIStatusError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ContextOverflowError,
    InsufficientQuotaError,
    InternalServerError,
    ModelLoadingError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServiceUnavailableError,
    StreamInterruptedError,
)


def respond(status: int, body: object) -> HTTPResponse:
    return HTTPResponse(status=status, headers={}, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def message(text: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": text, **members}}


def vendor(name: str, body: object, *numbers: int | None, status: int = 400) -> Any:
    return pytest.param(status, body, numbers or (None, None), id=name)


OVERFLOWS = [
    # --- the servers that have a type
    vendor(
        "llama-server",
        message(
            "request (7100 tokens) exceeds the available context size (4096 tokens), try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_prompt_tokens=7100,
            n_ctx=4096,
        ),
        7100,
        4096,
    ),
    vendor(
        "llama-server: only the sentence",
        message("request (7100 tokens) exceeds the available context size (4096 tokens), try increasing it"),
        7100,
        4096,
    ),
    vendor("llama-server: older", message("the request exceeds the available context size. try increasing it")),
    vendor(
        "llama-server: slots share one cache",
        message("Context size has been exceeded.", code=500, type="server_error"),
        status=500,
    ),
    vendor("llama-server: no shift", message("context shift is disabled", code=500), status=500),
    vendor(
        "llama-server: embeddings",
        message("input (900 tokens) is too large to process. increase it (current batch size: 512)"),
        900,
        512,
        status=500,
    ),
    vendor(
        "llama-server: embeddings, without numbers",
        message("input is too large to process. increase the physical batch size"),
        status=500,
    ),
    vendor(
        "llama-server: embeddings, newer",
        message("input (900 tokens) is larger than the max context size (512 tokens). skipping"),
        900,
        512,
        status=500,
    ),
    vendor(
        "Ollama: the llama-server behind it",
        {"error": json.dumps(message("request (70 tokens) exceeds the available context size (40 tokens)"))},
        70,
        40,
    ),
    vendor("Ollama: the exceeding length", {"error": "the input length exceeds the context length"}),
    vendor("Ollama: cloud", {"StatusCode": 400, "error": "prompt too long; exceeded max context length by 17 tokens"}),
    vendor("Ollama: without max", {"error": "prompt too long; exceeded context length by 17 tokens"}),
    vendor("LM Studio: the sentence of llama-server", {"error": "Context size has been exceeded."}),
    vendor(
        "LM Studio: n_keep",
        {"error": "The number of tokens to keep is greater than the context length (n_keep: 5000 >= n_ctx: 4096)."},
        5000,
        4096,
    ),
    vendor("LM Studio: truncation", {"error": "Cannot truncate prompt with n_keep (812) >= n_ctx (512)"}, 812, 512),
    vendor(
        "LM Studio: the first tokens",
        {
            "error": "Trying to keep the first 5100 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens, which is not enough."
        },
        5100,
        4096,
    ),
    vendor("LM Studio: mid-generation", {"error": "Reached context length of 4096 tokens with the model"}, None, 4096),
    vendor(
        "vLLM: the decoder prompt",
        message("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", code=400),
        5000,
        4096,
    ),
    vendor(
        "vLLM: the total length",
        message("The prompt (total length 5000) is too long to fit into the model (context length 4096)."),
        5000,
        4096,
    ),
    vendor("vLLM: older", message("Input prompt (5000 tokens) is too long and exceeds limit of 4096"), 5000, 4096),
    vendor(
        "vLLM: the input length",
        message("Input length (5000) exceeds model's maximum context length (4096).", code=400),
        5000,
        4096,
    ),
    vendor(
        "vLLM: at least",
        message(
            "This model's maximum context length is 4096 tokens. However, you requested 0 output tokens and your "
            "prompt contains at least 4097 input tokens, for a total of at least 4097 tokens."
        ),
        4097,
        4096,
    ),
    vendor(
        "vLLM: only",
        message(
            "You passed 5000 input tokens and requested 1 output tokens. However, the model's context length is only "
            "4096 tokens, resulting in a maximum input length of 4095 tokens."
        ),
        5000,
        4096,
    ),
    vendor(
        "vLLM: the answer does not fit",
        message(
            "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 4096 "
            "tokens and your request has 500 input tokens (4000 > 4096 - 500)."
        ),
        500,
        4096,
    ),
    vendor(
        "OpenAI: embeddings",
        message(
            "This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in your "
            "prompt; 0 for the completion). Please reduce your prompt; or completion length."
        ),
        9000,
        8192,
    ),
    vendor(
        "OpenAI: configured",
        message(
            "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,123 tokens."
        ),
        300123,
        272000,
    ),
    vendor("OpenAI: the window", message("Your input exceeds the context window of this model.")),
    vendor("OpenAI: only the code", message("too long", code="context_length_exceeded")),
    vendor(
        "Anthropic",
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "prompt is too long: 203 tokens > 200 maximum"},
        },
        203,
        200,
    ),
    vendor(
        "Anthropic: with the answer",
        message("input length and `max_tokens` exceed context limit: 190 + 20 > 200, decrease one"),
        190,
        200,
    ),
    # --- vendors
    vendor(
        "Azure AI", message("Request body too large for tiny model. Max size: 8000 tokens."), None, 8000, status=413
    ),
    vendor("Bedrock", message("Input is too long for requested model.")),
    vendor(
        "Bedrock: counts",
        {"message": "Too many input tokens. Max input tokens: 80, request input token count: 95"},
        95,
        80,
    ),
    vendor(
        "Cerebras",
        message("Please reduce the length of the messages or completion. Current length is 42000 while limit is 40000"),
        42000,
        40000,
    ),
    vendor(
        "Cloudflare",
        message(
            "The estimated number of input and maximum output tokens (9000) exceeded this model context window limit "
            "(8000)."
        ),
        9000,
        8000,
    ),
    vendor(
        "Cohere",
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000."},
        5000,
        4081,
    ),
    vendor(
        "Copilot",
        message("prompt token count of 900 exceeds the limit of 800", code="model_max_prompt_tokens_exceeded"),
        900,
        800,
    ),
    vendor(
        "DashScope", message("Range of input length should be [1, 30720]", code="invalid_parameter_error"), None, 30720
    ),
    vendor(
        "DeepSeek",
        message(
            "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (66000 in the "
            "messages, 4000 in the completion). Please reduce the length of the messages or completion."
        ),
        66000,
        65536,
    ),
    vendor(
        "Fireworks",
        message("The prompt is too long: 1300, model maximum context length: 1024", code=400),
        1300,
        1024,
    ),
    vendor(
        "Gemini",
        [message("The input token count (1100) exceeds the maximum number of tokens allowed (1000).", code=400)],
        1100,
        1000,
    ),
    vendor(
        "Gemini: one number",
        [message("The input token count exceeds the maximum number of tokens allowed 1000.", code=400)],
        None,
        1000,
    ),
    vendor(
        "Vertex",
        message(
            "Unable to submit request because the input token count is 1100 but the model only supports up to 1000."
        ),
        1100,
        1000,
    ),
    vendor(
        "Groq",
        message(
            "Please reduce the length of the messages or completion.", param="messages", code="context_length_exceeded"
        ),
    ),
    vendor("MiniMax", message("invalid params, context window exceeds limit (2013)")),
    vendor(
        "Mistral",
        {
            "object": "error",
            "message": "Prompt contains 3000 tokens and 0 draft tokens, too large for model with 2048 maximum context "
            "length",
            "code": "3051",
        },
        3000,
        2048,
    ),
    vendor(
        "Moonshot",
        message("Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"),
        9000,
        8192,
    ),
    vendor("Moonshot: one number", message("Your request exceeded model token limit: 8192"), None, 8192),
    vendor(
        "OpenRouter",
        message(
            "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (4700 of "
            "text input, 300 in the output). Please reduce the length of either one.",
            code=400,
        ),
        4700,
        4096,
    ),
    vendor(
        "OpenRouter: the error of the provider",
        message(
            "Provider returned error",
            code=400,
            metadata={
                "raw": json.dumps(
                    message(
                        "This model's maximum context length is 4096 tokens. However, your messages resulted in 4200 "
                        "tokens."
                    )
                ),
                "provider_name": "P",
            },
        ),
        4200,
        4096,
    ),
    vendor("Perplexity", message("too much of it", type="too_many_prompt_tokens", code=400)),
    vendor(
        "SGLang",
        {
            "object": "error",
            "message": "The input (900 tokens) is longer than the model's context length (800 tokens).",
        },
        900,
        800,
    ),
    vendor(
        "SGLang: with the answer",
        message(
            "Requested token count exceeds the model's maximum context length of 800 tokens. You requested a total of "
            "1000 tokens: 700 tokens from the input messages and 300 tokens for the completion."
        ),
        700,
        800,
    ),
    vendor(
        "TGI",
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 600 `inputs` "
            "tokens and 20 `max_new_tokens`",
            "error_type": "validation",
        },
        600,
        512,
        status=422,
    ),
    vendor(
        "TEI",
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
            "error_type": "Validation",
        },
        600,
        512,
        status=413,
    ),
    vendor(
        "Together", message("The input (900 tokens) is longer than the model's context length (800 tokens)."), 900, 800
    ),
    vendor(
        "xAI",
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 800 but the request contains 900 tokens.",
        },
        900,
        800,
    ),
    vendor("z.ai", message("Prompt exceeds max length", code="1261")),
    vendor("plain text of a proxy", b"upstream: maximum context length is 512 tokens"),
    vendor("another wording", message("Your conversation exceeds the model's context window")),
    vendor("another wording, passive", message("litellm.BadRequestError: context length exceeded")),
    # --- more servers
    vendor("llama-cpp-python", message("Requested tokens (900) exceed context window of 800"), 900, 800, status=500),
    vendor(
        "MLC",
        message("Request prompt has 900 tokens in total, larger than the model input length limit 800."),
        900,
        800,
    ),
    vendor("OpenAI: characters", message("Invalid 'messages[1].content': string too long. Expected at most 9")),
    vendor("SiliconFlow", {"message": "length of prompt_tokens (900) must be less than max_seq_len (800)."}, 900, 800),
    vendor("TabbyAPI", message("Prompt length 900 is greater than max_seq_len 800"), 900, 800, status=422),
    vendor("TensorRT-LLM", message("Prompt length (900) exceeds maximum input length (800)."), 900, 800),
    vendor("Volcengine", message("Total tokens of image and text exceed max message tokens.", code="InvalidParameter")),
    vendor(
        "MiniMax: HTTP 200",
        {"choices": None, "base_resp": {"status_code": 2013, "status_msg": "context window exceeds limit"}},
    ),
    vendor("others: the limit", message("This model's maximum context limit is 800 tokens"), None, 800),
    vendor("others: the input length", message("Input length 900 exceeds the maximum length of 800"), 900, 800),
    vendor("others: the input tokens", message("input tokens (900) exceed maximum of 800"), 900, 800),
    vendor("others: too many", message("There are too many tokens in your prompt")),
    vendor("others: the token limit", message("The request exceeds the model's token limit")),
    vendor("others: too large", message("the prompt is too large for this model")),
]


@pytest.mark.parametrize(("status", "body", "numbers"), OVERFLOWS)
def test_overflow(status: int, body: object, numbers: tuple[int | None, int | None]) -> None:
    error = error_from_response(respond(status, body))
    assert (ContextOverflowError, status) == (type(error), error.status_code)
    assert isinstance(error, ContextOverflowError)
    assert numbers == (error.input_tokens, error.context_length) or isinstance(body, bytes)


@pytest.mark.parametrize(
    ("status", "body", "numbers"), [row for row in OVERFLOWS if not isinstance(row.values[1], bytes)]
)
def test_overflow_in_a_stream_and_under_200(status: int, body: object, numbers: tuple[int | None, int | None]) -> None:
    for error in (error_from_event(json.dumps(body).encode()), error_from_success(respond(200, body))):
        assert isinstance(error, ContextOverflowError)
        assert numbers == (error.input_tokens, error.context_length)


NO_OVERFLOWS = [
    (400, message("max_tokens is too large: 90000. This model supports at most 16384 completion tokens.")),
    (400, message("max_tokens=5000 cannot be greater than max_model_len=1024.", code=400)),
    (400, message("Range of max_tokens should be [1, 8192]", code="invalid_parameter_error")),
    (400, message("`prompt is too long` is not a valid tool name")),
    (400, message("'prompt is too long' is not a valid label")),
    (400, message("the image exceeds the limit of 5 MB")),
    (400, message("the image input exceeds the limit of 5 MB")),
    (400, message("'tools[0].function.description': string too long. Expected at most 1024 characters")),
    (413, message("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 8000")),
    (429, message("Too many tokens per day; your prompt is too long: 5 tokens > 4 maximum")),
    (500, message("the engine broke")),
]


@pytest.mark.parametrize(("status", "body"), NO_OVERFLOWS)
def test_other_limits_are_not_an_overflow(status: int, body: object) -> None:
    assert not isinstance(error_from_response(respond(status, body)), ContextOverflowError)


MISSING_MODELS = [
    vendor("Bedrock", {"message": "The provided model identifier is invalid."}),
    vendor("Cloudflare", message("No such model nope or task")),
    vendor("MiniMax", message("invalid params, unknown model 'nope'")),
    vendor(
        "Azure OpenAI",
        message("The API deployment for this resource does not exist.", code="DeploymentNotFound"),
        status=404,
    ),
    vendor(
        "Cerebras",
        message("Model nope does not exist or you do not have access to it.", code="model_not_found"),
        status=404,
    ),
    vendor("DashScope", message("Model not exist.", code="invalid_parameter_error")),
    vendor(
        "DeepSeek",
        message("The supported API model names are a or b, but you passed nope.", code="invalid_request_error"),
    ),
    vendor("DeepSeek: older", message("Model Not Exist", code="invalid_request_error")),
    vendor("Fireworks", message("Model not found, inaccessible, and/or not deployed", code="NOT_FOUND"), status=404),
    vendor("Foundry", message("Unknown model: nope", code="unknown_model")),
    vendor(
        "Gemini", [message("models/nope is not found for API version v1main", code=404, status="NOT_FOUND")], status=404
    ),
    vendor("Gemini: a name of another form", [message("* request.model: unexpected model name format", code=400)]),
    vendor("Groq", message("The model `nope` does not exist or you do not have access to it."), status=404),
    vendor("Groq: decommissioned", message("The model `old` has been decommissioned", code="model_decommissioned")),
    vendor("Hugging Face", message("The requested model 'nope' does not exist", code="model_not_found")),
    vendor(
        "Hugging Face: no provider",
        message("The requested model 'a/b' is not supported by any provider you have enabled."),
    ),
    vendor("LiteLLM", message("400: {'error': 'Invalid model name passed in model=nope'}", code=400)),
    vendor("LM Studio", message("Invalid model identifier 'nope'. Please specify a valid downloaded model")),
    vendor("llama-server router", message("model 'nope' not found", code=400)),
    vendor("llama-swap", {"error": "could not find real modelID for nope"}),
    vendor("llama-swap: plain text", b"could not find suitable inference handler for nope"),
    vendor("Mistral", {"object": "error", "message": "Invalid model: nope", "type": "invalid_model", "code": "1500"}),
    vendor(
        "Moonshot",
        message("Not found the model nope or Permission denied", type="resource_not_found_error"),
        status=404,
    ),
    vendor("Ollama", {"error": "invalid model name"}),
    vendor("OpenRouter", {**message("nope is not a valid model ID", code=400), "user_id": "u"}),
    vendor("OpenRouter: no endpoint", message("No endpoints found for a/nope:free.", code=404), status=404),
    vendor(
        "Perplexity",
        message(
            "Invalid model 'nope'. Permitted models can be found in the documentation.", type="invalid_model", code=400
        ),
    ),
    vendor("Together", message("Unable to access model nope.", code="model_not_available"), status=404),
    vendor("vLLM", message("The model `nope` does not exist.", type="NotFoundError", code=404), status=404),
    vendor("xAI", {"code": "invalid argument", "error": "Model not found: nope"}),
    vendor("z.ai", message("Unknown Model, please check the model code.", code="1211")),
]


@pytest.mark.parametrize(("status", "body", "numbers"), MISSING_MODELS)
def test_missing_model(status: int, body: object, numbers: object) -> None:
    error = error_from_response(respond(status, body))
    assert (ModelNotFoundError, status) == (type(error), error.status_code)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, message("Tool call id not found in the model history"), BadRequestError),
        (400, message("tool `read_model` not found in tools"), BadRequestError),
        (400, message("This model does not support tools"), BadRequestError),
        (400, message("Invalid model output: no JSON"), BadRequestError),
        (404, message("No endpoints found that support tool use.", code=404), NotFoundError),
        (404, {"detail": "Not Found"}, NotFoundError),
        (500, message("model 'x' not found"), InternalServerError),
    ],
)
def test_other_errors_are_not_a_missing_model(status: int, body: object, kind: type[BackendError]) -> None:
    assert kind is type(error_from_response(respond(status, body)))


EMPTY_ACCOUNTS = [
    vendor("Cloudflare", message("you have used up your daily free allocation of 10,000 neurons"), status=429),
    vendor(
        "a copy of OpenAI's sentence",
        message("You exceeded your current quota, please check your plan and billing details."),
        status=429,
    ),
    vendor(
        "Anthropic",
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"},
        },
    ),
    vendor("Anthropic: billing", {"type": "error", "error": {"type": "billing_error", "message": "pay"}}, status=402),
    vendor("DashScope", message("Access denied", code="Arrearage")),
    vendor("DeepSeek", message("Insufficient Balance", type="unknown_error", code="invalid_request_error"), status=402),
    vendor("Hugging Face", {"error": "You have exceeded your monthly included credits."}, status=402),
    vendor("Moonshot", message("Your account is suspended", type="exceeded_current_quota_error"), status=429),
    vendor(
        "OpenAI",
        message("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
        status=429,
    ),
    vendor("OpenRouter", message("This request requires more credits, or fewer max_tokens.", code=402), status=402),
    vendor("Perplexity", message("You exceeded your current quota", type="insufficient_quota", code=401), status=401),
    vendor("Together", message("Credit limit exceeded", type="credit_limit"), status=402),
    vendor("xAI", {"error": "Your team has either used all available credits or reached its limit."}, status=403),
    vendor("z.ai", message("Insufficient balance or no resource package.", code="1113"), status=429),
    vendor("an empty body", b"", status=402),
]


@pytest.mark.parametrize(("status", "body", "numbers"), EMPTY_ACCOUNTS)
def test_empty_account(status: int, body: object, numbers: object) -> None:
    error = error_from_response(respond(status, body))
    assert (InsufficientQuotaError, status) == (type(error), error.status_code)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, message("Rate limit reached", code="rate_limit_exceeded"), RateLimitError),
        (429, [message("You exceeded your current quota. Please retry in 30s.", code=429)], RateLimitError),
        (
            429,
            [
                message(
                    "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for "
                    "quota metric 'requests' and limit 'per minute'. Please retry in 9s.",
                    code=429,
                )
            ],
            RateLimitError,
        ),
        (403, message("not for you"), PermissionDeniedError),
        (401, message("wrong key"), AuthenticationError),
    ],
)
def test_other_errors_are_not_an_empty_account(status: int, body: object, kind: type[BackendError]) -> None:
    assert kind is type(error_from_response(respond(status, body)))


# --- errors under a success status ----------------------------------------------------------------------

UNDER_SUCCESS = [
    (message("slow down", code=429), RateLimitError, 429),
    (message("slow down", code="429"), RateLimitError, 429),
    (message("slow down", type="rate_limit_error"), RateLimitError, 429),
    ([message("slow down", code=429, status="RESOURCE_EXHAUSTED")], RateLimitError, 429),
    (message("pay", code=402), InsufficientQuotaError, 402),
    (message("pay", code="insufficient_quota"), InsufficientQuotaError, 200),
    (message("no", code=401), AuthenticationError, 401),
    (message("no", code=403), PermissionDeniedError, 403),
    (message("no", code=400), BadRequestError, 400),
    (message("no", type="BadRequestError"), BadRequestError, 400),
    (message("no such thing", code=404), NotFoundError, 404),
    (message("nope is not a valid model ID", code=400), ModelNotFoundError, 400),
    (message("the upstream broke", code=502), InternalServerError, 502),
    (message("busy", code=503), ServiceUnavailableError, 503),
    (message("busy", error_type="overloaded"), RateLimitError, 429),
    (message("busy", StatusCode=429), RateLimitError, 429),
    (message("Loading model", code=503, type="unavailable_error"), ModelLoadingError, 503),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, ServiceUnavailableError, 529),
]


@pytest.mark.parametrize(("body", "kind", "status"), UNDER_SUCCESS)
def test_an_error_under_success_chooses_its_class(body: Any, kind: type[APIStatusError], status: int) -> None:
    first = body[0] if isinstance(body, list) else body
    errors = [
        error_from_event(json.dumps(body).encode()),
        error_from_success(respond(200, body)),
        error_from_choice(first["error"], respond(200, {"choices": [first]})),
    ]
    for error in errors:
        assert isinstance(error, APIStatusError)
        assert (kind, status, first["error"]["message"]) == (type(error), error.status_code, error.message)
    assert json.dumps({"choices": [first]}).encode() == errors[2].body  # type: ignore[attr-defined]  # just checked


@pytest.mark.parametrize(
    "body",
    [
        message("it broke", code=500, type="server_error"),
        message("it broke", type="api_error"),
        message("it broke", code=1301),
        {"error": "it broke"},
    ],
)
def test_an_error_that_names_no_kind(body: Any) -> None:
    in_stream, under_success = error_from_event(json.dumps(body).encode()), error_from_success(respond(200, body))
    assert (StreamInterruptedError, "the server sent an error in the stream: it broke") == (
        type(in_stream),
        str(in_stream),
    )
    assert (ResponseError, "the server sent an error under HTTP 200: it broke") == (
        type(under_success),
        str(under_success),
    )


# --- the table ------------------------------------------------------------------------------------------


def test_every_row_is_used_by_an_example() -> None:
    bodies = [row.values[1] for row in (*OVERFLOWS, *MISSING_MODELS, *EMPTY_ACCOUNTS)]
    text = "\n".join(body.decode() if isinstance(body, bytes) else json.dumps(body) for body in bodies)
    words = {word.casefold() for word in text.replace('"', " ").split()}
    unused = {code for code in CODES if code not in words}
    assert {
        "context_window_exceeded",
        "model_context_window_exceeded",
        "tokens_limit_reached",
        "unavailable_model",
        "model_not_supported",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_credits",
    } == unused


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_is_enough(code: str) -> None:
    assert CODES[code] is type(error_from_response(respond(400, message("?", code=code))))
    assert CODES[code] is type(error_from_response(respond(400, message("?", type=code.upper()))))


@pytest.mark.parametrize("word", sorted(STATUS_OF_WORD))
def test_a_word_names_its_status(word: str) -> None:
    error = error_from_event(json.dumps(message("?", type=word)).encode())
    assert isinstance(error, APIStatusError)
    assert STATUS_OF_WORD[word] == error.status_code


@pytest.mark.parametrize("filler", ["a", " ", "1", "1,", "tokens ", "(", "input ", "context length ", "model "])
def test_a_long_text_without_a_wording(filler: str) -> None:
    text = filler * 100_000
    assert (None, None) == find_numbers(text)
    assert find_kind(text) is None


def test_every_row_has_a_server() -> None:
    assert all(wording.server for wording in WORDINGS)
