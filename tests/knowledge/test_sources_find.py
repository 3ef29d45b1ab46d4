from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.documents.pdf import PDFSource
from ctxbackends.knowledge._sources.find import find_sources
from ctxbackends.knowledge._sources.formats import source_of
from ctxbackends.knowledge._sources.text import TextSource
from ctxbackends.knowledge._sources.transcripts import TranscriptSource
from tests.knowledge.factories import LinesSource


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text of {name}.\n")
    return root


def names(root: Path, *arguments: str) -> list[str]:
    return [source.name for source in find_sources(arguments, base=root).sources]


def skipped_inputs(root: Path, *arguments: str) -> list[str]:
    return [str(item) for item in find_sources(arguments, base=root).skipped]


def test_files_in_order_without_duplicates(tmp_path: Path) -> None:
    tree(tmp_path, "b.md", "a.md", "c.py")
    (tmp_path / "link.md").symlink_to("a.md")
    assert ["b.md", "a.md", "c.py"] == names(tmp_path, "b.md", "a.md", "c.py", "./b.md", "link.md")


def test_a_directory(tmp_path: Path) -> None:
    tree(tmp_path, "docs/b.md", "docs/a/x.txt", "docs/README", "docs/code.py", "docs/.hidden.md", "docs/.git/x.md")
    (tmp_path / "docs" / "loop").symlink_to("..")
    (tmp_path / "docs" / "lost.md").symlink_to("nowhere")
    (tmp_path / "docs" / "empty.md").write_text("")
    (tmp_path / "docs" / "binary.txt").write_bytes(b"\0")
    assert ["docs/README", "docs/a/x.txt", "docs/b.md"] == names(tmp_path, "docs")
    assert [
        "docs/binary.txt: is binary (NUL byte at byte 1); only text is supported",
        "docs/empty.md: is empty",
        "docs/loop: is a link to a directory, which is not followed",
        "docs/lost.md: cannot be read: No such file or directory",
        "docs: 1 file hidden (1 .md)",
        "docs: 1 file of unsupported types (1 .py)",
    ] == skipped_inputs(tmp_path, "docs")


def test_globs(tmp_path: Path) -> None:
    tree(tmp_path, "docs/b.md", "docs/a/x.md", "docs/a/y.txt", "notes [1].md")
    assert ["docs/a/x.md", "docs/b.md"] == names(tmp_path, "docs/**/*.md")
    assert ["notes [1].md"] == names(tmp_path, "notes [1].md")
    with pytest.raises(SourceError, match=r"\*\.rst: matches no file"):
        find_sources(["*.rst"], base=tmp_path)


def test_gitignore(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "repo",
        *("docs/a.md", "docs/private/b.md", "docs/build/c.md", "docs/sub/keep.md", "docs/sub/drop.md", "docs/top.md"),
    )
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("build/\n/docs/top.md\n")
    (root / "docs" / ".gitignore").write_text("private\n*.tmp\n")
    (root / "docs" / "sub" / ".gitignore").write_text("*.md\n!keep.md\n")
    (tmp_path / ".gitignore").write_text("a.md\n")  # above the repository: not its business
    expected = ["docs/a.md", "docs/sub/keep.md"]
    assert expected == names(root, "docs")
    assert expected == names(root, "docs/**/*.md")
    assert expected == names(root / "docs", "../docs") or expected == [
        name.replace("../", "") for name in names(root, "docs")
    ]
    # Who names a file means it.
    assert ["docs/private/b.md"] == names(root, "docs/private/b.md")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pathspec", None)
    tree(tmp_path, "docs/a.md")
    assert ["docs/a.md"] == names(tmp_path, "docs")
    (tmp_path / "docs" / ".gitignore").write_text("x\n")
    with pytest.raises(
        SourceError, match=r"cannot be applied without pathspec; run pip install 'ctxbackends\[documents\]'"
    ):
        find_sources(["docs"], base=tmp_path)


def test_a_missing_library_skips_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    tree(tmp_path, "docs/a.md", "docs/b.pdf", "docs/c.pdf")
    assert ["docs/a.md"] == names(tmp_path, "docs")
    reason = "2 files that cannot be read without pypdf; run pip install 'ctxbackends[documents]' (2 .pdf)"
    assert [f"docs: {reason}"] == skipped_inputs(tmp_path, "docs")
    with pytest.raises(SourceError, match=r"docs/b\.pdf: cannot be read without pypdf"):
        find_sources(["docs/b.pdf"], base=tmp_path).sources[0].prepare()


def test_nothing_to_read(tmp_path: Path) -> None:
    tree(tmp_path, "docs/code.py")
    with pytest.raises(SourceError, match="docs: has no file that can be read"):
        find_sources(["docs"], base=tmp_path)


def test_names_of_files_outside_and_with_control_characters(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.md", "out.md")
    strange = bytes(tmp_path / "in") + b"/b\xff\n\x1b.md"
    Path(sys.getfilesystemencoding() and strange.decode("utf-8", "surrogateescape")).write_text("text\n", "utf-8")
    sources = find_sources(["../out.md", "."], base=tmp_path / "in").sources
    assert [str(tmp_path / "out.md"), "a.md", "b\\udcff\\n\\x1b.md"] == [source.name for source in sources]
    assert all(source.prepare().size for source in sources)


def test_source_objects_are_kept(tmp_path: Path) -> None:
    tree(tmp_path, "a.md")
    source = LinesSource("text", name="mine")
    assert ["mine", "a.md"] == [item.name for item in find_sources([source, "a.md"], base=tmp_path).sources]


def test_source_of() -> None:
    kinds: dict[str, object] = {"a.MD": TextSource, "a": TextSource, "a.jsonl": TranscriptSource, "a.PDF": PDFSource}
    assert kinds == {name: type(source_of(Path(name))) for name in kinds}


def test_a_broken_file_does_not_end_a_directory(tmp_path: Path) -> None:
    root = tree(tmp_path, "documents/a.md", "documents/z.md")
    (root / "documents" / "old.txt").write_bytes("Größe\n".encode("latin-1"))
    (root / "documents" / "cut.docx").write_bytes(b"PK\x03\x04 cut")
    (root / "documents" / "scan.pdf").write_bytes(b"%PDF-1.4\n")
    (root / "documents" / "image.md").write_bytes(b"\x89PNG\r\n")
    assert ["documents/a.md", "documents/z.md"] == names(root, "documents")
    reasons = skipped_inputs(root, "documents")
    assert (
        "documents/old.txt:1: is not UTF-8 (byte 3); convert it, for example with iconv -f LATIN1 -t UTF-8" in reasons
    )
    assert "documents/image.md: is not supported: it is a PNG image" in reasons
    assert ["documents/cut.docx", "documents/image.md", "documents/old.txt", "documents/scan.pdf"] == [
        reason.partition(":")[0] for reason in reasons
    ]


def test_skipped_files_are_counted_by_reason_and_suffix(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "repo",
        *("docs/a.md", "docs/b.py", "docs/c.PY", "docs/Makefile", "docs/.h.md", "docs/.h/x.rst", "docs/.h/y.md"),
        *("docs/drafts/d.md", "docs/drafts/e.png", "docs/node_modules/x.md", "docs/old/f.md"),
    )
    (root / ".gitignore").write_text("drafts/\n")
    (root / ".git").mkdir()
    result = find_sources(["docs"], base=root, exclude=["old"])
    assert [
        "docs: 3 files hidden (2 .md, 1 .rst)",
        "docs: 3 files of unsupported types (2 .py, 1 without suffix)",
        "docs: 1 file ignored by .gitignore (1 .md)",
        "docs: 1 file excluded (1 .md)",
    ] == [str(item) for item in result.skipped]


def test_many_suffixes_are_summed_up(tmp_path: Path) -> None:
    tree(tmp_path, "a.md", "b.x0", *(f"b{number}.x{number}" for number in range(15)))
    (reason,) = skipped_inputs(tmp_path, ".")
    assert reason.startswith(".: 16 files of unsupported types (2 .x0, 1 .x1, ")
    assert reason.endswith(", 3 of 3 other types)")


def test_a_glob_respects_gitignore_where_it_lies_outside_a_repository(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/x.md", "a/drafts/y.md", "a/b/z.md", "a/b/deep/w.md", ".h/v.md", "a/.i.md")
    (root / "a" / ".gitignore").write_text("drafts/\n")
    (root / "a" / "b" / ".gitignore").write_text("deep\n")
    assert ["a/b/z.md", "a/x.md"] == names(root, "**/*.md")
    assert ["a/b/z.md", "a/x.md"] == names(root, "a/*.md", "a/*/*.md", "a/b/*/*.md")[::-1]
    assert [
        "**/*.md: 2 files hidden (2 .md)",
        "**/*.md: 2 files ignored by .gitignore (2 .md)",
    ] == skipped_inputs(root, "**/*.md")
    assert ["a/.i.md"] == names(root, "a/.*.md")
    (root / ".gitignore").write_text("x.md\n")
    assert ["a/b/z.md"] == names(root, "a") == names(root, "a/**/*.md")


def test_a_glob_that_ends_with_a_suffix_reads_that_type(tmp_path: Path) -> None:
    tree(tmp_path, "a.adoc", "b.py", "c.md", "d.tex")
    assert ["a.adoc"] == names(tmp_path, "*.adoc")
    assert ["b.py"] == names(tmp_path, "*.py")
    assert ["a.adoc", "c.md"] == names(tmp_path, "*")
    assert ["*: 2 files of unsupported types (1 .py, 1 .tex)"] == skipped_inputs(tmp_path, "*")


def test_include_and_exclude(tmp_path: Path) -> None:
    root = tree(tmp_path, "docs/a.md", "docs/b.py", "docs/old/c.md", "docs/old/deep/d.md", "docs/e.rst")

    def find(*arguments: str, **globs: list[str]) -> list[str]:
        return [source.name for source in find_sources(arguments, base=root, **globs).sources]

    assert ["docs/a.md", "docs/e.rst"] == find("docs", exclude=["docs/old/**"])
    assert ["docs/a.md", "docs/e.rst"] == find("docs", exclude=["./docs/old/"])
    assert ["docs/a.md", "docs/e.rst", "docs/old/deep/d.md"] == find("docs", exclude=["docs/old/*.md"])
    assert ["docs/a.md", "docs/e.rst", "docs/old/c.md"] == find("docs/**", exclude=["**/deep"])
    assert ["docs/e.rst"] == find("docs", exclude=["?.md"])
    assert ["docs/a.md"] == find("docs/a.md", "docs/e.rst", exclude=["*.rst"])
    assert ["docs/e.rst"] == find("docs", include=["[!a-d].*"])
    assert ["docs/b.py"] == find("docs", include=["*.py"])
    assert ["docs/old/c.md", "docs/old/deep/d.md"] == find("docs", include=["docs/old"])
    with pytest.raises(SourceError, match=r"docs: has no file that can be read: 5 files not included"):
        find("docs", include=["*.tex"])


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "docs/a.md", "docs/secret/b.md")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert ["docs/secret: cannot be read: Permission denied"] == skipped_inputs(root, "docs")
    with pytest.raises(SourceError, match=r"docs/secret: cannot be read: Permission denied"):
        find_sources(["docs/secret"], base=root)
