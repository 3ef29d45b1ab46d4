from __future__ import annotations

from pathlib import Path

import pytest

from ctxbackends.knowledge._proposals.existing import ExistingEntries
from ctxbackends.knowledge._records import Decision, Evidence, Row

EVIDENCE = (Evidence(source="a.md", quote="words that stand there", first=1, last=1),)

FILES = {
    "DECISIONS.md": """\
# Decisions

| Date | Decision |
|------|----------|
| 2026-02-26 | Index entries count |

## [2026-02-26-100000] Use YAML for the configuration

**Context**: Nobody edits JSON.

## [2026-02-27] Errors name the line ##

**Rationale**: It helps.

```
## Not an entry
```
""",
    "TASKS.md": """\
# Tasks

## In Progress
- [ ] Write the reader #priority:high #session:abc #branch:main #added:2026-02-26
- [x] Ship it — Completed 2026-02-27
  - a detail of it
""",
    "GLOSSARY.md": "# Glossary\r\n\r\n### Ralph Loop\r\n- **ADR**: a record of a decision\r\n",
}


def row(title: str) -> Row:
    return Row(record=Decision(title, "", "", ""), evidence=EVIDENCE)


@pytest.fixture
def entries(tmp_path: Path) -> ExistingEntries:
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "OTHER.md").write_text("## Somewhere else\n")
    return ExistingEntries.read(tmp_path)


@pytest.mark.parametrize(
    ("title", "location"),
    [
        ("Use YAML for the configuration", "DECISIONS.md:7"),
        ("use yaml, for the configuration!", "DECISIONS.md:7"),
        ("Errors name the line", "DECISIONS.md:11"),
        ("Index entries count", "DECISIONS.md:5"),
        ("Write the reader", "TASKS.md:4"),
        ("Ship it", "TASKS.md:5"),
        ("Ralph loop", "GLOSSARY.md:3"),
        ("ADR", "GLOSSARY.md:4"),
        ("Not an entry", None),
        ("Context", None),
        ("In progress", None),
        ("Decisions", None),
        ("Somewhere else", None),
        ("Use TOML for the configuration", None),
    ],
)
def test_find(entries: ExistingEntries, title: str, location: str | None) -> None:
    assert location == entries.find(row(title))


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "BROKEN.md").write_bytes(b"\xff")
    (tmp_path / "GOOD.md").write_text("## Use YAML\n")
    entries = ExistingEntries.read(tmp_path)
    assert [f"{tmp_path.name}/BROKEN.md: not searched for duplicates: is not UTF-8"] == [
        str(item) for item in entries.skipped
    ]
    assert "GOOD.md:1" == entries.find(row("Use YAML"))


def test_no_directory_and_no_file(tmp_path: Path) -> None:
    assert ExistingEntries.read(tmp_path).find(row("x")) is None
    assert ExistingEntries().find(row("x")) is None
