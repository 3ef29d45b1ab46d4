"""The servers that have a route, for the errors of servers that do not have it."""

from __future__ import annotations

_OPENAI = "OpenAI-compatible servers"

# The first prefix that matches counts.
_ROUTES: tuple[tuple[str, str], ...] = (
    ("/api/v1/", "LM Studio 0.4 and newer"),
    ("/api/", "Ollama"),
    ("/models/load", "a llama-server router"),
    ("/models/unload", "a llama-server router"),
    ("/props", "llama-server"),
    ("/slots", "llama-server"),
    ("/apply-template", "llama-server"),
    ("/tokenize", "llama-server and vLLM"),
    ("/health", "llama-server and vLLM"),
    ("/version", "vLLM"),
    ("/is_sleeping", "vLLM"),
    ("/sleep", "vLLM"),
    ("/wake_up", "vLLM"),
    ("/v1/messages/count_tokens", "Anthropic"),
    ("/v1/messages", "Anthropic, and of servers with its Messages format"),
    ("/v1/responses", "OpenAI"),
    ("/v1/chat/completions/input_tokens", "llama-server"),
    ("/v1/", _OPENAI),
    ("/chat/completions", _OPENAI),
    ("/embeddings", _OPENAI),
    ("/models", _OPENAI),
)


def find_route_servers(path: str) -> str | None:
    """Return the servers that have the route ``path``, None for a route of no known server."""
    return next((servers for prefix, servers in _ROUTES if path.startswith(prefix)), None)
