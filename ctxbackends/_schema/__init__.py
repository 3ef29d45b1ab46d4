"""JSON Schema: from a Python type, in the form that servers accept, and back to a value."""
