"""The tables of backend types, as directives: the values come from the code, so they cannot go stale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ctxbackends import Profile
from ctxbackends._profiles.builtin import SERVERS
from ctxbackends._profiles.capabilities import build_capabilities
from ctxbackends._profiles.presets import PRESETS, Preset
from ctxbackends._wire.finish_reasons import FINISH_WORDS
from ctxbackends._wire.formats.anthropic_messages import x_api_key
from ctxbackends._wire.options import OPTION_KEYS, OptionSupport, Unsupported

NO = "\N{EN DASH}"
YES = "\N{BLACK CIRCLE}"


def seconds(value: float | None, *, none: str) -> str:
    return none if value is None else f"{value:g}\N{NO-BREAK SPACE}s"


def code(value: str | None, *, none: str) -> str:
    return none if value is None else f"`{value}`"


PAGES = {"openai-compatible": "compatible"}
"""The pages in docs/servers whose names are not those of their types."""
ENFORCEMENT = {
    "grammar": "enforced while the model generates",
    "native": "enforced by the vendor",
    "unverified": "not verified; `extract()` validates the answer",
}


def connections(profile: Profile) -> dict[str, str]:
    return {
        "server": f"[]({PAGES.get(profile.type, profile.type)}.md)",
        "type": f"`{profile.type}`",
        "default endpoint": code(profile.default_endpoint, none="none, must be given"),
    }


def times(profile: Profile) -> dict[str, str]:
    return {
        "type": f"`{profile.type}`",
        "connect": seconds(profile.connect_timeout, none="none"),
        "ready": seconds(profile.ready_timeout, none="off"),
        "first token": seconds(profile.first_token_timeout, none="none"),
        "idle": seconds(profile.idle_timeout, none="none"),
        "idle with tools or a schema": seconds(profile.silent_idle_timeout, none="none"),
        "total": seconds(profile.timeout, none="none"),
    }


def table(rows: list[dict[str, str]]) -> list[str]:
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def describe_support(key: str, support: OptionSupport) -> str:
    if isinstance(support, Unsupported):
        return NO
    is_same_name = support.path in (key, key.partition(":")[0], "messages", "")
    words = [
        "" if is_same_name and support.transform else YES if is_same_name else f"`{support.path}`",
        support.transform.value,
    ]
    words.append(f"up to {support.maximum:g}" if support.maximum is not None else "")
    return " ".join(word for word in words if word)


class ProfileTable(SphinxDirective):
    """One of the tables above, a row for each backend type."""

    required_arguments = 1
    option_spec = {"name": directives.unchanged}  # noqa: RUF012  # as docutils has it
    tables = {"connections": connections, "times": times}  # noqa: RUF012  # read only

    def run(self) -> list[nodes.Node]:
        rows = [self.tables[self.arguments[0]](profile) for profile in SERVERS.values()]
        return self.parse_text_to_nodes("\n".join(table(rows)))


class ServerTable(SphinxDirective):
    """The properties of one backend type, with a row for each."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = self.rows(SERVERS[self.arguments[0]])
        return self.parse_text_to_nodes("\n".join(table([{"": name, " ": value} for name, value in rows.items()])))

    def rows(self, profile: Profile) -> dict[str, str]:
        first, *others = [f"`{name}`" for name in profile.wire_apis]
        operations = ("embed", "count_tokens", "load", "unload")
        supported = ["status", "models", *(name for name in operations if getattr(profile, name))]
        header = "x-api-key" if profile.auth is x_api_key else "Authorization: Bearer"
        wait = f"is a cold start, for up to {seconds(profile.ready_timeout, none='')}"
        limits = "reported by the server" if profile.slots else "not reported; set `max_concurrency`"
        return {
            "`type`": f"`{profile.type}`",
            "`endpoint`": code(profile.default_endpoint, none="none, must be given"),
            "API key": f"{code(profile.default_key_variable, none='none by default')}, sent as `{header}`",
            "`wire_api`": f"{first}; also {', '.join(others)}" if others else first,
            "a refused connection": "is an error at once" if profile.ready_timeout is None else wait,
            "`complete()`": f"sends a {'stream' if profile.complete_streams else 'plain request'}",
            "timeout of a request": seconds(profile.timeout, none="none; each phase has its own"),
            "schemas": ENFORCEMENT[profile.schema_enforcement],
            "another model in the answer": "is an error" if profile.model_mismatch == "error" else "is a warning",
            "requests at once": limits,
            "other operations": ", ".join(f"`{name}`" for name in supported),
        }


class FinishReasons(SphinxDirective):
    """The finish reasons, and the words of servers that mean them."""

    def run(self) -> list[nodes.Node]:
        words: dict[str, list[str]] = {}
        for word, reason in FINISH_WORDS.items():
            words.setdefault(reason, []).append(f"`{word}`")
        rows = [{"`finish_reason`": f"`{reason}`", "words of servers": ", ".join(ws)} for reason, ws in words.items()]
        return self.parse_text_to_nodes("\n".join(table(rows)))


def describe_differences(preset: Preset) -> Iterator[str]:
    """Describe how the requests differ from those to `openai-compatible`."""
    if preset.key_header:
        yield "the key is sent as `api-key`"
    if preset.omit:
        yield f"without {', '.join(f'`{name}`' for name in preset.omit)}"
    for name, other in preset.rename.items():
        yield f"`{name}` is sent as `{other}`"
    if preset.json_mode:
        yield "a schema is sent as JSON mode, and described in the prompt"


class PresetsList(SphinxDirective):
    """The presets of vendors, or of servers that you run: the API, the key, the differences, and the sources."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        presets = [preset for preset in PRESETS.values() if preset.loads == (self.arguments[0] == "servers")]
        return self.parse_text_to_nodes("\n\n".join(self.describe(preset) for preset in presets))

    def describe(self, preset: Preset) -> str:
        path = preset.api_path.rstrip("/")
        sentences = [
            f"{preset.label}, at `{preset.endpoint}{path}`"
            if preset.endpoint
            else f"{preset.label}, at your `endpoint` and `{path}`",
            f"key in `{preset.key_variable}`" if preset.key_variable else "no key is sent",
            *describe_differences(preset),
        ]
        sources = dict.fromkeys(preset.sources.values())
        links = ", ".join(f"[{number}]({url})" for number, url in enumerate(sources, 1))
        return f"`{preset.type}`\n: {'; '.join(sentences)} ({links})."


class PresetDifferences(SphinxDirective):
    """The presets whose options differ from those of `openai-compatible`."""

    def run(self) -> list[nodes.Node]:
        rows = [
            {"type": f"`{preset.type}`", "differences": "; ".join(differences)}
            for preset in PRESETS.values()
            if (differences := list(describe_differences(preset)))
        ]
        return self.parse_text_to_nodes("\n".join(table(rows)))


class OptionsTable(SphinxDirective):
    """The options of one wire format, with a column per backend type, and why options are not supported."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        wire_api = self.arguments[0]
        tables = {
            profile.type: profile.wire_apis[wire_api] for profile in SERVERS.values() if wire_api in profile.wire_apis
        }
        rows = [
            {"option": f"`{key}`", **{f"`{name}`": describe_support(key, one[key]) for name, one in tables.items()}}
            for key in OPTION_KEYS
        ]
        refused: dict[str, dict[str, list[str]]] = {}
        for name, one in tables.items():
            for key, support in one.items():
                if isinstance(support, Unsupported):
                    refused.setdefault(support.reason, {}).setdefault(name, []).append(f"`{key}`")
        lines = [*table(rows), ""]
        for reason, by_type in refused.items():
            alike: dict[str, list[str]] = {}
            for name, cells in by_type.items():
                alike.setdefault(", ".join(cells), []).append(f"`{name}`")
            what = "; ".join(f"{cells} ({', '.join(names)})" for cells, names in alike.items())
            lines.append(f"- {what}: {reason}.")
        return self.parse_text_to_nodes("\n".join(lines))


class OperationsTable(SphinxDirective):
    """Which operations each backend type has."""

    def run(self) -> list[nodes.Node]:
        def row(profile: Profile) -> dict[str, str]:
            return {
                "type": f"`{profile.type}`",
                **{
                    f"`{name}`": YES if getattr(profile, name) else NO
                    for name in ("embed", "count_tokens", "load", "unload")
                },
                "vectors cross as": " or ".join(profile.vector_encodings) if profile.embed else NO,
                "texts in one request": f"up to {profile.embed_batch}" if profile.embed else NO,
                "`dimensions`": NO if not profile.embed or not profile.embed_dimensions else "sent",
            }

        return self.parse_text_to_nodes("\n".join(table([row(profile) for profile in SERVERS.values()])))


class CapabilitiesTable(SphinxDirective):
    """The capabilities of each backend type in its default configuration."""

    def run(self) -> list[nodes.Node]:
        def row(profile: Profile) -> dict[str, str]:
            capabilities = build_capabilities(profile, profile.wire_api, profile.default_settings)
            flags = ("tools", "reasoning", "images", "image_urls", "audio", "files")
            return {
                "type": f"`{profile.type}`",
                "`wire_api`": f"`{capabilities.wire_api}`",
                **{f"`{name}`": YES if getattr(capabilities, name) else NO for name in flags},
                "`response_formats`": ", ".join(sorted(capabilities.response_formats)),
                "`schema_enforcement`": capabilities.schema_enforcement,
            }

        return self.parse_text_to_nodes("\n".join(table([row(profile) for profile in SERVERS.values()])))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("profiles", ProfileTable)
    app.add_directive("server", ServerTable)
    app.add_directive("finish-reasons", FinishReasons)
    app.add_directive("presets", PresetsList)
    app.add_directive("preset-differences", PresetDifferences)
    app.add_directive("options", OptionsTable)
    app.add_directive("operations", OperationsTable)
    app.add_directive("capabilities", CapabilitiesTable)
    return {"parallel_read_safe": True}
