"""Look at the built documentation in Chromium: ``python -m tests.built_docs.browser DIR``.

No page may be wider than the window, no table may break inside a word, and the search must work without a server.
``--screenshots DIR --pages PAGE...`` saves pictures of pages instead, light and dark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.built_docs import find_browser
from tests.built_docs.chromium import Tab, open_tab

WIDTHS = (1440, 390)  # px: a laptop, and a phone
LAYOUT = Path(__file__).with_name("layout.js").read_text("utf-8")
# What somebody types, and the page that must be among the first five results.
SEARCHES = {
    "cold start": "guides/cold-start.html",
    "FaultServer": "guides/fault-server.html",
    "RateLimitError": "reference/errors.html",
}
# Focus the field for the search in the sidebar.
FOCUS = "document.querySelector('input[name=q]').focus()"
# Sphinx says so in the summary when the last result is there.
RESULTS = """
new Promise((resolve, reject) => {
  const started = Date.now();
  const look = () => {
    const links = [...document.querySelectorAll("#search-results ul.search a")].map((link) => link.href);
    const summary = document.querySelector("#search-results .search-summary")?.textContent ?? "";
    if (/found|did not match/.test(summary)) resolve(links);
    else if (Date.now() - started > 60000) reject(new Error("the search does not end"));
    else setTimeout(look, 50);
  };
  look();
})
"""


def list_pages(directory: Path) -> list[Path]:
    pages = sorted(directory.rglob("*.html"))
    return [page for page in pages if "_static" not in page.relative_to(directory).parts]


async def check_layout(tab: Tab, directory: Path) -> list[str]:
    """Return the problems of all pages at each width."""
    problems = []
    for page in list_pages(directory):
        await tab.open(page.as_uri())
        for width in WIDTHS:
            await tab.resize(width)
            name = f"{page.relative_to(directory).as_posix()} at {width} px"
            problems += [f"{name}: {problem}" for problem in await tab.evaluate(LAYOUT)]
    return problems


async def check_search(tab: Tab, directory: Path) -> list[str]:
    """Return the searches in the sidebar that do not find their page."""
    problems = []
    await tab.resize(WIDTHS[0])
    for text, expected in SEARCHES.items():
        await tab.open((directory / "index.html").as_uri())
        await tab.evaluate(FOCUS)
        await tab.send("Input.insertText", text=text)
        await tab.press_enter()
        links = [link.partition("#")[0] for link in await tab.evaluate(RESULTS)]
        if (directory / expected).as_uri() not in list(dict.fromkeys(link.partition("?")[0] for link in links))[:5]:
            problems.append(f"search for {json.dumps(text)}: {expected} is not among the first five results: {links}")
    return problems


async def check(program: str, directory: Path) -> list[str]:
    async with open_tab(program) as tab:
        return [*await check_layout(tab, directory), *await check_search(tab, directory)]


async def save_screenshots(program: str, directory: Path, target: Path, pages: Sequence[str]) -> None:
    async with open_tab(program) as tab:
        for name in pages:
            for scheme in ("light", "dark"):
                await tab.set_color_scheme(scheme)
                for width in WIDTHS:
                    await tab.resize(width, 1000)
                    await tab.open(f"{directory.as_uri()}/{name}")  # a name may have an anchor
                    file = re.sub(r"\.html#?|/", "-", name).strip("-")
                    (target / f"{file}-{scheme}-{width}.png").write_bytes(await tab.screenshot())


def main() -> str | None:
    parser = argparse.ArgumentParser(prog="python -m tests.built_docs.browser")
    parser.add_argument("directory", type=Path, help="the built documentation")
    parser.add_argument(
        "--screenshots", type=Path, metavar="DIR", help="save pictures of pages here, and check nothing"
    )
    parser.add_argument(
        "--pages",
        nargs="+",
        default=["index.html"],
        metavar="PAGE",
        help="the pages of --screenshots, such as guides/streaming.html",
    )
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    if not (directory / "index.html").exists():
        return f"no documentation found: {arguments.directory}; build it with nox -s docs"
    program = find_browser()
    if program is None:
        return "no browser found; install Chromium or Chrome"
    if arguments.screenshots is not None:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
        asyncio.run(save_screenshots(program, directory, arguments.screenshots, arguments.pages))
        return None
    problems = asyncio.run(check(program, directory))
    print(f"{len(list_pages(directory))} pages checked at {' and '.join(map(str, WIDTHS))} px")
    return "\n".join(problems) or None


if __name__ == "__main__":
    sys.exit(main())
