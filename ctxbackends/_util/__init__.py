"""Helpers: secrets, API key shapes, text, files."""
