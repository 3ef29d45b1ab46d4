"""The command batch."""
