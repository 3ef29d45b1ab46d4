"""Helpers without a subject of their own: secrets, redaction, text, files."""
