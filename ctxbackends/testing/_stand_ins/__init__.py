"""Servers that behave like a vendor's server, for tests."""
