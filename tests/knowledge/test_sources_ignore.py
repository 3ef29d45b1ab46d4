"""The files that ``.gitignore`` leaves out are those that git leaves out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.find import find_sources

GIT = shutil.which("git")
FILES = ("a.md", "b.md", "docs/a.md", "docs/b.md", "docs/deep/a.md", "docs/deep/c.md", "build/a.md", "build/deep/b.md")
PATTERNS = (
    *(
        "a.md",
        "*.md",
        "/a.md",
        "docs",
        "docs/",
        "/docs/*",
        "docs/**",
        "**/deep",
        "deep/*.md",
        "build/",
        "# comment",
        "",
    ),
    *("!a.md", "!docs/", "!docs/deep", "!*.md", "!/docs/a.md", "[ab].md", "?.md", "docs/deep/c.md", "\\!x", "b.md "),
)
rules = st.lists(st.sampled_from(PATTERNS), max_size=4)


def find(root: Path, argument: str) -> set[str]:
    try:
        return {source.name for source in find_sources([argument], base=root).sources}
    except SourceError:
        return set()


@pytest.mark.skipif(GIT is None, reason="needs git")
@settings(max_examples=40, deadline=None)
@given(rules, rules, rules)
@example(["build/"], [], ["!a.md"])
@example(["docs/*"], ["!a.md"], [])
@example(["*.md"], ["!*.md"], ["!a.md"])
@example(["docs/**"], ["!a.md"], [])
def test_git_agrees(top: list[str], docs: list[str], build: list[str]) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        for name in FILES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("Text.\n")
        for folder, lines in (("", top), ("docs", docs), ("build", build)):
            (root / folder / ".gitignore").write_text("\n".join(lines) + "\n")
        assert GIT is not None
        subprocess.run([GIT, "init", "-q", directory], check=True)
        command = [GIT, "-C", directory, "-c", "core.excludesFile=", "ls-files", "-o", "--exclude-standard", "*.md"]
        expected = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())
        assert expected == find(root, ".")
        assert expected == find(root, "**/*.md")
