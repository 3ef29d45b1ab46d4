"""Checks of the documentation as it is built: its links, and its pages in a real browser."""
