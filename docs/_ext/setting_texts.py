"""The keys of a backend in `.ctxrc`, from the reader and from the docstring of `BackendConfig`. Needs no Sphinx."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from docstrings import read_attributes

from ctxbackends import WireAPI
from ctxbackends._config import yaml_nodes
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.reader import FIELDS, PATH_FIELDS
from ctxbackends._profiles.profile import MismatchPolicy

VALUES: Mapping[Callable[..., Any], str] = {
    yaml_nodes.text_of: "text",
    yaml_nodes.duration_of: "duration",
    yaml_nodes.keep_alive_of: "duration, or ``forever``",
    yaml_nodes.count_of: "integer from 1",
    yaml_nodes.retries_of: "integer from 0",
    yaml_nodes.flag_of: "``true`` or ``false``",
    yaml_nodes.mapping_of: "mapping",
    yaml_nodes.names_of: "list",
    yaml_nodes.served_as_of: "list or mapping",
}
CHOICES = {"model_mismatch": get_args(MismatchPolicy), "wire_api": [value.value for value in WireAPI]}
IN_A_FILE = (
    (r" Stored as .*", ""),
    (r" in seconds", ""),
    (r"\bSeconds\b", "Time"),
    (r"``math\.inf`` for always", "``forever`` for always"),
    (r"\b0 to not wait", "``0s`` to not wait"),
    (r"[;.] None (?:for|to send) (?:none|no others?)\.$", ". Default: none."),
    (r"[;.] None for (.+)\.$", r". Default: \1."),
    (r"\bDefault: (.+'s) default\.", r"Default: \1."),
    (r"[;.] None if (.+)\.$", r". Omit it if \1."),
    (r"\bDefault None\.", "Default: none."),
    (r"\bDefault False\.", "Default: ``false``."),
    (r"\bTrue\b", "``true``"),
    (r"the default of the type", "that of the :doc:`type </servers/index>`"),
)
"""The docstring speaks of Python values, and the page of a file."""


def describe_value(name: str) -> str:
    if name in CHOICES:
        return ", ".join(f"``{choice}``" for choice in CHOICES[name])
    return "path" if name in PATH_FIELDS else VALUES[FIELDS[name]]


def describe_setting(name: str) -> str:
    text = read_attributes(BackendConfig)[name]
    for pattern, words in IN_A_FILE:
        text = re.sub(pattern, words, text)
    return text
