"""The parts of the adapter for pydantic-ai. Only :mod:`ctxbackends.integrations.pydantic_ai` imports them."""
