"""Jupyter notebooks: the text of cells, without outputs and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.notebook import NotebookSource

IMAGE = "iVBORw0KGgo" * 400


def notebook(path: Path, *cells: dict[str, Any], **more: Any) -> NotebookSource:
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **more}))
    return NotebookSource(path, name="a.ipynb")


def test_cells(tmp_path: Path) -> None:
    source = notebook(
        tmp_path / "a.ipynb",
        {"cell_type": "markdown", "source": ["# Storage\n", "\n", "We keep SQLite,\n", "it is enough."]},
        {
            "cell_type": "code",
            "source": "import sqlite3\n\nx = 1",
            "outputs": [{"data": {"image/png": IMAGE, "text/plain": ["never"]}}, {"text": "never"}],
        },
        {"cell_type": "markdown", "source": "", "metadata": {}},
        {
            "cell_type": "markdown",
            "source": f"See ![it](data:image/png;base64,{IMAGE}) here.",
            "attachments": {"a.png": {"image/png": IMAGE}},
        },
    )
    source.prepare()
    pieces = list(source.pieces())
    assert [
        (1, "", "# Storage", 2),
        (1, "", "We keep SQLite,\nit is enough.", 0),
        (2, "code", "import sqlite3\n\nx = 1", 1),
        (4, "", "See ![it](data:image/png;base64,[...]) here.", 1),
    ] == [(one.first, one.label, one.text, one.boundary) for one in pieces if isinstance(one, Segment)]
    assert [
        "a.ipynb: 2 outputs of cells left out",
        "a.ipynb: 2 embedded images left out",
    ] == [str(one) for one in pieces if not isinstance(one, Segment)]
    assert "cell" == source.unit


def test_version_3(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [{"cell_type": "code", "input": ["a = 1"]}, {"cell_type": "heading", "source": "Storage"}]
    path.write_text(json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}))
    source = NotebookSource(path)
    source.prepare()
    assert ["a = 1", "Storage"] == [one.text for one in source.pieces() if isinstance(one, Segment)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{broken", "cannot be read as a notebook: it is not valid JSON"),
        ("[]", "cannot be read as a notebook: it has no cells"),
        ('{"cells": []}', "has no text"),
        ('{"cells": [1]}', "has no text: cell 1 cannot be read: it is not a JSON object"),
    ],
)
def test_invalid_notebooks(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(SourceError, match=f"^a: {problem}"):
        NotebookSource(tmp_path / "a.ipynb", name="a").prepare()
