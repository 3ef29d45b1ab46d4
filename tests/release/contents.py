"""Check the files of a wheel and of an sdist, and the links of the README: ``python -m tests.release.contents``."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "ctxbackends"
METADATA_FILES = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")


def tracked_files(root: Path) -> list[str]:
    """Return the files that git tracks."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    return [name for name in listing.decode().split("\0") if name]


def expected_in_wheel(tracked: Iterable[str], version: str) -> set[str]:
    """Return the package and its metadata: no tests, no docs."""
    package = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    return package | {f"{PACKAGE}-{version}.dist-info/{name}" for name in METADATA_FILES}


def expected_in_sdist(tracked: Iterable[str], version: str, included: Iterable[str]) -> set[str]:
    """Return the tracked files below the ``included`` ones of pyproject.toml, and the files that hatchling adds."""
    parts = tuple(included)
    names = {name for name in tracked if name in parts or name.split("/")[0] in parts}
    return {f"{PACKAGE}-{version}/{name}" for name in names | {"PKG-INFO", ".gitignore"}}


def describe_difference(file: str, expected: set[str], actual: Iterable[str]) -> list[str]:
    """Return a line for each file that is missing, additional or in the archive twice."""
    names = list(actual)
    return [
        *(f"{file}: missing: {name}" for name in sorted(expected - {*names})),
        *(f"{file}: not expected: {name}" for name in sorted({*names} - expected)),
        *(f"{file}: twice: {name}" for name in sorted({name for name in names if names.count(name) > 1})),
    ]


def relative_links(html: str) -> list[str]:
    """Return the targets of links and pictures that lead nowhere on PyPI, where only the headings' own anchors work."""
    targets = re.findall(r'(?:href|src|srcset)="([^"]*)"', html)
    anchors = {f"#{anchor}" for anchor in re.findall(r'id="([^"]*)"', html)}
    return [target for target in targets if not target.startswith(("https://", "mailto:")) and target not in anchors]


def check(root: Path, wheel: Path, sdist: Path) -> list[str]:
    """Return the problems of a wheel and an sdist of the checkout in ``root``."""
    from readme_renderer import markdown  # noqa: PLC0415  # of the group `release`

    version = wheel.name.split("-")[1]
    tracked = tracked_files(root)
    hatch = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    included = hatch["build"]["targets"]["sdist"]["only-include"]
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
        metadata = archive.read(f"{PACKAGE}-{version}.dist-info/METADATA").decode()
    with tarfile.open(sdist) as archive_of_sources:
        in_sdist = [member.name for member in archive_of_sources if not member.isdir()]
    html = markdown.render(metadata.partition("\n\n")[2])  # the README is the body of the metadata
    if html is None:
        return ["README.md: cannot be rendered"]
    return [
        *describe_difference(wheel.name, expected_in_wheel(tracked, version), in_wheel),
        *describe_difference(sdist.name, expected_in_sdist(tracked, version, included), in_sdist),
        *(f"README.md: not absolute on PyPI: {target}" for target in relative_links(html)),
    ]


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(__file__).resolve().parents[2], *map(Path, sys.argv[1:]))) or None)
