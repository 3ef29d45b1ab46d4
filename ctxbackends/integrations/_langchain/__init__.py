"""The parts of the adapter for LangChain."""
