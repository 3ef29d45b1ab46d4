"""The parts of :mod:`ctxbackends.integrations.pydantic_ai`, which alone imports them."""
