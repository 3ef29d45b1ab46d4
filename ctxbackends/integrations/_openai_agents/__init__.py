"""The parts of :mod:`ctxbackends.integrations.openai_agents`, which alone imports them."""
