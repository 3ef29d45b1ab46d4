"""Text that may be JSON."""

import json
from typing import Any


def json_or_text(text: str) -> Any:
    """Return the value of a JSON text, and any other text unchanged."""
    try:
        return json.loads(text)
    except ValueError:
        return text
