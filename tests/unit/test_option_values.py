from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxbackends._config.backend_config import LOCAL_ONLY
from ctxbackends.knowledge._extract.options import RunKeywords, RunOptions
from ctxbackends.local import LocalServer, ServerOptions
from ctxbackends.local._options import ServeModelKeywords, ServerKeywords


@pytest.mark.parametrize(("value", "keywords"), [(RunOptions, RunKeywords), (ServerOptions, ServerKeywords)])
def test_checkers_know_every_option(value: Any, keywords: Any) -> None:
    assert set(attrs.fields_dict(value)) == set(keywords.__annotations__)


def test_serve_model_takes_every_option_but_the_key() -> None:
    assert {*ServeModelKeywords.__annotations__, "api_key"} == set(attrs.fields_dict(ServerOptions))


def test_a_configuration_names_options_of_the_server() -> None:
    assert set(LOCAL_ONLY) < set(attrs.fields_dict(ServerOptions))


def test_a_misspelt_option_is_rejected() -> None:
    misspelt: Any = {"ctx_sise": 1}
    with pytest.raises(TypeError, match="ctx_sise"):
        LocalServer(Path("m.gguf"), **misspelt)


def test_a_key_is_not_in_the_repr() -> None:
    options = ServerOptions(api_key="secret-key", environment={"TOKEN": "secret-key"})
    assert "secret-key" not in repr(options)
