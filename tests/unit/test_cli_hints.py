"""The selection of a backend on the command line, and advice that fits where its settings come from."""

# ruff: noqa: F811  # fixtures that are imported

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ctxbackends import errors
from ctxbackends._chat.events import Loading
from ctxbackends._cli import backends, terminal
from ctxbackends._cli.error_messages import format_error
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._profiles.builtin import PROFILES
from tests.unit.test_cli import ENDPOINT_OF_NOBODY, LOADING, Result, Script, _alone, backend, ctx, ctxrc, script  # noqa: F401  # fixtures of the command line

COMMANDS = [("ping",), ("models",), ("chat", "Hi", "--model", "tiny"), ("chat", "Hi", "--model", "tiny", "--json")]
VENDORS = [name for name, row in PROFILES.items() if (row.default_endpoint or "").startswith("https://")]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in PROFILES.values():
        if row.default_key_variable is not None:
            monkeypatch.delenv(row.default_key_variable, raising=False)


@pytest.fixture
def default_endpoint() -> Iterator[Any]:
    """Moves the default endpoint of a type to a server of the test."""
    before: dict[str, str | None] = {}

    def move(type_: str, endpoint: str) -> None:
        before.setdefault(type_, PROFILES[type_].default_endpoint)
        object.__setattr__(PROFILES[type_], "default_endpoint", endpoint)

    yield move
    for type_, endpoint in before.items():
        object.__setattr__(PROFILES[type_], "default_endpoint", endpoint)


# --- without a .ctxrc -------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["vllm", "llamacpp", "litellm", "sglang"])
def test_a_type_without_a_ctxrc(script: Script, default_endpoint: Any, type_: str) -> None:
    default_endpoint(type_, script.endpoint)
    expected = f"backend   {type_}\nendpoint  {script.endpoint}\nmodel     tiny\n"
    assert Result(0, expected, "") == ctx("ping", "--backend", type_)
    assert Result(0, "Héllo\n", "") == ctx("chat", "-b", type_, "--model", "tiny", "Hi")
    assert "tiny" in ctx("models", "-b", type_).out
    (state,) = json.loads(ctx("status", "-b", type_, "--json").out)
    assert (type_, script.endpoint) == (state["backend"], state["endpoint"])


@pytest.mark.parametrize("type_", [name for name, row in PROFILES.items() if row.default_endpoint is not None])
def test_the_defaults_of_a_type(type_: str) -> None:
    config = backends._config_of_type(backends.Choice(type_, None, None, source="type"))
    assert (type_, PROFILES[type_].default_endpoint, 0.0) == (config.type, config.endpoint, config.ready_timeout)


@pytest.mark.parametrize("type_", ["openai-compatible", "azure-openai"])
def test_a_type_without_a_default_endpoint(type_: str) -> None:
    result = ctx("ping", "-b", type_)
    assert (2, "") == (result.code, result.out)
    assert result.err.endswith(f"Error: --backend {type_} requires --endpoint URL where there is no .ctxrc\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_default_endpoint_is_not_waited_for(command: tuple[str, ...], default_endpoint: Any) -> None:
    default_endpoint("vllm", ENDPOINT_OF_NOBODY)
    result = ctx(*command, "-b", "vllm")
    hint = (
        "is the server running? start one with ctxbackends serve MODEL.gguf, or use --endpoint URL for a server "
        "elsewhere"
    )
    problem = f'ctxbackends: backend "vllm" unreachable at {ENDPOINT_OF_NOBODY}: connection refused\n  {hint}\n'
    assert (1, "") == (result.code, result.out)
    assert result.err.endswith(problem)
    assert f"waiting for {ENDPOINT_OF_NOBODY}" not in result.err


def test_a_misspelt_type_without_a_ctxrc() -> None:
    result = ctx("ping", "-b", "opnai")
    problem, hint = result.err.splitlines()
    assert (1, "") == (result.code, result.out)
    assert problem.startswith('ctxbackends: --backend: unknown backend type: "opnai"; did you mean openai? The types ')
    assert "  there is no .ctxrc here, so --backend must name a backend type" == hint


def test_another_key_variable_without_a_ctxrc(
    script: Script, default_endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-test-0123456789abcdef")
    default_endpoint("litellm", script.endpoint)
    assert 0 == ctx("ping", "-b", "litellm", "--api-key-env", "SOME_KEY").code
    assert "Bearer sk-test-0123456789abcdef" == script.requests[-1][2]["Authorization"]


# --- with a .ctxrc ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("content", ["backends: [{name: vllm}]\n", "backends: []\n", "", "airgap: true\n"])
def test_a_type_that_is_not_configured(
    script: Script, default_endpoint: Any, command: tuple[str, ...], content: str
) -> None:
    """Private text does not go to a cloud because of a name."""
    default_endpoint("ollama", script.endpoint)
    Path(".ctxrc").write_text(content, encoding="utf-8")
    result = ctx(*command, "-b", "ollama")
    configured = "vllm" if "vllm" in content else "none"
    hint = "with a .ctxrc, only its backends are used; add it with ctxbackends setup --backend ollama"
    assert result.err.endswith(f'ctxbackends: unknown backend: "ollama"; configured: {configured}\n  {hint}\n')
    assert (1, "", []) == (result.code, result.out, script.requests)


def test_a_ctxrc_in_a_parent_counts(script: Script, default_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    default_endpoint("ollama", script.endpoint)
    ctxrc({"name": "vllm"})
    Path("deep").mkdir()
    monkeypatch.chdir("deep")
    assert 'unknown backend: "ollama"' in ctx("ping", "-b", "ollama").err
    assert [] == script.requests


# --- keys of vendors --------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("configured", [False, True])
def test_an_unset_key_is_named_before_anything_is_sent(vendor: str, configured: bool) -> None:
    if configured:
        ctxrc({"name": "cloud", "type": vendor, "default_model": "m"})
    name = "cloud" if configured else vendor
    problem = (
        f"environment variable not set: {PROFILES[vendor].default_key_variable}; set it to the API key of backend "
        f'"{name}"'
    )
    assert Result(1, "", f"ctxbackends: {problem}\n") == ctx("ping", "-b", name)
    if configured:
        (state,) = json.loads(ctx("status", "--json").out)
        assert ("error", problem) == (state["state"], state["problem"])


@pytest.mark.parametrize("backend_type", [None, "openai"])
@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
def test_an_endpoint_of_a_vendor_needs_a_key(backend_type: str | None, path: str) -> None:
    arguments = () if backend_type is None else ("-b", backend_type)
    result = ctx("ping", "--endpoint", f"https://api.openai.com{path}", *arguments)
    assert (2, "") == (result.code, result.out)
    assert result.err.endswith("Error: no API key for api.openai.com: use --api-key-env OPENAI_API_KEY\n")


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key_env": '""'},
        {"headers_env": "{Authorization: TOKEN}"},
        {"headers": '{authorization: "Bearer ${TOKEN}"}'},
        {"headers": '{api-key: "${TOKEN}"}'},
        {"basic_auth_env": "TOKEN"},
        {"query": '{key: "${TOKEN}"}'},
        {"endpoint": "http://localhost:1"},
        {"endpoint": "https://proxy.example"},
    ],
    ids=str,
)
def test_another_credential_needs_no_key(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "user:password")
    ctxrc({"name": "cloud", "type": "openai", **fields})
    registry = backends.registry_of(backends.Choice(None, None, None))
    assert "cloud" == registry.resolve().name


# --- no model ---------------------------------------------------------------------------------------


def test_no_model_lists_those_of_the_server(script: Script) -> None:
    ctxrc({"name": "vllm", "endpoint": script.endpoint})
    problem = "no model given: use --model NAME, or set default_model; the server has: tiny, larger, no-facts"
    assert problem in ctx("chat", "Hi").err
    assert ["/v1/models"] == [path for path, _, _ in script.requests]


def test_no_model_with_an_endpoint(script: Script) -> None:
    result = ctx("chat", "Hi", "--endpoint", script.endpoint)
    assert (1, "") == (result.code, result.out)
    assert "no model given: use --model NAME; the server has: tiny, larger, no-facts\n" in result.err
    assert not re.search(r"\.ctxrc|default_model", result.err)


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ((404, b"not here"), "HTTP 404"),
        ((401, b"who are you?"), "HTTP 401"),
        ((503, LOADING), "HTTP 503"),
        ((200, b'{"data": []}'), 'backend "llamacpp": the server lists no model'),
        ((200, b"<html>"), 'backend "llamacpp": unexpected response from the OpenAI API: '),
    ],
)
def test_no_model_and_no_list(script: Script, models: tuple[int, bytes], problem: str) -> None:
    script.models = [models]
    result = ctx("chat", "Hi", "--endpoint", script.endpoint, "-b", "llamacpp")
    message = f"ctxbackends: no model given: use --model NAME\n  the server does not list its models: {problem}"
    assert message in result.err
    assert 1 == result.err.count("does not list")
    assert all(path.endswith("/models") for path, _, _ in script.requests)


def test_no_model_and_no_server() -> None:
    err = ctx("chat", "Hi", "--endpoint", ENDPOINT_OF_NOBODY).err
    problem = f'backend "openai-compatible" unreachable at {ENDPOINT_OF_NOBODY}: connection refused'
    assert err.endswith(f"no model given: use --model NAME\n  the server does not list its models: {problem}\n")


def test_a_vendor_has_hundreds_of_models(script: Script) -> None:
    script.models = [(200, json.dumps({"data": [{"id": f"m{number}"} for number in range(12)]}).encode())]
    err = ctx("chat", "Hi", "--endpoint", script.endpoint).err
    assert err.endswith("the server has: m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 others\n")


# --- advice -----------------------------------------------------------------------------------------


def of_endpoint(error: errors.BackendError) -> errors.BackendError:
    error.backend, error.endpoint = "openai-compatible", "http://gpu:8000"
    return error


ERRORS = [
    errors.AuthenticationError(401, body=b"no"),
    errors.ContextOverflowError(400, body=b"no"),
    errors.ModelLoadingError(503, body=b"no"),
    errors.ModelNotFoundError(404, body=b"no"),
    errors.NotFoundError(404, body=b"no"),
    errors.EmptyModelListError("no"),
    errors.NoModelError("no model given: set default_model", key="default_model"),
    errors.InternalServerError(502, body=b"no"),
    errors.APIConnectionError("no", refused=True),
    errors.APIConnectionError("no", permanent=True),
    errors.APITimeoutError("first_token", 3.0, key="first_token_timeout"),
    errors.APITimeoutError("connect", 3.0, key="connect_timeout"),
    errors.ModelMismatchError("a", "b"),
    errors.InvalidEndpointError("'foo' must start with http:// or https://", key="endpoint"),
    errors.ConfigError("must be the name of a variable", key="api_key_env"),
    errors.MissingKeyError("SOME_KEY", backend="openai-compatible"),
]


@pytest.mark.parametrize("source", ["endpoint", "type"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_without_a_ctxrc_no_advice_is_about_it(error: errors.BackendError, source: Any) -> None:
    text = format_error(of_endpoint(error), source)
    assert text is not None
    assert not re.search(r"\.ctxrc|default_model|served_as|model_mismatch|_timeout|setup|api_key_env", text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ERRORS[-3], "--endpoint: 'foo' must start with http:// or https://"),
        (ERRORS[-2], "--api-key-env: must be the name of a variable"),
        (ERRORS[10], 'backend "openai-compatible": no first token within 3 s'),
        (ERRORS[12], 'backend "openai-compatible": model mismatch: requested "a", served "b"; use --model b'),
        (
            ERRORS[3],
            (
                'backend "openai-compatible": HTTP 404: no\n'
                "  list the available models with ctxbackends models --endpoint http://gpu:8000"
            ),
        ),
    ],
)
def test_advice_names_options(error: errors.BackendError, text: str) -> None:
    assert text == format_error(of_endpoint(error), "endpoint")


@pytest.mark.parametrize("path", ["", "/foo", "/foo/v1"])
def test_a_missing_route_names_its_url(script: Script, path: str) -> None:
    script.models = [(404, b"not here")]
    result = ctx("ping", "--endpoint", script.endpoint + path)
    base = script.endpoint + path.removesuffix("/v1")
    assert f"(requested: GET {base}/v1/models, a route of OpenAI-compatible servers)\n" in result.err
    assert ".ctxrc" not in result.err


def test_a_missing_route_in_the_status(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.models = [(404, b"not here")]
    (state,) = json.loads(ctx("status", "--json").out)
    requested = f"(requested: GET {script.endpoint}/v1/models, a route of OpenAI-compatible servers)"
    assert ("error", f"HTTP 404: not here {requested}") == (state["state"], state["problem"])


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_is_no_model_server(script: Script, status: int) -> None:
    script.chat = (status, b"<html>no</html>")
    hint = ctx("chat", "Hi", "--model", "tiny", "--endpoint", script.endpoint).err.splitlines()[-1]
    assert hint.startswith("  is this the endpoint of a model server?")


@pytest.mark.parametrize("status", [405, 501])
def test_an_error_of_a_model_server_gets_no_such_hint(script: Script, status: int) -> None:
    script.chat = (status, b'{"error": {"message": "not supported by this model"}}')
    assert "is this the endpoint" not in ctx("chat", "Hi", "--model", "tiny", "--endpoint", script.endpoint).err


def test_a_response_that_is_not_http() -> None:
    error = errors.MalformedResponseError("the response is not valid HTTP: Bad status line")
    assert f"{error}\n  is this the endpoint of a model server?" == format_error(error)
    error = errors.MalformedResponseError("unexpected response", body=b"<html>")
    assert "unexpected response" == format_error(error)


def test_a_misspelt_backend() -> None:
    ctxrc({"name": "workstation", "type": "vllm"}, {"name": "laptop", "type": "ollama"})
    problem = 'unknown backend: "workstaton"; configured: workstation, laptop'
    assert Result(1, "", f"ctxbackends: {problem}\n  did you mean workstation?\n") == ctx("ping", "-b", "workstaton")


@pytest.mark.filterwarnings("default::ctxbackends.ModelMismatchWarning")
def test_a_warning_about_the_model_names_the_option(script: Script) -> None:
    result = ctx("chat", "Hi", "--model", "nope", "--endpoint", script.endpoint)
    warning = (
        'ctxbackends: warning: backend "openai-compatible": model mismatch: requested "nope", served "tiny"; '
        "use --model with the name of the served model\n"
    )
    assert (0, "Héllo\n") == (result.code, result.out)
    assert warning in result.err


@pytest.mark.filterwarnings("default::ctxbackends.EndpointWarning")
def test_a_warning_about_the_endpoint_names_the_option(script: Script) -> None:
    err = ctx("ping", "--endpoint", f"{script.endpoint}/v1/chat/completions").err
    assert err.startswith("ctxbackends: warning: --endpoint: /chat/completions was removed from the end, since ")


# --- waits ------------------------------------------------------------------------------------------


def test_every_command_that_asks_a_server_has_no_wait() -> None:
    with click.Context(ctxbackends_group, info_name="ctxbackends") as context:
        commands = {
            name: ctxbackends_group.get_command(context, name) for name in ctxbackends_group.list_commands(context)
        }
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
        if command is not None
    }
    asking = {name for name, names in options.items() if {"--backend", "--endpoint", "--api-key-env"} <= names}
    assert {"ping", "status", "models", "chat", "extract", "compact", "ingest", "embed", "count"} <= asking
    assert asking - {"setup"} == {name for name in asking if "--no-wait" in options[name]} - {"setup"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("selection", ["file", "endpoint"])
def test_no_wait(script: Script, command: tuple[str, ...], selection: str) -> None:
    script.models, script.chat = [(503, LOADING)], (503, LOADING)
    if selection == "file":
        ctxrc(backend(script.endpoint, type="llamacpp"))
    arguments = () if selection == "file" else ("--endpoint", script.endpoint, "-b", "llamacpp")
    result = ctx(*command, "--no-wait", *arguments)
    assert (1, "") == (result.code, result.out)
    assert "HTTP 503" in result.err
    assert "waiting for http" not in result.err


def test_a_configured_backend_is_waited_for(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))
    script.models[:0] = [(503, LOADING)] * 2
    assert 0 == ctx("models").code


def refused(elapsed: float, endpoint: str = "http://gpu:8000", state: Any = "refused") -> Loading:
    return Loading(endpoint=endpoint, state=state, elapsed=elapsed, budget=90.0)


def test_after_three_seconds_a_line_says_how_to_stop() -> None:
    advice = terminal.StopAdvice()
    line = "nothing listens at http://gpu:8000 yet; press Ctrl-C to stop waiting, or use --no-wait"
    assert [None, None, line, None] == [advice.find(refused(seconds)) for seconds in (0.0, 2.9, 3.0, 9.0)]


@pytest.mark.parametrize("loading", [refused(9.0, state="loading"), refused(9.0, endpoint="/models/tiny.gguf")])
def test_a_server_that_loads_needs_no_such_line(loading: Loading) -> None:
    assert terminal.StopAdvice().find(loading) is None


@pytest.mark.parametrize("command", [("ping",), ("models",), ("chat", "Hi")], ids=" ".join)
@pytest.mark.parametrize("tty", ["", "stderr"])
def test_the_line_is_printed_once(command: tuple[str, ...], tty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "ADVISED_AFTER", 0.0)
    ctxrc(backend(ENDPOINT_OF_NOBODY, type="llamacpp", ready_timeout="300ms"))
    assert 1 == ctx(*command, tty=tty).err.count("press Ctrl-C to stop waiting, or use --no-wait\n")


# --- the table of status ----------------------------------------------------------------------------


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Any:
    def resize(columns: int) -> None:
        monkeypatch.setattr(terminal, "window_size", lambda _: (columns, 24))

    return resize


def test_a_narrow_window_gets_blocks(window: Any) -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY), {"name": "cloud", "type": "anthropic"})
    window(60)
    expected = (
        f"backend   local\nendpoint  {ENDPOINT_OF_NOBODY}\nstate     refused\nmodel     tiny\n"
        "problem   connection refused\n"
        "\n"
        "backend   cloud\nendpoint  https://api.anthropic.com\nstate     error\n"
        "problem   environment variable not set: ANTHROPIC_API_KEY;\n"
        '          set it to the API key of backend "cloud"\n'
    )
    assert expected == ctx("status", tty="stdout").out


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_no_cell_breaks(columns: int, window: Any) -> None:
    endpoint = "http://a-long-name-of-a-host.invalid:8080"
    ctxrc(backend(endpoint), backend(endpoint, name="other"))
    window(columns)
    out = ctx("status", tty="stdout").out
    assert 2 == out.count(endpoint)
    assert 2 == out.count("\nstate")


def test_a_wide_window_and_a_pipe_get_a_table(window: Any) -> None:
    ctxrc(backend(ENDPOINT_OF_NOBODY))
    table = ctx("status").out
    assert ["backend", "endpoint", "state", "model", "problem"] == table.splitlines()[0].split()
    window(20)
    assert table == ctx("status").out, "a pipe has no window"
    window(max(map(len, table.splitlines())))
    assert table == ctx("status", tty="stdout").out
