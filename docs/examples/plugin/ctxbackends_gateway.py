"""The backend type `gateway`: a company's gateway, which speaks OpenAI's format below its own path."""

from ctxbackends import Profile

PROFILE = Profile(
    type="gateway",
    default_endpoint="https://gateway.example.com",
    default_key_variable="GATEWAY_API_KEY",
    api_path="/llm/v2",
    headers={"X-Team": "search"},
    timeout=120.0,
    model_mismatch="warn",
)
