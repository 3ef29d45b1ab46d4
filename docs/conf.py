"""Sphinx. The tables of backend types, wire behaviour and exceptions are made from the code, so they cannot go stale.
Needs no network: intersphinx is off, so names of other packages are not links."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ctxbackends import PROFILES, BackendError, Profile

project = "ctxbackends"
author = "the ctxbackends authors"
copyright = author  # noqa: A001  # Sphinx names it so
version = release = metadata.version("ctxbackends")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "changes"]  # fragments: towncrier puts them into CHANGELOG.md
nitpicky = True
nitpick_ignore_regex = [
    # Not links here, since intersphinx would need a network.
    ("py:.*", r"(aiohttp|anyio|asyncio|collections|contextlib|enum|numpy|os|pathlib|types|typing|weakref)\..*"),
    ("py:.*", r"(Any|Awaitable|Callable|Literal|Mapping|Path|Sequence|TracebackType|Unpack|T|optional)"),
    # Inner values that no page describes.
    ("py:.*", r"ctxbackends\.(wire|transport|retry)\..*"),
    ("py:.*", r"ctxbackends\.structured\.T"),
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"ctxbackends {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_show_sphinx = False


def seconds(value: float | None, *, none: str) -> str:
    return none if value is None else f"{value:g}\N{NO-BREAK SPACE}s"


def code(value: str | None, *, none: str) -> str:
    return none if value is None else f"`{value}`"


def any_object(profile: Profile) -> str:
    if "response_format: json_object" in profile.ignored_options:
        return "refused"
    return "`json_schema`" if profile.json_object_as_schema else "`json_object`"


def connections(profile: Profile) -> dict[str, str]:
    return {
        "type": f"`{profile.type}`",
        "default endpoint": code(profile.default_endpoint, none="none, must be given"),
        "key variable": code(profile.default_key_variable, none="no key is sent"),
        "a refused connection is": "an error at once" if profile.ready_timeout is None else "a cold start",
    }


def times(profile: Profile) -> dict[str, str]:
    return {
        "type": f"`{profile.type}`",
        "connect": seconds(profile.connect_timeout, none="none"),
        "ready": seconds(profile.ready_timeout, none="off"),
        "first token": seconds(profile.first_token_timeout, none="none"),
        "idle": seconds(profile.idle_timeout, none="none"),
        "total": seconds(profile.timeout, none="none"),
    }


def wire(profile: Profile) -> dict[str, str]:
    return {
        "type": f"`{profile.type}`",
        "`complete()` sends": "a stream" if profile.complete_streams else "a plain request",
        "then the connection is": "closed" if profile.close_after_stream else "kept",
        "`max_tokens` goes as": f"`{profile.max_tokens_field}`",
        "any JSON object": any_object(profile),
    }


def refusals(profile: Profile) -> list[str]:
    reasons = [f"- `{profile.type}`, `{option}`: {reason}." for option, reason in profile.ignored_options.items()]
    if profile.max_temperature is not None:
        limit = f"{profile.max_temperature:g}"
        reasons.append(
            f"- `{profile.type}`, `temperature` above {limit}: the server would lower it to {limit} silently."
        )
    if not profile.supports_embeddings:
        reasons.append(f"- `{profile.type}`, `embed()`: the server has no embeddings.")
    return reasons


class ProfileTable(SphinxDirective):
    """One of the tables above, a row for each backend type; or the list of refused options with their reasons."""

    required_arguments = 1
    option_spec = {"name": directives.unchanged}  # noqa: RUF012  # as docutils has it
    tables = {"connections": connections, "times": times, "wire": wire}  # noqa: RUF012  # read only

    def run(self) -> list[nodes.Node]:
        profiles = list(PROFILES.values())
        if self.arguments[0] == "refusals":
            lines = [line for profile in profiles for line in refusals(profile)]
        else:
            rows = [self.tables[self.arguments[0]](profile) for profile in profiles]
            cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
            lines = ["| " + " | ".join(row) + " |" for row in cells]
        return self.parse_text_to_nodes("\n".join(lines))


class ExceptionTree(SphinxDirective):
    """What derives from what."""

    def run(self) -> list[nodes.Node]:
        def lines(kind: type[BaseException], depth: int) -> list[str]:
            below = [line for child in kind.__subclasses__() for line in lines(child, depth + 1)]
            also = " (also a TimeoutError)" if depth and issubclass(kind, TimeoutError) else ""
            return ["    " * depth + kind.__name__ + also, *below]

        text = "\n".join(lines(BackendError, 0))
        return [nodes.literal_block(text, text, language="text")]


def hide_signature(_app: Sphinx, what: str, *_rest: Any) -> tuple[str, str] | None:
    return ("", "") if what == "exception" else None  # nobody but the SDK makes them


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("profiles", ProfileTable)
    app.add_directive("exception-tree", ExceptionTree)
    app.connect("autodoc-process-signature", hide_signature)
    return {"parallel_read_safe": True}
