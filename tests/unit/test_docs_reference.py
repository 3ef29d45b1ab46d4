"""docs/reference: each public name, command, option, event and field is described once, and described at all."""

from __future__ import annotations

import re
import typing
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import click
import msgspec
import pytest

from ctxbackends import BackendConfig, BackendError, ContextOverflowError, Observer, ResponseInterruptedError
from ctxbackends._cli import run_output
from ctxbackends._cli.batch.display import JSONLines
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._config.reader import FIELDS, TOP_LEVEL
from ctxbackends.knowledge import Event
from tests.docs_extensions import load_extension
from tests.unit.test_errors import CLASSES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PACKAGES = ("ctxbackends", *(f"ctxbackends.{name}" for name in ("batch", "knowledge", "local", "sync", "testing")))


def read(pattern: str) -> str:
    return "\n".join(page.read_text("utf-8") for page in sorted(REFERENCE.glob(pattern)))


def homes_of(package: str) -> dict[str, str]:
    """Return the public names of a package, with the modules that define them relative to it."""
    names = load_extension("exports").public_names(package)
    return {name: module.removeprefix(f"{package}.") for name, module in names.items()}


def documented(package: str) -> Counter[str]:
    """Return how often the reference describes each public name of a package."""
    text = read("**/*.md")
    names = Counter(re.findall(rf"\.\. auto\w+:: {re.escape(package)}\.(\w+)", text))
    homes = homes_of(package)
    for arguments, rest in re.findall(r"^```\{public-names\} (.+)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        stated = re.search(r":package: (\S+)", rest)
        if (stated[1] if stated else "ctxbackends") == package:
            for argument in arguments.split():
                names.update(name for name, module in homes.items() if argument in (name, module))
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_described_once(package: str) -> None:
    counts = documented(package)
    names = homes_of(package).keys() - {"__version__", "faults"}  # no class and no function
    if package == "ctxbackends.local":
        names -= documented("ctxbackends").keys()  # it exports them too
    assert dict.fromkeys(names, 1) == {name: counts[name] for name in names}


def test_the_tree_of_exceptions_has_each_public_exception_below_its_bases() -> None:
    tree = list(load_extension("exception_tree").walk_exceptions())
    assert CLASSES == {kind for _, kind in tree}
    assert (0, BackendError) == tree[0]
    assert [3] == [depth for depth, kind in tree if kind is ContextOverflowError]
    assert [2, 2] == [depth for depth, kind in tree if kind is ResponseInterruptedError]  # it has two bases


def commands() -> dict[str, click.Command]:
    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        yield " ".join(words), command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk(child, (*words, name))

    return {path: command for path, command in walk(ctxbackends_group, ()) if path}


def test_each_command_has_a_heading_and_its_options() -> None:
    text = read("cli/*.md")
    described = re.findall(r"^```\{command\} (.+)$", text, re.MULTILINE)
    assert sorted(commands()) == sorted(described)
    assert sorted(commands()) == sorted(re.findall(r"^###? ctxbackends (.+)$", text, re.MULTILINE))


def test_the_list_of_commands_is_complete() -> None:
    table = read("cli.md").partition("## Commands")[2]
    assert sorted(name for name in commands() if " " not in name) == sorted(re.findall(r"`(\w+)`", table))


@pytest.mark.parametrize(("path", "command"), commands().items(), ids=commands())
def test_each_command_and_option_has_a_description(path: str, command: click.Command) -> None:
    assert command.help
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    assert [] == [param.opts for param in options if not param.help]


def field_lists() -> list[tuple[str, str]]:
    pattern = r"^```\{fields\} (\S+)\n(?::without: (.*)\n)?"
    return re.findall(pattern, read("events.md"), re.MULTILINE)


def fields_of(kind: Any) -> list[str]:
    if issubclass(kind, msgspec.Struct):
        return [field.name for field in msgspec.structs.fields(kind)]
    return [field.name for field in attrs.fields(kind)]


@pytest.mark.parametrize(("path", "without"), field_lists())
def test_each_field_of_an_event_has_a_description(path: str, without: str) -> None:
    module, _, name = path.partition(":")
    kind = getattr(import_module(f"ctxbackends.{module}"), name)
    described = [name for name, text in load_extension("docstrings").read_attributes(kind).items() if text]
    assert sorted(fields_of(kind)) == sorted(described)
    assert {*without.split()} <= {*described}


def events_of(command: str) -> list[str]:
    section = read("events.md").partition(f"\n### {command}\n")[2].partition("\n#### ")[0]
    return re.findall(r"^`(\w+)`\n: ", section, re.MULTILINE)


def test_each_event_of_a_run_is_described() -> None:
    kinds = typing.get_args(Event)
    names = [run_output._EVENT_NAMES.get(kind.__name__) or kind.__name__.lower() for kind in kinds]
    assert sorted([*names, "row", "plan", "done"]) == sorted(events_of("extract, compact, ingest"))


def test_each_event_of_a_batch_is_described() -> None:
    source = Path(str(import_module(JSONLines.__module__).__file__)).read_text("utf-8").partition("class JSONLines")[2]
    names = {*re.findall(r'self\._print\("(\w+)"', source), *re.findall(r'\{"event": "(\w+)"', source)}
    assert sorted(names) == sorted(events_of("batch"))


def test_each_command_with_json_is_described() -> None:
    with_json = {
        path for path, command in commands().items() if any("--json" in param.opts for param in command.params)
    }
    text = read("events.md").partition("## Command events")[2]
    headings = {name for line in re.findall(r"^### (.+)$", text, re.MULTILINE) for name in line.split(", ")}
    entries = {
        name
        for line in re.findall(r"^(`.+`)$", text.partition("### Others")[2].partition("### ")[0], re.MULTILINE)
        for name in re.findall(r"`([a-z ]+)`", line)
    }
    assert with_json == (headings - {"Others"}) | entries


def test_each_method_of_an_observer_is_an_event() -> None:
    methods = {name for name, value in vars(Observer).items() if callable(value)} - {"sending"}
    assert methods == {name for name in methods if str(getattr(Observer, name).__doc__).startswith("Handle ")}


def test_each_key_of_ctxrc_is_described_once() -> None:
    groups = re.findall(r"^```\{settings\} (.+)$", read("configuration.md"), re.MULTILINE)
    fields = {field.name for field in attrs.fields(BackendConfig)} - {"api_key"}  # for code alone
    assert sorted(fields) == sorted(name for group in groups for name in group.split())
    assert fields == FIELDS.keys()


@pytest.mark.parametrize("name", FIELDS)
def test_each_key_of_ctxrc_has_a_value_and_a_meaning_for_files(name: str) -> None:
    settings = load_extension("setting_texts")
    assert settings.describe_value(name)
    text = settings.describe_setting(name)
    assert re.match(r"[A-Z].{10,}\.$", text), text
    assert not re.search(r"None|True|False|math|second", text), text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("idle_timeout", "Timeout between two tokens. Default: that of the :doc:`type </servers/index>`, "),
        ("trust_env", "Whether to use the proxies of the environment, except for loopback. Default: ``false``."),
        ("organization", "OpenAI organization. Default: none."),
        ("threads", "Number of CPU threads, with ``model_path``. Default: llama.cpp's."),
        ("client_key", "PEM file of its private key, without a passphrase. Omit it if ``client_cert`` contains it."),
    ],
)
def test_the_meaning_of_a_key_is_that_of_the_docstring(name: str, text: str) -> None:
    assert load_extension("setting_texts").describe_setting(name).startswith(text)


def test_each_top_level_key_is_described() -> None:
    section = read("configuration.md").partition("## Top-level keys")[2].partition("\n## ")[0]
    assert sorted(TOP_LEVEL) == sorted(re.findall(r"^`(\w+)`\n: ", section, re.MULTILINE))
