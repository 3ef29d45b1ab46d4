"""Import the modules of docs/_ext that need no Sphinx. They are not a package."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_ext"


def load_extension(name: str) -> Any:
    """Return the module ``name`` of docs/_ext."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXTENSIONS))
        return import_module(name)
