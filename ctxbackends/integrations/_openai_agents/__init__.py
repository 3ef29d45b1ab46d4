"""The parts of the adapter for the Agents SDK. Only :mod:`ctxbackends.integrations.openai_agents` imports them."""
