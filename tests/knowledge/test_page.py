"""The HTML page of a proposal: each quote at its own span, nothing from outside, and all text inert."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._util.text import escape_for_review, one_line
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.page import LINES, render_page
from ctxbackends.knowledge._proposals.passages import Passages
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import Decision, Evidence, QuarantinedRow, Row, Task
from ctxbackends.knowledge._sources.base import SkippedInput
from tests.knowledge.commands import ctx, project
from tests.knowledge.review_project import SECRET, build, cite, write_project
from tests.terminals import terminal

VOID = frozenset({"meta", "input", "br", "link", "img"})


@attrs.define
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = attrs.field(factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """The elements below this one with a tag and attributes, in their order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                is_match = tag in ("", child.tag) and attributes.items() <= child.attributes.items()
                found += [*([child] if is_match else []), *child.all(tag, **attributes)]
        return found

    def one(self, tag: str = "", **attributes: str) -> Element:
        (element,) = self.all(tag, **attributes)
        return element


class Parser(HTMLParser):
    """Builds the tree of a page, and refuses tags that are not closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop().tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    parser = Parser()
    parser.feed(page)
    parser.close()
    (root,) = parser.open
    return root


def render(path: Path, **options: bool) -> Element:
    review = Review(path)
    passages = Passages(review.proposal, lines=LINES, roots=(path.parent.parent.parent,))
    return parse(render_page(review, review.rows(), passages, **options))


def save(directory: Path, proposal: Proposal) -> Path:
    (directory / ".context" / "proposals").mkdir(parents=True, exist_ok=True)
    return write_proposal(directory / ".context" / "proposals", proposal)


def marked(element: Element) -> str:
    """The words that are marked, with single spaces."""
    return " ".join(" ".join(mark.text for mark in element.all("mark")).split())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def test_each_quote_is_marked_at_its_own_span(path: Path) -> None:
    review, page = Review(path), render(path)
    for name, row in review.rows().items():
        article = page.one("article", id=name)
        figures = article.all("figure")
        assert len(row.evidence) == len(figures)
        for evidence, figure in zip(row.evidence, figures, strict=True):
            assert figure.one("figcaption").text.startswith(evidence.where)
            assert evidence.quote == marked(figure)
            lines = [line for line in figure.all("div", **{"class": "line"}) if line.all("mark")]
            numbers = [number for line in lines if (number := line.one("span").text)]
            assert [str(number) for number in range(evidence.first, evidence.last + 1)] == numbers
    folded = page.one("article", id="d1").all("figcaption")[0].text
    assert "plan.md:6-7, matched after folding" == folded
    assert "user" in page.one("article", id="t1").all("div", **{"class": "speaker"})[-1].text


def test_decisions_fields_and_quarantined_rows(path: Path) -> None:
    review = Review(path)
    review.accept(["d1"])
    review.reject(["t1"], reason="not <now>")
    review.edit("l1", {"lesson": "It is broken."})
    review.reject(["x2"])
    page = render(path)
    states = {row.attributes["id"]: row.attributes["data-state"] for row in page.all("article")}
    assert {
        "d1": "accepted",
        "l1": "undecided",
        "t1": "rejected",
        "q1": "undecided",
        "x1": "quarantined",
        "x2": "rejected",
    } == states
    assert "rejected: not <now>" in page.one("article", id="t1").one("h3").text
    row = page.one("article", id="l1")
    texts = [(term.text, value.text) for term, value in zip(row.all("dt"), row.all("dd"), strict=True)]
    assert [
        ("context", "(empty)"),
        ("lesson", "It is broken."),
        ("lesson before the edit", "It said hot."),
        ("application", "(empty)"),
        ("already in", "LEARNINGS.md:7"),
    ] == texts
    quarantined = page.one("article", id="x1")
    assert "its quote is not in the source" in quarantined.text
    assert "The door is always shut." == quarantined.one("blockquote").text
    assert "The door stays shut." in quarantined.text
    assert "1 accepted, 1 rejected, 2 undecided, 2 quarantined" in page.one("header").text
    assert "(no title)" in page.one("article", id="x2").one("h3").text


def test_a_row_that_was_quarantined_is_with_its_kind(path: Path) -> None:
    Review(path).requote("x1", "The door stays shut.", path=path.parent.parent.parent / "plan.md")
    page = render(path)
    assert ["d1", "x1"] == [one.attributes["id"] for one in page.all("section")[0].all("article")]
    assert "The door stays shut." == marked(page.one("article", id="x1"))
    assert ["x2"] == [one.attributes["id"] for one in page.all("section")[-1].all("article")]


def test_input_that_was_not_read(tmp_path: Path) -> None:
    skipped = (SkippedInput(source="<b>.md", reason="is empty"), SkippedInput(source="s.jsonl", reason="x", line=4))
    page = render(save(tmp_path, msgspec.structs.replace(build(tmp_path, [], []), skipped=skipped)))
    assert ["<b>.md: is empty", "s.jsonl:4: x"] == [one.text for one in page.one("main").all("li")]


def test_nothing_comes_from_outside(path: Path) -> None:
    page = render(path)
    assert [] == page.all("link") + page.all("img") + page.all("iframe") + page.all("object") + page.all("base")
    for element in page.all():
        assert not {"src", "srcset", "style", "action", "background"} & {*element.attributes}
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.attributes.get("href", "#").startswith("#")
    style, script = page.one("style").text, page.one("script").text
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert not re.search(r"fetch|XMLHttp|import|https?:|innerHTML|eval", script)
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script)]
    assert (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    ) == policy


def test_the_page_has_landmarks_names_and_targets(path: Path) -> None:
    page = render(path)
    assert "en" == page.one("html").attributes["lang"]
    for tag in ("header", "nav", "main", "footer", "h1", "title"):
        assert page.one(tag).text.strip()
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    targets = [element.attributes["href"][1:] for element in page.all("a")]
    labels = [element.attributes["aria-labelledby"] for element in [*page.all("section"), *page.all("article")]]
    assert {*targets, *labels} <= {*ids}
    form = page.one("form")
    assert "hidden" in form.attributes  # the script shows it
    assert len(form.all("input") + form.all("select")) == len(form.all("label"))


PAYLOADS = (
    "</code></mark><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)> ' onfocus=alert(1)",
    "</style></script><!-- ]]> &lt;b&gt; <svg/onload=alert(1)>",
    "{{7*7}} \u202egnp.exe javascript:alert(1)",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_others_is_inert(tmp_path: Path, payload: str) -> None:
    name = "a <i> \" & ' b.md"
    (tmp_path / name).write_text(f"Before {payload} it.\n\nWe say {payload} to all.\n\nAfter {payload} it.\n")
    evidence = cite(tmp_path, name, f"We say {payload} to all.")
    gone = Evidence(source=f"{payload}.md", quote=payload, first=1, last=1, timestamp=payload)
    row = Row(record=Decision(payload, payload, payload, payload), evidence=(evidence, gone), known_at=payload)
    quarantined = QuarantinedRow(record=Task(payload, "low"), reason=payload, quote=payload, where=f"{name}:1-5")
    proposal = build(tmp_path, [name], [row], [quarantined])
    facts = msgspec.structs.replace(proposal.facts, served_model=payload, backend_type=payload, created=payload)
    skipped = (SkippedInput(source=payload, reason=payload),)
    path = save(tmp_path, msgspec.structs.replace(proposal, facts=facts, skipped=skipped))
    review = Review(path)
    review.reject(["d1"], reason=payload)
    page = render(path)
    assert 1 == len(page.all("script"))
    assert [] == page.all("img") + page.all("svg") + page.all("i") + page.all("b")
    assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]
    expected = escape_for_review(one_line(payload))
    article = page.one("article", id="d1")
    assert expected in article.one("h3").text
    assert [escape_for_review(evidence.quote), expected] == [marked(figure) for figure in article.all("figure")]
    assert name in article.one("figure").text if len(article.all("figure")) == 1 else name in article.text
    assert [expected] * 3 == [value.text for value in article.all("dd")][:3]
    assert "\u202e" not in page.text


@given(st.text(min_size=1), st.text(), st.text())
def test_any_text_is_shown_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, title: str, field: str, quote: str
) -> None:
    directory = tmp_path_factory.mktemp("page")
    values = [one_line(value) for value in (title, field, f"q {quote}")]
    evidence = Evidence(source="gone.md", quote=values[2], first=1, last=1)
    row = Row(record=Decision(values[0], values[1], "", ""), evidence=(evidence,))
    page = render(save(directory, build(directory, [], [row])))
    article = page.one("article")
    assert escape_for_review(values[2]) == article.one("mark").text
    assert (escape_for_review(values[1]) or "(empty)") == article.all("dd")[0].text


def test_secrets_stay_masked(path: Path) -> None:
    page = render(path)
    assert SECRET not in page.text
    assert "password=[masked] opens it" in page.text


def test_missing_and_changed_sources(path: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("Secret plans\n")
    (tmp_path / "s.jsonl").unlink()
    page = render(path)
    first, second = page.one("article", id="d1").all("figure")
    assert "Source: changed since the run." == first.one("p").text
    assert "Source: not found." == second.one("p").text
    assert ["Take the pump"] == [mark.text for mark in second.all("mark")]
    assert "Secret plans" not in page.text


def test_long_passages_are_folded(tmp_path: Path) -> None:
    lines = [f"Line {number} of the text." for number in range(1, 101)]
    (tmp_path / "long.txt").write_text("\n".join(lines))
    short = cite(tmp_path, "long.txt", "Line 50 of the text.")
    long = cite(tmp_path, "long.txt", " ".join(lines[9:49]))
    top = cite(tmp_path, "long.txt", "Line 1 of the text.")
    rows = [Row(record=Task(f"t{number}", "low"), evidence=(one,)) for number, one in enumerate((short, long, top))]
    page = render(save(tmp_path, build(tmp_path, ["long.txt"], rows)))
    summaries = [[one.text for one in article.all("summary")] for article in page.all("article")]
    assert [
        ["9 lines before", "9 lines after"],
        ["6 lines before", "46 lines with the quote", "9 lines after"],
        ["9 lines after"],
    ] == summaries
    assert long.quote == marked(page.all("article")[1])


# --- the command ----------------------------------------------------------------------------------------


def test_to_standard_output_and_to_a_file(path: Path, tmp_path: Path) -> None:
    result = ctx(tmp_path, "proposals", "show", "--html")
    assert (0, "") == (result.code, result.err)
    assert 6 == len(parse(result.out).all("article"))
    written = ctx(tmp_path, "proposals", "show", "--html", "-o", "page.html")
    assert (0, "page.html\n") == (written.code, written.out)
    assert result.out == (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_file_is_not_overwritten(path: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    refused = ctx(tmp_path, "proposals", "show", "--html", "-o", "page.html")
    assert (1, "mine") == (refused.code, (tmp_path / "page.html").read_text())
    assert "file exists with other content: page.html; use --force to replace it" in refused.err
    assert 0 == ctx(tmp_path, "proposals", "show", "--html", "-o", "page.html", "--force").code
    assert "<!doctype html>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    inside = ctx(tmp_path, "proposals", "show", "--html", "-o", ".context/page.html")
    assert (1, False) == (inside.code, (tmp_path / ".context" / "page.html").exists())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--html", "--json"], "--json and --html are mutually exclusive"),
        (["-o", "x.html"], "-o requires --html"),
        (["d9", "--html"], "has no row 'd9'"),
    ],
)
def test_arguments_that_do_not_fit(path: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    result = ctx(tmp_path, "proposals", "show", *arguments)
    assert 0 != result.code
    assert words in result.err
    assert "" == result.out


def test_some_rows(path: Path, tmp_path: Path) -> None:
    page = parse(ctx(tmp_path, "proposals", "show", "latest", "t1", "--html").out)
    assert ["t1"] == [one.attributes["id"] for one in page.all("article")]
    page = parse(ctx(tmp_path, "proposals", "show", "t1", "--html", "--quarantined").out)
    assert ["t1", "x1", "x2"] == [one.attributes["id"] for one in page.all("article")]


def test_files_that_match_privacy_redact_are_not_shown(path: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("privacy:\n  redact:\n    - 'plan.*'\n")
    page = parse(ctx(tmp_path, "proposals", "show", "--html").out)
    first, second = page.one("article", id="d1").all("figure")
    assert "Source: not shown, since it matches privacy.redact of .ctxrc." == first.one("p").text
    assert "The pumps run **at night**, when power is cheap." == marked(first)
    assert "Rain fell" not in page.text
    assert "opens it" not in page.text
    assert "I would take the pump" in second.text


def test_a_malformed_ctxrc_shows_nothing(path: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("privacy:\n  redact: [1, {}]\n")
    result = ctx(tmp_path, "proposals", "show", "--html")
    assert (1, "") == (result.code, result.out)


def test_a_source_is_found_from_a_subdirectory(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    page = parse(ctx(tmp_path / "sub", "proposals", "show", "--html").out)
    assert "Rain fell" in page.text


@pytest.mark.posix
def test_a_terminal_gets_no_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with terminal("proposals", "show", "--html", columns=200) as screen:
        assert 2 == screen.end()
    assert "standard output is a terminal; write the page to a file with -o FILE" in screen.raw


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_runs_the_filter_and_nothing_else(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    project(tmp_path, None)
    payload = "<script>document.title = 'changed'</script><img src=x onerror=\"document.title = 'changed'\">"
    (tmp_path / "a.md").write_text(f"We say {payload} to all.\n")
    row = Row(record=Decision(payload, payload, "", ""), evidence=(cite(tmp_path, "a.md", f"We say {payload}"),))
    save(tmp_path, build(tmp_path, ["a.md"], [row]))
    assert 0 == ctx(tmp_path, "proposals", "show", "--html", "-o", "page.html").code
    dom = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--dump-dom", (tmp_path / "page.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    page = parse(dom.replace("<!DOCTYPE html>", ""))
    assert "1 row from a.md" == page.one("title").text
    assert "hidden" not in page.one("form").attributes
    assert f"We say {payload}" == page.one("article").all("mark")[0].text
